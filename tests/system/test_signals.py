"""SIGTERM ends a run, in time, whatever the run is doing; and it ends nothing else."""

import signal

import psutil
import pytest
from forked import PIPE, Script
from waiting import wait_for

from amp.nft.system.processes import runs

SCRIPT = """
import collections, hashlib, itertools, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from amp.nft.system import signals
from amp.nft.system.liveness import working_for

signals.PATIENCE, signals.GRACE = 0.5, 60.0

def note(name):
    print("note", name, flush=True)

def label(seconds):
    with working_for(None):
        begin()
        time.sleep(seconds)

def begin():
    print("ready", subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid, flush=True)

def stop(function, *arguments, begins=False):
    with signals.stops_cleanly(note, lambda message: print(message.strip(), flush=True)):
        if not begins:
            begin()
        function(*arguments)
"""
RESUME = "Stopped by SIGTERM. Finished work is saved: rerun the same script or command to resume."
COMPILED = 0.1  # s of CPU after which the script is certainly in compiled code
CASES = {
    "Python code": ("stop(time.sleep, 600)", 143),
    "compiled code": ("stop(hashlib.pbkdf2_hmac, 'sha256', b'', b'', 2**30)", 143),
    "compiled code that keeps Python's lock": ("signals.GRACE = 0.5; stop(collections.deque, itertools.repeat(0), 0)", -signal.SIGKILL),
    "labels in threads": ("with ThreadPoolExecutor(2) as pool: stop(lambda: pool.submit(label, 600).result(), begins=True)", 143),
}


def start(code):
    process = Script(SCRIPT + code, stdout=PIPE)
    ready, pid = process.stdout.readline().split()
    assert ready == "ready"
    return process, psutil.Process(int(pid))


@pytest.mark.parametrize("case", CASES)
def test_sigterm_ends_a_run_and_what_it_started(case):
    code, status = CASES[case]
    process, child = start(code)
    begun = psutil.Process(process.pid).cpu_times().user
    descendants = psutil.Process(process.pid).children(recursive=True)
    if "compiled" in case:
        wait_for(lambda: psutil.Process(process.pid).cpu_times().user > begun + COMPILED)  # Python code takes less
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert process.returncode == status
    assert output == ("" if status < 0 else f"note SIGTERM\n{RESUME}\n")
    if case != "Python code":  # there the script's own end does not end its children
        wait_for(lambda: not any(map(runs, descendants)))
    if runs(child):
        child.kill()


def test_code_after_the_run_has_the_time_that_it_needs():
    process, child = start("try: stop(time.sleep, 600)\nexcept SystemExit: time.sleep(3 * signals.PATIENCE); print('saved')")
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    assert (process.returncode, output.splitlines()[-1]) == (0, "saved")
    child.kill()


def test_the_guard_ends_with_the_run_and_handlers_are_as_before():
    code = """
import psutil, signal
stop(time.sleep, 0)
left = [child for child in psutil.Process().children() if child.name() != "sleep" and child.status() != "zombie"]
print(left, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.set_wakeup_fd(-1))
"""
    process, child = start(code)
    assert process.communicate()[0] == "[] True -1\n"
    child.kill()


def test_a_handler_of_the_users_own_stays():
    code = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
stop(os.kill, os.getpid(), signal.SIGTERM)
"""
    process, child = start(code)
    assert process.communicate()[0] == "mine\n" and process.returncode == 0
    child.kill()
