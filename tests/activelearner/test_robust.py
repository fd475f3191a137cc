"""The robust method: all forces of a chunk, members stopped out of bag, no images needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from small_runs import Fragile, cells, pt55, results, run

from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks
from amp.nft.errors import ParentMismatch, RunStoreError
from amp.nft.report import report
from amp.nft.run.replay import replay
from amp.nft.run.store import RunRecord
from amp.nft.run.verdict import verdict_of
from amp.nft.uncertainty import bound_errors

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def robust(**changes):
    settings = {"method": "robust", "threshold": None, "max_iterations": 1, "target_image": pt55(), "test_labels": 0, "larger_labels": 0}
    return run(**(settings | changes))


def error():
    atoms = pt55()
    atoms.calc = EMT()
    true = atoms.get_forces()
    atoms.calc = EnsembleCalculator("al.ensemble")
    return np.linalg.norm(atoms.get_forces() - true, axis=1).mean(), np.linalg.norm(true, axis=1).mean()


def test_a_target_whose_atoms_are_all_trained_is_not_tested():
    target = pt55()[:13]
    al, _ = robust(images=None, target_image=target, max_iterations=0, test_labels=2, larger_labels=1, log="log.txt")
    assert al.history[-1].n_chunks == len(target) and al.verdict.state == "UNKNOWN"
    assert "not tested: no atom of the target is left for a test" in str(al.verdict) and "rerun" not in str(al.verdict)
    assert str(verdict_of(replay(RunRecord("al-training/saved-info").events))) == str(al.verdict)
    report("al-training")
    page = Path("report.html").read_text()
    assert "No atom of the target is left for a test, since all are trained" in page and "rerun with test_labels" not in page.lower()
    assert "no atom is left to draw" in Path("log.txt").read_text()


def test_a_run_without_images_learns_from_chunks_alone():
    al, _ = robust(images=None)
    assert [entry.n_chunks for entry in al.history] == [14, 20]
    chunks = read("al-training/saved-info/atomic_chunks.traj", ":")
    assert len(chunks) == len({chunk.info["target_atom"] for chunk in chunks}) == 20
    assert all("out-of-bag" in report.message for report in al.history[-1].reports)
    mean, size = error()
    assert mean < 0.1 * size


def test_batches_of_spread_atoms_beside_images():
    al, _ = robust(max_iterations=2)
    assert [entry.n_chunks for entry in al.history] == [0, 3, 9]


@pytest.mark.parametrize("images", [{"images": None}, {}], ids=["no images", "images"])
def test_a_run_that_resumes_gives_the_same_results(images):
    robust(max_iterations=2, **images)
    whole = results()
    robust(max_iterations=0, label="b", **images)
    robust(max_iterations=2, label="b", **images)
    assert {name.replace("b.", "al.").replace("b-", "al-"): data for name, data in results("b").items()} == whole


def test_failed_labels_of_the_beginning_are_replaced():
    robust(images=None, max_iterations=0)
    journal = [json.loads(line) for line in Path("al-training/saved-info/journal.jsonl").read_text().splitlines()]
    chosen = next(event["atoms"] for event in journal if event["event"] == "begin-chosen")
    parent = Fragile()
    parent.fails = chosen[:2]
    al, _ = robust(images=None, max_iterations=0, label="b", parent_calc=parent, label_retries=0)
    assert al.history[0].n_chunks == 14


def test_parts_of_the_method_cannot_change_when_a_run_resumes():
    robust(max_iterations=0)
    with pytest.raises(RunStoreError, match="forces: was 'weighted', is 'all'"):
        robust(max_iterations=1, forces="all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None, "method": "paper"}, "images is None, and forces='centre'"),
        ({"start_command": "sh run.py"}, "forces='weighted' and fit_until='out-of-bag' cannot be trained by Amp's jobs"),
        ({"method": "quick"}, "method is 'quick'"),
    ],
)
def test_methods_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        robust(**changes)
    assert not list(Path().iterdir())


def bounds_by_hand(tested, trained):
    """From the best ensemble, EMT's forces on the central atoms of the chunks, and the atoms that are not trained."""
    atoms = pt55()
    atoms.calc = EnsembleCalculator("best.al.ensemble")
    forces, std = atoms.get_forces(), atoms.calc.results["forces_uncertainty"] / 2.58
    labels = []
    for chunk in carve_chunks(atoms, tested, 6.5, termination="auto"):
        chunk.calc = EMT()
        labels.append(chunk.get_forces()[0])
    others = [atom for atom in range(len(atoms)) if atom not in trained]
    return bound_errors(np.linalg.norm(forces[tested] - labels, axis=1), std[tested], std[others])


