"""What a job tells about itself in its directory, and whether its process still lives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from amp.nft.system import files, processes
from amp.nft.system.processes import machine

TOKEN = "nft-attempt"  # written by the driver: the one attempt that may work here
STATE = "nft-job.json"  # the rest by the job
HEARTBEAT = "nft-heartbeat"
FAILURE = "nft-failure.txt"
NOTES = "nft-notes.txt"
OUTPUT = "job-output.txt"
GRACE = 5.0  # s between asking a process to end and ending it


@dataclass(frozen=True)
class JobState:
    """Where one attempt runs; `born` tells its process from a later one of the same number."""

    token: str
    machine: str
    pid: int
    born: str


def this_process(token: str) -> JobState:
    """The state of the process that asks."""
    process = processes.this_process()
    return JobState(token, machine(), process.pid, process.born)


def read_state(directory: Path) -> JobState | None:
    """The state that the last job here left, or None if there is none (yet)."""
    try:
        return JobState(**json.loads((directory / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(directory: Path, state: JobState) -> None:
    """Write the state so that a reader sees all of it or nothing."""
    files.write(directory / STATE, json.dumps(asdict(state)).encode())


def holds(directory: Path, token: str) -> bool:
    """Whether the attempt with this token is still the one that may work here."""
    try:
        return (directory / TOKEN).read_text() == token
    except FileNotFoundError:
        return False
    except OSError:  # a shared file system's bad moment ends no job
        return True


def is_alive(state: JobState) -> bool:
    """Whether a process of this machine still runs."""
    return not processes.has_died(processes.Process(processes.machine(), state.pid, state.born))


def group_is_alive(group: int) -> bool:
    """Whether any process of a process group still runs."""
    if not os.path.isdir("/proc/self"):
        return processes.answers(-group)
    fields = (processes.stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return any(f[2] == str(group) and f[0] not in "ZX" for f in fields if f)


def end_process(state: JobState) -> None:
    """Ask a process of this machine to end, and end it if it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_alive(state):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, number)
        deadline = time.monotonic() + GRACE
        while is_alive(state) and time.monotonic() < deadline:
            time.sleep(0.05)
