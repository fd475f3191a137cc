"""Bad input: each error names the value, the rule and the way out, before any work starts."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from amp.utilities import get_hash
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write
from ase.neighborlist import neighbor_list

from amp.nft.activelearner import NFT
from amp.nft.amp_io.log import RunLog
from amp.nft.chunks import carve_chunk
from amp.nft.errors import InputError, printable
from amp.nft.inputs.arguments import checked_indices
from amp.nft.inputs.geometry import LARGEST_CHUNK, check_chunks, nearest_distances, neighbor_pairs
from amp.nft.inputs.structures import read_images, read_targets, read_training_images


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cell(seed=0, symbol="Pt", calc=EMT):
    atoms = bulk(symbol, cubic=True)
    atoms.rattle(0.1, seed=seed)
    if calc is not None:
        atoms.calc = calc()
        atoms.get_forces()
    return atoms


def labelled(atoms, force=0.0):
    """With energy and forces, all components the same."""
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.full((len(atoms), 3), force))
    return atoms


def far(distance=2e6):
    return Atoms("Pt2", [[0, 0, 0], [0, 0, distance]])


def unknown(number):
    """Return a cell with an atom that is not an element's."""
    atoms = labelled(cell(calc=None))
    atoms.numbers[2] = number
    return atoms


@pytest.fixture
def images():
    return [cell(0), cell(1)]


def test_every_way_to_give_images(images):
    write("images.traj", images)
    write("images.extxyz", images)
    with connect("images.db") as database:
        for image in images:
            database.write(image)
    hashed = {get_hash(image): image for image in images}
    for given in (images, tuple(images), iter(images), hashed, "images.traj", "images.extxyz", "images.db"):
        found = read_training_images(given)
        assert len(found) == 2
        for a, b in zip(found, images, strict=True):
            assert a.get_potential_energy() == pytest.approx(b.get_potential_energy(), abs=1e-7)
            np.testing.assert_allclose(a.get_forces(), b.get_forces(), atol=1e-7)
    assert len(read_training_images(images[0])) == 1


def test_the_same_image_twice_is_one(images):
    assert len(read_training_images([*images, images[0]])) == 2


def test_an_atom_far_from_the_rest_is_accepted_and_may_be_alone():
    """It has no force in the model, and no chunk."""
    target = cell()
    target.pbc = False
    target += Atoms("Pt", [[0, 0, 9e5]])
    check_chunks(read_targets(target)[0], 6.5, 6.0)


@pytest.mark.parametrize("pbc", [True, [True, True, False], False])
def test_chunks_of_at_most_20000_atoms_are_accepted(pbc):
    target = bulk("Pt", cubic=True) * np.where(np.broadcast_to(pbc, 3), 1, 24).tolist()
    target.pbc = pbc
    middle = int(np.argmin(np.linalg.norm(target.positions - target.positions.mean(axis=0), axis=1)))
    check_chunks(target, 40.0, 6.0)
    with pytest.raises(InputError, match="cutoff = 45 Å, the structure: the chunk around atom"):
        check_chunks(target, 45.0, 6.0)
    assert len(carve_chunk(target, middle, 40.0)) <= LARGEST_CHUNK < len(carve_chunk(target, middle, 45.0))


