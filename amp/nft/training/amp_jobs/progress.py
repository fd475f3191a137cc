"""Where a member's job stands, as far as its files tell."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from amp.nft.records import MemberStep
from amp.nft.system.liveness import read_heartbeat
from amp.nft.training.amp_jobs.directory import LOG, STEP
from amp.nft.training.amp_jobs.loss_table import last_line

TAIL = 4096  # bytes at the end of a log that hold a line of its table


def standing(member: int, directory: Path) -> MemberStep:
    """The last step of a job that runs.

    Parameters
    ----------
    member : int
    directory : Path
        The member's.

    Returns
    -------
    MemberStep
        From what a fit with our kernels notes, or else from the end of Amp's log, which tells no distance.
    """
    if (found := read_heartbeat(directory / STEP)) is not None:
        return MemberStep(member, "training", **found[1])
    with contextlib.suppress(OSError), open(directory / LOG, "rb") as log:
        log.seek(-min(TAIL, os.fstat(log.fileno()).st_size), os.SEEK_END)
        if line := last_line(log.read().decode(errors="replace")):
            return MemberStep(member, "training", *line)
    return MemberStep(member, "training")
