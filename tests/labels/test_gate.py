"""The gate for labels: a label of other atoms, a result that is not a number, and a parent that did not converge are failures."""

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read
from label_helpers import assert_good, images, label_all
from parents import CHANGES, RESULTS, Changing, changing, parent
from small_runs import run

from amp.nft.labels.gate import Label, LabelFailure, check, printable
from amp.nft.labels.identity import digest_of, identify
from amp.nft.labels.single_point import LabelTask, carry_out, measure, single_point
from amp.nft.run.store import RunStore


@pytest.fixture
def image():
    atoms = images(1)[0]
    atoms.positions[1] += atoms.cell[0]  # outside of the cell, where a parent may wrap it
    return atoms


@pytest.mark.parametrize("way", CHANGES)
def test_a_parent_that_changes_the_atoms_has_failed(image, way):
    before = image.copy()
    failure = single_point(Changing(way), image, ".")
    assert isinstance(failure, LabelFailure) and "after the call" in failure.message, failure
    assert "turn sorting, wrapping and relaxation off" in failure.message
    assert image == before


@pytest.mark.parametrize("way", RESULTS)
def test_a_result_that_is_not_a_finite_real_number_of_the_right_shape_has_failed(image, way):
    failure = single_point(Changing(way), image, ".")
    assert isinstance(failure, LabelFailure) and failure.kind == "BadLabel", failure
    assert RESULTS[way][0] in failure.message.replace("force component", "forces")


@pytest.mark.parametrize("number", [np.float32, np.longdouble, np.float64, lambda x: np.array([x]), lambda x: np.array(x)])
def test_every_real_number_is_an_energy(image, number, monkeypatch):
    monkeypatch.setitem(RESULTS, "number", ("energy", number))
    label = single_point(Changing("number"), image, ".")
    assert isinstance(label, Label) and type(label.energy) is float, label


NO = [False, np.False_, 0, np.array(False), np.array([False]), np.array([[0]]), lambda: False, lambda: np.array([False])]
OTHER = ["no", 2, 0.0, [True, False], np.zeros(0, bool), np.array([False, False]), {}]


def fail():
    raise ValueError("no log file")


@pytest.mark.parametrize("converged", NO, ids=repr)
def test_a_parent_that_did_not_converge_has_failed(image, converged):
    failure = single_point(lambda directory: Changing(converged=converged), image, ".")
    assert "reports that it did not converge" in str(failure)


@pytest.mark.parametrize("converged", OTHER, ids=repr)
def test_a_convergence_of_another_kind_has_failed(image, converged):
    failure = single_point(lambda directory: Changing(converged=converged), image, ".")
    assert isinstance(failure, LabelFailure) and "it must be True, False or None" in failure.message


@pytest.mark.parametrize("converged", [None, True, np.True_, 1, np.array(True), np.array([True]), lambda: None, lambda steps: 0], ids=repr)
def test_a_parent_that_converged_or_does_not_say_is_good(image, converged):
    assert isinstance(single_point(lambda directory: Changing(converged=converged), image, "."), Label)


def test_a_convergence_that_raises_has_failed(image):
    failure = single_point(lambda directory: Changing(converged=fail), image, ".")
    assert (failure.kind, failure.message) == ("ValueError", "no log file")


@pytest.mark.parametrize(
    "executor", [None, partial(ThreadPoolExecutor, 2), partial(ProcessPoolExecutor, 2)], ids=["here", "threads", "processes"]
)
def test_bad_labels_fail_wherever_they_are_made(tmp_path, executor):
    wanted = images(3)
    for way in ("moves", "complex energy"):
        outcomes, retries = label_all(tmp_path / way, wanted, partial(changing, way=way, atoms=[1]), executor)
        assert outcomes[1].kind == "BadLabel" and [atom for atom, *_ in retries] == [1]
        assert_good(outcomes, [wanted[0], wanted[2]])


class Mixed(ThreadPoolExecutor):
    """An executor that answers with the label of another image under the right name."""

    def submit(self, function, task):
        other = task.image.copy()
        other.rattle(0.1, seed=99)
        return super().submit(function, LabelTask(task.name, task.parent, other, task.directory))


def test_an_executor_that_mixes_labels_is_found_out(tmp_path):
    with Mixed(1) as mixed:
        outcomes, _ = label_all(tmp_path, images(1), EMT(), mixed)
    assert "before the call the positions differ" in str(outcomes[0])


