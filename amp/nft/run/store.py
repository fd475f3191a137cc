"""Store of a run: its journal, and content files named by a hash of their content.

``journal.jsonl`` is the truth: `amp.nft.run.state` replays it. An event is written only after each file that it names,
so that a crash at any moment leaves a journal that can be replayed. The files that Amp users know are derived from it.
`amp.nft.run.schema` lists the events.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from amp.nft.errors import ContentError, LabellingError, RunStoreError
from amp.nft.run.journal import JOURNAL, NO_ROOM, Event, Journal, as_json, explained, from_json, now, read_journal, unwritable
from amp.nft.run.schema import CONTENT_NAME, FORMAT
from amp.nft.system import files
from amp.nft.system.trajectories import trajectory_bytes

__all__ = ["FORMAT", "RunRecord", "RunStore", "array_bytes", "as_json", "explains_full_disks", "write_atomically"]

CONTENT = "content"
LARGEST = 2**30  # bytes of one content file; uncertainties of a million atoms need a hundredth of it


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically, also if the machine crashes.

    Parameters
    ----------
    path : str or path
    data : bytes

    Raises
    ------
    RunStoreError
        It cannot be written.
    """
    with explained(Path(path)):
        files.write(path, data)


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as the content of an ``.npy`` file.

    Parameters
    ----------
    array : ndarray

    Returns
    -------
    bytes
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


