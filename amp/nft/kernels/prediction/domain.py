"""Energies and forces of an ensemble on a part of a structure: the atoms of one process, and ghosts around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.fingerprints.neighbors import Neighbors, Search
from amp.nft.kernels.fingerprints.workspace import make_workspace
from amp.nft.kernels.jit import kernel
from amp.nft.kernels.prediction.ensemble import add_block, evaluate_block, make_scratch, summarise, virials
from amp.nft.kernels.prediction.evaluate import Evaluator

_BLOCK = 64  # atoms at a time
_OPEN = np.zeros(3, dtype=bool)


class Summary(NamedTuple):
    """
    Results for the atoms of a domain, in the order in which they were given.

    Attributes
    ----------
    forces : ndarray, shape (atoms, xyz)
        Mean over the members, eV/Å.
    uncertainty : ndarray, shape (atoms,)
        As `Evaluation.forces_uncertainty`, eV/Å.
    """

    forces: np.ndarray
    uncertainty: np.ndarray


class Domain:
    """
    Atoms of one domain and ghosts around them, with lists of neighbours that are valid until an atom has moved half of `skin`.

    The energy of an atom belongs to its own domain. Forces on ghosts are kept for the caller, who brings them to the domains of these
    atoms with `ghost_forces` and `add_forces` before `summary`.

    Parameters
    ----------
    evaluator : Evaluator
    positions : ndarray, shape (atoms + ghosts, xyz)
        Atoms of the domain first, then ghosts, Å; ghosts are all others within the cutoff, periodic images too.
    kind : ndarray of int, shape (atoms + ghosts,)
        Kinds of atoms, as `Fingerprints.kinds` gives them.
    n_atoms : int
        Number of atoms of the domain.
    skin : float
        Å.

    Attributes
    ----------
    energy_i : ndarray, shape (atoms,)
        Energy of each atom, mean over the members, eV.
    outside_i : ndarray of bool, shape (atoms,)
        Atoms with a fingerprint outside the range of the training.
    virial_ab : ndarray, shape (xyz, xyz)
        Minus the derivative of the energy of the domain's atoms in the strain, mean over the members, eV; nan if not requested.
    virial_iab : ndarray, shape (atoms, xyz, xyz)
        Likewise of each atom.

    Raises
    ------
    InputError
        If two atoms are in one place, or a position is not finite.
    """

    def __init__(self, evaluator: Evaluator, positions: np.ndarray, kind: np.ndarray, n_atoms: int, skin: float):
        self._evaluator, self._skin, self._n = evaluator, skin, n_atoms
        self._begin = positions.copy()
        self._blocks: list[tuple[int, Neighbors]] = []
        self.energy_i, self.outside_i = np.zeros(n_atoms), np.zeros(n_atoms, dtype=bool)
        self.virial_ab, self.virial_iab = np.full((3, 3), np.nan), np.full((n_atoms, 3, 3), np.nan)
        self._forces = np.zeros((len(positions), 3, evaluator._networks.columns))
        self._order = np.arange(len(positions))
        if n_atoms:
            self._list_neighbors(positions, kind)
        self._place = np.empty(len(positions), dtype=np.int64)
        self._place[self._order] = np.arange(len(positions))

    def _list_neighbors(self, positions: np.ndarray, kind: np.ndarray) -> None:
        """Sort atoms, then ghosts, and list the neighbours of the atoms."""
        tables = self._evaluator.fingerprints.tables
        search = Search(positions, np.zeros((3, 3)), _OPEN, self._evaluator.fingerprints.radius + self._skin)
        is_atom = search.order < self._n
        places = np.concatenate([np.flatnonzero(is_atom), np.flatnonzero(~is_atom)])  # of the search, in the new order
        self._order = search.order[places]
        self._kind = kind[self._order]
        names = np.empty(len(positions), dtype=np.int32)
        names[places] = np.arange(len(positions), dtype=np.int32)
        for first in range(0, self._n, _BLOCK):
            of_block = places[first : min(first + _BLOCK, self._n)].astype(np.int32)
            self._blocks.append((first, search.some(of_block, names)))
        most = max(found.most for _, found in self._blocks)
        self._workspace = make_workspace(tables, most)
        self._scratch = make_scratch(self._evaluator._networks, len(positions), _BLOCK, _BLOCK * (len(self._workspace.atom) + 1))

    def holds(self, positions: np.ndarray) -> bool:
        """Return True if the neighbour lists are valid for these positions of the same atoms and ghosts.

        Parameters
        ----------
        positions : ndarray, shape (atoms and ghosts, 3)
            In Å.

        Returns
        -------
        bool
        """
        return bool((((positions - self._begin) ** 2).sum(axis=1) <= self._skin**2 / 4).all())

    def evaluate(self, positions: np.ndarray, stress: bool) -> None:
        """Compute energies and the forces of all members, and the virial if requested.

        Parameters
        ----------
        positions : ndarray, shape (atoms and ghosts, 3)
            In Å.
        stress : bool
            Compute the virial.
        """
        self._forces[:] = 0.0
        self.virial_ab[:] = 0.0 if stress else np.nan
        position, scratch, members = positions[self._order], getattr(self, "_scratch", None), self._evaluator.n_members
        for first, found in self._blocks:
            assert scratch is not None
            scratch.count[:], scratch.virial[:] = 0, 0.0
            evaluate_block(
                first, found._replace(position=position), self._kind, stress, self._evaluator.fingerprints.tables,
                self._evaluator._networks, self._workspace, scratch,
            )  # fmt: skip
            add_block(scratch.count, scratch.touched, scratch.force, scratch.line, self._forces)
            n = len(found.start) - 1
            atoms = self._order[first : first + n]
            self.energy_i[atoms] = scratch.energy[:n, :members].mean(axis=1)
            self.outside_i[atoms] = scratch.outside[:n]
            if stress:
                self.virial_iab[atoms] = virials(scratch)[:n, :, :, :members].mean(axis=3)
                self.virial_ab += self.virial_iab[atoms].sum(axis=0)

    def ghost_forces(self, row_g: np.ndarray, rows: int) -> np.ndarray:
        """
        Return the sums of the forces on ghosts.

        Parameters
        ----------
        row_g : ndarray of int, shape (ghosts,)
            Row to which each ghost is added.
        rows : int
            Their number.

        Returns
        -------
        ndarray, shape (rows, xyz, members)
            eV/Å.
        """
        found = np.zeros((rows, 3, self._evaluator.n_members))
        _add_rows(self._forces, self._place[self._n :], row_g, found)
        return found

    def add_forces(self, forces_rxm: np.ndarray, atom_r: np.ndarray) -> None:
        """Add forces of all members to those on some atoms of the domain.

        Parameters
        ----------
        forces_rxm : ndarray, shape (rows, 3, members)
            In eV/Å.
        atom_r : ndarray of int, shape (rows,)
            Index of the atom of each row.
        """
        _add_rows(forces_rxm, np.arange(len(atom_r)), self._place[atom_r], self._forces)

    def summary(self) -> Summary:
        """Return mean and uncertainty of the force on each atom of the domain.

        Returns
        -------
        Summary
        """
        found = Summary(np.empty((self._n, 3)), np.empty(self._n))
        order = self._order[: self._n]
        summarise(self._forces[: self._n], order, self._evaluator.n_members, found.forces, np.empty((self._n, 3)), found.uncertainty)
        return found


@kernel
def _add_rows(source, row, to, target):
    """Add rows of forces to others; the columns beyond the members stay out."""
    for n in range(row.size):
        for axis in range(3):
            for member in range(min(source.shape[2], target.shape[2])):
                target[to[n], axis, member] += source[row[n], axis, member]
