"""A watched relaxation: the laws of its end, and what its frames carry."""

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read
from small_runs import cells, cluster, run

from amp.nft.calculator import EnsembleCalculator, relax
from amp.nft.errors import InputError

ENSEMBLE = "best.al.ensemble"
ROUNDED = 1e-5  # eV/Å, by eight decimals of the positions in a file: an untrained atom has steep forces


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return an ensemble of a small run."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run(max_iterations=1)
    return place / ENSEMBLE


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_original_stays_and_constraints_apply(trained):
    atoms = cluster()
    atoms.set_constraint(FixAtoms([0]))
    before = atoms.positions.copy()
    found = relax(atoms, trained, steps=3, threshold=1e3)
    np.testing.assert_array_equal(atoms.positions, before)
    np.testing.assert_array_equal(found.atoms.positions[0], before[0])
    assert np.abs(found.atoms.positions - before).max() > 0
    assert (found.steps, found.converged, found.halted, len(found.deltas)) == (3, False, False, 4)


def test_the_frames_have_the_forces_of_the_ensemble_at_their_places(trained):
    lines = []
    found = relax(cluster(), trained, steps=3, threshold=1e3, trajectory="path.extxyz", log=lines.append)
    frames = read("path.extxyz", ":")
    assert len(frames) == len(lines) == 4
    for frame in [*frames, found.atoms]:
        again = frame.copy()
        again.calc = EnsembleCalculator(trained)
        np.testing.assert_allclose(frame.arrays["nft_forces"], again.get_forces(), atol=ROUNDED)
        assert frame.info["nft_delta_max"] == pytest.approx(again.calc.results["forces_uncertainty"].max(), abs=ROUNDED)
    with pytest.raises(InputError, match=r"path.extxyz exists, and is not overwritten"):
        relax(cluster(), trained, trajectory="path.extxyz")


def test_it_ends_where_the_uncertainty_passes_the_threshold(trained):
    found = relax(cluster(), trained, threshold=1e-6)
    assert found.halted and not found.converged and found.steps == 0
    assert str(found).startswith("Halted: 0 steps") and "above the threshold of 1e-06" in str(found)


def test_small_forces_above_the_threshold_are_not_a_relaxed_structure(trained):
    assert relax(cluster(), trained, fmax=1e3, threshold=1e3).converged
    assert not relax(cluster(), trained, fmax=1e3, threshold=1e-6).converged


def test_any_calculator_with_an_uncertainty_relaxes_and_its_threshold_is_that_of_the_start(trained):
    calc = EnsembleCalculator(trained)
    found = relax(cluster(), calc, fmax=1e3)
    assert found.threshold == pytest.approx(1.5 * calc.get_property("forces_uncertainty", cluster()).max())


def test_the_cell_relaxes_too(trained):
    atoms = cells()[0]
    found = relax(atoms, trained, steps=2, threshold=1e3, cell=True)
    assert np.abs(found.atoms.cell - atoms.cell).max() > 1e-6
    fixed = relax(atoms, trained, steps=2, threshold=1e3)
    np.testing.assert_array_equal(fixed.atoms.cell, atoms.cell)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fmax": 0}, "fmax is 0: it must be above 0"),
        ({"threshold": -1.0}, "threshold is -1.0: it must be above 0"),
        ({"steps": -1}, "steps is -1: it must be an integer, at least 0"),
        ({"cell": True}, "use cell=False"),
    ],
)
def test_other_arguments_are_refused(trained, changes, text):
    with pytest.raises(InputError, match=text):
        relax(cluster(), trained, **changes)


def test_an_element_that_was_not_trained_is_refused(trained):
    with pytest.raises(ValueError, match="Cu"):
        relax(bulk("Cu", cubic=True), trained)
