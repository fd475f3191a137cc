"""What a job tells about itself in its directory, and whether its process still lives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

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
    return JobState(token, machine(), os.getpid(), _fields_of(os.getpid())[1])


def machine() -> str:
    """Name of the space in which process numbers mean something: the host, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def read_state(directory: Path) -> JobState | None:
    """The state that the last job here left, or None if there is none (yet)."""
    try:
        return JobState(**json.loads((directory / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_state(directory: Path, state: JobState) -> None:
    """Write the state so that a reader sees all of it or nothing."""
    temporary = directory / f".{STATE}"
    temporary.write_text(json.dumps(asdict(state)))
    os.replace(temporary, directory / STATE)


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
    phase, born = _fields_of(state.pid)
    if phase:
        return phase not in "ZX" and born == state.born
    return not os.path.isdir("/proc/self") and _answers(state.pid)


def group_is_alive(group: int) -> bool:
    """Whether any process of a process group still runs."""
    if not os.path.isdir("/proc/self"):
        return _answers(-group)
    fields = (_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
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


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _fields_of(pid: int) -> tuple[str, str]:
    """Phase letter and time of birth of a process; empty where the system does not tell."""
    fields = _stat(pid)
    return (fields[0], fields[19]) if fields else ("", "")


def _stat(pid: int) -> list[str]:
    """What follows the name in /proc/<pid>/stat: phase, parent, group, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
