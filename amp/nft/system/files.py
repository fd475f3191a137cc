"""Write files atomically, also with respect to a crash; keep a directory for one process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from amp.nft.errors import InputError

NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # of file systems that cannot make a directory durable
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write(path: str | os.PathLike[str], data: bytes, *, scratch: str | os.PathLike[str] | None = None, durable: bool = True) -> None:
    """Write a file, or replace it, such that no reader and no crash ever sees half of it.

    Parameters
    ----------
    path : path
        Its directory is made if missing. A file that is replaced passes its permissions on.
    data : bytes
    scratch : path, optional
        Directory of the temporary file, on the same file system; that of the file if not given.
    durable : bool
        False for a file that is not needed after a crash of the machine: the disk is not waited for.

    Raises
    ------
    OSError
        It cannot be written; the file before is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # nobody can guess this name, and a file or link that has it is never opened
    temporary = Path(scratch or path.parent, f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, _NEW, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _keep_mode(path, temporary)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def _keep_mode(old: Path, new: Path) -> None:
    """Give the new file the permissions of a regular one that it replaces."""
    with contextlib.suppress(OSError):
        mode = os.lstat(old).st_mode
        if stat.S_ISREG(mode):
            os.chmod(new, stat.S_IMODE(mode))


def sync_directory(directory: Path) -> None:
    """Make created and renamed files of a directory durable, where the file system can.

    Parameters
    ----------
    directory : Path

    Raises
    ------
    OSError
        The file system fails.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Make a directory if it is missing, and hold it for this process in the block; removed afterwards if it is empty.

    Parameters
    ----------
    directory : Path

    Raises
    ------
    InputError
        Another process holds it.
    OSError
        It cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{directory} is in use by another process: wait for it, or give this one another directory.") from None
        except OSError:  # a network file system that cannot lock directories
            pass
        yield
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file, which may come from elsewhere.

    Parameters
    ----------
    path : path
    limit : int
        Largest size, bytes.

    Returns
    -------
    bytes

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is a link, a pipe or a device.
    """
    with open(path, "rb", opener=regular) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", os.fspath(path))
        return file.read(limit)


def regular(path: str, flags: int) -> int:
    """Open a regular file; to be used as the opener of `open`.

    Parameters
    ----------
    path : str
    flags : int
        Flags of `os.open`.

    Returns
    -------
    int
        File descriptor.

    Raises
    ------
    OSError
        It is a link, a pipe or a device; raised without waiting.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor
