"""Predictions of a run's ensembles for known forces: of its chunks, before and after training on them, and of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from amp.nft.amp_io import read_amp
from amp.nft.errors import UnsupportedModel
from amp.nft.run.history import Run
from amp.nft.run.second_labels import SecondLabels


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
    """

    known: np.ndarray
    predicted: np.ndarray
    delta: np.ndarray
    iteration: np.ndarray

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def errors(self) -> np.ndarray:
        """Lengths of the error vectors, eV/Å."""
        return np.linalg.norm(self.predicted - self.known, axis=1)

    @property
    def coverage(self) -> float:
        """Fraction of the errors that are not larger than the uncertainty; 0.99 is expected."""
        return float(np.mean(self.errors <= self.delta))

    @property
    def correlation(self) -> float:
        """Rank correlation of the uncertainty with the error; nan for fewer than three atoms or where one is constant."""
        if len(self) < 3 or np.ptp(self.delta) == 0 or np.ptp(self.errors) == 0:
            return float("nan")
        from scipy.stats import spearmanr

        return float(spearmanr(self.delta, self.errors).statistic)

    def at(self, iteration: int) -> Comparison:
        """Return the predictions of one iteration's ensemble.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        Comparison
        """
        chosen = self.iteration == iteration
        return Comparison(*(values[chosen] for values in (self.known, self.predicted, self.delta, self.iteration)))


@dataclass(frozen=True)
class Checks:
    """Predictions against known forces.

    Attributes
    ----------
    trained : Comparison
        Central forces of the chunks that the best ensemble was trained on.
    unseen : Comparison
        Central forces of chunks, by the ensemble that requested them, which was not trained on them.
    target : Comparison or None
        The best ensemble on all atoms of the targets, where the true forces are given.
    why_not : str
        Why there are no predictions, if there are none.
    """

    trained: Comparison
    unseen: Comparison
    target: Comparison | None = None
    why_not: str = ""


def check(run: Run, truth: np.ndarray | None = None) -> Checks:
    """Predict the forces that are known.

    Parameters
    ----------
    run : Run
    truth : ndarray, shape (atoms of all targets, 3), optional
        True forces, eV/Å.

    Returns
    -------
    Checks
    """
    nothing = _compare([], [], [], [])
    if not run.steps:
        return Checks(nothing, nothing, why_not="No iteration is finished.")
    try:
        unseen = [_central(run, step.iteration, new) for step, new in zip(run.steps, run.new_atoms, strict=False)]
        before = [atom for new in run.new_atoms[: run.best.iteration] for atom in new]
        trained = _central(run, run.best.iteration, before)
        target = None if truth is None else _predict(run, run.best.iteration, run.targets, truth)
    except UnsupportedModel as error:
        return Checks(nothing, nothing, why_not=f"Only Amp itself can evaluate members of this kind ({error}).")
    return Checks(trained, _join([nothing, *unseen]), target)


def _central(run: Run, iteration: int, atoms: Sequence[int]) -> Comparison:
    """Predict the forces on the central atoms of chunks by the ensemble of an iteration."""
    chunks = [run.record.image(run.label_files[atom]) for atom in atoms]
    known = [chunk.get_forces(apply_constraint=False)[0] for chunk in chunks]
    found = _evaluate(run, iteration, chunks)
    return _compare(known, [forces[0] for forces, _ in found], [delta[0] for _, delta in found], [iteration] * len(chunks))


def _predict(run: Run, iteration: int, images: Sequence[Atoms], known: np.ndarray) -> Comparison:
    """Predict the forces on all atoms of some structures."""
    found = _evaluate(run, iteration, images)
    forces, deltas = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _compare(known, forces, deltas, [iteration] * len(deltas))


def _evaluate(run: Run, iteration: int, images: Sequence[Atoms]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean forces and uncertainties on the atoms of each image."""
    from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

    if not images:
        return []
    step = next(step for step in run.steps if step.iteration == iteration)
    evaluator = Evaluator([read_amp(text) for text in run.members(step)])
    results = [evaluator.evaluate(image.positions, image.numbers, np.asarray(image.cell), image.pbc) for image in images]
    baseline = SecondLabels(run.record)
    return [(result.forces + baseline.forces(image), result.forces_uncertainty) for image, result in zip(images, results, strict=True)]


def _compare(known: ArrayLike, predicted: ArrayLike, delta: ArrayLike, iteration: ArrayLike) -> Comparison:
    known, predicted = (np.reshape(np.asarray(values, dtype=float), (-1, 3)) for values in (known, predicted))
    return Comparison(known, predicted, np.asarray(delta, dtype=float), np.asarray(iteration, dtype=int))


def _join(parts: Sequence[Comparison]) -> Comparison:
    names = ("known", "predicted", "delta", "iteration")
    return Comparison(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
