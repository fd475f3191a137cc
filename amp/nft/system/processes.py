"""Processes: identify them, check if they run, and end them with all processes that they started."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

GRACE = 5.0  # s from SIGTERM to SIGKILL
SAME_START = 2.0  # s; two processes of one number never start so close together, and boot times are rounded to 1 s
MARK = "AMP_NFT_STARTED_FOR"  # environment variable, which children inherit: the work for which they were started
CHECK = 0.05  # s between two checks for the end of processes
FLUSH = 1.0  # s that an exit may spend on the output streams


@dataclass(frozen=True)
class Process:
    """A process of some machine.

    Attributes
    ----------
    machine : str
        As `machine` names it.
    pid : int
    start_time : float
        In s since that machine's start, which setting its clock does not change; it tells the process from a later one of
        the same number.
    """

    machine: str
    pid: int
    start_time: float


def this_process() -> Process:
    """Return the calling process.

    Returns
    -------
    Process
    """
    return Process(machine(), os.getpid(), _own_start_time(os.getpid()))


def process_of(pid: int) -> Process:
    """Return the process of this machine with a number.

    Parameters
    ----------
    pid : int

    Returns
    -------
    Process

    Raises
    ------
    psutil.NoSuchProcess
        There is none.
    """
    return Process(machine(), pid, _start_time(psutil.Process(pid)))


def machine() -> str:
    """Return the name of the space in which process numbers are unique.

    Returns
    -------
    str
        The host, or a container on it.
    """
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def has_ended(process: Process) -> bool:
    """Return True if a process is known to have ended.

    Parameters
    ----------
    process : Process

    Returns
    -------
    bool
        False for a process of another machine, whose state is not known here.
    """
    if process.machine != machine():
        return False
    try:
        found = psutil.Process(process.pid)
        return not runs(found) or abs(_start_time(found) - process.start_time) > SAME_START
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def runs(process: psutil.Process) -> bool:
    """Return True unless a process has ended.

    Parameters
    ----------
    process : psutil.Process

    Returns
    -------
    bool
        False for a zombie: it has ended, and its parent has not read its exit status.
    """
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


# -- selecting -----------------------------------------------------------------------------------------------------


def tree(process: Process) -> list[psutil.Process]:
    """Return a process of this machine and its descendants.

    Parameters
    ----------
    process : Process

    Returns
    -------
    list of psutil.Process
        Empty if it has ended.
    """
    if process.machine != machine() or has_ended(process):
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    return []


def descendants() -> list[psutil.Process]:
    """Return the descendants of the calling process, without those that a parent's exit has detached from it.

    Returns
    -------
    list of psutil.Process
    """
    return psutil.Process().children(recursive=True)


def marked(*marks: str) -> list[psutil.Process]:
    """Return all processes, detached ones too, that were started with a mark in the environment variable `MARK`.

    This reads the environment of each process of the machine, which takes some 10 ms.

    Parameters
    ----------
    *marks : str

    Returns
    -------
    list of psutil.Process
        Processes of this user only, without the calling one.
    """
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _mark(process) in marks]


def started_for(process: Process | None, mark: str) -> list[psutil.Process]:
    """Return a process of this machine, its descendants, and all processes that were started with a mark.

    Parameters
    ----------
    process : Process or None
    mark : str

    Returns
    -------
    list of psutil.Process
    """
    return list({*(tree(process) if process is not None else ()), *marked(mark)})


def group_runs(group: int) -> bool:
    """Return True if any process of a process group runs.

    Parameters
    ----------
    group : int

    Returns
    -------
    bool
    """
    return any(_pid_runs(pid) for pid in psutil.pids() if _group(pid) == group)


# -- ending --------------------------------------------------------------------------------------------------------


def end(find: Callable[[], Iterable[psutil.Process]], grace: float = GRACE) -> None:
    """End processes: ask by SIGTERM, then kill by SIGKILL those that still run.

    Parameters
    ----------
    find : callable
        Returns the processes; called again until none is left, since a shell that lost one program may start its next.
    grace : float
        Seconds that they have after each signal; this returns earlier when all have ended.
    """
    found = _signal(find(), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(runs, found)) and time.monotonic() < deadline:
        time.sleep(CHECK)
    deadline = time.monotonic() + grace
    while (left := {process for process in found.union(find()) if runs(process)}) and time.monotonic() < deadline:
        found |= _signal(left, signal.SIGKILL)
        time.sleep(CHECK)


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> set[psutil.Process]:
    """Send a signal to processes, and return them."""
    found = set(processes)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.send_signal(number)
    return found


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes by SIGKILL, without waiting for their end.

    Parameters
    ----------
    processes : iterable of psutil.Process
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def exit_now(status: int) -> None:
    """Kill this process's descendants and exit without the interpreter's shutdown, which may wait for threads.

    Parameters
    ----------
    status : int
        Exit status.
    """
    flushing = threading.Thread(target=_flush, daemon=True)  # another thread may keep a stream locked
    flushing.start()
    flushing.join(FLUSH)
    with contextlib.suppress(psutil.Error, OSError):
        kill(descendants())
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _pid_runs(pid: int) -> bool:
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


@functools.cache  # by number, which changes after a fork; each label needs it
def _own_start_time(pid: int) -> float:
    return _start_time(psutil.Process(pid))


def _start_time(process: psutil.Process) -> float:
    return round(process.create_time() - psutil.boot_time(), 2)


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
