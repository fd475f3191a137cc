"""Initial images: what is promised of them, checked against the parent and by geometry."""

import inspect
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from amp.utilities import get_hash
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from parents import EXCEPTIONS, Changing

from amp.nft.errors import InputError, LabellingError
from amp.nft.initialization import Initialization, initial_images
from amp.nft.initialization.cells import NEAR_ATOM, cut_cluster, shortest_distance
from amp.nft.initialization.crystals import alloy, crystal_system, host_crystal

PAPER = {"elements": ["Pt"], "a0": 4.0, "sgs": [225, 79], "minsep": 2.65, "posamp": 0.03}
STRESS_FREE = 2e-3  # eV/Å³; FMAX over the volume of the smallest cell is below it


def shortest_by_images(atoms):
    """Return the same by brute force over neighbouring cells."""
    shifts = np.array(np.meshgrid(*[[-2, -1, 0, 1, 2]] * 3)).reshape(3, -1).T @ atoms.cell.array
    vectors = atoms.positions[:, None, None] - atoms.positions[None, :, None] + shifts
    lengths = np.linalg.norm(vectors, axis=-1)
    return lengths[lengths > 1e-9].min()


def test_the_cells_of_the_paper(tmp_path):
    one = Initialization(**PAPER, parent_calc=EMT(), log=str(tmp_path / "log"), trajfile=tmp_path / "initial.traj")
    images = read(tmp_path / "initial.traj", ":")
    assert len(images) == len(one.images) > 20
    assert {len(image) for image in images} == {2, 4, 16, 32}
    assert sum(len(image) >= 16 for image in images) == 20
    assert len({get_hash(image) for image in images}) == len(images)
    for image in images:
        again = image.copy()
        again.calc = EMT()
        assert image.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(image.get_forces(), again.get_forces(), atol=1e-9)
        assert image.pbc.all()
    assert all(shortest_by_images(image) >= 2.65 for image in images if len(image) >= 16)
    assert f"{len(images)} images saved" in (tmp_path / "log").read_text()


def test_it_takes_what_amps_class_takes():
    names = list(inspect.signature(Initialization).parameters)
    assert names[:8] == ["elements", "sgs", "a0", "minsep", "posamp", "parent_calc", "log", "trajfile"]
    defaults = {name: inspect.signature(Initialization).parameters[name].default for name in names[1:5]}
    assert defaults == {"sgs": None, "a0": 4.0, "minsep": 1.6, "posamp": 0.15}


@pytest.mark.parametrize("group", [2, 10, 79, 194, 225, 227, 229])
def test_a_relaxed_cell_is_free_of_stress(group):
    images = initial_images("Cu", [group], 3.6, n_rattled=0)
    relaxed = images[-1]
    relaxed.calc = EMT()
    assert np.abs(relaxed.get_stress()).max() * relaxed.get_volume() < 0.05 * 1.01
    energies = [image.get_potential_energy() for image in images]
    assert max(np.abs(energies[-1] - np.array(energies))) < 0.3


@pytest.mark.parametrize(("group", "neighbours", "edge"), [(225, 12, 2**0.5), (229, 8, 2 / 3**0.5), (227, 4, 4 / 3**0.5), (194, 12, 1.0)])
def test_space_groups_give_the_lattices_that_they_are_known_for(group, neighbours, edge):
    atoms = host_crystal("Cu", group, 4.0, np.random.default_rng(0))
    nearest = shortest_distance(atoms)
    assert atoms.cell.lengths()[0] / nearest == pytest.approx(edge, rel=1e-6)
    big = atoms * (3, 3, 3)
    distances = big.get_all_distances(mic=True)
    assert set((np.abs(distances - nearest) < 1e-3 * nearest).sum(axis=1)) == {neighbours}


@pytest.mark.parametrize("edge", np.random.default_rng(0).uniform(2.3, 4.0, 30))
def test_a_cell_of_one_atom_has_its_own_image_as_its_neighbour(edge):
    """However the edge is rounded."""
    assert shortest_distance(Atoms("Cu", cell=[edge] * 3, pbc=True)) == pytest.approx(edge)


def test_every_space_group_can_be_made():
    for group in range(1, 231):
        assert len(host_crystal("Pt", group, 4.0, np.random.default_rng(group))) >= 1
    assert [crystal_system(group) for group in (1, 3, 16, 75, 143, 168, 195)] == [
        "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic"
    ]  # fmt: skip


def test_several_elements_come_pure_and_together():
    images = initial_images(["Cu", "Au", "Pd"], [79, 225], 4.0, posamp=0.05, n_rattled=2)
    kinds = {tuple(sorted(set(image.symbols))) for image in images}
    assert kinds == {("Cu",), ("Au",), ("Pd",), ("Au", "Cu", "Pd")}
    rattled = [image for image in images if len(image) == 32 and len(set(image.symbols)) == 3]
    assert len({str(image.symbols) for image in rattled}) == len(rattled) > 1  # shuffled