INDICES = {
    "list": ([2, 0], [2, 0]),
    "array": (np.array([1, 1], dtype=np.uint8), [1, 1]),
    "generator": ((i for i in (3, 1)), [3, 1]),
    "nothing": ([], []),
    "mask": ([True, False, False, True], [0, 3]),
    "mask array": (np.array([False, True, True, False]), [1, 2]),
    "set": ({2}, [2]),
}
NO_INDICES = {
    "mask of another length": (
        [True, False],
        "indices is .*True, False.*: give indices of the 4 atoms of the structure .* or a mask",
    ),
    "fractions": ([0.5], "indices is .0.5."),
    "whole floats": (np.array([1.0, 2.0]), "indices is .1.0, 2.0."),
    "text": ("12", "indices is '12'"),
    "texts": (["1"], "indices is"),
    "a number": (3, "indices is 3"),
    "None": ([None], "indices is"),
    "a table": ([[1, 2], [3, 0]], "indices is .1, 2, 3, 0."),
    "negative": ([1, -1], "indices contains -1, which does not exist"),
    "too large": ([4], "indices contains 4"),
    "many": (np.full(99, 0.1), r"indices is \[0.1, 0.1, 0.1\] and 96 more"),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices_select_what_they_mean(name):
    values, expected = INDICES[name]
    found = checked_indices("indices", values, 4)
    assert found.tolist() == expected and found.dtype == np.int64


@pytest.mark.parametrize("name", NO_INDICES)
def test_what_is_not_an_index_is_refused(name):
    values, says = NO_INDICES[name]
    with pytest.raises(InputError, match=says):
        checked_indices("indices", values, 4)


def test_nearest_distances_are_those_of_ase():
    for atoms in (cell(), cell() * (2, 1, 3), Atoms("PtCu2", [[0, 0, 0], [0, 0, 2.5], [0, 0, 60.0]])):
        every = atoms.get_all_distances(mic=True) + np.diag(np.full(len(atoms), np.inf))
        expected = every.min(axis=1)
        expected[expected > 5.0] = np.inf
        np.testing.assert_allclose(nearest_distances(atoms, 5.0), expected, atol=1e-9)


def test_what_the_caller_gave_is_not_changed(images):
    images[0].set_constraint(FixAtoms([0]))
    target = cell(3, calc=EMT)
    target.set_constraint(FixAtoms([1]))
    calculators = [image.calc for image in images]
    found, read = read_training_images(images), read_targets(target)[0]
    assert [image.calc for image in images] == calculators
    assert len(images[0].constraints) == 1 and len(target.constraints) == 1 and target.calc is not None
    assert not read.constraints and read.calc is None
    free = images[0].copy()
    free.set_constraint()
    free.calc = EMT()
    np.testing.assert_array_equal(found[0].get_forces(), free.get_forces())


SETTING = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x
calc = Amp(descriptor=Gaussian(Gs=g2x(["Pt"])), model=NeuralNetwork())
calc.model.lossfunction = LossFunction(force_coefficient=0.04, convergence={"force_rmse": 0.01})
"""
CROWDED = Atoms("Pt3000", np.random.default_rng(0).uniform(size=(3000, 3)))
IN_ONE_PLACE = Atoms("Pt2", [[0, 0, 0], [4, 0, 0]], cell=[4, 9, 9], pbc=True)


BAD = [
    ({"images": [cell(calc=None)]}, ValueError, r"images\[0\] \(Pt4\) has no energy or no forces"),
    ({"images": []}, ValueError, "images is empty"),
    ({"images": "nowhere.traj"}, FileNotFoundError, r"there is no file 'nowhere\.traj'"),
    ({"images": ["Pt"]}, TypeError, "images contains a str"),
    ({"target_image": Atoms()}, ValueError, "target_image has no atoms"),
    ({"target_image": [cell(), Atoms()]}, ValueError, r"target_image\[1\] has no atoms"),
    ({"target_image": cell(symbol="Cu")}, ValueError, "contains Cu, but the training images have only Pt"),
    ({"cutoff": 0}, ValueError, "cutoff is 0: it must be above 0"),
    ({"expired": -1}, ValueError, "expired is -1"),
    ({"cutoff": "6.5"}, ValueError, "cutoff is '6.5'"),
    ({"expired": None}, ValueError, "expired is None"),
    ({"images": 3}, TypeError, "images is 3"),
    ({"target_image": Atoms("Pt", pbc=True)}, ValueError, "target_image is periodic .* spans no space there"),
    ({"headerlines": None}, TypeError, "headerlines is None: it must be a str"),
    ({"start_command": ["python", "run.py"]}, TypeError, "start_command is"),
    ({"train_line": None}, TypeError, "train_line is None"),
    ({"label": None}, ValueError, "label is None"),
    ({"label": ""}, ValueError, "label is ''"),
    ({"init_nft_ids": [3]}, ValueError, r"init_nft_ids is \[3\]: it must be a list of pairs"),
    ({"n": 1}, ValueError, "n is 1: it must be an integer, at least 2"),
    ({"n": 2.5}, ValueError, r"n is 2\.5"),
    ({"parent_calc": None}, TypeError, "parent_calc is None"),
    ({"calc_text": "x = 1"}, ValueError, "defines no `calc`"),
    ({"calc_text": "calc ="}, ValueError, "not valid Python"),
    ({"start_command": "no-such-queue run.py"}, ValueError, "no-such-queue"),
    ({"init_nft_ids": [("beef", 0)]}, ValueError, "init_nft_ids names beef"),
    ({"images": os.path.dirname(__file__)}, ValueError, "cannot be read .* give a file that ase.io.read understands"),
    ({"cutoff": None}, ValueError, "cutoff is None: it must be a number above 0"),
    ({"n": 1}, ValueError, "at least 2, since the uncertainty is what members disagree about"),
    ({"cutoff": np.inf}, ValueError, "cutoff is inf: it must be a finite number of Å"),
    ({"cutoff": 1.5}, ValueError, r"cutoff = 1\.5 Å cuts out atom 0 of target_image alone: its nearest neighbour is 2\.\d+ Å away"),
    ({"cutoff": 1e4}, ValueError, "cutoff = 10000 Å, target_image: a radius of 10000 Å reaches .* images of a cell of 4 atoms"),
    (
        {"cutoff": 60.0},
        ValueError,
        r"cutoff = 60 Å, target_image: the chunk around atom \d has \d{5} atoms: .* at most 20000 atoms; use a smaller cutoff",
    ),
    ({"target_image": far()}, ValueError, r"target_image: the position of atom 1 is \[.*\] Å: it must be finite, and within 1e\+06 Å"),
    ({"target_image": CROWDED}, ValueError, "target_image: atoms .* are in one place, or closer than 0.3 Å"),
    ({"target_image": unknown(200)}, ValueError, "target_image: atom 2 has the atomic number 200: it must be an element's"),
    ({"images": [unknown(0)]}, ValueError, r"images\[0\]: atom 2 has the atomic number 0"),
    ({"images": [labelled(CROWDED)]}, ValueError, r"images\[0\] \(Pt3000\): atoms .* are in one place, or closer than 0.3 Å"),
    ({"images": [labelled(far())]}, ValueError, r"images\[0\] \(Pt2\): the position of atom 1 is"),
    ({"images": [labelled(Atoms())]}, ValueError, r"images\[0\] has no atoms"),
    ({"images": [labelled(cell(), 1e6)]}, ValueError, r"images\[0\] \(Pt4\) has a force of 1e\+06 eV/Å, beyond 1e\+04: check its units"),
    ({"n": True}, ValueError, "n is True"),
    ({"target_image": IN_ONE_PLACE}, ValueError, "target_image: atoms 0 and 1 are in one place"),
    ({"images": [labelled(IN_ONE_PLACE)]}, ValueError, r"images\[0\] \(Pt2\): atoms 0 and 1 are in one place"),
    ({"calc_text": SETTING.replace("Pt", "Cu")}, ValueError, "Gs in calc_text cover Cu but the images also contain Pt"),
    ({"calc_text": SETTING.replace("force_rmse", "forces_rmse")}, ValueError, "convergence in calc_text has 'forces_rmse'"),
    ({"calc_text": SETTING.replace("g2x", "g3x", 1)}, ValueError, "calc_text fails with ImportError: .* in line 6; it must run"),
    ({"headerlines": "import no_such"}, ValueError, "headerlines fails with ModuleNotFoundError: .* in line 1; it must run by itself$"),
    ({"parent_calc": lambda directory: EMT(), "executor": partial(ProcessPoolExecutor, 2)}, TypeError, "cannot be sent to another process"),
]


@pytest.mark.filterwarnings("ignore:calc_text sets no force criterion")  # Amp's default calc_text
@pytest.mark.parametrize(("changes", "error", "says"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_run_refuses(images, changes, error, says):
    settings = {"images": images, "target_image": cell(5), "parent_calc": EMT(), "n": 2} | changes
    with pytest.raises(error, match=says):
        NFT(log=os.devnull).run(**settings)
    assert not [name for name in os.listdir() if "training" in name or "ensemble" in name]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"threshold": -1}, "threshold is -1"),
        ({"threshold": "0.1"}, "threshold is '0.1'"),
        ({"stop_delta": 0}, "stop_delta is 0"),
        ({"stop_delta": None}, "stop_delta is None"),
        ({"max_iterations": -1}, "max_iterations is -1"),
        ({"steps_not_improved": 0}, "steps_not_improved is 0"),
        ({"seed": -4}, "seed is -4"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_constructor_refuses(settings, says):
    with pytest.raises(ValueError, match=says):
        NFT(**settings)


NO_FORCES = pytest.mark.filterwarnings("ignore:calc_text sets no force criterion")  # Amp's default calc_text


@NO_FORCES
def test_an_ensemble_to_start_from_that_is_not_there(images):
    with pytest.raises(FileNotFoundError, match=r"There is no file 'best\.ensemble'"):
        NFT(load="best.ensemble", log=os.devnull).run(images, cell(5), n=2, parent_calc=EMT())


def test_a_corrupted_trajectory(images):
    write("images.traj", images)
    data = Path("images.traj").read_bytes()
    Path("images.traj").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"images: 'images\.traj' cannot be read"):
        read_images("images.traj")


def test_numbers_that_are_not_finite(images):
    target = cell(2)
    target.positions[2, 1] = np.nan
    with pytest.raises(ValueError, match="the position of atom 2 is"):
        read_targets(target)
    forces = np.zeros((4, 3))
    forces[0, 0] = np.inf
    images[1].calc = SinglePointCalculator(images[1], energy=0.0, forces=forces)
    with pytest.raises(ValueError, match=r"images\[1\] \(Pt4\) has an energy or force that is not finite"):
        read_training_images(images)


@NO_FORCES
def test_a_training_directory_of_another_program(images):
    os.makedirs("al-training/training-images")
    with pytest.raises(RuntimeError, match="left by another program"):
        NFT(log=os.devnull).run(images, cell(5), n=2, parent_calc=EMT())


def test_a_log_is_a_name_a_path_or_a_callable(tmp_path):
    NFT(log=tmp_path / "al.log").log("said")
    assert (tmp_path / "al.log").read_text() == "said\n"
    lines = []
    NFT(log=lines.append).log("said")
    assert lines == ["said"]
    with pytest.raises(TypeError, match="log is 3"):
        NFT(log=3)


@pytest.mark.parametrize("pbc", [True, False, (True, False, True)])
def test_neighbor_pairs_are_those_of_ase(pbc):
    atoms = cell() * (1, 2, 1)
    atoms.pbc = pbc
    atoms.positions += [9.1, -17.3, 4.0]  # outside the cell
    pairs = neighbor_pairs(atoms, 5.0, [6, 1])
    vectors = atoms.positions[pairs.second] - atoms.positions[pairs.first] + pairs.shift @ atoms.cell.array
    np.testing.assert_allclose(pairs.vector, vectors, atol=1e-12)
    first, second, shift = neighbor_list("ijS", atoms, 5.0)
    for centre, a, b in zip((6, 1), pairs.start, pairs.start[1:], strict=False):
        found = sorted(np.column_stack([pairs.second, pairs.shift])[a:b].tolist())
        assert found == sorted(np.column_stack([second, shift])[first == centre].tolist())
        assert (pairs.first[a:b] == centre).all()


def test_a_name_with_an_at_sign_is_read_as_it_stands(images):
    write("core.xyz", images, format="extxyz")
    write("other.xyz", images[:1], format="extxyz")
    assert len(read_images("core.xyz@1:")) == len(read_images("core.xyz@0")) == 1
    assert len(read_images("core.xyz@:")) == 2
    os.rename("other.xyz", "core@shell.xyz")
    os.rename("core.xyz", "core@1.xyz")
    assert len(read_images("core@shell.xyz")) == 1 and len(read_images("core@1.xyz")) == 2
    assert len(read_images("core@1.xyz@-1")) == 1
    for name in ("core@nothing.xyz", "nothing.xyz@0"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_images(name)
    with pytest.raises(InputError, match="cannot be read"):
        read_images("core@shell.xyz@seven")


def test_messages_have_no_control_characters(tmp_path):
    assert printable("a\x1b[31mb\x07\n\tÅ") == "a?[31mb?\n\tÅ"
    assert str(InputError("a\x1b[2J")) == "a?[2J"
    NFT(log=tmp_path / "al.log").log("done\x1b]0;title\x07")
    assert (tmp_path / "al.log").read_text() == "done?]0;title?\n"
    Path("escape.xyz").write_text("\x1b[31m")
    with pytest.raises(InputError) as error:
        read_images("escape.xyz")
    assert "\x1b" not in str(error.value)


SCRIPT = """
import sys
from amp.nft.amp_io.log import RunLog
screen, file = RunLog(), RunLog("al.log")
for _ in range(3000):
    screen("0.1 eV/Å" + 100 * ".")
    file("0.1 eV/Å")
open("finished", "w").close()
"""


@pytest.mark.parametrize("reader", ["cat", "head -n 1", "true"])
def test_an_ascii_locale_and_a_broken_pipe_end_no_run(reader):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    Path("log.py").write_text(SCRIPT, encoding="utf-8")
    command = f"{sys.executable} log.py | {reader}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=os.environ | ascii_only, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert Path("finished").exists() and Path("al.log").read_text(encoding="utf-8").splitlines() == ["0.1 eV/Å"] * 3000
    if reader != "true":
        assert done.stdout.startswith(b"0.1 eV/\\xc5...")


def test_the_file_of_a_log_is_closed_with_it(tmp_path):
    log = RunLog(tmp_path / "log.txt")
    log("a message")
    file = log._amp.file
    del log
    gc.collect()
    assert file.closed and (tmp_path / "log.txt").read_text() == "a message\n"