class RunRecord:
    """The journal and the content of one run directory at this moment, neither locked nor changed.

    Parameters
    ----------
    directory : path
        Contains ``journal.jsonl`` and the content folder.

    Attributes
    ----------
    events : list of dict
        All events so far, in order, without a truncated last one.

    Raises
    ------
    RunStoreError
        If there is no journal, it is damaged anywhere but in its last line, or it has another format.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.events: list[Event] = read_journal(self.directory / JOURNAL).events

    def content(self, name: str) -> bytes:
        """Return stored content by its name.

        Parameters
        ----------
        name : str
            From an event.

        Returns
        -------
        bytes

        Raises
        ------
        RunStoreError
            It is missing or altered, or is not a regular file of less than 1 GiB in the content folder.
        """
        path = self.directory / CONTENT / name
        if not CONTENT_NAME.fullmatch(name):
            raise RunStoreError(f"{name!r} is not the name of content in {path.parent}: start a new run with another label.")
        try:
            data = files.read(path, LARGEST)
        except FileNotFoundError:
            raise RunStoreError(f"{path} is named in the journal but missing: restore it, or start a new run.") from None
        except OSError as error:
            raise RunStoreError(f"{path} cannot be read ({error.strerror}): restore it, or start a new run.") from error
        if hashlib.sha256(data).hexdigest()[:32] != path.stem:
            raise RunStoreError(f"{path} is damaged (its content does not match its name): restore it, or start a new run.")
        return data

    def array(self, name: str) -> np.ndarray:
        """Read a stored array.

        Parameters
        ----------
        name : str
            From an event.

        Returns
        -------
        ndarray

        Raises
        ------
        ContentError
            It is not an array of numbers.
        """
        with self._readable(name, "an array"):
            return _array(self.content(name))

    def image(self, name: str) -> Atoms:
        """Read a stored image with its label.

        Parameters
        ----------
        name : str
            From an event.

        Returns
        -------
        Atoms

        Raises
        ------
        ContentError
            It is not an image.
        """
        return self.images(name)[-1]

    def images(self, name: str) -> list[Atoms]:
        """Read the images of a stored trajectory.

        Parameters
        ----------
        name : str
            From an event.

        Returns
        -------
        list of Atoms

        Raises
        ------
        ContentError
            It is not a trajectory.
        """
        with self._readable(name, "a trajectory"):
            found = read(io.BytesIO(self.content(name)), index=":", format="traj")
            return found if isinstance(found, list) and found else _not(found)

    def texts(self, name: str) -> list[str]:
        """Read the ``.amp`` texts of a stored ensemble.

        Parameters
        ----------
        name : str
            From an event.

        Returns
        -------
        list of str

        Raises
        ------
        ContentError
            It is not an ensemble.
        """
        with self._readable(name, "an ensemble"):
            found = from_json(self.content(name))
            return found if isinstance(found, list) and found and all(isinstance(text, str) for text in found) else _not(found)

    @contextlib.contextmanager
    def _readable(self, name: str, what: str) -> Iterator[None]:
        try:
            yield
        except RunStoreError:
            raise
        except Exception as error:  # readers raise many kinds
            path = self.directory / CONTENT / name
            raise ContentError(f"{path} is not {what} ({type(error).__name__}: {error}): restore it, or start a new run.") from error


def _not(found: Any) -> Any:
    raise ValueError(f"a {type(found).__name__}")


def _array(data: bytes) -> np.ndarray:
    """Return the array of an ``.npy`` file as NumPy writes it; nothing is allocated that the data does not fill."""
    buffer = io.BytesIO(data)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    if fortran or dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != len(data) - buffer.tell():
        raise ValueError(f"shape {shape} of {dtype} does not fit {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=buffer.tell()).reshape(shape).copy()


class RunStore(RunRecord):
    """The journal and the content of one run directory, locked by one process at a time.

    Use it as a context manager.

    Parameters
    ----------
    directory : path
        Contains ``journal.jsonl`` and the content folder; created if missing.

    Raises
    ------
    RunStoreError
        Another process has locked the directory, it cannot be written, or the journal is damaged anywhere but in its
        last line, or has another format.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._journal = Journal(self.directory)
        self.events = self._journal.contents.events

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, OSError | RunStoreError | LabellingError):  # files that are missing because all were moved away
                self._journal.check_in_place()
        finally:
            self.close()

    def close(self) -> None:
        """Release the directory."""
        self._journal.close()

    def append(self, event: str, **fields: Any) -> Event:
        """Add an event with the present time; it is on the disk when this returns.

        Parameters
        ----------
        event : str
            Name of the event.
        **fields : JSON values
            Its fields; see `amp.nft.run.schema`.

        Returns
        -------
        dict
            The event as it is read back.

        Raises
        ------
        RunStoreError
            The event breaks the schema, it cannot be written, or the directory was moved or replaced.
        """
        return self._journal.append({"event": event, "time": now(), **fields})

    def keep(self, data: bytes, suffix: str) -> str:
        """Store data under a name made of its hash.

        Parameters
        ----------
        data : bytes
        suffix : str
            Of the name.

        Returns
        -------
        str
            The name, for an event.

        Raises
        ------
        RunStoreError
            It cannot be written, or the directory was moved or replaced.
        """
        self._journal.check_in_place()
        name = hashlib.sha256(data).hexdigest()[:32] + suffix
        path = self.directory / CONTENT / name
        if not path.exists():
            write_atomically(path, data)
        return name

    def keep_array(self, array: np.ndarray) -> str:
        """Store an array.

        Parameters
        ----------
        array : ndarray

        Returns
        -------
        str
            Its name; see `keep`.
        """
        return self.keep(array_bytes(array), ".npy")

    def keep_image(self, image: Atoms) -> str:
        """Store one image with its label.

        Parameters
        ----------
        image : Atoms

        Returns
        -------
        str
            Its name; see `keep`.
        """
        return self.keep(trajectory_bytes([image]), ".traj")

    def keep_images(self, images: list[Atoms]) -> str:
        """Store images with their labels.

        Parameters
        ----------
        images : list of Atoms

        Returns
        -------
        str
            Their name; see `keep`.
        """
        return self.keep(trajectory_bytes(images), ".traj")

    def keep_texts(self, texts: list[str]) -> str:
        """Store the ``.amp`` texts of an ensemble.

        Parameters
        ----------
        texts : list of str

        Returns
        -------
        str
            Their name; see `keep`.
        """
        return self.keep(as_json(texts).encode(), ".ensemble")


@contextlib.contextmanager
def explains_full_disks() -> Iterator[None]:
    """Turn the error of a full disk in this block, for any file, a log for example, into a RunStoreError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise unwritable(error.filename or "A file", error) from error
