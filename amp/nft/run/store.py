"""The memory of a run: an append-only journal, and files named by what is in them.

``journal.jsonl`` is the truth; its state is its replay. An event is written only after every file that it names,
so that a crash at any moment leaves a journal that can be replayed. The files that Amp users know are derived from it.

Each line is a JSON object with ``event``, its name, and ``time``, in s since 1970:

========================  ==========================================================================================
``run``                   the first one: ``format``, and ``settings``, which stay the same as long as the run lasts
``start``                 a driver takes the run up: ``process``, ``versions``, files of the ``targets``, ``trainer``,
                          ``parent``, ``criteria`` of the members if they are known, and ``settings`` that may be others
                          the next time
``trained``               an iteration's ensemble: ``file``, a report on each member, ``chunks``, ``seconds``
``evaluated``             the uncertainty of each atom of the targets: ``file``, and of these ``delta_max`` and
                          ``delta_mean``, eV/Å
``chosen``                the ``atoms`` whose chunks are to be labelled
``label``                 a label that is done: ``atom``, ``file``, ``seconds``
``label-retried``         one that failed and is tried again: ``atom``, ``kind``, ``message``
``label-failed``          one that failed for good, in this run of the driver
``added``                 the ``atoms`` whose chunks enter the next training
``stopped``               the end: ``reason``, ``message``, ``converged``
``interrupted``           a ``signal`` ended the driver
========================  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import socket
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from amp.nft.errors import RunStoreError
from amp.nft.system import files

FORMAT = 1
JOURNAL = "journal.jsonl"
CONTENT = "content"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash; RunStoreError if it cannot be."""
    with _explained(Path(path)):
        files.write(path, data)


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the content of an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def trajectory_bytes(images: list[Atoms]) -> bytes:
    """Images as the content of a ``.traj`` file; none gives no bytes."""
    buffer = io.BytesIO()
    write(buffer, images, format="traj")
    return buffer.getvalue()


def as_json(thing: Any) -> str:
    """JSON of plain data, in which numbers may be NumPy's."""
    return json.dumps(thing, default=lambda number: number.item() if isinstance(number, np.generic) else float(number))


