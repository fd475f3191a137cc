"""Neighbour lists, from vesin, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vesin


@dataclass(frozen=True)
class Neighbors:
    """
    The neighbours of every atom, periodic images (an atom's own included) as separate entries.

    Attributes
    ----------
    start : ndarray of int, shape (atoms + 1,)
        The neighbours of atom i are the entries ``start[i]:start[i + 1]``.
    index : ndarray of int, shape (entries,)
        Which atom the neighbour is (an image of).
    vector : ndarray, shape (entries, xyz)
        From the atom to its neighbour, Å.
    """

    start: np.ndarray
    index: np.ndarray
    vector: np.ndarray

    @property
    def most(self) -> int:
        """The largest number of neighbours of any atom."""
        return int(np.diff(self.start).max(initial=0))


def find_neighbors(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float) -> Neighbors:
    """
    All neighbours within a radius, for any cell, mixed boundaries and unwrapped positions.

    Parameters
    ----------
    positions : ndarray, shape (atoms, xyz)
        In Å.
    cell : ndarray, shape (3, 3)
        Cell vectors as rows, Å.
    pbc : ndarray of bool, shape (3,)
        Which cell vectors repeat.
    radius : float
        In Å.

    Raises
    ------
    ValueError
        If two atoms are in one place: no force has a direction there.
    """
    search = vesin.NeighborList(cutoff=radius, full_list=True, sorted=True, n_threads=1)
    first, second, vector = search.compute(positions, cell, pbc, quantities="ijD")
    start = np.zeros(len(positions) + 1, dtype=np.int64)
    np.cumsum(np.bincount(first.astype(np.int64), minlength=len(positions)), out=start[1:])
    if len(vector) and np.einsum("ni,ni->n", vector, vector).min() == 0.0:
        i, j = first[0], second[0]
        raise ValueError(f"Atoms {i} and {j} are in one place: move one, or remove it.")
    return Neighbors(start, second.astype(np.int64), vector)
