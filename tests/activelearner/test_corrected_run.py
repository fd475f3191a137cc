"""Runs whose labels a cheap calculator corrects: better forces, a gate before any training, exact restarts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from small_runs import pt55, results, run

from amp.nft.activelearner.chunk_rows import deepest_atoms, rows_in_target
from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import PointCharges, carve_chunks, convergence
from amp.nft.errors import CorrectionError, InputError, RunStoreError
from amp.nft.records import ForceRows

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set")

CHARGE = 0.15  # e, of each atom


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Charged(LennardJones):
    """A short interaction and charges, whose forces reach beyond the chunks."""

    def __init__(self):
        super().__init__(sigma=2.3, epsilon=0.4, rc=4.0, ro=3.0, smooth=True)

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        other = atoms.copy()
        other.pbc = False
        other.calc = PointCharges({"Pt": CHARGE})
        self.results["energy"] += other.get_potential_energy()
        self.results["forces"] = self.results["forces"] + other.get_forces()


class Charges(LennardJones):
    """Charges alone, with a part of their energy."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def calculate(self, atoms=None, *args, **kwargs):
        other = atoms.copy()
        other.calc = PointCharges({"Pt": CHARGE})
        self.results = {"energy": self.part * other.get_potential_energy(), "forces": self.part * other.get_forces()}
        self.atoms = atoms.copy()


def parent(directory):
    """Return a calculator whose chunks lack a part of the force."""
    return Charged()


def cheap(directory):
    """Return nine tenths of the part that the chunks lack."""
    return Charges(0.9)


def opposite(directory):
    """Return a cheap calculator that makes each force worse."""
    return Charges(-1.0)


def corrected(**changes):
    settings = {
        "method": "robust", "threshold": None, "max_iterations": 1, "images": None, "target_image": pt55(), "cutoff": 5.0,
        "test_labels": 0, "larger_labels": 0, "parent_calc": parent, "correction": cheap,
    }  # fmt: skip
    return run(**(settings | changes))


def journal(label="al"):
    return [json.loads(line) for line in Path(f"{label}-training/saved-info/journal.jsonl").read_text().splitlines()]


def names(label="al"):
    return [event["event"] for event in journal(label)]


def error(ensemble):
    atoms = pt55()
    atoms.calc = parent("")
    true = atoms.get_forces()
    atoms.calc = EnsembleCalculator(ensemble)
    return np.linalg.norm(atoms.get_forces() - true, axis=1).mean()


def test_a_corrected_run_learns_the_forces_in_the_target():
    corrected(label="with", max_iterations=2)
    corrected(label="without", correction=None, max_iterations=2)
    assert error("with.ensemble") < 0.7 * error("without.ensemble")
    events = names("with")
    gate = next(event for event in journal("with") if event["event"] == "gate")
    assert gate["n_atoms"] == 10 and gate["corrected_mean"] < gate["plain_mean"]
    assert events.count("cheap-label") == events.count("label") and events.count("cheap-target") == 1
    assert events.index("gate") < events.index("trained") and events.count("larger-label") == 10


def test_labels_of_the_gate_are_trained_beside_images():
    images = [cell for cell in cells_of_the_parent()]
    al, _ = corrected(images=images, max_iterations=1)
    assert [entry.n_chunks for entry in al.history] == [10, 16]


def cells_of_the_parent():
    for seed, a in enumerate((3.9, 4.0, 4.1)):
        atoms = bulk("Pt", a=a, cubic=True)
        atoms.rattle(0.08, seed=seed)
        atoms.calc = parent("")
        atoms.get_forces()
        yield atoms


def test_a_run_that_is_cut_after_any_of_its_first_events_gives_the_same_results():
    corrected(label="al")
    whole, lines = results(), Path("al-training/saved-info/journal.jsonl").read_bytes().splitlines(keepends=True)
    events = names()
    gate = events.index("gate")
    cuts = [2, events.index("cheap-label") + 1, events.index("begun") + 1, gate - 3, gate, gate + 1, events.index("added"), len(lines) - 1]
    for cut in cuts:
        shutil.rmtree("b-training", ignore_errors=True)
        shutil.copytree("al-training", "b-training")
        Path("b-training/saved-info/journal.jsonl").write_bytes(b"".join(lines[:cut]))
        for path in Path().glob("*b.*ensemble"):
            path.unlink()
        corrected(label="b")
        assert {name.replace("b.", "al.").replace("b-", "al-"): data for name, data in results("b").items()} == whole, f"cut at {cut}"


def test_a_correction_that_makes_forces_worse_is_refused_before_training_and_not_judged_twice():
    with pytest.raises(CorrectionError, match="Correction failed on 10 atoms"):
        corrected(correction=opposite)
    before = names()
    assert "trained" not in before and not list(Path().glob("*.ensemble"))
    with pytest.raises(CorrectionError, match="Correction failed on 10 atoms"):
        corrected(correction=opposite)
    assert [name for name in names()[len(before) :] if "label" in name] == []
    corrected(max_iterations=0)  # another one is judged, with the same labels by the parent
    assert names().count("label") == 14 and names().count("larger-label") == 10 and names().count("gate") == 2


def test_a_convergence_brings_its_gate():
    scan = convergence(pt55(), parent, radii=(5.0, 7.0), atoms=8, terminations="auto", cheap=cheap)
    corrected(gate=scan, max_iterations=0)
    assert names().count("gate") == 1 and names().count("larger-label") == 0


def test_random_labels_are_corrected_too():
    al, _ = corrected(test_labels=5, larger_labels=3)
    assert al.verdict.n_test == 5 and names().count("larger-cheap-label") == 13
    plain, _ = corrected(label="plain", correction=None, test_labels=5, larger_labels=3)
    assert al.verdict.label_error < plain.verdict.label_error


def test_the_correction_is_part_of_the_identity():
    corrected(max_iterations=0)
    with pytest.raises(RunStoreError, match="correction: was "):
        corrected(max_iterations=1, correction=None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"start_command": "sh run.py", "forces": "centre", "fit_until": "criteria", "images": []}, ValueError, "images"),
        ({"start_command": "sh run.py"}, ValueError, "correction trains forces of several chunks"),
        ({"correction": PointCharges({"Pt": 0.1})}, CorrectionError, "fixed point charges"),
        ({"correction": "GFN1"}, TypeError, "GFN1"),
        ({"correction": None, "gate": object()}, InputError, "correction is not"),
        ({"gate": object()}, TypeError, "gate is a object"),
    ],
)
def test_corrections_that_cannot_be(changes, error, message):
    with pytest.raises(error, match=message):
        corrected(**changes)
    assert not list(Path().iterdir())


def test_an_atom_with_several_images_in_a_chunk_is_trained_once_by_its_deepest():
    target = bulk("Cu", cubic=True)
    chunk = carve_chunks(target, [2], 4.0)[0]
    index, depth = chunk.arrays["target_index"], chunk.arrays["depth"]
    kept = deepest_atoms(chunk)
    assert kept[0] == 0 and sorted(index[kept]) == [0, 1, 2, 3]
    assert all(depth[atom] == depth[index == index[atom]].max() for atom in kept)
    rows = rows_in_target(ForceRows(tuple(range(len(chunk))), tuple(np.linspace(1, 0.1, len(chunk)))), chunk)
    assert rows.atoms[0] == 2 and rows.weights[0] == 1.0 and sorted(rows.atoms) == [0, 1, 2, 3] and rows.energy == 0.0
