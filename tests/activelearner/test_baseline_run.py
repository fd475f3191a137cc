"""Runs whose members add to a baseline: the same training as without it on labels without it, exact restarts, sums in every result."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amp import Amp
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io import read
from ase.neighborlist import neighbor_list
from small_runs import N, cells, cluster, pt55, results, run

from amp.nft.amp_io import read_ensemble, read_texts, write_amp
from amp.nft.calculator import EnsembleCalculator, read_card
from amp.nft.errors import InputError, RunStoreError
from amp.nft.fitting import evaluate
from amp.nft.interfaces import write_labels
from amp.nft.refinement import Relaxation, refine
from amp.nft.report.checks import check
from amp.nft.run.history import read_run

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set", "ignore:.*stored energy")

GRID = 2.0**-30  # eV and eV/Å: sums and differences of multiples of it are exact
ZBL = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))  # of the universal screening function


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pairs(sigma=2.5):
    return Rounded(sigma=sigma, epsilon=0.2, rc=4.5, ro=3.5, smooth=True)


def rounded(results):
    return {name: np.round(results[name] / GRID) * GRID for name in ("energy", "forces")}


class Rest(EMT):
    """EMT, whose numbers are rounded."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        self.results = rounded(self.results)


class Rounded(LennardJones):
    """The baseline, whose numbers are rounded."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        self.results = rounded(self.results)


class Both(Rest):
    """Both together: what it has beyond the baseline is exactly what the other has."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        other = Atoms(atoms)
        other.calc = pairs()
        own, more = self.results, (other.get_potential_energy(), other.get_forces())
        self.results = {name: own[name] + part for name, part in zip(("energy", "forces"), more, strict=True)}


