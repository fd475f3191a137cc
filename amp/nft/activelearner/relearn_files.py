"""Files of dynamics from which it continues: restart files of LAMMPS, and the dump that is read at halts."""

from __future__ import annotations

import os
from pathlib import Path

from amp.nft.records import Checkpoint
from amp.nft.run.journal import Event

MAGIC = 16  # bytes at both ends of a restart file


def checkpoint_of(halt: Event) -> Checkpoint:
    """Return the state of LAMMPS at a halt.

    Parameters
    ----------
    halt : Event

    Returns
    -------
    Checkpoint
    """
    return Checkpoint(halt["restart"], halt["run"], halt["first"], halt["last"], halt["dump"], halt["size"])


def written_during_run(directory: Path, halt: Checkpoint | None) -> Checkpoint | None:
    """Return the last state that a run has written since the last halt, if there is one.

    Parameters
    ----------
    directory : Path
        Of restart files.
    halt : Checkpoint or None

    Returns
    -------
    Checkpoint or None
    """
    since, size = (0, 0) if halt is None else (_written(Path(halt.restart)), halt.size)
    paths = [path for path in directory.glob("run-*.restart") if _written(path) > since and is_whole(path)]
    states = [state for path in paths if (state := Checkpoint.of_run(path, size)) is not None]
    return max(states, key=lambda state: (state.run, _written(Path(state.restart))), default=None)


def _written(path: Path) -> int:
    """Return the time at which a file was written, ns; 0 if it is missing."""
    return path.stat().st_mtime_ns if path.exists() else 0


def is_whole(path: Path) -> bool:
    """Return True if a restart file of LAMMPS is there, and ends as it begins, with the same 16 bytes.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        begin = file.read(MAGIC)
        file.seek(-min(MAGIC, path.stat().st_size), os.SEEK_END)
        return len(begin) == MAGIC and path.stat().st_size > 2 * MAGIC and file.read() == begin


def truncate_dump(checkpoint: Checkpoint) -> None:
    """Remove frames that were dumped after the halt: they are made again.

    Parameters
    ----------
    checkpoint : Checkpoint
    """
    path = Path(checkpoint.dump)
    if checkpoint.dump and path.is_file() and path.stat().st_size > checkpoint.size:
        os.truncate(path, checkpoint.size)
