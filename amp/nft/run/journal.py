"""Journal of a run: an append-only file of JSON lines, each with a checksum of itself and all lines before it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import warnings
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amp.nft.errors import RunStoreError
from amp.nft.run.schema import FORMAT, Position, check
from amp.nft.system import files

JOURNAL = "journal.jsonl"
LARGEST = 2**28  # bytes; a hundred thousand labels need a tenth of it
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
PATIENCE = 5.0  # s that an event waits for the one that another thread writes
_MARK = b', "crc": "'

Event = dict[str, Any]


def as_json(thing: Any) -> str:
    """Return plain data, whose numbers may be NumPy's, as JSON.

    Parameters
    ----------
    thing : object

    Returns
    -------
    str

    Raises
    ------
    ValueError
        A number is not finite.
    """
    return json.dumps(thing, allow_nan=False, default=lambda x: x.item() if isinstance(x, np.generic) else float(x))


def from_json(text: bytes | str) -> Any:
    """Return the data of a JSON text.

    Parameters
    ----------
    text : bytes or str

    Returns
    -------
    object

    Raises
    ------
    ValueError
        The text is not JSON, for any reason.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a finite number")


# -- lines -----------------------------------------------------------------------------------------------------


@dataclass
class Contents:
    """Events of a journal in order, the position after them, the checksum and the length in bytes of their lines."""

    events: list[Event] = field(default_factory=list)
    position: Position = field(default_factory=Position)
    checksum: int = 0
    length: int = 0

    def encode(self, event: Event) -> bytes:
        """Return the line of the next event.

        Parameters
        ----------
        event : dict

        Returns
        -------
        bytes
        """
        body = as_json(event).encode()[:-1]
        return body + _MARK + b'%08x"}\n' % zlib.crc32(body, self.checksum)

    def decode(self, line: bytes) -> None:
        """Add the event of the next line.

        Parameters
        ----------
        line : bytes
            Without its end of line.

        Raises
        ------
        ValueError
            Its checksum or its content is wrong.
        """
        body, _, end = line.rpartition(_MARK)
        checksum = zlib.crc32(body, self.checksum)
        if end != b'%08x"}' % checksum:
            raise ValueError("its checksum does not fit: this line or one before it was changed")
        event = from_json(body + b"}")
        position = check(event, self.position)
        if not self.events and event["format"] != FORMAT:
            raise ValueError(f"its format is {event['format']}")
        self.events.append(event)
        self.position, self.checksum, self.length = position, checksum, self.length + len(line) + 1


def parse(data: bytes, path: Path) -> Contents:
    """Read the lines of a journal.

    Parameters
    ----------
    data : bytes
    path : Path
        For errors.

    Returns
    -------
    Contents
        Without a truncated last line: one that has no end, or zeros where a crash kept pages from the disk.

    Raises
    ------
    RunStoreError
        If a line is damaged or breaks the schema, or the journal is of another format.
    """
    lines = data.split(b"\n")[:-1]
    contents = Contents()
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and b"\0" in line:
            break
        if number == 1:
            _check_format(line, path)
        try:
            contents.decode(line)
        except ValueError as error:
            raise RunStoreError(
                f"{path}, line {number}: {error}. Restore the file from a backup, or remove this line and all "
                "lines after it, or start a new run with another label."
            ) from None
    return contents


def _check_format(line: bytes, path: Path) -> None:
    """Raise RunStoreError if the first line names another format; the checks of lines find other damage."""
    try:
        event = from_json(line)
        found = event.get("format") if event.get("event") == "run" else FORMAT
    except (ValueError, AttributeError):
        return
    if found == FORMAT or not isinstance(found, int):
        return
    if found < FORMAT:
        remedy = "Finish that run with amp.nft 0.1.0, or start a new run with another label."
    else:
        remedy = "Upgrade amp.nft, or start a new run with another label."
    raise RunStoreError(f"{path} has format {found}, and this amp.nft reads format {FORMAT}. {remedy}")


def read_journal(path: Path) -> Contents:
    """Read a journal without locking or changing it.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Contents

    Raises
    ------
    RunStoreError
        It is missing or damaged.
    """
    try:
        data = files.read(path, LARGEST)
    except OSError as error:
        raise RunStoreError(f"{path} cannot be read ({error.strerror}): there is no run.") from error
    return parse(data, path)


# -- the open file -----------------------------------------------------------------------------------------------