def test_elements_share_the_sites_of_an_alloy_evenly():
    host = Atoms("Pt2", [[0, 0, 0], [1, 1, 1]], cell=[2, 3, 4], pbc=True)
    mixed = alloy(host, ["Cu", "Au", "Pd", "Ag", "Ni"], np.random.default_rng(0))
    assert sorted(mixed.symbols) == sorted(["Cu", "Cu", "Au", "Au", "Pd", "Pd", "Ag", "Ni"])
    assert mixed.get_volume() == pytest.approx(4 * host.get_volume())


def test_the_same_seed_gives_the_same_images():
    one, same, other = (initial_images("Pt", [79], seed=seed, n_rattled=2) for seed in (3, 3, 4))
    assert one == same
    assert one != other


class WithoutStress(EMT):
    """As many quantum-chemical parents are."""

    implemented_properties = ("energy", "forces")


def test_a_parent_without_stress_gives_the_same_cell():
    with_stress, without = (initial_images("Pt", [225], parent_calc=parent, n_rattled=0)[-1] for parent in (EMT(), WithoutStress()))
    np.testing.assert_allclose(without.cell.lengths(), with_stress.cell.lengths(), atol=1e-3)


def parent_of(directory, places):
    places.append(directory)
    return EMT()


def test_a_factory_gets_a_directory_of_its_own_for_each_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = []
    images = initial_images("Pt", [225], 4.0, posamp=0.03, parent_calc=partial(parent_of, places=places), n_rattled=3)
    assert len(set(places)) == len(places) == 5  # one for the cell's relaxation, one for its double
    assert sum(len(image) == 32 for image in images) == 3
    initial_images("Pt", [225], 4.0, posamp=0.03, n_rattled=1, directory="none")
    assert not (tmp_path / "none").exists()


