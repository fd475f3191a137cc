"""Owners of ghosts, found by a distributed directory, and the way of the forces on ghosts to them."""

from __future__ import annotations

from typing import Any

import numpy as np


class GhostMap:
    """The processes and places at which the atoms behind ghosts live; made by all processes together.

    Atom with ID t is entered in the directory of process ``t % size``, so that no process needs the IDs of all atoms.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    tags_i : ndarray of int, shape (atoms,)
        IDs of this process's atoms.
    tags_g : ndarray of int, shape (ghosts,)
        IDs of the atoms of which ghosts are images.

    Attributes
    ----------
    row_g : ndarray of int, shape (ghosts,)
        Row of each ghost in the data that are sent; images of one atom share a row.
    rows : int
        Number of rows.
    atom_r : ndarray of int, shape (rows received,)
        Atom of this process to which each received row belongs.

    Raises
    ------
    RuntimeError
        If a ghost has no owner.
    """

    def __init__(self, comm: Any, tags_i: np.ndarray, tags_g: np.ndarray) -> None:
        self._comm = comm
        unique, row_of_ghost = np.unique(tags_g.astype(np.int64), return_inverse=True)
        owner, place = self._ask(tags_i.astype(np.int64), unique)
        order = np.argsort(owner, kind="stable")  # rows for the first process first
        row = np.empty_like(order)
        row[order] = np.arange(len(order))
        self.row_g, self.rows = row[row_of_ghost], len(unique)
        self._send = np.bincount(owner, minlength=comm.size)
        self._receive = _exchange_counts(comm, self._send)
        self.atom_r = _exchange(comm, place[order], self._send, self._receive)

    def _ask(self, tags_i: np.ndarray, unique: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the process and the place of the atoms with some IDs."""
        comm = self._comm
        entries, _, _ = _to_directory(comm, tags_i, np.column_stack([tags_i, np.full(len(tags_i), comm.rank), np.arange(len(tags_i))]))
        entries = entries[np.argsort(entries[:, 0], kind="stable")]
        asked, order, counts = _to_directory(comm, unique, unique[:, None])
        at = np.searchsorted(entries[:, 0], asked[:, 0])
        known = at < len(entries)
        known[known] = entries[at[known], 0] == asked[known, 0]
        if not known.all():
            raise RuntimeError(f"the atom with ID {asked[~known][0, 0]} is a ghost somewhere, but no process has it.")
        received = _exchange_counts(comm, counts)
        answers = _exchange(comm, entries[at, 1:], received, counts)
        found = np.empty_like(answers)
        found[order] = answers
        return found[:, 0], found[:, 1]

    def bring_home(self, rows: np.ndarray) -> np.ndarray:
        """Send rows to the owners of their atoms, and return the rows for this process's atoms.

        Parameters
        ----------
        rows : ndarray, shape (rows, ...)

        Returns
        -------
        ndarray, shape (len(atom_r), ...)
        """
        return _exchange(self._comm, rows, self._send, self._receive)


def _to_directory(comm: Any, tags: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Send a row for each ID to the process with its directory; return the received rows, the order of sending and the numbers sent."""
    where = tags % comm.size
    order, counts = np.argsort(where, kind="stable"), np.bincount(where, minlength=comm.size)
    return _exchange(comm, rows[order], counts, _exchange_counts(comm, counts)), order, counts


def _exchange_counts(comm: Any, counts: np.ndarray) -> np.ndarray:
    """Return the number of rows that each process sends to this one."""
    received = np.empty(comm.size, dtype=np.int64)
    comm.Alltoall(np.ascontiguousarray(counts, dtype=np.int64), received)
    return received


def _exchange(comm: Any, rows: np.ndarray, send: np.ndarray, receive: np.ndarray) -> np.ndarray:
    """Return the rows that other processes send to this one, in the order of the processes."""
    found = np.empty((int(receive.sum()), *rows.shape[1:]), dtype=rows.dtype)
    if comm.size == 1:
        found[:] = rows
        return found
    width = int(np.prod(rows.shape[1:], dtype=np.int64))
    comm.Alltoallv([np.ascontiguousarray(rows), send * width], [found, receive * width])
    return found
