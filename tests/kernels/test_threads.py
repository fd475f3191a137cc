"""Threads run every task once, help with parts, and pass on the first error."""

import subprocess
import sys
import threading

import pytest

from amp.nft.kernels.threads import ALONE, Threads, run_threads


@pytest.mark.parametrize("threads", [0, 1, 3, None])
def test_threads_do_every_task_once_and_pass_on_the_first_error(threads):
    done = []
    run_threads(done.append, range(100), threads)
    assert sorted(done) == list(range(100))

    def fail(task):
        raise ZeroDivisionError(task)

    with pytest.raises(ZeroDivisionError):
        run_threads(fail, range(100), threads)


def test_threads_without_a_task_help_with_parts():
    """The parts wait for each other: one thread alone would not come to the end of the first."""
    threads, meet, done = Threads(3), threading.Barrier(3, timeout=30.0), []

    def part(number):
        meet.wait()
        done.append((number, threading.get_ident()))

    def work(task):
        while threads.together < 3:
            pass
        threads.share(part, range(6))

    threads.run(work, ["the only one"])
    assert sorted(number for number, _ in done) == list(range(6))
    assert len({thread for _, thread in done}) == 3
    assert threads.together == 1


def test_tasks_that_share_at_the_same_time_all_come_to_their_end():
    threads, done = Threads(4), []

    def work(task):
        for turn in range(200):
            threads.share(done.append, [(task, turn, part) for part in range(3)])

    threads.run(work, range(5))
    assert sorted(done) == [(task, turn, part) for task in range(5) for turn in range(200) for part in range(3)]


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_in_a_part_ends_the_task(count):
    threads, begun = Threads(count), []

    def part(number):
        begun.append(number)
        raise ZeroDivisionError(number)

    def work(task):
        while threads.together < count:
            pass
        threads.share(part, range(50))

    with pytest.raises(ZeroDivisionError):
        threads.run(work, [0])
    assert len(begun) <= count


def test_where_no_more_threads_can_start_those_that_run_end(monkeypatch):
    """The third thread is to have a stack that is larger than any address space."""
    before, real, begun = set(threading.enumerate()), threading.Thread.start, []

    def start(thread):
        begun.append(thread)
        usual = threading.stack_size(2**47 if len(begun) == 3 else 0)
        try:
            real(thread)
        finally:
            threading.stack_size(usual)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="start new thread"):
        run_threads(lambda task: None, range(100), 5)
    for thread in begun[:2]:
        thread.join(timeout=10.0)
    assert len(begun) == 3 and set(threading.enumerate()) == before


def test_alone_everything_is_done_in_order():
    done = []
    ALONE.share(done.append, range(5))
    assert done == list(range(5))


INTERRUPTED = """
import signal, threading
from amp.nft.kernels.threads import Threads

never, begun = threading.Event(), threading.Event()

def work(task):
    if threading.current_thread() is threading.main_thread():
        begun.wait()
        threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    else:
        begun.set()
        never.wait()

signal.signal(signal.SIGINT, signal.default_int_handler)
Threads(2).run(work, range(2))
"""


def test_an_interrupt_ends_the_process_though_another_thread_does_not_end():
    """The caller has no task any more, and waits for a thread that never ends."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60.0, check=False)
    assert "KeyboardInterrupt" in done.stderr and done.returncode != 0