class Repulsion(Calculator):
    """The repulsion of nuclei by Ziegler, Biersack and Littmark (1985), which a factor takes to zero between 1.2 and 2 Å."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        energy, forces = 0.0, np.zeros((len(atoms), 3))
        for i, j, r, vector in zip(*neighbor_list("ijdD", atoms, 2.0), strict=True):
            a, b = atoms.numbers[i], atoms.numbers[j]
            length = 0.46850 / (a**0.23 + b**0.23)
            screen, slope = (sum(c * (-e / length) ** k * np.exp(-e * r / length) for c, e in ZBL) for k in (0, 1))
            pair = 14.399645 * a * b / r * screen
            change = 14.399645 * a * b / r * slope - pair / r
            x = np.clip((r - 1.2) / 0.8, 0.0, 1.0)
            taper, fall = 1 - x**3 * (10 - 15 * x + 6 * x**2), -30 * (x * (1 - x)) ** 2 / 0.8
            energy += pair * taper / 2
            forces[i] += (change * taper + pair * fall) * vector / r
        self.results = {"energy": energy, "forces": forces}


class Stops(Rounded):
    """The baseline, which Ctrl-C stops at a label."""

    left = 10**9

    def calculate(self, *args, **kwargs):
        Stops.left -= 1
        if Stops.left == 0:
            raise KeyboardInterrupt
        super().calculate(*args, **kwargs)


class Refuses(Rounded):
    """The baseline, which fails on the chunk around one atom."""

    def calculate(self, atoms=None, *args, **kwargs):
        if str(atoms.info.get("target_atom")) == Path("fails").read_text():
            raise RuntimeError("no forces here")
        super().calculate(atoms, *args, **kwargs)


def both_cells(parent=Both):
    images = cells()
    for image in images:
        image.calc = parent()
        image.get_forces()
    return images


def events(label="al"):
    return [json.loads(line) for line in Path(f"{label}-training/saved-info/journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["paper", "robust"])
def test_the_members_are_those_of_a_run_on_the_labels_without_it(method):
    """Sum rule, bit by bit: images, chunks, test and bounds of a sum with one part as baseline are those of the other part."""
    settings = {"method": method, "max_iterations": 1, "target_image": pt55(), "cutoff": 5.0}
    if method == "robust":
        settings |= {"threshold": None, "test_labels": 3, "larger_labels": 1}
    plain, _ = run(label="plain", parent_calc=Rest(), images=both_cells(Rest), **settings)
    delta, _ = run(label="delta", parent_calc=Both(), images=both_cells(), baseline=pairs(), **settings)
    for one, other in zip(plain.history, delta.history, strict=True):
        assert one.delta_max == other.delta_max
    for one, other in zip(read_ensemble("plain.ensemble"), read_ensemble("delta.ensemble"), strict=True):
        assert write_amp(one) == write_amp(replace(other, nft={k: value for k, value in other.nft.items() if k != "baseline"}))
    target = pt55()
    alone, sums = EnsembleCalculator("best.plain.ensemble"), EnsembleCalculator("best.delta.ensemble", baseline=pairs())
    forces, both = alone.get_property("forces", target), sums.get_property("forces", target)
    np.testing.assert_array_equal(alone.results["forces_uncertainty"], sums.results["forces_uncertainty"])
    target.calc = pairs()
    np.testing.assert_array_equal(both, forces + target.get_forces())
    assert plain.verdict.as_dict() == delta.verdict.as_dict()


def test_every_file_that_a_user_loads_is_marked_and_labels_are_those_of_the_parent():
    run(parent_calc=Both(), images=both_cells(), baseline=pairs(), max_iterations=1)
    for path in Path().glob("*.ensemble"):
        with pytest.raises(NotImplementedError):
            BootStrap(load=str(path), log=Logger(None))
        with pytest.raises(InputError, match="adds to the baseline it was trained with, Rounded"):
            EnsembleCalculator(path)
    members = list(Path("al-training").rglob("*.amp"))
    assert len(members) == N
    for member in members:
        with pytest.raises(NotImplementedError):
            Amp.load(str(member), logging=False)
    assert read_card("best.al.ensemble")["baseline"]["calculator"] == "test_baseline_run.Rounded"
    for chunk in read("al-training/saved-info/atomic_chunks.traj", ":"):
        again = chunk.copy()
        again.calc = Both()
        np.testing.assert_allclose(again.get_forces(), chunk.get_forces(), atol=1e-12)
    write_labels("al-training", "exported")
    (first, *_) = read("exported/train.extxyz", ":")
    np.testing.assert_allclose(first.arrays["REF_forces"], both_cells()[0].get_forces(), atol=1e-7)
    assert "a baseline; here are the parent's own energies and forces" in Path("exported/README.md").read_text()


def test_the_report_compares_sums_with_the_truth():
    run(parent_calc=Both(), images=both_cells(), baseline=pairs(), max_iterations=1)
    target = cluster()
    target.calc = Both()
    found, history = target.get_forces(), read_run("al-training")
    checks = check(history, found)
    calc = EnsembleCalculator("best.al.ensemble", baseline=pairs())
    np.testing.assert_allclose(checks.target.predicted, calc.get_property("forces", target), atol=1e-10)
    np.testing.assert_array_equal(checks.target.known, found)
    target.calc = SinglePointCalculator(target, energy=target.get_potential_energy(), forces=found)
    table = evaluate("best.al.ensemble", [target], baseline=pairs())
    assert table.errors("forces").max == pytest.approx(np.abs(checks.target.predicted - found).max(), abs=1e-10)
    for chunk in checks.trained.known:
        assert np.isfinite(chunk).all()
    assert len(checks.trained) and checks.trained.errors.max() < 0.2 * np.abs(found).max()


@pytest.mark.parametrize("place", [3, 8, 10])
def test_a_stopped_run_resumes_to_the_same_bytes(place):
    calculator = Stops(sigma=2.5, epsilon=0.2, rc=4.5, ro=3.5, smooth=True)
    settings = {"parent_calc": Both(), "images": both_cells(), "baseline": calculator, "max_iterations": 2}
    Stops.left = 10**9
    run(label="whole", **settings)
    Stops.left = place
    with pytest.raises(KeyboardInterrupt):
        run(**settings)
    run(**settings | {"max_iterations": 1})
    run(**settings)
    whole = {name.replace("whole", "al"): data for name, data in results("whole", cards=False).items()}
    assert results(cards=False) == whole
    first = sum(event["event"] == "baseline-labels" for event in events())
    run(**settings)
    assert sum(event["event"] == "baseline-labels" for event in events()) == first, "a finished label is made again"


def test_a_run_resumes_with_its_own_baseline_alone():
    settings = {"parent_calc": Both(), "images": both_cells(), "max_iterations": 0}
    run(baseline=pairs(), **settings)
    for other in (None, pairs(2.6)):
        with pytest.raises(RunStoreError, match="baseline: was"):
            run(baseline=other, **settings)
    run(label="plain", **settings)
    with pytest.raises(RunStoreError, match="baseline: was None, is"):
        run(label="plain", baseline=pairs(), **settings)


def test_a_baseline_whose_numbers_changed_does_not_resume(monkeypatch):
    settings = {"parent_calc": Both(), "images": both_cells(), "max_iterations": 0, "baseline": Stops(rc=4.5)}
    run(**settings)
    before = Stops.calculate

    def other(self, *args, **kwargs):
        before(self, *args, **kwargs)
        self.results = {**self.results, "forces": 1.01 * self.results["forces"]}

    monkeypatch.setattr(Stops, "calculate", other)
    with pytest.raises(RunStoreError, match=r"gives other forces on Pt.* than in the run that is resumed"):
        run(**settings)


def test_a_chunk_that_the_baseline_cannot_label_is_replaced():
    run(label="first", parent_calc=Both(), images=both_cells(), baseline=pairs(), max_iterations=1)
    (chosen,) = (event["atoms"] for event in events("first") if event["event"] == "chosen")
    Path("fails").write_text(str(chosen[0]))
    run(parent_calc=Both(), images=both_cells(), baseline=Refuses(sigma=2.5, epsilon=0.2, rc=4.5, ro=3.5, smooth=True), max_iterations=1)
    (added,) = (event for event in events() if event["event"] == "added")
    assert added["failed"] == [chosen[0]] and len(added["atoms"]) == len(chosen)
    (failure,) = (event for event in events() if event["event"] == "label-failed")
    assert failure["kind"] == "BaselineFailed" and "no forces here" in failure["message"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"baseline": EMT()}, "baseline = EMT is the parent itself"),
        ({"baseline": LennardJones}, r"is the class LennardJones: give an instance"),
        ({"baseline": pairs(), "correction": pairs()}, "correction and baseline = Rounded are both given"),
        ({"baseline": pairs(), "load": "plain.ensemble"}, "load was trained with no baseline, and this run has the baseline Rounded"),
        ({"load": "delta.ensemble"}, "load was trained with the baseline Rounded"),
        ({"baseline": lambda directory: SumCalculator([])}, "cannot be made"),
    ],
)
def test_a_wrong_baseline_is_an_error_before_any_work(changes, text):
    if "load" in changes:
        run(label=changes["load"].partition(".")[0], max_iterations=0, **({} if "baseline" in changes else {"baseline": pairs()}))
    with pytest.raises((InputError, ValueError), match=text):
        run(label="new", **changes)
    assert not Path("new-training").exists()


def test_training_starts_from_members_of_the_same_baseline():
    run(label="first", baseline=pairs(), max_iterations=0)
    al, _ = run(label="second", baseline=pairs(), load="first.ensemble", max_iterations=0)
    assert all(report.converged for report in al.history[0].reports)
    assert read_ensemble("second.ensemble")[0].nft["baseline"] == read_ensemble("first.ensemble")[0].nft["baseline"]


@pytest.mark.parametrize("method", ["paper", "robust"])
def test_refinement_explores_with_the_sums(method):
    from small_runs import CALC_TEXT

    from amp.nft.activelearner import NFT

    al = NFT(method=method, stop_delta=1e-6, max_iterations=1, log="log.txt", threshold=-0.9 if method == "paper" else None)
    settings = {} if method == "paper" else {"limit": 1e-3, "test_labels": 3, "larger_labels": 0}
    _, after = refine(
        al, both_cells(), pt55(), rounds=1, k=3, explore=Relaxation(steps=10), n=3, calc_text=CALC_TEXT, start_command="python run.py",
        cutoff=5.0, parent_calc=Both(), baseline=pairs(), band=(0.5, 3.0), **settings,
    )  # fmt: skip
    assert after.chunks == 3 and after.ensemble.name == "best.al-refined-1.ensemble"
    atoms = pt55()
    atoms.calc = EnsembleCalculator(after.ensemble, baseline=pairs())
    true = pt55()
    true.calc = Both()
    assert np.abs(atoms.get_forces() - true.get_forces()).mean() < 0.3 * np.abs(true.get_forces()).mean()


def test_two_atoms_that_are_pressed_together_repel_each_other():
    """No image has atoms that near: the members alone do not know, and those on a baseline add to its repulsion."""
    run(label="plain", max_iterations=1)
    run(label="delta", max_iterations=1, baseline=Repulsion())
    distances, force = np.linspace(0.6, 1.6, 11), {}
    for name, baseline in (("plain", None), ("delta", Repulsion())):
        calc = EnsembleCalculator(f"best.{name}.ensemble", baseline=baseline)
        atoms = [Atoms("Pt2", [[0, 0, 0], [r, 0, 0]]) for r in distances]
        force[name] = np.array([calc.get_property("forces", one)[1, 0] for one in atoms])
        inside = pt55()
        axis = inside.positions[1] - inside.positions[0]
        inside.positions[1] = inside.positions[0] + 1.2 * axis / np.linalg.norm(axis)
        force[name] = np.append(force[name], calc.get_property("forces", inside)[1] @ axis / np.linalg.norm(axis))
    assert (force["delta"] > 10.0).all()
    assert (force["plain"] < 10.0).any()
    pair = bulk("Pt", cubic=True)
    pair.rattle(0.1, seed=0)
    pair.calc = Repulsion()
    assert not pair.get_forces().any() and atomic_numbers["Pt"] == 78  # the labels do not change


def test_a_run_without_baseline_has_no_trace_of_one():
    run(max_iterations=0)
    assert not [event for event in events() if "baseline" in json.dumps(event)]
    assert not any("baseline" in text for text in read_texts("best.al.ensemble"))
