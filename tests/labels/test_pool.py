"""Labels through executors that a user may bring, and workers that fail, hang and exit."""

import multiprocessing
import os
import signal
import subprocess
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from forked import PIPE, Script
from label_helpers import NOTICE, assert_good, images, label_all
from parents import parent
from special_files import SPECIAL, put
from waiting import wait_for

from amp.nft.labels import pool as labelpool
from amp.nft.labels.executors import ExecutorError, check_executor
from amp.nft.labels.identity import digest_of, identify
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import LabelFailure, LabelTask, carry_out
from amp.nft.records import LabelOptions
from amp.nft.system.liveness import Heartbeat, Watched, read_process
from amp.nft.system.processes import Process, machine, process_of, runs, this_process

TESTS = str(Path(__file__).parents[1])


@pytest.fixture(params=["here", "threads", "fork", "factory"])
def executor(request):
    """Every kind that the standard library has."""
    if request.param == "here":
        yield None
    elif request.param == "factory":
        yield partial(ProcessPoolExecutor, 2)
    else:
        kinds = {
            "threads": ThreadPoolExecutor,
            "fork": partial(ProcessPoolExecutor, mp_context=_context("fork")),
        }
        with kinds[request.param](2) as executor:
            yield executor


_context = multiprocessing.get_context


@pytest.fixture(params=["instance", "factory"])
def processes(request):
    """Process pools, which break when a worker exits."""
    if request.param == "factory":
        yield partial(ProcessPoolExecutor, 2)
    else:
        with ProcessPoolExecutor(2) as pool:
            yield pool


def test_labels_are_the_parents_own_and_leave_nothing_behind(executor, tmp_path):
    wanted = images(5)
    outcomes, retries = label_all(tmp_path, wanted, EMT(), executor)
    assert_good(outcomes, wanted)
    assert not retries and not os.listdir(tmp_path / "labels")


def test_workers_that_import_again(tmp_path):
    wanted = images(3)
    with ProcessPoolExecutor(2, _context("spawn")) as pool:
        assert_good(
            label_all(tmp_path, wanted, parent(what="exit", atoms=[1], once=tmp_path / "once"), pool)[0],
            wanted,
        )


def test_each_attempt_has_a_directory_of_its_own(executor, tmp_path):
    wanted = images(3)
    outcomes, _ = label_all(tmp_path, wanted, parent(what="raise", atoms=[1], once=str(tmp_path / "once")), executor)
    assert_good(outcomes, wanted)
    places = sorted((tmp_path / "labels").iterdir())
    assert [place.name.split("-")[0] for place in places] == ["0", "1", "1", "2"]
    assert all((place / "output.txt").read_text() == str(place) for place in places)


@pytest.mark.parametrize(("what", "says"), [("raise", "RuntimeError: SCF failed"), ("exit", "SystemExit: Fatal error")])
def test_a_parent_that_fails_is_tried_again_and_then_reported(executor, tmp_path, what, says):
    wanted = images(3)
    outcomes, retries = label_all(tmp_path, wanted, parent(what=what, atoms=[1]), executor, retries=2)
    assert_good(outcomes, [wanted[0], wanted[2]])
    assert says in str(outcomes[1])
    assert [atom for atom, *_ in retries] == [1, 1]


def test_labels_come_as_they_are_done(tmp_path):
    with (
        ThreadPoolExecutor(2) as threads,
        LabelPool(LabelOptions(parent(what="pause", atoms=[0]), threads), tmp_path) as pool,
    ):
        for image in images(4):
            pool.request(image.info["target_atom"], image)
        assert [atom for atom, _ in pool.done()][-1] == 0


def test_a_worker_that_exits_costs_only_a_retry(processes, tmp_path):
    wanted = images(5)
    spoiled = parent(what="kill", atoms=[2], once=str(tmp_path / "once"), seconds=0.1)
    begin = time.monotonic()
    outcomes, _ = label_all(tmp_path, wanted, spoiled, processes)
    assert time.monotonic() - begin < NOTICE
    assert_good(outcomes, wanted)


def test_a_label_that_always_kills_its_worker_is_found_out(processes, tmp_path):
    wanted = images(6)
    outcomes, retries = label_all(tmp_path, wanted, parent(what="kill", atoms=[1, 3], seconds=0.1), processes)
    assert {atom for atom, outcome in outcomes.items() if isinstance(outcome, LabelFailure)} == {1, 3}
    assert {outcomes[atom].kind for atom in (1, 3)} == {"WorkerDied"}
    assert_good(outcomes, [wanted[k] for k in (0, 2, 4, 5)])
    assert {atom for atom, *_ in retries} <= {1, 3}


