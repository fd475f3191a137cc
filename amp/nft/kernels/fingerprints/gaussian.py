"""Amp's Gaussian fingerprints (G2, G4, G5) and their derivatives, for one image at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from amp.nft.kernels.fingerprints.environment import compute
from amp.nft.kernels.fingerprints.neighbors import Neighbors, Search, find_neighbors
from amp.nft.kernels.fingerprints.tables import build_tables
from amp.nft.kernels.fingerprints.workspace import make_workspace
from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.vectors import LANES

_BLOCK = 4096  # atoms whose neighbours are listed at a time if only values are requested


@dataclass(frozen=True)
class Rows:
    """
    Data of one image for a loss function.

    With e(row) the model's atomic energy, E = sum of e over rows, and the force on the atom a is minus the sum over
    its entries of ``de/dx[force_row[entry]] . dx[entry]``.

    Attributes
    ----------
    x : ndarray, shape (rows, width)
        Fingerprints, padded with zeros.
    kind : ndarray of int, shape (rows,)
        Index of each row's element in `Fingerprints.elements`.
    force_start : ndarray of int, shape (force atoms + 1,)
        The entries of force atom a are ``force_start[a]:force_start[a + 1]``.
    force_row : ndarray of int, shape (entries,)
        The row that an entry differentiates.
    dx : ndarray, shape (entries, xyz, width)
        Derivative of ``x[force_row[entry]]`` with respect to the force atom's position, in 1/Å, summed over periodic images.
    """

    x: np.ndarray
    kind: np.ndarray
    force_start: np.ndarray
    force_row: np.ndarray
    dx: np.ndarray

    def some_forces(self, atoms: Sequence[int]) -> Rows:
        """
        Return all rows, with some of the force atoms.

        Parameters
        ----------
        atoms : sequence of int
            Force atoms, in their new order.

        Returns
        -------
        Rows
        """
        if list(atoms) == list(range(len(self.force_start) - 1)):  # all, in their order: the derivatives need no copy
            return self
        parts = [np.arange(self.force_start[a], self.force_start[a + 1]) for a in atoms]
        start, entries = np.cumsum([0, *map(len, parts)]), np.concatenate(parts)
        return Rows(self.x, self.kind, start, self.force_row[entries], self.dx[entries])


class _Wanted(NamedTuple):
    """Derivatives to be computed."""

    start: np.ndarray  # (rows + 1,) those of row m are start[m]:start[m + 1]
    moved: np.ndarray  # (derivatives,) in the position of which atom
    entry: np.ndarray  # (derivatives,) where in dx


class Fingerprints:
    """
    Gaussian fingerprints for a fixed list of elements.

    Parameters
    ----------
    gs : dict of str to list of dict
        For each element its symmetry functions, as Amp writes them.
    cutoff : dict
        Amp's ``{'name': 'Cosine' | 'Polynomial', 'kwargs': {'Rc': ..., 'gamma': ...}}``.

    Attributes
    ----------
    elements : tuple of str
        Sorted.
    n_features : ndarray of int, shape (elements,)
        Number of fingerprints of each.
    width : int
        The largest of these.
    radius : float
        Rc in Å.

    Raises
    ------
    ValueError
        For a symmetry function or a cutoff that Amp's Gaussian descriptor does not have.
    """

    def __init__(self, gs: dict[str, list[dict]], cutoff: dict):
        self.elements = tuple(sorted(gs))
        self.n_features = np.array([len(gs[element]) for element in self.elements])
        self.width = int(self.n_features.max())
        self.tables, features = build_tables(gs, cutoff, self.elements)
        self.radius = self.tables.radius
        self._kind_of_number = np.full(len(chemical_symbols), -1)
        self._kind_of_number[[atomic_numbers[element] for element in self.elements]] = range(len(self.elements))
        self.slot_feature = np.full((len(features), max(map(len, features))), -1, dtype=np.int64)
        for kind, line in enumerate(features):
            self.slot_feature[kind, : len(line)] = line

    def kinds(self, numbers: np.ndarray) -> np.ndarray:
        """Return the index of each atom's element.

        Parameters
        ----------
        numbers : ndarray of int, shape (atoms,)
            Atomic numbers.

        Returns
        -------
        ndarray of int, shape (atoms,)

        Raises
        ------
        ValueError
            An element has no symmetry functions.
        """
        kind = self._kind_of_number[numbers]
        if (kind < 0).any():
            unknown = ", ".join(sorted({chemical_symbols[number] for number in np.asarray(numbers)[kind < 0]}))
            raise ValueError(f"No symmetry functions for {unknown}: these fingerprints are of {', '.join(self.elements)}.")
        return kind

    def rows(self, atoms: Atoms, forces: int | Sequence[int] | None = None) -> Rows:
        """Return fingerprints and derivatives of one image.

        Parameters
        ----------
        atoms : Atoms
            The image.
        forces : int or sequence of int, optional
            Force atoms, in this order: only they and their neighbours are rows. None: every atom is a row and a force atom.
            An index from the end counts as in a list.

        Returns
        -------
        Rows

        Raises
        ------
        ValueError
            An element has no symmetry functions, two atoms are in one place, or a force atom is given twice.
        IndexError
            There is no such atom.
        """
        kind = self.kinds(atoms.numbers)
        chosen = None if forces is None else [range(len(atoms))[i] for i in np.atleast_1d(forces)]
        if chosen is not None and not 0 < len(set(chosen)) == len(chosen):
            raise ValueError(f"force atoms {chosen}: give at least one, each once.")
        found = find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, self.radius)
        if chosen is None:
            row_atom, special = np.arange(len(atoms)), np.full(len(atoms), -1)
            start, row, mirror = _force_entries(found)
            wanted = _Wanted(start, row, mirror)
        elif len(chosen) > 1:
            row_atom, start, row, wanted = _some_force_entries(found, np.array(chosen))
            special = np.full(len(row_atom), -1)
        else:
            centre = chosen[0]
            near = np.unique(found.index[found.start[centre] : found.start[centre + 1]])
            row_atom = np.concatenate([[centre], near[near != centre]])
            special = np.where(row_atom == centre, -1, centre)
            start, row = np.array([0, len(row_atom)]), np.arange(len(row_atom))
            wanted = _Wanted(np.arange(len(row_atom) + 1), np.full(len(row_atom), centre), row)
        x, dx = self._fill(row_atom, special, found, 0, kind, wanted)
        return Rows(x, kind[row_atom], start, row, dx)

    def values(self, atoms: Atoms) -> Rows:
        """Return fingerprints alone: every atom is a row, none is a force atom. Memory beyond the result does not grow with the image.

        Parameters
        ----------
        atoms : Atoms
            The image.

        Returns
        -------
        Rows

        Raises
        ------
        ValueError
            An element has no symmetry functions, or two atoms are in one place.
        """
        kind, x, none = self.kinds(atoms.numbers), np.zeros((len(atoms), self.width)), np.zeros(0, dtype=np.int64)
        search = Search(atoms.positions, atoms.cell.array, atoms.pbc, self.radius)
        placed = kind[search.order]
        for first in range(0, len(atoms), _BLOCK):
            centres = np.arange(first, min(first + _BLOCK, len(atoms)))
            found = search.neighbors(first, first + len(centres))
            wanted = _Wanted(np.zeros(len(centres) + 1, dtype=np.int64), none, none)
            # as special atoms, too: triplets that need no gradients are summed more quickly
            x[search.order[centres]], _ = self._fill(centres, centres, found, first, placed, wanted)
        return Rows(x, kind, np.zeros(1, dtype=np.int64), none, np.zeros((0, 3, self.width)))

    def centre(self, atoms: Atoms, atom: int = 0) -> Rows:
        """Return the fingerprints of one atom: one row, no force atom. Time and memory are those of its own neighbours.

        Parameters
        ----------
        atoms : Atoms
            The image.
        atom : int
            Its index, from 0.

        Returns
        -------
        Rows

        Raises
        ------
        ValueError
            An element has no symmetry functions, or two atoms are in one place.
        """
        kind, none, row = self.kinds(atoms.numbers), np.zeros(0, dtype=np.int64), np.array([atom])
        found = Search(atoms.positions, atoms.cell.array, atoms.pbc, self.radius).neighbors_of(row)
        x, _ = self._fill(row, row, found, atom, kind, _Wanted(np.zeros(2, dtype=np.int64), none, none))
        return Rows(x, kind[row], np.zeros(1, dtype=np.int64), none, np.zeros((0, 3, self.width)))

    def _fill(
        self, row_atom: np.ndarray, special: np.ndarray, found: Neighbors, first: int, kind: np.ndarray, wanted: _Wanted
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return fingerprints of some atoms and the requested derivatives; `first` is the atom whose list comes first."""
        x, dx = np.zeros((len(row_atom), self.width)), np.zeros((len(wanted.entry), 3, self.width))
        _fill_rows(
            row_atom,
            special,
            found,
            first,
            kind,
            *wanted,
            np.full(len(kind), -1),
            self.tables,
            self.slot_feature,
            make_workspace(self.tables, found.most),
            x,
            dx,
        )
        return x, dx


