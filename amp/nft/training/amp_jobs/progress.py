"""Progress of a member's job, from its files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from amp.nft.records import MemberStep
from amp.nft.system.liveness import read_heartbeat
from amp.nft.training.amp_jobs.directory import LOG, STEP
from amp.nft.training.amp_jobs.loss_table import last_line

TAIL = 4096  # bytes at the end of a log that contain a line of its table


def last_job_step(member: int, directory: Path) -> MemberStep:
    """Return the last step of a job that runs.

    Parameters
    ----------
    member : int
    directory : Path
        The member's directory.

    Returns
    -------
    MemberStep
        From the heartbeat of a fit with the kernels, else from the end of Amp's log, which contains no distance.
    """
    if (found := read_heartbeat(directory / STEP)) is not None:
        return MemberStep(member, "training", **found[1])
    with contextlib.suppress(OSError), open(directory / LOG, "rb") as log:
        log.seek(-min(TAIL, os.fstat(log.fileno()).st_size), os.SEEK_END)
        if line := last_line(log.read().decode(errors="replace")):
            return MemberStep(member, "training", *line)
    return MemberStep(member, "training")