def test_a_label_that_hangs_is_ended(executor, tmp_path, monkeypatch):
    """In the worker where a signal can be had; a thread can only be left behind."""
    if isinstance(executor, ThreadPoolExecutor):
        monkeypatch.setattr(labelpool, "GRACE", 0.5)
        hang = parent(seconds=3.0)
        wanted = images(1)
        outcomes, _ = label_all(tmp_path, wanted, hang, executor, timeout=0.5, retries=0)
        assert outcomes[0].kind == "LabelTimeout"
        return
    wanted = images(3)
    outcomes, _ = label_all(tmp_path, wanted, parent(what="hang", atoms=[1]), executor, timeout=0.5, retries=0)
    assert "LabelTimeout: the label took longer than label_timeout = 0.5 s" in str(outcomes[1])
    assert_good(outcomes, [wanted[0], wanted[2]])


def test_a_long_wait_is_spoken_of(tmp_path, monkeypatch):
    monkeypatch.setattr(labelpool, "REMINDER", 0.3)
    said = []
    with ThreadPoolExecutor(1) as threads:
        label_all(tmp_path, images(2), parent(seconds=0.8), threads, log=said.append)
    assert said[0].startswith("Waiting for labels (no label_timeout): 1 running (longest 0 min), 1 not started.")


def test_a_worker_that_does_not_listen_is_ended_by_the_driver(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(labelpool, "GRACE", 0.5)
    wanted = images(4)
    outcomes, _ = label_all(tmp_path, wanted, deaf, processes, timeout=1.0, retries=0)
    assert {atom: outcome.kind for atom, outcome in outcomes.items() if atom == 1} == {1: "LabelTimeout"}
    assert_good(outcomes, [wanted[k] for k in (0, 2, 3)])


def deaf(directory):
    """Return a parent that hangs around atom 1 with signals blocked, as compiled code does."""
    return parent(what="hang", atoms=[1])(directory) if not _deafen() else None


def _deafen():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])


def test_what_a_worker_left_is_taken_and_not_made_again(tmp_path):
    image = images(1)[0]
    left = tmp_path / "labels" / "0-before"
    spoiled = parent(what="raise", atoms=[0])
    carry_out(LabelTask("0-before", EMT(), image, str(left), parent_digest=digest_of(identify(spoiled))))
    outcomes, _ = label_all(tmp_path, [image], spoiled, None)
    assert_good(outcomes, [image])


def test_the_label_of_another_parent_is_not_taken(tmp_path):
    image = images(1)[0]
    other = digest_of(identify(LennardJones()))
    carry_out(LabelTask("0-before", LennardJones(), image, str(tmp_path / "labels" / "0-before"), parent_digest=other))
    outcomes, _ = label_all(tmp_path, [image], EMT(), None)
    assert_good(outcomes, [image])


def test_what_is_left_of_another_image_is_not_taken(tmp_path):
    image, other = images(2)
    carry_out(LabelTask("0-before", EMT(), other, str(tmp_path / "labels" / "0-before")))
    outcomes, _ = label_all(tmp_path, [image], EMT(), None)
    assert_good(outcomes, [image])
    (tmp_path / "labels" / "0-torn").mkdir(parents=True)
    (tmp_path / "labels" / "0-torn" / "label.json").write_text('{"energy": 1.0, "for')
    assert_good(label_all(tmp_path, [image], EMT(), None)[0], [image])


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("name", ["label.json", "worker.json"])
def test_special_files_in_a_label_directory_neither_hang_nor_fill_the_memory(tmp_path, what, name):
    image, left = images(1)[0], tmp_path / "labels" / "0-before"
    carry_out(LabelTask("0-before", EMT(), image, str(left), parent_digest=digest_of(identify(EMT()))))
    put(what, left / name)
    assert read_process(left / "worker.json") == (None if name == "worker.json" else this_process())
    assert_good(label_all(tmp_path, [image], EMT(), None)[0], [image])


def test_a_nested_label_file_is_dropped(tmp_path):
    image, left = images(1)[0], tmp_path / "labels" / "0-before"
    left.mkdir(parents=True)
    (left / "label.json").write_text(100_000 * "[")
    assert_good(label_all(tmp_path, [image], EMT(), None)[0], [image])


@pytest.mark.parametrize("name", ["0x-copy", "0-before (copy)", "99999999999-before"])
def test_directories_of_other_names_are_ignored(tmp_path, name):
    (tmp_path / "labels" / name).mkdir(parents=True)
    image = images(1)[0]
    assert_good(label_all(tmp_path, [image], EMT(), None)[0], [image])


class Stale(ThreadPoolExecutor):
    """An executor that answers with results of the past, as one that caches calls may."""

    def submit(self, function, task):
        future = Future()
        future.set_result(carry_out(LabelTask("another", task.parent, task.image, task.directory)) | {"energy": 1.0})
        os.unlink(os.path.join(task.directory, "label.json"))
        return future


