"""Where a member's job stands, as far as its files tell."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from amp.nft.records import MemberStep
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
    with contextlib.suppress(OSError, ValueError):
        steps, loss, distance = json.loads((directory / STEP).read_text())
        return MemberStep(member, "training", steps, loss, distance)
    with contextlib.suppress(OSError), open(directory / LOG, "rb") as log:
        log.seek(-min(TAIL, os.fstat(log.fileno()).st_size), os.SEEK_END)
        if found := last_line(log.read().decode(errors="replace")):
            return MemberStep(member, "training", *found)
    return MemberStep(member, "training")
