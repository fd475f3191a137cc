"""A parent cannot change the run: state is restored, exceptions of every kind fail one label, programs end with their label."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
from label_helpers import assert_good, images, label_all
from parents import DISTURBANCES, EXCEPTIONS, PROGRAMS, Disturbing, Program, Uncopyable, disturbing, parent
from small_runs import results, run

from amp.nft.labels import pool as labelpool
from amp.nft.labels.gate import Label
from amp.nft.labels.single_point import single_point
from amp.nft.system import isolation
from amp.nft.system.isolation import isolated
from amp.nft.system.processes import MARK, marked
from amp.nft.system.signals import Terminated

EXECUTORS = {"here": None, "threads": partial(ThreadPoolExecutor, 2), "processes": partial(ProcessPoolExecutor, 2)}
everywhere = pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def state():
    """Everything that a parent may change in its process."""
    mask = os.umask(0o022)
    os.umask(mask)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return (
        os.getcwd(), mask, dict(os.environ), {n: signal.getsignal(n) for n in signal.valid_signals()}, wakeup,
        signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getitimer(signal.ITIMER_REAL), sys.stdout, sys.stderr, np.geterr(),
    )  # fmt: skip


@pytest.mark.parametrize("way", DISTURBANCES)
def test_what_a_parent_changes_in_its_process_is_restored(tmp_path, way):
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    wakeup = signal.set_wakeup_fd(sender)
    try:
        before = state()
        wanted = images(2)
        outcomes, _ = label_all(tmp_path, wanted, Disturbing(way, atoms=[0, 1]), None)
        assert state() == before
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(receiver), os.close(sender)
    assert_good(outcomes, wanted)


@pytest.mark.parametrize("way", ["directory", "removed directory", "umask", "environment", "streams"])
def test_what_a_parent_changes_in_a_worker_does_not_reach_the_next_label(tmp_path, way):
    wanted = images(4)
    for executor in (partial(ProcessPoolExecutor, 1), partial(ThreadPoolExecutor, 1)):
        before = state()
        outcomes, _ = label_all(Path("relative"), wanted, partial(disturbing, way=way, atoms=range(4)), executor)
        assert state() == before
        assert_good(outcomes, wanted)
        assert not Path("relative/labels").is_symlink() and len(list(Path().iterdir())) <= 2


@everywhere
@pytest.mark.parametrize("way", EXCEPTIONS)
def test_an_exception_of_any_kind_fails_one_label(tmp_path, executor, way):
    wanted = images(3)
    outcomes, retries = label_all(tmp_path, wanted, partial(disturbing, way=way, atoms=[1]), executor)
    assert outcomes[1].kind == EXCEPTIONS[way].__name__ and len(retries) == 1
    assert_good(outcomes, [wanted[0], wanted[2]])


@pytest.mark.parametrize("executor", [None, partial(ProcessPoolExecutor, 1)], ids=["here", "processes"])
def test_a_keyboard_interrupt_ends_the_run(tmp_path, executor):
    with pytest.raises(KeyboardInterrupt):
        label_all(tmp_path, images(1), partial(disturbing, way="interrupts", atoms=[0]), executor)


def test_a_request_to_terminate_ends_the_run(tmp_path, monkeypatch):
    def terminate():
        raise Terminated

    monkeypatch.setitem(DISTURBANCES, "terminates", terminate)
    with pytest.raises(Terminated):
        label_all(tmp_path, images(1), Disturbing("terminates", atoms=[0]), None)


@pytest.mark.parametrize("executor", [None, partial(ProcessPoolExecutor, 1)], ids=["here", "processes"])
def test_a_parent_that_forks_gives_one_label(tmp_path, executor):
    wanted = images(3)
    log = tmp_path / "pids"
    outcomes, _ = label_all(tmp_path, wanted, partial(disturbing, way="forks", atoms=range(3)), executor)
    with open(log, "a") as file:  # a fork that had gone on would write here too
        file.write("through\n")
    assert_good(outcomes, wanted)
    time.sleep(0.2)
    assert log.read_text() == "through\n"


@pytest.fixture
def _no_children():
    """Wait for the workers of other tests, which would be the caller's programs here."""
    deadline = time.monotonic() + 30
    while any(running(child.pid) for child in psutil.Process().children() if child.pid not in isolation._helpers()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)


def started(path):
    return [int(line) for line in path.read_text().split()]


