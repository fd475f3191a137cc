"""Parents that are real: GPAW and tblite through the whole loop, with densities that do not converge."""

import json
import os
import shutil
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from ase.io import read
from small_runs import CALC_TEXT

from amp.nft.activelearner import NFT
from amp.nft.chunks import carve_chunk
from amp.nft.labels.single_point import Label, LabelFailure, single_point

pytestmark = [pytest.mark.slow, pytest.mark.parents]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cluster(symbol, constant):
    octahedron = Octahedron(symbol, 3, cutoff=1, latticeconstant=constant)
    atoms = Atoms(octahedron.symbols, octahedron.positions)
    atoms.rattle(0.05, seed=1)
    return atoms


def gpaw(directory, maxiter=100):
    """Return a coarse GPAW."""
    from gpaw import GPAW

    return GPAW(
        mode="lcao", basis="szp(dzp)", h=0.28, xc="PBE", occupations={"name": "fermi-dirac", "width": 0.2},
        convergence={"density": 1e-3, "energy": 1e-3}, maxiter=maxiter, txt=f"{directory}/gpaw.txt",
    )  # fmt: skip


def gpaw_that_fails_first(directory, flag):
    """GPAW whose first label is given too few steps."""
    if Path(flag).exists():
        return gpaw(directory)
    Path(flag).touch()
    return gpaw(directory, maxiter=3)


def tblite(directory, **settings):
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", electronic_temperature=1000.0, verbosity=0, **settings)


def labelled_cells(symbol, constants, parent):
    cells = []
    for seed, constant in enumerate(constants):
        atoms = bulk(symbol, "fcc", a=constant, cubic=True)
        atoms.rattle(0.05, seed=seed)
        label = single_point(parent, atoms, "cells")
        assert isinstance(label, Label), label
        atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces)
        cells.append(atoms)
    return cells


def learn(images, target, parent, **settings):
    al = NFT(stop_delta=1e-6, max_iterations=1, log="log.txt")
    symbol = target.symbols[0]
    al.run(images, target, n=2, calc_text=CALC_TEXT.replace("'Pt'", f"'{symbol}'"), cutoff=4.5, parent_calc=parent, **settings)
    journal = Path("al-training/saved-info/journal.jsonl").read_text().splitlines()
    return al, [json.loads(line) for line in journal]


def assert_chunks_carry_labels(parent, atol):
    chunks = read("al-training/saved-info/atomic_chunks.traj", ":")
    assert chunks and not any(chunk.pbc.any() for chunk in chunks)
    for chunk in chunks:
        again = single_point(parent, chunk.copy(), "again")
        np.testing.assert_allclose(chunk.get_forces(), again.forces, atol=atol)


def test_gpaw_with_a_density_that_does_not_converge():
    pytest.importorskip("gpaw")
    images = labelled_cells("Al", (3.95, 4.15), gpaw)
    parent = partial(gpaw_that_fails_first, flag=os.path.abspath("failed"))
    al, journal = learn(images, cluster("Al", 4.05), parent, label_retries=0)
    assert len(al.history) == 2
    failed = [event for event in journal if event["event"] == "label-failed"]
    assert [event["kind"] for event in failed] == ["KohnShamConvergenceError"]
    added = next(event for event in journal if event["event"] == "added")
    assert len(added["atoms"]) == 1 and added["atoms"] != added["chosen"] == [failed[0]["atom"]]
    assert_chunks_carry_labels(gpaw, atol=0.02)
    assert len(list(Path("al-training/labels").glob("*/gpaw.txt"))) == 2


def test_tblite():
    pytest.importorskip("tblite")
    images = labelled_cells("Cu", (3.5, 3.7), tblite)
    al, journal = learn(images, cluster("Cu", 3.6), tblite)
    assert len(al.history) == 2
    assert [event["event"] for event in journal if "label" in event["event"]] == ["label"]
    assert_chunks_carry_labels(tblite, atol=1e-4)


def test_tblite_with_a_density_that_does_not_converge():
    pytest.importorskip("tblite")
    failure = single_point(partial(tblite, max_iterations=3), cluster("Cu", 3.6), "short")
    assert isinstance(failure, LabelFailure) and "not converge" in failure.message


def documented(heading):
    """Return the parent that the documentation has under a heading."""
    page = (Path(__file__).parents[2] / "docs" / "labels.rst").read_text(encoding="utf-8")
    block = page.split(f"\n{heading}\n~~~")[1].split(".. code-block:: python\n\n")[1]
    names = {}
    exec(textwrap.dedent(block[: block.index("\n\n", block.index("return"))]), names)
    return names["parent"]


@pytest.mark.parametrize(("heading", "module", "symbol", "constant"), [("GPAW", "gpaw", "Al", 4.05), ("tblite", "tblite", "Cu", 3.6)])
def test_documented_recipes(heading, module, symbol, constant):
    pytest.importorskip(module)
    chunk = carve_chunk(cluster(symbol, constant), 0, 2.7)
    label = single_point(documented(heading), chunk, "label")
    assert isinstance(label, Label), label
    assert np.abs(label.forces.sum(axis=0)).max() < 0.2  # eV/Å; on GPAW's grid they do not quite cancel


def espresso(directory, electron_maxstep=100):
    """Return a coarse Quantum ESPRESSO."""
    from ase.calculators.espresso import Espresso, EspressoProfile

    return Espresso(
        profile=EspressoProfile(command="pw.x", pseudo_dir=PSEUDO),
        directory=directory,
        pseudopotentials={"Al": "Al.pz-vbc.UPF"},
        input_data={
            "control": {"tprnfor": True},
            "system": {
                "ecutwfc": 12, "occupations": "smearing", "smearing": "gauss", "degauss": 0.02, "assume_isolated": "mt",
            },
            "electrons": {"electron_maxstep": electron_maxstep, "conv_thr": 1e-5},
        },
        kpts=None,
    )  # fmt: skip


PSEUDO = "/usr/share/espresso/pseudo"  # of Debian's quantum-espresso-data


@pytest.mark.skipif(not (shutil.which("pw.x") and Path(PSEUDO).exists()), reason="no Quantum ESPRESSO here")
def test_espresso_and_a_density_that_does_not_converge():
    chunk = carve_chunk(cluster("Al", 4.05), 0, 3.2)
    label = single_point(espresso, chunk, "good")
    assert isinstance(label, Label), label
    assert np.abs(label.forces.sum(axis=0)).max() < 0.05
    failure = single_point(partial(espresso, electron_maxstep=2), chunk, "short")
    assert isinstance(failure, LabelFailure) and failure.kind == "CalledProcessError"
