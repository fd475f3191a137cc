"""Trajectories are those that ASE writes, also where images are added to them."""

import io

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, read, write

from amp.nft.system.trajectories import GrowingTrajectory, encode_images, trajectory_bytes, write_encoded


def labelled(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture
def images():
    pt = bulk("Pt", cubic=True)
    pt.info["name"] = "100 % cell"
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


def test_each_result_is_written(images):
    atoms = images[0]
    atoms.calc.results |= {"stress": np.arange(6.0), "dipole": np.ones(3), "charges": np.zeros(4), "free_energy": 1.5, "magmom": None}
    assert trajectory_bytes([atoms]) == by_ase([atoms])
    atoms.calc = SinglePointCalculator(atoms)
    plain = atoms.copy()
    assert trajectory_bytes([atoms]) == by_ase([plain])


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


@pytest.mark.parametrize("n", [1, 3, 45])
def test_a_frame_is_written_as_often_as_it_is_there(images, tmp_path, n):
    path, frames = tmp_path / "a.traj", encode_images(images)
    chosen = [k % 4 for k in range(n)]
    write_encoded(path, [frames[k] for k in chosen])
    write(tmp_path / "b.traj", [images[k] for k in chosen], format="traj")
    for found, known in zip(read(path, ":"), read(tmp_path / "b.traj", ":"), strict=True):
        assert found == known and found.info == known.info
        assert found.calc.results.keys() == known.calc.results.keys()
        assert np.array_equal(found.get_forces(), known.get_forces()) and found.get_potential_energy() == known.get_potential_energy()


@pytest.mark.parametrize("n", [4, 100])
def test_a_frame_has_the_bytes_that_ase_writes(images, n):
    """ASE puts a table of 8 bytes after the 48 of a file's begin, and a second one after 42 images."""
    many = [images[k % 4] for k in range(n)]
    for image, frame in zip(many, encode_images(many), strict=True):
        by_ase_alone = by_ase([image])
        assert by_ase_alone.startswith(frame.head)
        assert b"".join(frame.pieces(56)) == by_ase_alone[56:]
        assert frame.pieces(61)[0] == b"###"


def test_ase_adds_images_to_a_file_of_frames(images, tmp_path):
    path = tmp_path / "a.traj"
    write_encoded(path, encode_images(images[:3]))
    with Trajectory(path, "a") as trajectory:
        trajectory.write(images[3])
    assert [len(atoms) for atoms in read(path, ":")] == [len(atoms) for atoms in images]


def test_no_frames_are_an_empty_file(tmp_path):
    write_encoded(tmp_path / "a.traj", [])
    assert (tmp_path / "a.traj").read_bytes() == b""