class Journal:
    """The journal of a directory, locked and open for appending.

    Parameters
    ----------
    directory : Path
        Created if missing.

    Raises
    ------
    RunStoreError
        Another process has locked it, it cannot be written, or it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL
        self._writing = threading.RLock()
        with explained(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0, opener=files.regular)  # open as long as the run locks it
        try:
            self._lock()
            with explained(self.path):
                files.sync_directory(directory)
                data = self._read()
            self.contents = parse(data, self.path)
            with explained(self.path):
                self._file.truncate(self.contents.length)
        except BaseException:
            self._file.close()
            raise
        _open_journals.add(self)

    def close(self) -> None:
        """Release the lock."""
        _open_journals.discard(self)
        self._file.close()

    def append(self, event: Event) -> Event:
        """Add an event; it is on the disk when this returns.

        Parameters
        ----------
        event : dict

        Returns
        -------
        dict
            The event as it is read back.

        Raises
        ------
        RunStoreError
            It breaks the schema or cannot be written; the journal is then unchanged.
        """
        self.check_in_place()
        if not self._writing.acquire(timeout=PATIENCE):
            raise RunStoreError(f"{self.path} is being written by another thread: event {event['event']!r} is lost.")
        try:
            return self._append(event)
        finally:
            self._writing.release()

    def _append(self, event: Event) -> Event:
        before = self.contents
        after = Contents([], before.position, before.checksum, before.length)
        try:
            line = before.encode(event)
            after.events = before.events[:1]  # only the first line's format is checked
            after.decode(line[:-1])
        except (ValueError, TypeError) as error:
            raise RunStoreError(f"event {event['event']!r} cannot be written to {self.path}: {error}.") from error
        with explained(self.path):
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    self._file.truncate(before.length)
                raise
        before.position, before.checksum, before.length = after.position, after.checksum, after.length
        before.events.append(after.events[-1])
        return after.events[-1]

    def check_in_place(self) -> None:
        """Raise RunStoreError if the directory was moved or replaced since the journal was opened."""
        with explained(self.path):
            mine = os.fstat(self._file.fileno())
            try:
                there = os.stat(self.path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                there = None
        if there is None or not os.path.samestat(mine, there):
            raise RunStoreError(
                f"{self.path.parent} was moved or replaced while the run works; finished work is kept{self._whereabouts()}. "
                f"Move that directory back to {self.path.parent.parent}, in place of its present content, and rerun the script."
            )

    def _whereabouts(self) -> str:
        with contextlib.suppress(OSError):
            return f" in {Path(os.readlink(f'/proc/self/fd/{self._file.fileno()}')).parent}"
        return ""

    def _read(self) -> bytes:
        if os.fstat(self._file.fileno()).st_size > LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path))
        self._file.seek(0)
        return self._file.read()

    def _lock(self) -> None:
        """Lock the journal; the lock ends with the process, so a crash leaves none behind."""
        holder = self.path.with_name("lock")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunStoreError(
                f"{self.path.parent} is in use by {_holder(holder)}: wait for it or stop it, or give this run another label."
            ) from None
        except OSError as error:  # some network file systems
            warnings.warn(
                f"{self.path.parent} is on a file system without locks ({error.strerror}): let no second run use it at the same time.",
                stacklevel=5,
            )
        with explained(holder):
            files.write(holder, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _holder(path: Path) -> str:
    try:
        return files.read(path, 1000).decode(errors="replace").strip() or "another process"
    except OSError:
        return "another process"


def now() -> float:
    """Return the time of an event.

    Returns
    -------
    float
        In s since 1970.
    """
    return round(max(time.time(), 0.0), 3)


_open_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """Close journals in a forked child: a worker that outlives its driver must not keep the lock."""
    for journal in list(_open_journals):
        journal.close()


os.register_at_fork(after_in_child=_leave_to_the_parent)


# -- errors ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that names a remedy.

    Parameters
    ----------
    path : Path
        File that is written.

    Yields
    ------
    None

    Raises
    ------
    RunStoreError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: object, error: OSError) -> RunStoreError:
    """Return the error for a file that cannot be written.

    Parameters
    ----------
    path : Path
    error : OSError

    Returns
    -------
    RunStoreError
    """
    return RunStoreError(
        f"{path} cannot be written ({error.strerror or error}). Finished work is kept: free space, or give "
        "permission, and run the same script again."
    )
