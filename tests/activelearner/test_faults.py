"""Runs that are killed, stopped, starved and damaged: nothing that was finished is lost, and the end is the same."""

import json
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from forked import PIPE, Script
from parents import parent
from small_runs import N, cluster, results, run
from waiting import PATIENCE, wait_for

from amp.nft.run.store import RunStoreError

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS.parent / "benchmarks"))
import faults  # noqa: E402 - the table in the documentation is made with it


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def journal(label="al"):
    path = Path(f"{label}-training/saved-info/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def renamed(found):
    """Results of a run labelled b under the names of one labelled al."""
    return {name.replace("b.", "al.").replace("b-", "al-"): data for name, data in found.items()}


# -- killed and stopped --------------------------------------------------------------------------------------


def assert_nothing_lost(tally, strikes):
    assert not tally.complaints
    assert tally.strikes >= strikes
    assert tally.identical == tally.runs
    assert tally.labels_twice == tally.trainings_twice == 0


QUICK = [(faults.kill_at_random, 0), (faults.kill_worker, 2)]


@pytest.mark.parametrize(("strike", "workers"), QUICK)
def test_a_few_faults(strike, workers):
    assert_nothing_lost(faults.strike_often(strike, 3, workers), 3)


@pytest.mark.slow
@pytest.mark.parametrize(("strike", "workers", "trainer"), faults.FAULTS)
def test_many_faults(strike, workers, trainer):
    strikes = 8 if trainer == "batched" else 2
    assert_nothing_lost(faults.strike_often(strike, strikes, workers, trainer, seed=1), strikes)


def test_where_labels_are_made_makes_no_difference():
    run(parent_calc=parent())
    here = results()
    run(label="b", parent_calc=parent(), executor=partial(ProcessPoolExecutor, 2), threads=2)
    assert renamed(results("b")) == here


DRIVER = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
sys.path[:0] = [{str(TESTS)!r}, {os.path.dirname(__file__)!r}]
from small_runs import run
from test_faults import *
import amp.nft.system.signals as signals
signals.PATIENCE, signals.GRACE = 2.0, 60.0
"""


def start(script):
    return Script(DRIVER + script, stderr=PIPE)


HANGING = {
    "a label here": "run(log='log.txt', parent_calc=parent(what='hang', atoms=range(99), once='{once}'))",
    "labels in processes": (
        "pool = ProcessPoolExecutor(2)\n"
        "with pool: run(log='log.txt', executor=pool, parent_calc=parent(what='hang', atoms=range(99), once='{once}'))"
    ),
    "labels in threads": (
        "with ThreadPoolExecutor(2) as threads:\n"
        "    run(log='log.txt', executor=threads, parent_calc=parent(what='hang', atoms=range(99), once='{once}'))"
    ),
    "compiled code": "run(log='log.txt', parent_calc=endless)",
}


def endless(directory):
    """Return a parent that does not come back from compiled code, as a long fit might not."""
    from numba import njit

    @njit(nogil=True)
    def spin(number):
        while number != 0:
            number += 2 if number > 0 else 0
        return number

    spin(0)
    Path("once").touch()
    spin(1)
    return EMT()


STOPS = [
    (signal.SIGTERM, "a label here"),
    pytest.param(signal.SIGTERM, "labels in processes", marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, "labels in threads", marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, "compiled code", marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, "a label here", marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, "labels in processes", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "where"), STOPS)
def test_a_run_that_is_told_to_stop_stops_and_says_how_to_go_on(where, number, tmp_path):
    once = tmp_path / "once"
    driver = start(HANGING[where].format(once=once))
    wait_for(once.exists, driver)
    driver.send_signal(number)
    errors = driver.communicate(timeout=PATIENCE)[1]
    assert driver.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), errors
    assert (journal()[-1]["event"], journal()[-1]["signal"]) == ("interrupted", number.name)
    assert f"Stopped by {number.name}. Finished work is saved: rerun the same script" in Path("log.txt").read_text()
    al, _ = run(accept_parent=True)
    assert len(al.history) == 3


@pytest.mark.slow
def test_workers_that_are_ended_do_not_end_their_driver(tmp_path):
    """A pool that breaks sends SIGTERM to its other workers."""
    killer = f"parent(what='kill', atoms=range(99), once={str(tmp_path / 'once')!r}, seconds=1.0)"
    driver = start(f"run(parent_calc={killer}, executor=partial(ProcessPoolExecutor, 2))")
    errors = driver.communicate(timeout=PATIENCE)[1]
    assert driver.returncode == 0, errors
    assert "stopped" in {event["event"] for event in journal()}


def test_a_run_that_is_told_to_stop_before_it_has_begun_can_begin():
    """Its journal is empty then, and stays so."""
    script = """
import amp.nft.activelearner.loop as loop
loop.Loop.open = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
run(max_iterations=0)
"""
    assert start(script).wait(PATIENCE) == 143
    assert journal() == []
    al, _ = run(max_iterations=0)
    assert len(al.history) == 1


# -- damaged -------------------------------------------------------------------------------------------------


def test_files_that_are_derived_are_made_again():
    run()
    whole = results()
    for number, name in enumerate(sorted(whole)):
        data = Path(name).read_bytes()
        Path(name).write_bytes(data[: len(data) // 2]) if number % 2 else Path(name).unlink()
    run()
    assert results() == whole


def test_content_that_is_damaged_is_named():
    run(max_iterations=1)
    label = next(event for event in journal() if event["event"] == "label")
    path = Path("al-training/saved-info/content", label["file"])
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    with pytest.raises(RunStoreError, match=f"{label['file']} is damaged"):
        run(max_iterations=1)
    path.write_bytes(data)
    run(max_iterations=1)


def test_a_truncated_ensemble_is_refused_before_any_work():
    run(max_iterations=0)
    text = Path("best.al.ensemble").read_text()
    Path("cut.ensemble").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"cut\.ensemble"):
        run(label="b", load="cut.ensemble")
    assert not Path("b-training").exists()


@pytest.mark.parametrize(("step", "last"), [("_grow", "evaluated"), ("_leave_training_directory", "stopped")])
def test_a_disk_that_fills_up_in_the_middle(step, last):
    """The next run, with free space, resumes where this one stopped."""
    script = f"""
import resource
from amp.nft.activelearner.loop import Loop
step = Loop.{step}
def full(self, *what):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    return step(self, *what)
Loop.{step} = full
run()
"""
    driver = start(script)
    errors = driver.communicate(timeout=PATIENCE)[1]
    assert driver.returncode == 1
    assert "cannot be written (File too large)" in errors and "free space" in errors
    before = journal()
    assert before[-1]["event"] == last
    al, _ = run()
    assert len(al.history) == 3 and journal()[: len(before)] == before


# -- failures of labels ----------------------------------------------------------------------------------------


def test_failures_are_retried_recorded_replaced_and_tried_again_by_the_next_run():
    run(max_iterations=1)
    chosen = [int(atom) for atom in np.load("al-training/saved-info/indices_0.npy")]
    log = Path("b.txt")
    bad = parent(what="raise", atoms=chosen[:2])
    run(label="b", max_iterations=1, parent_calc=bad, label_retries=2, log=str(log))
    events = journal("b")
    retried = [event["atom"] for event in events if event["event"] == "label-retried"]
    failed = [event["atom"] for event in events if event["event"] == "label-failed"]
    assert sorted(retried) == sorted(2 * chosen[:2]) and sorted(failed) == chosen[:2]
    assert f"No label around atom {chosen[0]}: RuntimeError: SCF failed" in log.read_text()
    added = next(event for event in events if event["event"] == "added")
    assert len(added["atoms"]) == len(chosen) and not set(added["atoms"]) & set(chosen[:2])
    run(label="b", max_iterations=3, threshold=None, parent_calc=parent(), accept_parent=True)
    assert len([event for event in journal("b") if event["event"] == "label-failed"]) == 2


def test_a_worker_that_exits_costs_the_run_nothing():
    run(parent_calc=parent())
    whole = results(cards=False)
    killer = parent(what="kill", atoms=range(99), once=os.path.abspath("once"))
    run(label="b", parent_calc=killer, executor=partial(ProcessPoolExecutor, 2))
    assert renamed(results("b", cards=False)) == whole
    assert [event["kind"] for event in journal("b") if event["event"] == "label-retried"] in ([], ["WorkerDied"])


# -- several targets -------------------------------------------------------------------------------------------


def test_several_targets_are_learned_together():
    first, second = cluster(), bulk("Pt", cubic=True) * (2, 1, 1)
    second.rattle(0.3, seed=3)
    al, _ = run(target_image=[first, second], max_iterations=3, threshold=-0.5)
    deltas = np.load("al-training/saved-info/deltas.npy")
    assert deltas.shape == (4, len(first) + len(second))
    for entry, delta in zip(al.history, deltas, strict=True):
        assert entry.structures == (delta[: len(first)].max(), delta[len(first) :].max())
        assert entry.delta_max == max(entry.structures)
        assert len(entry.reports) == N
    for chunk in read("al-training/saved-info/atomic_chunks.traj", ":"):
        target = [first, second][chunk.info["target_image"]]
        assert 0 <= chunk.info["target_atom"] < len(target)
        free = chunk.copy()
        free.calc = EMT()
        np.testing.assert_allclose(chunk.get_forces(), free.get_forces(), atol=1e-12)
    chosen = np.concatenate([np.load(f"al-training/saved-info/indices_{k}.npy") for k in range(3)])
    assert (chosen >= len(first)).any() and (chosen < len(first)).any()  # half of all atoms is more than the second has
    again = results()
    run(target_image=[first, second], max_iterations=3, threshold=-0.5)
    assert results() == again


def test_one_target_in_a_list_is_that_target():
    run(max_iterations=1)
    whole = results()
    run(label="b", target_image=[cluster()], max_iterations=1)
    assert renamed(results("b")) == whole