def test_random_labels_bound_the_errors_and_are_never_trained():
    al, _ = robust(images=None, cutoff=6.5, test_labels=6, larger_labels=3)
    assert al.verdict.n_test == 6 and al.verdict.state in ("GOOD", "LABEL-LIMITED", "FIT-LIMITED", "NOT YET")
    assert al.verdict.label_error < 0.05  # eV/Å; chunks of EMT are nearly exact
    best, atoms = EnsembleCalculator("best.al.ensemble"), pt55()
    band, plain = best.get_property("forces_error95", atoms), best.error95_factor * best.get_property("forces_uncertainty", atoms)
    assert best.error95_floor == al.verdict.error95_floor == pytest.approx(1.614 / 0.921 * al.verdict.label_error, rel=1e-3)
    np.testing.assert_array_equal(band, np.maximum(plain, best.error95_floor))
    journal = [json.loads(line) for line in Path("al-training/saved-info/journal.jsonl").read_text().splitlines()]
    tested = next(event["atoms"] for event in journal if event["event"] == "test-chosen")
    trained = {chunk.info["target_atom"] for chunk in read("al-training/saved-info/atomic_chunks.traj", ":")}
    assert len(tested) == 6 and not trained & set(tested)
    bounds = bounds_by_hand(tested, trained)
    assert (al.verdict.mean_bound, al.verdict.max_bound) == pytest.approx((bounds.mean, bounds.max), rel=1e-6)
    again, _ = robust(images=None, cutoff=6.5, max_iterations=2, test_labels=6, larger_labels=3)
    trained = {chunk.info["target_atom"] for chunk in read("al-training/saved-info/atomic_chunks.traj", ":")}
    assert len(trained) == 32 and not trained & set(tested) and again.verdict.n_test == 6


def test_a_finished_run_is_tested_when_it_is_rerun_with_test_labels():
    al, _ = robust(images=None, test_labels=0, larger_labels=0)
    assert al.verdict.state == "UNKNOWN" and "test_labels=10" in al.verdict.sentence
    al, _ = robust(images=None, test_labels=4, larger_labels=0, aim=10.0)
    assert al.verdict.state == "GOOD" and al.verdict.n_test == 4


def in_other_units(images):
    for image in images:
        image.calc = SinglePointCalculator(image, energy=image.get_potential_energy() / 27.2114, forces=image.get_forces() / 51.422)
    return images


def test_a_parent_that_did_not_label_the_images_is_found_before_anything_is_trained():
    with pytest.raises(ParentMismatch, match=r"stored energy .* EMT gives"):
        robust(images=in_other_units(cells()))
    assert not list(Path().glob("*.ensemble"))
    with pytest.warns(UserWarning, match="Hartree/Bohr"):
        robust(images=in_other_units(cells()), check_parent="warn", max_iterations=0)
    robust(images=in_other_units(cells()), check_parent=False, label="b", max_iterations=0)


@pytest.mark.parametrize("changes", [{"images": None}, {"method": "paper", "threshold": -0.8}], ids=["robust", "paper"])
def test_batches_by_the_posterior_are_as_large_and_may_change_when_a_run_resumes(changes):
    top, _ = robust(**changes)
    spread, _ = robust(**changes, batch="spread", label="b")
    assert [entry.n_chunks for entry in spread.history] == [entry.n_chunks for entry in top.history]
    chosen = [np.load(f"{label}-training/saved-info/indices_0.npy").tolist() for label in ("al", "b")]
    assert chosen[0] != chosen[1]
    again, _ = robust(**changes, batch="top", label="b", max_iterations=2)
    assert len(again.history) == 3


def test_a_batch_by_the_posterior_needs_a_network():
    with pytest.raises(ValueError, match="batch is 'wide'"):
        robust(batch="wide")