def running(pid):
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@everywhere
@pytest.mark.parametrize("way", PROGRAMS)
@pytest.mark.usefixtures("_no_children")
def test_programs_end_with_their_label(tmp_path, executor, way, monkeypatch):
    monkeypatch.setattr(isolation, "GRACE", 0.5)
    pids = tmp_path / "pids"
    outcomes, _ = label_all(tmp_path, images(2), partial(disturbing, way=way, atoms=[1], path=str(pids)), executor)
    assert {type(outcome) for outcome in outcomes.values()} == {Label}
    assert len(started(pids)) == 1 and not any(map(running, started(pids)))


def test_programs_of_the_caller_are_left_alone(tmp_path):
    pids = tmp_path / "pids"
    with subprocess.Popen(["sleep", "600"]) as own:
        label_all(tmp_path, images(2), partial(disturbing, way="a detached program", atoms=[1], path=str(pids)), None)
        assert own.poll() is None and not running(started(pids)[0])
        own.kill()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's list of the children of a thread")
def test_programs_that_other_threads_start_during_a_label_are_left_alone():
    """As a script does that watches the queue of its cluster while the run works."""
    begin, begun, end = (threading.Event() for _ in range(3))
    started = []

    def watch():
        begin.wait()
        started.append(subprocess.Popen(["sleep", "60"]))
        begun.set()
        end.wait()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with isolated("a label"):
        begin.set()
        begun.wait()
        left = subprocess.Popen(["sleep", "60"])
    (watched,) = started
    left.wait(10)
    assert watched.poll() is None
    watched.kill()
    end.set()
    watcher.join()
    watched.wait()


def test_programs_of_a_calculator_that_outlives_its_label_are_kept(tmp_path):
    server = Uncopyable()
    server.start = lambda: PROGRAMS["a program"](tmp_path / "pids")
    assert isinstance(single_point(server, images(1)[0], tmp_path), Label)
    assert running(started(tmp_path / "pids")[0])
    os.kill(started(tmp_path / "pids")[0], signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*Popen.__del__:pytest.PytestUnraisableExceptionWarning")  # ASE's, which the limit interrupts
@everywhere
def test_a_program_that_hangs_ends_at_the_time_limit(tmp_path, executor, monkeypatch):
    monkeypatch.setattr(labelpool, "GRACE", 0.5)
    outcomes, _ = label_all(tmp_path, images(1), Program(seconds=600), executor, timeout=0.5, retries=0)
    assert outcomes[0].kind == "LabelTimeout"
    (place,) = (tmp_path / "labels").glob("0-*")
    assert not marked(place.name)


def test_programs_of_a_worker_that_is_killed_end(tmp_path):
    pids = tmp_path / "pids"
    spoiled = partial(disturbing, way="a program and a kill", atoms=[0], path=str(pids))
    outcomes, _ = label_all(tmp_path, images(1), spoiled, partial(ProcessPoolExecutor, 1), retries=0)
    assert outcomes[0].kind == "WorkerDied" and not running(started(pids)[0])


def test_programs_of_a_driver_that_was_killed_end_at_the_next_start(tmp_path):
    pids = tmp_path / "pids"
    spoiled = partial(disturbing, way="a program and a kill", atoms=[0], path=str(pids))
    driver = get_context("fork").Process(target=label_all, args=(tmp_path, images(1), spoiled, None))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL and running(started(pids)[0])
    label_all(tmp_path, images(1), parent(), None)
    assert not running(started(pids)[0])


def test_overlapping_blocks_restore_the_state_at_the_last_end():
    before = state()
    with isolated("one"):
        with isolated("two"):
            os.chdir("/")
            assert os.environ[MARK] not in ("one", "two")
        assert os.getcwd() == "/"
    assert state() == before


def test_a_parent_prints_no_control_characters(tmp_path, capsys):
    label_all(tmp_path, images(1), Disturbing("prints", atoms=[0]), None)
    assert capsys.readouterr().out == "?[2J?]0;title?done\n"


@pytest.mark.parametrize("executor", [None, partial(ThreadPoolExecutor, 2)], ids=["here", "threads"])
def test_a_run_whose_parent_changes_the_directory_writes_where_it_began(tmp_path, executor):
    """Labels in threads leave the driver in another directory while it saves the first of them."""
    run(max_iterations=1, parent_calc=parent())
    whole = results(cards=False)
    os.makedirs("other")
    os.chdir("other")
    changes = partial(disturbing, way="directory", atoms=range(99), seconds=0.3)
    run(max_iterations=1, parent_calc=changes, executor=executor)
    assert os.getcwd() == str(tmp_path / "other") and results(cards=False) == whole
