"""Batches of atoms whose chunks are labelled together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from ase import Atoms
from ase.geometry import get_distances

from amp.nft.activelearner.setup import Setup
from amp.nft.records import TrainingTask
from amp.nft.selection import by_log_det

FIRST_BATCH = 3  # atoms; each batch is twice as large as the one before
START_BATCH = 14  # atoms of the first training where there are no other images
POOL = 4  # candidates of a batch by the posterior, as a multiple of its size
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


def informative_atoms(
    setup: Setup, task: TrainingTask, texts: Sequence[str], delta: np.ndarray, size: int, known: Collection[int]
) -> np.ndarray:
    """Choose uncertain atoms whose forces together determine the parameters of the members best.

    Parameters
    ----------
    setup : Setup
    task : TrainingTask
        The last training.
    texts : sequence of str
        The members that it made.
    delta : ndarray, shape (atoms,)
        Uncertainty, eV/Å. The four times `size` most uncertain atoms are candidates.
    size : int
    known : collection of int
        Atoms that cannot be chosen.

    Returns
    -------
    ndarray of int
        Ascending.
    """
    from amp.nft.training.posterior import force_covariance  # numba: only where it is needed

    ranked = [int(atom) for atom in np.argsort(-delta, kind="stable") if int(atom) not in known]
    candidates = sorted(ranked[: POOL * size])
    if len(candidates) <= size or setup.spec is None:
        return np.array(candidates, dtype=int)
    places = by_log_det(force_covariance(task, texts, setup.spec, candidates), size)
    return np.sort(np.array(candidates)[places])
