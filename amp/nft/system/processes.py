"""Which process is which, and whether it still lives."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of some machine; `born` tells it from a later one of the same number."""

    machine: str
    pid: int
    born: str


def this_process() -> Process:
    """The process that asks."""
    return Process(machine(), os.getpid(), _phase_and_birth(os.getpid())[1])


def machine() -> str:
    """Name of the space in which process numbers mean something: the host, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def has_died(process: Process) -> bool:
    """Whether a process is known to be over; False for one on another machine, which cannot be asked."""
    if process.machine != machine():
        return False
    phase, born = _phase_and_birth(process.pid)
    if phase:
        return phase in "ZX" or born != process.born
    return os.path.isdir("/proc/self") or not answers(process.pid)


def write_process(path: Path) -> None:
    """Leave a note of the process that asks."""
    path.write_text(json.dumps(asdict(this_process())))


def read_process(path: Path) -> Process | None:
    """The process that left a note there, or None if none did (yet)."""
    try:
        return Process(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def answers(pid: int) -> bool:
    """Whether a process, or with a minus a group of them, takes signals: for systems that tell no more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def stat(pid: int) -> list[str]:
    """What follows the name in /proc/<pid>/stat: phase, parent, group, ...; nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _phase_and_birth(pid: int) -> tuple[str, str]:
    """Phase letter and time of birth of a process; empty where the system does not tell."""
    fields = stat(pid)
    return (fields[0], fields[19]) if fields else ("", "")
