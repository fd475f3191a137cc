"""Files by which a job and the driver know of each other, in the member's directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amp.nft.system.liveness import read_heartbeat
from amp.nft.system.processes import Process

TOKEN = "nft-attempt"  # written by the driver: the one attempt that may work here
STATE = "nft-job.json"  # the job's heartbeat, with its token; it and the rest are written by the job
FAILURE = "nft-failure.txt"
NOTES = "nft-notes.txt"
OUTPUT = "job-output.txt"


@dataclass(frozen=True)
class JobState:
    """The process that works, or worked, on one attempt."""

    token: str
    process: Process


def read_state(directory: Path) -> JobState | None:
    """Return the state of the last job in a directory.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    JobState or None
        None if there is none (yet).
    """
    found = read_heartbeat(directory / STATE)
    return None if found is None else JobState(str(found[1].get("token")), found[0])


def is_current(directory: Path, token: str) -> bool:
    """Return True if an attempt is still the one that may work in a directory.

    Parameters
    ----------
    directory : Path
    token : str
        Of the attempt.

    Returns
    -------
    bool
    """
    try:
        return (directory / TOKEN).read_text() == token
    except FileNotFoundError:
        return False
    except OSError:  # a brief failure of a shared file system ends no job
        return True