class RunRecord:
    """The journal and the content of one run directory, as they are now: read, and neither held nor changed.

    `events` holds every event so far, in order. A last line that is not whole yet is left out.

    Parameters
    ----------
    directory : path
        Where ``journal.jsonl`` and the content folder are.

    Raises
    ------
    RunStoreError
        If there is no journal, or it is damaged anywhere but in its last line, or was written by a newer version.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            data = (self.directory / JOURNAL).read_bytes()
        except OSError as error:
            raise RunStoreError(f"{self.directory / JOURNAL} cannot be read ({error.strerror}): there is no run.") from error
        self.events = self._parse(data.rpartition(b"\n")[0])

    def find(self, event: str, **fields: Any) -> dict[str, Any] | None:
        """Return the last event of that name with these fields, or None."""
        return next(self._matching(reversed(self.events), event, fields), None)

    def recall(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the last event of that name with these fields; RunStoreError if the journal lacks it."""
        found = self.find(event, **fields)
        if found is None:
            raise RunStoreError(f"{self.directory / JOURNAL} has no event {event!r} with {fields}: restore the file, or start a new run.")
        return found

    def find_all(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Every event of that name with these fields, in order."""
        return list(self._matching(iter(self.events), event, fields))

    @staticmethod
    def _matching(events: Iterator[dict[str, Any]], name: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        wanted = {"event": name, **fields}
        return (e for e in events if all(e.get(key) == value for key, value in wanted.items()))

    def content(self, name: str) -> bytes:
        """Stored content by its name; RunStoreError if it is gone or altered."""
        path = self.directory / CONTENT / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RunStoreError(f"{path} is named in the journal but missing: restore it, or start a new run.") from None
        if hashlib.sha256(data).hexdigest()[:32] != path.stem:
            raise RunStoreError(f"{path} is damaged (its content does not match its name): restore it or start anew.")
        return data

    def array(self, name: str) -> np.ndarray:
        """Read a stored array."""
        return np.load(io.BytesIO(self.content(name)), allow_pickle=False)

    def image(self, name: str) -> Atoms:
        """Read a stored image."""
        return read(io.BytesIO(self.content(name)), format="traj")  # type: ignore[return-value]

    def _parse(self, whole: bytes) -> list[dict[str, Any]]:
        """The events in the whole lines of a journal."""
        events = [self._event(number, line) for number, line in enumerate(whole.splitlines(), start=1)]
        if events and events[0].get("format", FORMAT) > FORMAT:
            raise RunStoreError(f"{self.directory / JOURNAL} was written by a newer amp.nft (format {events[0]['format']}): upgrade.")
        return events

    def _event(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
            if not isinstance(event["event"], str) or (number == 1 and event["event"] != "run"):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise RunStoreError(
                f"{self.directory / JOURNAL}, line {number}: not a journal event ({line[:60]!r}). Restore the file from a "
                "backup, or remove this line and those below it, or start a new run with another label."
            ) from None
        return event


class RunStore(RunRecord):
    """The journal and the content of one run directory, held by one process at a time.

    Use it as a context manager. `events` holds every event so far, in order.

    Parameters
    ----------
    directory : path
        Where ``journal.jsonl`` and the content folder are; made if missing.

    Raises
    ------
    RunStoreError
        If another process holds the directory, it cannot be written, or the journal is damaged anywhere but in its
        last line, or was written by a newer version.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        with _explained(self.directory / JOURNAL):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self.directory / JOURNAL, "a+b", buffering=0)  # open as long as the run holds it
        try:
            self._lock()
            self.events = self._replay()
        except BaseException:
            self._file.close()
            raise
        _open_stores.add(self)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        _open_stores.discard(self)
        self._file.close()

    # -- events ------------------------------------------------------------------------------------------

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Add an event, with the time (s since 1970); it is on the disk when this returns."""
        entry = {"event": event, "time": round(time.time(), 3), **fields}
        line = as_json(entry).encode() + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        with _explained(self.directory / JOURNAL):
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise
        self.events.append(entry)
        return entry

    # -- content -----------------------------------------------------------------------------------------

    def keep(self, data: bytes, suffix: str) -> str:
        """Store `data` under a name made of its own hash, and return that name for an event."""
        name = hashlib.sha256(data).hexdigest()[:32] + suffix
        path = self.directory / CONTENT / name
        if not path.exists():
            write_atomically(path, data)
        return name

    def keep_array(self, array: np.ndarray) -> str:
        """Store an array."""
        return self.keep(array_bytes(array), ".npy")

    def keep_image(self, image: Atoms) -> str:
        """Store one image with its label."""
        return self.keep(trajectory_bytes([image]), ".traj")

    # -- opening -----------------------------------------------------------------------------------------

    def _lock(self) -> None:
        """Hold the journal; the lock goes with the process, so a crash leaves none behind."""
        holder = self.directory / "lock"
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = holder.read_text().strip() if holder.exists() else "another process"
            raise RunStoreError(f"{self.directory} is in use by {who}: wait for it or stop it, or give this run another label.") from None
        except OSError as error:  # some network file systems
            warnings.warn(
                f"{self.directory} is on a file system without locks ({error.strerror}): take care that no second run "
                "uses it at the same time.",
                stacklevel=4,
            )
        with _explained(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")

    def _replay(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        whole, _, torn = data.rpartition(b"\n")
        if torn:  # the write that a crash cut short: nothing was built on it yet
            with _explained(self.directory / JOURNAL):
                self._file.truncate(len(data) - len(torn))
        return self._parse(whole)


_open_stores: weakref.WeakSet[RunStore] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """Close journals in a forked child: a worker that outlives its driver must not go on holding the lock."""
    for store in list(_open_stores):
        store.close()


os.register_at_fork(after_in_child=_leave_to_the_parent)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def explains_full_disks() -> Iterator[None]:
    """Turn what a disk that takes no more does to any file in here, a log for example, into a RunStoreError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _unwritable(error.filename or "A file", error) from error


def _unwritable(path: object, error: OSError) -> RunStoreError:
    return RunStoreError(
        f"{path} cannot be written ({error.strerror or error}). What is finished is safe: make room, or give "
        "permission, and run the same script again."
    )
