"""Neighbour lists, from vesin, as the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import vesin

from amp.nft.kernels.jit import kernel


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


def find_neighbors(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float,
    search: vesin.NeighborList | None = None, centres: int | None = None,
) -> Neighbors:
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
    search : vesin.NeighborList, optional
        A half list to use, with a skin or several threads, say; one with the given radius is made if None.
    centres : int, optional
        List only the neighbours of the first so many atoms.

    Raises
    ------
    ValueError
        If two atoms are in one place: no force has a direction there.
    """
    if search is None:
        search = vesin.NeighborList(cutoff=radius, full_list=False, n_threads=1)
    pairs, way = search.compute(np.asarray(positions, dtype=float), np.asarray(cell, dtype=float), pbc, "PD", copy=False)
    start = np.zeros((len(positions) if centres is None else centres) + 1, dtype=np.int64)
    clash = _count(pairs, way, radius**2, start)
    if clash >= 0:
        i, j = pairs[clash]
        raise ValueError(f"Atoms {i} and {j} are in one place: move one, or remove it.")
    index, vector = np.empty(start[-1], dtype=np.int64), np.empty((start[-1], 3))
    _fill(pairs, way, radius**2, start.copy(), index, vector)
    return Neighbors(start, index, vector)


@kernel
def _count(pairs, way, limit, start):
    """Where each atom's entries start; returns a pair at distance 0, or -1."""
    centres, clash = start.size - 1, -1
    for n in range(len(pairs)):
        distance = way[n, 0] ** 2 + way[n, 1] ** 2 + way[n, 2] ** 2
        if distance == 0.0:
            clash = n
        if distance <= limit:
            i, j = np.int64(pairs[n, 0]), np.int64(pairs[n, 1])
            if i < centres:
                start[i + 1] += 1
            if j < centres:
                start[j + 1] += 1
    for centre in range(centres):
        start[centre + 1] += start[centre]
    return clash


@kernel
def _fill(pairs, way, limit, free, index, vector):
    """Write each pair into the lists of both its atoms; `free` starts as where each list starts."""
    centres = free.size - 1
    for n in range(len(pairs)):
        x, y, z = way[n, 0], way[n, 1], way[n, 2]
        if x * x + y * y + z * z > limit:
            continue
        i, j = np.int64(pairs[n, 0]), np.int64(pairs[n, 1])
        if i < centres:
            at = free[i]
            index[at], vector[at, 0], vector[at, 1], vector[at, 2] = j, x, y, z
            free[i] = at + 1
        if j < centres:
            at = free[j]
            index[at], vector[at, 0], vector[at, 1], vector[at, 2] = i, -x, -y, -z
            free[j] = at + 1
