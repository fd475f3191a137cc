"""Trajectories are those that ASE writes, also where images are added to them."""

import io

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from amp.nft.system.trajectories import Frame, GrowingTrajectory, trajectory_bytes, write_frames


def labelled(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture
def images():
    pt = bulk("Pt", cubic=True)
    pt.info["name"] = "cell"
    pt.set_tags(range(4))
    return [labelled(atoms) for atoms in (pt, pt * (2, 1, 1), molecule("CO"), pt)]


def by_ase(images):
    buffer = io.BytesIO()
    write(buffer, images, format="traj")
    return buffer.getvalue()


def test_content_is_that_of_ase(images):
    assert trajectory_bytes(images) == by_ase(images)
    assert trajectory_bytes(images[:1]) == by_ase(images[:1])
    assert trajectory_bytes([]) == b""


def test_images_without_results_are_written(images):
    plain = images[0].copy()
    assert trajectory_bytes([plain]) == by_ase([plain])


def test_results_of_other_positions_are_not_written(images):
    images[0].positions[0] += 0.1
    (found,) = read(io.BytesIO(trajectory_bytes(images[:1])), ":", format="traj")
    assert found.calc is None or not found.calc.results
    assert np.allclose(found.positions, images[0].positions, rtol=0, atol=0)


def test_a_growing_trajectory_equals_one_written_whole(images):
    growing = GrowingTrajectory()
    for n in (0, 1, 3, 3, 4):
        assert growing.content(images[:n]) == trajectory_bytes(images[:n])


def test_other_images_begin_a_new_trajectory(images):
    growing = GrowingTrajectory()
    growing.content(images[:3])
    assert growing.content(images[1:]) == trajectory_bytes(images[1:])
    assert growing.content(images[:1]) == trajectory_bytes(images[:1])


def test_a_frame_is_written_as_often_as_it_is_there(images, tmp_path):
    frames = [Frame(image) for image in images]
    write_frames(tmp_path / "a.traj", [frames[0], frames[1], frames[1]])
    assert (tmp_path / "a.traj").read_bytes() == by_ase([images[0], images[1], images[1]])