def _force_entries(found: Neighbors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return for every atom the rows that move with it, ascending: itself and its neighbours.

    Returns the lists' starts, the rows, and for the entry (atom a, row i) where the entry (atom i, row a) is.
    """
    n = len(found.start) - 1
    atom = np.repeat(np.arange(n), np.diff(found.start))
    pairs = np.unique(np.concatenate([atom * n + found.index, np.arange(n) * (n + 1)]))
    atom, row = np.divmod(pairs, max(n, 1))
    return np.searchsorted(atom, np.arange(n + 1)), row, np.searchsorted(pairs, row * n + atom)


def _some_force_entries(found: Neighbors, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, _Wanted]:
    """
    Return for the chosen atoms the rows that move with them.

    Returns the rows' atoms, for each chosen atom the start of its entries, their rows, and the derivatives of each row.
    """
    starts, row, mirror = _force_entries(found)
    entries = np.concatenate([np.arange(starts[a], starts[a + 1]) for a in chosen])
    start = np.concatenate([[0], np.cumsum(starts[chosen + 1] - starts[chosen])])
    place = np.full(len(row), -1)  # of an entry among the chosen atoms' entries
    place[entries] = np.arange(len(entries))
    row_atom = np.unique(row[entries])
    of_rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in row_atom])  # (row, atom that moves it)
    counted = place[mirror[of_rows]] >= 0
    size = np.add.reduceat(counted.astype(int), np.concatenate([[0], np.cumsum(starts[row_atom + 1] - starts[row_atom])[:-1]]))
    wanted = _Wanted(np.concatenate([[0], np.cumsum(size)]), row[of_rows[counted]], place[mirror[of_rows[counted]]])
    return row_atom, start, np.searchsorted(row_atom, row[entries]), wanted


@kernel
def _fill_rows(row_atom, special, found, first, kind, start, moved, entry, entry_of, tables, slot_feature, ws, x, dx):
    """
    Fill x and the requested derivatives dx (`start`, `moved`, `entry`).

    `special` is the only atom whose position a row's derivatives need, or -1: there may be more.
    `entry_of` is scratch: the entry of the current row's derivative in the position of each atom, -1: none.
    """
    for m in range(row_atom.size):
        i = row_atom[m]
        for at in range(start[m], start[m + 1]):
            entry_of[moved[at]] = entry[at]
        n = compute(found.start[i - first], found.start[i - first + 1], found, kind, i, special[m], tables, ws)
        _copy_values(kind[i], slot_feature, ws.value, x, m)
        for j in range(n):
            if entry_of[ws.atom[j]] >= 0:
                _add_gradient(kind[i], j, 1.0, tables.kinds, slot_feature, ws.record, ws.radial, ws.grad, dx, entry_of[ws.atom[j]])
            if entry_of[i] >= 0:
                _add_gradient(kind[i], j, -1.0, tables.kinds, slot_feature, ws.record, ws.radial, ws.grad, dx, entry_of[i])


@inner
def _copy_values(kind, slot_feature, value, x, row):
    """Fingerprints from slots to Amp's order."""
    for slot in range(slot_feature.shape[1]):
        if slot_feature[kind, slot] >= 0:
            x[row, slot_feature[kind, slot]] = value[slot]


@inner
def _add_gradient(kind, j, sign, kinds, slot_feature, record, radial, grad, dx, entry):
    """Add the gradient in the j-th neighbour's position, times a sign, in Amp's order."""
    n_radial = kinds[kind, 4]
    for axis in range(3):
        away = sign * record[0, j, axis]
        for slot in range(n_radial):
            feature = slot_feature[kind, slot]
            if feature >= 0:
                dx[entry, axis, feature] += away * radial[j, slot]
        for slot in range(n_radial, n_radial + kinds[kind, 5]):
            feature = slot_feature[kind, slot]
            if feature >= 0:
                dx[entry, axis, feature] += sign * grad[j, (slot - n_radial) // LANES, axis + 1, slot % LANES]
