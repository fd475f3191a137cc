"""Limits of one start: labels and iterations of the run, hours of the start; the next start continues."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.calculators.emt import EMT
from small_runs import run

from amp.nft.activelearner import limits
from amp.nft.activelearner.refine_chunks import digest_of_members
from amp.nft.errors import InputError
from amp.nft.report import report
from amp.nft.run.status import read_status
from amp.nft.run.store import RunRecord


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def events():
    path = Path("al-training/saved-info/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def labels():
    return [event["atom"] for event in events() if event["event"] == "label"]


def test_a_batch_is_cut_where_the_labels_end_and_the_next_start_continues():
    al, converged = run(max_iterations=4, until={"labels": 4})
    assert not converged
    assert al.stop_reason.name == "until"
    assert "4 labels are made, the limit of this start (labels = 4)" in str(al.stop_reason)
    assert [entry.n_chunks for entry in al.history] == [0, 3, 4]
    assert len(labels()) == 4
    again, _ = run(max_iterations=4, until={"labels": 4})
    assert (again.history, again.stop_reason.name, len(labels())) == (al.history, "until", 4)
    more, _ = run(max_iterations=3)
    assert more.history[:3] == al.history
    assert more.stop_reason.name == "max_iterations"
    assert len(set(labels())) == len(labels()) > 4


def test_a_cut_batch_has_the_most_uncertain_atoms():
    run(max_iterations=1, label="all", threshold=-0.5)
    run(max_iterations=1, label="some", threshold=-0.5, until={"labels": 2})
    chosen = {}
    for name in ("all", "some"):
        journal = Path(f"{name}-training/saved-info/journal.jsonl").read_text().splitlines()
        chosen[name] = next(event["atoms"] for event in map(json.loads, journal) if event["event"] == "chosen")
    assert len(chosen["some"]) == 2
    assert set(chosen["some"]) < set(chosen["all"])


def test_labels_of_the_test_are_counted():
    al, _ = run(
        method="robust", threshold=None, termination="sphere", until={"labels": 8}, test_labels=3, larger_labels=1, max_iterations=4
    )
    larger = [event for event in events() if event["event"] == "larger-label"]
    assert len(labels()) + len(larger) == 8
    assert al.verdict is not None and al.verdict.n_test == 3
    assert "labels are made or kept for the test" in str(al.stop_reason)


def test_iterations_and_hours():
    al, _ = run(until={"iterations": 0})
    assert "0 retrainings are done, the limit of this start (iterations = 0)" in str(al.stop_reason)
    al, _ = run(until={"hours": 1e-9, "iterations": 4.0})
    assert al.history[-1].iteration == 0
    assert "this start has run" in str(al.stop_reason)
    al, _ = run(until={"hours": 1.0, "iterations": 1})
    assert al.history[-1].iteration == 1


class Slow(EMT):
    """EMT whose label of the second chunk takes an hour of the clock of limits, in no time."""

    late = 0.0
    calls = 0

    def calculate(self, *args, **kwargs):
        type(self).calls += 1
        type(self).late += 3600.0 * (type(self).calls == 2)
        super().calculate(*args, **kwargs)


def test_no_label_begins_after_the_hours_and_the_next_start_continues_the_batch(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + Slow.late)
    run(max_iterations=2, label="whole")
    monkeypatch.setattr(limits, "time", clock)
    cut, converged = run(max_iterations=2, until={"hours": 0.9}, parent_calc=Slow(), check_parent=False)
    assert not converged and cut.stop_reason.name == "until" and "this start has run 1 h" in str(cut.stop_reason)
    assert str(cut.stop_reason).endswith("Start again to continue.")  # hours begin again
    assert len(cut.history) == 1 and len(labels()) == 2
    again, _ = run(max_iterations=2, until={"hours": 0.9}, parent_calc=Slow(), check_parent=False)
    assert len(set(labels())) == len(labels()) > 3 and again.stop_reason.name == "max_iterations"
    np.testing.assert_array_equal(np.load("al-training/saved-info/deltas.npy"), np.load("whole-training/saved-info/deltas.npy"))


@pytest.mark.parametrize("nth", [1, 3])
def test_the_first_batch_of_a_run_without_images_is_cut_and_continued(nth, monkeypatch):
    settings = {"method": "robust", "images": None, "test_labels": 0, "larger_labels": 0, "max_iterations": 0}
    run(label="whole", **settings)
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0 * (len(labels()) >= nth)))
    cut, converged = run(until={"hours": 0.9}, log="log.txt", **settings)
    assert not converged and cut.stop_reason.name == "until" and not cut.history and len(labels()) == nth
    assert str(cut.verdict) == "UNKNOWN: no ensemble is trained yet: start again." and not Path("best.al.ensemble").exists()
    assert "Start again to continue" in Path("log.txt").read_text()
    assert report("al-training").grade == "none" and read_status("al-training").phase == "finished"
    again, _ = run(**settings)
    assert len(set(labels())) == len(labels()) > 3 and again.stop_reason.name == "max_iterations"
    assert digest_of_members("best.al.ensemble") == digest_of_members("best.whole.ensemble")


@pytest.mark.parametrize("done", [0, 2, 5])
def test_labels_of_the_test_are_cut_and_continued(done, monkeypatch):
    settings = {"max_iterations": 1, "test_labels": 4, "larger_labels": 2}
    whole, _ = run(label="whole", **settings)
    known = [event["event"] for event in RunRecord("whole-training/saved-info").events]
    first = known[: known.index("test-chosen")].count("label")

    def late():
        return sum(event["event"] in ("label", "larger-label") for event in events()) >= first + done

    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0 * late()))
    cut, _ = run(until={"hours": 0.9}, **settings)
    made = [event for event in events() if event["event"] in ("label", "larger-label")]
    assert cut.stop_reason.name == "until" and len(made) == first + done and len(cut.history) == 2
    assert "not tested: its labels are not finished; start again" in str(cut.verdict) and Path("best.al.ensemble").exists()
    again, _ = run(**settings)
    assert str(again.verdict) == str(whole.verdict) and again.stop_reason.name == "max_iterations"
    made = [(event["event"], event["atom"]) for event in events() if event["event"] in ("label", "larger-label")]
    assert len(set(made)) == len(made) == first + 6


def test_labels_of_a_pool_that_run_are_finished_and_others_do_not_begin(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0 * (len(labels()) > 0))
    monkeypatch.setattr(limits, "time", clock)
    with ThreadPoolExecutor(1) as executor:
        cut, _ = run(threshold=-0.1, max_iterations=1, until={"hours": 0.9}, executor=executor)
    chosen = next(event["atoms"] for event in events() if event["event"] == "chosen")
    assert cut.stop_reason.name == "until" and 1 <= len(labels()) < len(chosen)
    done, _ = run(threshold=-0.1, max_iterations=1)
    assert done.stop_reason.name == "max_iterations" and sorted(labels()) == sorted(chosen)


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ({"label": 3}, "until has 'label', which is not known; did you mean labels?"),
        ({"labels": -1}, r"until\['labels'\] is -1: it must be an integer, at least 0"),
        ({"labels": 2.5}, r"until\['labels'\] is 2.5: it must be an integer"),
        ({"hours": 0}, r"until\['hours'\] is 0: it must be above 0"),
        ("labels=3", "until is 'labels=3': it must be a dictionary"),
    ],
)
def test_other_limits_are_refused_before_any_work(until, text):
    with pytest.raises(InputError, match=text):
        run(until=until)
    assert not Path("al-training").exists()
