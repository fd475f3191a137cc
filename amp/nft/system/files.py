"""Files that appear whole or not at all, also after a crash."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, or replace it, such that no reader and no crash ever sees half of it.

    Parameters
    ----------
    path : path
        Its directory is made if missing.
    data : bytes

    Raises
    ------
    OSError
        If it cannot be written; what was there before is there still.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Make a rename last, where the file system can be told to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