class Wanders(EMT):
    """EMT that changes the state of its process at each call."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        os.chdir("/")
        os.umask(0o777)
        os.environ["HOME"] = "/nowhere"


def wanders(directory):
    Path(directory, "output.txt").write_text("made")
    return Wanders()


@pytest.mark.parametrize("clusters", [(), (7,)])
def test_a_parent_that_changes_the_state_of_its_process_gives_the_same_images(tmp_path, monkeypatch, clusters):
    monkeypatch.chdir(tmp_path)
    settings = {"elements": "Cu", "sgs": [225], "a0": 3.6, "posamp": 0.05, "n_rattled": 1, "clusters": clusters, "cells": not clusters}
    before = os.getcwd(), os.umask(0o022), dict(os.environ)
    images = initial_images(**settings, parent_calc=wanders, directory="labels")
    assert (os.getcwd(), os.umask(before[1]), dict(os.environ)) == (before[0], 0o022, before[2])
    assert images == initial_images(**settings, parent_calc=EMT())
    place = tmp_path / "labels" / "0" / ("cluster-7" if clusters else "cell")
    assert (place / "output.txt").read_text() == "made" and not os.listdir("/").count("labels")


@pytest.mark.parametrize(
    ("way", "clusters"),
    [("moves", ()), ("infinite energy", ()), *((way, (7,)) for way in ("relaxes", "moves", "replaces", "absurd forces", "no energy"))],
)
def test_a_relaxation_with_a_bad_label_is_an_error(tmp_path, way, clusters):
    settings = {"posamp": 0.05, "n_rattled": 0, "clusters": clusters, "cells": not clusters, "directory": tmp_path}
    with pytest.raises(LabellingError, match="has no good label: BadLabel"):
        initial_images("Cu", [225], 3.6, **settings, parent_calc=Changing(way))


@pytest.mark.parametrize("way", EXCEPTIONS)
def test_a_parent_that_raises_in_a_relaxation_is_an_error(tmp_path, way):
    class Raises(EMT):
        def calculate(self, *args, **kwargs):
            raise EXCEPTIONS[way]

    with pytest.raises(LabellingError, match=f"has no good label: {EXCEPTIONS[way].__name__}"):
        initial_images("Cu", [225], 3.6, parent_calc=Raises(), directory=tmp_path)


def test_rattled_cells_far_up_in_energy_are_left_out():
    images = initial_images("Pt", [225], minsep=1.0, posamp=0.35)
    relaxed = next(image for image in reversed(images) if len(image) == 4)
    rattled = [image for image in images if len(image) == 32]
    assert len(rattled) < 10
    ceiling = relaxed.get_potential_energy() / 4 + NEAR_ATOM
    assert all(image.get_potential_energy() / 32 <= ceiling for image in rattled)


def test_a_minsep_above_the_crystals_own_is_lowered_and_logged():
    lines = []
    images = initial_images("Pt", [225], minsep=3.5, posamp=0.03, n_rattled=2, log=lines.append)
    assert sum(len(image) == 32 for image in images) == 2
    assert any("minsep = 3.5 Å is above its shortest distance" in line for line in lines)


class Fails(EMT):
    """Its large cells do not converge."""

    def calculate(self, atoms=None, *args, **kwargs):
        if len(atoms) == 32:
            raise RuntimeError("SCF did not converge")
        super().calculate(atoms, *args, **kwargs)


def test_errors_come_first_and_say_what_to_do(tmp_path):
    for changes, message in [
        ({"elements": ["Xx"]}, r"elements is \['Xx'\]: give chemical symbols"),
        ({"elements": []}, "give chemical symbols"),
        ({"elements": "Plat"}, "elements is 'Plat'"),
        ({"sgs": [0]}, "sgs contains 0: a space group is an integer from 1 to 230"),
        ({"sgs": []}, "sgs is empty"),
        ({"a0": -4}, "a0 is -4 Å: it must be above 0"),
        ({"posamp": 0}, "posamp is 0 Å"),
        ({"seed": -1}, "seed is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Initialization(**PAPER | changes, trajfile=tmp_path / "a.traj", log=str(tmp_path / "log"))
    assert not (tmp_path / "a.traj").exists()
    with pytest.raises(TypeError, match=r"give an instance, LennardJones\(\)"):
        initial_images(**PAPER, parent_calc=LennardJones)
    with pytest.raises(ValueError, match=r"none of 200 cells rattled by posamp = 3.0 Å keeps all atoms minsep = 2.00 Å apart"):
        initial_images("Pt", [225], minsep=2.0, posamp=3.0, n_rattled=2)
    with pytest.raises(RuntimeError, match="none of 2 rattled cells could be labelled: RuntimeError: SCF did not converge"):
        initial_images("Pt", [225], posamp=0.03, n_rattled=2, parent_calc=Fails(), directory=tmp_path / "labels")


def test_one_space_group_may_stand_alone():
    several, one = (initial_images("Cu", sgs, a0=3.6, posamp=0.05, n_rattled=1, parent_calc=EMT()) for sgs in ([225], 225))
    assert [len(image) for image in several] == [len(image) for image in one]


def test_free_clusters_next_to_cells_and_alone(tmp_path):
    settings = {"elements": "Cu", "sgs": [225], "a0": 3.6, "minsep": 2.0, "posamp": 0.05, "n_rattled": 3, "directory": tmp_path / "labels"}
    both = initial_images(**settings, clusters=(7, 13))
    free = [image for image in both if not image.pbc.any()]
    assert len(both) > len(free) and [len(image) for image in free] == [7] * 4 + [13] * 4
    alone = initial_images(**settings, clusters=[13], cells=False)
    assert [len(image) for image in alone] == [13] * 4
    for image in free + alone:
        again = image.copy()
        again.calc = EMT()
        assert image.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-9)
        assert np.isfinite(image.get_forces()).all() and shortest_distance(image) > 2.0
    energies = [image.get_potential_energy() / 13 for image in alone]
    assert max(energies) - energies[0] <= NEAR_ATOM
    assert len({get_hash(image) for image in free + alone}) == len(free + alone)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("group", [2, 194, 225])
def test_a_cluster_is_the_neighbourhood_of_a_point(group):
    """The same distances as a ball cut from a much larger block, and no atom twice."""
    crystal = host_crystal("Cu", group, 3.6, np.random.default_rng(1))
    cluster = cut_cluster(crystal, 30, np.random.default_rng(2))
    assert len(cluster) == 30 and not cluster.pbc.any() and not cluster.cell.any()
    assert shortest_distance(cluster) == pytest.approx(shortest_distance(crystal))
    gyration = np.linalg.norm(cluster.positions - cluster.positions.mean(axis=0), axis=1).max()
    ball = (30 * crystal.get_volume() / len(crystal) * 3 / (4 * np.pi)) ** (1 / 3)
    assert gyration < 1.6 * ball


def test_kinds_of_images_are_checked():
    for changes, message in [
        ({"cells": False}, "cells is False and clusters is empty: no image would be made"),
        ({"clusters": (13.5,)}, "clusters is 13.5: it must be an integer, at least 2"),
        ({"check_cells": "yes"}, "check_cells is 'yes': it must be 'error', 'warn' or False"),
    ]:
        with pytest.raises(InputError, match=message):
            initial_images("Pt", [225], **changes)


def test_two_processes_do_not_make_images_in_one_directory(tmp_path):
    """The files of two parents would mix; the directory is free again when the first has ended."""
    place = tmp_path / "labels"
    script = f"from pathlib import Path; from amp.nft.system.files import held\nwith held(Path({str(place)!r})): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="is in use by another process: wait for it, or give this one another directory"):
            initial_images(**PAPER, parent_calc=EMT(), directory=place)
        other.communicate("\n")
    assert not place.exists()
    assert initial_images(**PAPER, parent_calc=EMT(), n_rattled=1, directory=place)
