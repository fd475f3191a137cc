"""Batches of atoms whose chunks are labelled together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase import Atoms
from ase.geometry import get_distances

FIRST_BATCH = 3  # atoms; each batch is twice as large as the one before
START_BATCH = 14  # atoms of the first training where there are no other images
NEARER = 0.8  # factor on the distance between the atoms of a batch while too few are that far apart


def batch_size(iteration: int) -> int:
    """Return the number of atoms of a batch of spread atoms: 3, 6, 12, ...

    Parameters
    ----------
    iteration : int

    Returns
    -------
    int
    """
    return FIRST_BATCH * 2**iteration


def spread_atoms(targets: Sequence[Atoms], ranking: np.ndarray, size: int, distance: float, known: Collection[int] = ()) -> list[int]:
    """Choose atoms of high rank that are far apart, since one chunk teaches the forces on its neighbours too.

    The highest-ranked atom comes first, then each time the highest-ranked one that is at least `distance` away from those chosen; where
    none is left, the distance shrinks by a fifth.

    Parameters
    ----------
    targets : sequence of Atoms
        Atoms are numbered through all of them.
    ranking : ndarray, shape (atoms,)
        Largest first: the uncertainty of each atom, for example.
    size : int
        Number of atoms; all that are not known if there are fewer.
    distance : float
        In Å.
    known : collection of int
        Atoms that cannot be chosen.

    Returns
    -------
    list of int
    """
    ranked = [int(atom) for atom in np.argsort(-np.asarray(ranking), kind="stable") if int(atom) not in known]
    first = np.cumsum([0, *map(len, targets)])
    nearest = np.full(first[-1], np.inf)  # distance of each atom to those chosen
    chosen: list[int] = []
    while ranked and len(chosen) < size:
        far = next((atom for atom in ranked if nearest[atom] >= distance), None)
        if far is None:
            distance *= NEARER
            continue
        chosen.append(far)
        ranked.remove(far)
        number = int(np.searchsorted(first, far, side="right")) - 1
        here, target = slice(first[number], first[number + 1]), targets[number]
        away = get_distances(target.positions[far - first[number]], target.positions, cell=target.cell, pbc=target.pbc)[1][0]
        nearest[here] = np.minimum(nearest[here], away)
    return chosen
