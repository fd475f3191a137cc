"""Test of a trained ensemble by labels of atoms drawn at random, before the label of any is known."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from amp.nft.activelearner.chunk_labels import ChunkLabels
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.records import Purpose, random_stream
from amp.nft.run.replay import LiveState
from amp.nft.run.store import RunStore
from amp.nft.run.verdict import NOT_TESTED, RandomErrors
from amp.nft.uncertainty.forces import CONFIDENCE


class RandomTest:
    """Labels of random atoms, which are never trained; some of them also in larger chunks.

    Parameters
    ----------
    labels : ChunkLabels
        Labels of the run.
    store : RunStore
    state : LiveState
    seed : int
    log : callable
        Takes a message.
    """

    def __init__(self, labels: ChunkLabels, store: RunStore, state: LiveState, seed: int, log: Callable[[str], object]) -> None:
        self.labels, self.store, self.state, self.seed, self.log = labels, store, state, seed, log
        self.larger = labels.larger()

    def open(self, parents: ParentRecord) -> None:
        """Read the labels in larger chunks that the journal names.

        Parameters
        ----------
        parents : ParentRecord
        """
        self.larger.open(parents, self.state())

    def errors(
        self, forces_ax: np.ndarray, delta_a: np.ndarray, used: Collection[int], n_labels: int, n_larger: int,
        stop: Callable[[], bool] = lambda: False,
    ) -> RandomErrors:  # fmt: skip
        """Label the test atoms, and compare.

        Parameters
        ----------
        forces_ax : ndarray, shape (atoms, 3)
            Mean forces of the ensemble on all atoms of the targets, eV/Å.
        delta_a : ndarray, shape (atoms,)
            Their uncertainty, eV/Å.
        used : collection of int
            Atoms whose chunks are in the training set.
        n_labels, n_larger : int
            Number of test atoms, and of those that are labelled in a larger chunk too.
        stop : callable, optional
            Returns True when no further label is to begin.

        Returns
        -------
        RandomErrors

        Raises
        ------
        BatchStopped
            If `stop` kept a label from beginning.
        """
        atoms = self._drawn(len(delta_a), used, n_labels)
        if not atoms:
            self.log("\nTest: no atom is left to draw, since the labels of all are trained.")
            return NOT_TESTED
        self.log(f"\nTest: {len(atoms)} atoms drawn at random.")
        ranking = np.zeros(len(delta_a))
        tested, _ = self.labels.label(atoms, ranking, range(len(ranking)), stop)  # one that fails is not replaced by a chosen one
        known = {atom: self._central_force(self.labels, atom) for atom in tested}
        if n_larger:
            self.larger.label(tested[:n_larger], ranking, range(len(ranking)), stop)
        differences = [
            np.linalg.norm(self._central_force(self.larger, atom) - known[atom]) for atom in tested[:n_larger] if atom in self.larger.images
        ]
        unlabelled = [atom for atom in range(len(delta_a)) if atom not in used]
        return RandomErrors(
            errors_k=np.array([np.linalg.norm(forces_ax[atom] - force) for atom, force in known.items()]),
            std_k=delta_a[tested] / CONFIDENCE,
            std_i=delta_a[unlabelled] / CONFIDENCE,
            differences_l=np.array(differences),
        )

    def _drawn(self, n_atoms: int, used: Collection[int], n_labels: int) -> list[int]:
        """Return the test atoms: those of an earlier test first, which no training has used since."""
        before = [atom for atom in self.state().test if atom not in used]
        rng = np.random.default_rng(random_stream(self.seed, Purpose.TEST))
        order = [int(atom) for atom in rng.permutation(n_atoms) if atom not in used and int(atom) not in before]
        atoms = (before + order)[:n_labels]
        if tuple(atoms) != self.state().test:
            self.store.append("test-chosen", atoms=atoms)
        return atoms

    @staticmethod
    def _central_force(labels: ChunkLabels, atom: int) -> np.ndarray:
        return labels.forces(atom)[0]


def out_of_bag_errors(iterations: Any) -> list[float]:
    """Return the out-of-bag force errors of iterations.

    Parameters
    ----------
    iterations : sequence of Iteration

    Returns
    -------
    list of float
        Mean over the members, per component, eV/Å; iterations without a known error are skipped.
    """
    means = [np.mean([report.oob_force_rmse for report in entry.reports]) for entry in iterations]
    return [float(mean) for mean in means if np.isfinite(mean)]