@pytest.mark.parametrize("field", ["atoms", "energy", "forces", "converged", "seconds"])
@pytest.mark.parametrize("value", [None, 1.0, "text", [], {}, {"values": {}, "type": "dict"}, {"after the call": None}, ...], ids=repr)
def test_any_data_gives_a_label_or_a_failure(image, field, value):
    data = measure(EMT(), image, ".")
    data = {**data, field: value} if value is not ... else {key: data[key] for key in data if key != field}
    outcome = check(image, data)
    assert isinstance(outcome, LabelFailure) or (field, value) in [("converged", None), ("seconds", 1.0)], outcome


@pytest.mark.parametrize("data", [None, 3, "text", [], {}, {"kind": 1}, {"kind": "a", "message": None, "traceback": b""}], ids=repr)
def test_what_is_not_a_label_is_a_failure(image, data):
    assert isinstance(check(image, data), LabelFailure)


def test_messages_of_parents_do_not_change_a_terminal(image):
    failure = check(image, {"kind": "Error", "message": "\x1b[2J\x1b]0;title\x07gone\r\x9b1m", "traceback": "line 1\nline 2\x00"})
    assert printable(str(failure)) == str(failure) and failure.traceback == "line 1\nline 2?"


@pytest.mark.parametrize(
    ("field", "value"),
    [("energy", {"type": "float64", "values": float("nan")}), ("forces", None), ("converged", {"type": "bool", "values": 0})],
)
def test_a_bad_label_that_a_worker_left_is_dropped_and_made_again(tmp_path, field, value):
    image = images(1)[0]
    left = tmp_path / "labels" / "0-before"
    carry_out(LabelTask("0-before", EMT(), image, str(left), parent_digest=digest_of(identify(EMT()))))
    data = json.loads((left / "label.json").read_text())
    (left / "label.json").write_text(json.dumps(data | {field: value}))
    said = []
    outcomes, retries = label_all(tmp_path, [image], EMT(), None, log=said.append)
    assert_good(outcomes, [image])
    assert not retries and "is dropped and made again: BadLabel" in said[0]


def assert_chunks_are_emts():
    for chunk in read("al-training/saved-info/atomic_chunks.traj", ":"):
        forces = chunk.get_forces()
        chunk.calc = EMT()
        np.testing.assert_array_equal(forces, chunk.get_forces())


def test_a_run_replaces_bad_labels_and_trains_on_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(max_iterations=1)
    chosen = [int(atom) for atom in np.load("al-training/saved-info/indices_0.npy")]
    run(label="b", max_iterations=1, parent_calc=partial(changing, way="relaxes", atoms=chosen[:1]), log="log.txt")
    added = [int(chunk.info["target_atom"]) for chunk in read("b-training/saved-info/atomic_chunks.traj", ":")]
    assert len(added) == len(chosen) and chosen[0] not in added
    assert f"No label around atom {chosen[0]}: BadLabel: in the calculator after the call" in Path("log.txt").read_text()


def again(store, event, **changes):
    """Append an event as it was, but for some fields."""
    store.append(event["event"], **{key: value for key, value in event.items() if key not in ("event", "time")} | changes)


def confuse_labels(store):
    """Give the first label of a finished run the content of the second; returns both."""
    again(store, next(event for event in store.events if event["event"] == "start"))
    first, second = [event for event in store.events if event["event"] == "label"][:2]
    again(store, first, file=second["file"])
    return first, second


def test_a_bad_label_in_the_journal_is_dropped_and_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(max_iterations=1, parent_calc=parent())
    with RunStore("al-training/saved-info") as store:
        first, second = confuse_labels(store)
    run(max_iterations=2, parent_calc=parent(), log="log.txt")
    said = Path("log.txt").read_text()
    assert f"The stored label of chunk {first['atom']} ({second['file']}) is dropped and made again: BadLabel" in said
    assert "Labelling 1 chunks of the training set again." in said
    assert_chunks_are_emts()
    run(max_iterations=2, parent_calc=parent(), log="again.txt")
    assert "dropped" not in Path("again.txt").read_text()


def test_an_atom_whose_label_cannot_be_made_again_leaves_the_training_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(max_iterations=1)
    with RunStore("al-training/saved-info") as store:
        first, _ = confuse_labels(store)
    al, _ = run(max_iterations=2, parent_calc=parent(what="raise", atoms=[first["atom"]]), accept_parent=True)
    chunks = read("al-training/saved-info/atomic_chunks.traj", ":")
    assert len(al.history) == 3 and first["atom"] not in [chunk.info["target_atom"] for chunk in chunks]
