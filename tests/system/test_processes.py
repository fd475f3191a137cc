"""Processes: their identity, and the end of what was started for some work, and of nothing else."""

import os
import subprocess
import sys
import uuid
from dataclasses import replace
from functools import partial

import psutil
import pytest
from waiting import wait_for

from amp.nft.system.processes import (
    MARK,
    SAME_START,
    end,
    group_runs,
    has_ended,
    machine,
    marked,
    process_of,
    runs,
    started_for,
    this_process,
    tree,
)

IDLE = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + IDLE
DAEMON = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {IDLE!r}], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""


def start(code, **settings):
    """Start Python, and wait for its first line."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **settings)
    return process, process.stdout.readline().strip()


def daemon(mark):
    """Start a process that leaves its session, and whose parent has exited: a double-forked daemon."""
    parent, pid = start(DAEMON, env={**os.environ, MARK: mark})
    parent.communicate()
    return psutil.Process(int(pid))


@pytest.fixture
def idle():
    process, _ = start(IDLE)
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_identified_by_its_machine_number_and_start(idle):
    process = process_of(idle.pid)
    assert process == process_of(idle.pid) and not has_ended(process) and not has_ended(this_process())
    assert has_ended(replace(process, start_time=process.start_time - 2 * SAME_START))  # a later one of the same number
    idle.kill()
    wait_for(lambda: has_ended(process))  # a zombie: nobody has asked for its exit status yet
    idle.wait()
    assert has_ended(process) and tree(process) == []


def test_a_process_of_another_machine_is_not_known_to_have_ended(idle):
    elsewhere = replace(process_of(idle.pid), machine="elsewhere", start_time=0.0)
    assert not has_ended(elsewhere) and tree(elsewhere) == []
    assert machine() == this_process().machine


def test_a_process_that_ignores_sigterm_is_killed_with_its_children():
    shell, _ = start(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN!r}])")
    found = tree(process_of(shell.pid))
    assert len(found) == 2
    end(lambda: found, grace=0.5)
    assert not any(map(runs, found))
    shell.communicate()


@pytest.mark.parametrize("with_shell", [True, False])
def test_a_shell_that_starts_its_next_program_is_ended_too(with_shell):
    """Its programs alone: the shell certainly starts the next one when the first is killed."""
    mark = uuid.uuid4().hex
    shell = subprocess.Popen("trap '' TERM; sleep 600; sleep 601", shell=True, env={**os.environ, MARK: mark}, start_new_session=True)
    wait_for(lambda: len(marked(mark)) == 2)
    assert group_runs(shell.pid)
    end(lambda: [process for process in marked(mark) if with_shell or process.pid != shell.pid], grace=0.2)
    shell.wait()
    wait_for(lambda: not group_runs(shell.pid))
    assert marked(mark) == []


def test_a_daemon_is_ended_if_it_was_started_for_this_work_and_left_alone_otherwise():
    mine, others = daemon("mine"), daemon("another's")
    try:
        assert marked("mine") == [mine]
        end(partial(started_for, None, "mine"))
        assert not runs(mine) and runs(others)
    finally:
        others.kill()


def test_an_immediate_exit_takes_the_children_along_and_keeps_the_output():
    code = (
        "import subprocess; from amp.nft.system.processes import exit_now; print('kept');"
        "print(subprocess.Popen(['sleep', '600']).pid); exit_now(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    kept, pid = done.stdout.split()
    assert (done.returncode, kept) == (3, "kept")
    wait_for(lambda: not (psutil.pid_exists(int(pid)) and runs(psutil.Process(int(pid)))))
