"""Predicted and known forces on the same atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from amp.nft.inputs.geometry import neighbor_pairs
from amp.nft.uncertainty.forces import are_covered

STRETCH = 1.25  # a neighbour is closer than this times the sum of the covalent radii
MOST = 13  # neighbours that are told apart


@dataclass(frozen=True)
class Comparison:
    """Predicted and known forces on some atoms.

    Attributes
    ----------
    known, predicted : ndarray, shape (atoms, 3)
        eV/Å.
    delta : ndarray, shape (atoms,)
        Predicted uncertainty, eV/Å.
    iteration : ndarray of int, shape (atoms,)
        Of the ensemble that predicted.
    numbers, neighbors : ndarray of int, shape (atoms,)
        Atomic number, and number of nearest neighbours (see `count_neighbors`), at most 13; 0 where they are not known.
    atoms : ndarray of int, shape (atoms,)
        Index among the atoms of all targets; -1 where it is not known.
    """

    known: np.ndarray
    predicted: np.ndarray
    delta: np.ndarray
    iteration: np.ndarray
    numbers: np.ndarray
    neighbors: np.ndarray
    atoms: np.ndarray

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def errors(self) -> np.ndarray:
        """Lengths of the error vectors, eV/Å."""
        return np.linalg.norm(self.predicted - self.known, axis=1)

    @property
    def covered(self) -> np.ndarray:
        """True where the error is not larger than the uncertainty."""
        return are_covered(self.errors, self.delta)

    @property
    def coverage(self) -> float:
        """Fraction of the errors that are not larger than the uncertainty; 0.99 is expected."""
        return float(np.mean(self.covered))

    @property
    def correlation(self) -> float:
        """Rank correlation of the uncertainty with the error; nan for fewer than three atoms or where one is constant."""
        if len(self) < 3 or np.ptp(self.delta) == 0 or np.ptp(self.errors) == 0:
            return float("nan")
        from scipy.stats import spearmanr

        return float(spearmanr(self.delta, self.errors).statistic)

    def where(self, chosen: np.ndarray) -> Comparison:
        """Return the comparison on some of the atoms.

        Parameters
        ----------
        chosen : ndarray of bool, shape (atoms,)

        Returns
        -------
        Comparison
        """
        return Comparison(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def at(self, iteration: int) -> Comparison:
        """Return the predictions of one iteration's ensemble.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        Comparison
        """
        return self.where(self.iteration == iteration)


def compare(
    known: ArrayLike, predicted: ArrayLike, delta: ArrayLike, iteration: int, numbers: ArrayLike = (), neighbors: ArrayLike = (),
    atoms: ArrayLike = (),
) -> Comparison:  # fmt: skip
    """Return a comparison; elements, neighbours and indices that are not given are not known.

    Parameters
    ----------
    known, predicted : array_like, shape (atoms, 3)
        eV/Å.
    delta : array_like, shape (atoms,)
        eV/Å.
    iteration : int
    numbers, neighbors, atoms : array_like of int, shape (atoms,), optional

    Returns
    -------
    Comparison
    """
    known, predicted = (np.reshape(np.asarray(values, dtype=float), (-1, 3)) for values in (known, predicted))
    whole = [np.asarray(values, dtype=int) for values in (numbers, neighbors, atoms)]
    filled = [values if len(values) else np.full(len(known), unknown) for values, unknown in zip(whole, (0, 0, -1), strict=True)]
    return Comparison(known, predicted, np.asarray(delta, dtype=float), np.full(len(known), iteration), *filled)


NOTHING = compare((), (), (), 0)


def join(parts: Sequence[Comparison]) -> Comparison:
    """Return the comparisons one after the other.

    Parameters
    ----------
    parts : sequence of Comparison

    Returns
    -------
    Comparison
    """
    return Comparison(*(np.concatenate([getattr(part, field.name) for part in [NOTHING, *parts]]) for field in fields(Comparison)))


def count_neighbors(atoms: Atoms, centres: Sequence[int] | None = None) -> np.ndarray:
    """Count the nearest neighbours of atoms: those closer than 1.25 times the sum of the covalent radii.

    Parameters
    ----------
    atoms : Atoms
    centres : sequence of int, optional
        Atoms whose neighbours are counted; all if not given.

    Returns
    -------
    ndarray of int, shape (centres,)
        At most 13.
    """
    radii = STRETCH * covalent_radii[atoms.numbers]
    pairs = neighbor_pairs(atoms, 2 * float(radii.max()), centres)
    near = np.linalg.norm(pairs.vector, axis=1) < radii[pairs.first] + radii[pairs.second]
    counts = np.diff(np.concatenate([[0], np.cumsum(near)])[pairs.start])
    return np.minimum(counts, MOST)