def test_another_tasks_result_is_not_believed(tmp_path):
    with Stale() as stale:
        outcomes, _ = label_all(tmp_path, images(1), EMT(), stale)
    assert outcomes[0].kind == "WrongResult"


def test_an_executor_that_was_shut_down_is_an_error(tmp_path):
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(ExecutorError, match="takes no more work"):
        label_all(tmp_path, images(1), EMT(), threads)


def die():
    os._exit(1)


def test_workers_that_never_begin_are_an_error_and_not_a_loop(tmp_path):
    with pytest.raises(ExecutorError, match="exit before they begin"):
        label_all(tmp_path, images(2), EMT(), partial(ProcessPoolExecutor, 1, initializer=die))


def test_what_cannot_travel_is_refused_at_once(tmp_path):
    used = EMT()
    atoms = images(1)[0]
    atoms.calc = used
    atoms.get_forces()
    with ProcessPoolExecutor(1) as pool:
        for cargo in (used, lambda directory: EMT()):
            with pytest.raises(TypeError, match=r"cannot be sent to another process .*top level of a module"):
                check_executor(pool, cargo)
        check_executor(pool, EMT())
    check_executor(None, used)
    with pytest.raises(TypeError, match="executor is 4"):
        check_executor(4, EMT())


def test_idle_workers_of_a_killed_driver_end(tmp_path):
    """Nobody else would tell them."""
    code = f"""
import sys, time
sys.path.insert(0, {TESTS!r})
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from label_helpers import images, label_all
from parents import parent
with ProcessPoolExecutor(2) as pool:
    label_all(Path({str(tmp_path)!r}), images(4), parent(seconds=0.2), pool)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""
    driver = Script(code, stdout=PIPE)
    workers = [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]
    assert len(workers) == 2
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    wait_for(lambda: not any(map(runs, workers)))


def test_workers_of_a_killed_driver_end_that_never_had_a_label(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {TESTS!r})
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from label_helpers import images, label_all
from parents import parent
label_all(Path({str(tmp_path)!r}), images(1), parent(seconds=30.0), partial(ProcessPoolExecutor, 3, get_context("fork")))
"""
    driver = Script(code)
    wait_for(lambda: list(tmp_path.glob("labels/*/worker.json")), driver)
    workers = psutil.Process(driver.pid).children()
    assert len(workers) == 3
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(map(runs, workers)))


WORKER = """
import sys, time
from amp.nft.system import liveness
from amp.nft.labels.single_point import LabelTask, carry_out
from amp.nft.system.liveness import Driver
from amp.nft.system.processes import Process
sys.path.insert(0, {tests!r})
from label_helpers import images
from parents import parent
liveness.SILENCE = 0.5
driver = Driver(Process({machine!r}, {pid}, {start_time!r}), {heartbeat!r}, owns={owns})
image = images(1)[0]
carry_out(LabelTask("0-first", parent(), image, "0-first", driver=driver))
print("ready", flush=True)
carry_out(LabelTask("0-second", parent(seconds=1.5), image, "0-second", driver=driver))
time.sleep(600)
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_worker_of_its_own_ends_with_its_driver_but_not_before_its_label(where, tmp_path, monkeypatch):
    """As in a queue's job, where it is no child of the driver and would be billed for waiting."""
    monkeypatch.chdir(tmp_path)
    heartbeat = Heartbeat(tmp_path / "heartbeat")
    heartbeat.beat()
    with subprocess.Popen(["sleep", "30"]) as driver:
        code = WORKER.format(
            tests=TESTS, machine=machine() if where == "here" else where, pid=driver.pid,
            start_time=process_of(driver.pid).start_time, heartbeat=str(heartbeat.path), owns=True,
        )  # fmt: skip
        worker = Script(code, stdout=PIPE)
        try:
            assert worker.stdout.readline() == "ready\n"
        finally:
            driver.kill()
    assert worker.wait(30) == 1
    worker.stdout.close()
    assert (tmp_path / "0-second" / "label.json").exists()


def test_a_worker_without_a_common_file_system_does_not_take_its_driver_to_be_gone(tmp_path):
    """It cannot see the heartbeat, and would end between two labels while its driver waits for them."""
    watched = [Watched(Process("elsewhere", 1, 0.0), tmp_path / name, silence=0.1) for name in ("seen", "unseen")]
    (tmp_path / "seen").touch()
    assert [one.lost() for one in watched] == ["", ""]
    time.sleep(0.2)
    assert [one.lost() for one in watched] == ["no heartbeat from elsewhere for 0.1 s", ""]
