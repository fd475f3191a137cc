"""Out-of-bag stop: each member keeps its best parameters by the error on images that its bootstrap sample lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from amp.nft.kernels.threads import ALONE, Threads
from amp.nft.kernels.training.descent import Fit, Rules, descend
from amp.nft.kernels.training.held_out import HeldOut
from amp.nft.kernels.training.loss import Problem
from amp.nft.kernels.training.network import losses

Until = Literal["criteria", "out-of-bag"]
UNTIL: tuple[Until, ...] = ("criteria", "out-of-bag")
LEAST_CHUNKS = 3  # out-of-bag chunks that can judge a member; with fewer all out-of-bag images do
PATIENCE, LONG_PATIENCE = 15, 40  # accepted steps without improvement, for few and for many forces
MANY_FORCES = 2000  # trained force vectors of a data set from which patience is long
LESS_FORCE = 0.1  # factor on the coefficient of the forces in the energy stage
STAGE_STEPS, STAGE_PATIENCE = 15, 6  # most steps of the energy stage, and accepted ones without improvement
ALL_STEPS = 10  # of the stage on all images, which no image is left to judge


@dataclass(frozen=True)
class Judges:
    """Images that judge one member.

    Attributes
    ----------
    images : ndarray of bool, shape (images,)
    robust : bool
        True: the error is the mean absolute residual, for a data set. False: the loss, for chunks of one target.
    patience : int
        Accepted steps without improvement after which its fit ends.
    """

    images: np.ndarray
    robust: bool
    patience: int

    def over(self, problem: Problem) -> HeldOut:
        """Return the judge of one descent.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        HeldOut
        """
        return HeldOut(problem, self.images, self.robust, self.patience)

    def of_energy_stage(self, problem: Problem) -> HeldOut:
        """Return the judge of an energy stage, which weighs energies and forces.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        HeldOut
        """
        return HeldOut(problem, self.images, True, STAGE_PATIENCE, energies=True)


def energy_stage(
    problem: Problem,
    first: Fit,
    weights: np.ndarray,
    judges: Judges,
    tell: Callable[[int, float, float], object],
    threads: Threads = ALONE,
) -> Fit:
    """Continue a fit for a few steps in which energies count more.

    The forces of a data set are so many that they alone decide where a fit ends. Few steps with a smaller coefficient of the forces
    then take a third off the errors of the energies, and add a few percent to those of the forces; more steps would fit the energies
    of the sample alone.

    Parameters
    ----------
    problem : Problem
    first : Fit
        Fit that ended at its out-of-bag minimum.
    weights : ndarray of int, shape (images,)
        Multiplicity of each image.
    judges : Judges
    tell : callable
    threads : Threads
        As for :func:`amp.nft.kernels.training.descent.descend`.

    Returns
    -------
    Fit
        The first one if neither its sample nor its judges have both energies and forces, or no step is better.
    """
    less = _with_less_force(problem)
    if not (_has_both(problem, weights > 0) and _has_both(problem, judges.images)):
        return first
    rules = Rules(np.full(4, np.inf), STAGE_STEPS)
    second = descend(less, first.theta, weights, rules, tell, judges.of_energy_stage(less), threads)
    if second.best_step == 0:
        return replace(first, steps=first.steps + second.steps)
    loss = losses(problem, second.theta[None], weights[None], gradient=False, threads=1)[0][0]
    return replace(
        second, outcome=first.outcome, steps=first.steps + second.steps, best_step=first.steps + second.best_step, loss=float(loss)
    )


def stage_on_all_images(
    problem: Problem,
    theta: np.ndarray,
    tell: Callable[[int, float, float], object] = lambda steps, loss, distance: None,
    threads: Threads = ALONE,
) -> Fit:
    """Continue a fit on all images, each once, for a few steps in which energies count more.

    A member learns then from the images that judged it, a third of all. No image is left to judge it, so that the steps are few.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (parameters,)
        Of a fit that ended out of bag.
    tell : callable
    threads : Threads
        As for :func:`amp.nft.kernels.training.descent.descend`.

    Returns
    -------
    Fit
        With no step if the images do not have both energies and forces.
    """
    every = np.ones(len(problem.data.images), dtype=np.int64)
    less = _with_less_force(problem)
    steps = ALL_STEPS if _has_both(problem, every > 0) else 0
    fit = descend(less, theta, every, Rules(np.full(4, np.inf), steps), tell, threads=threads)
    return replace(fit, loss=float(losses(problem, fit.theta[None], every[None], gradient=False, threads=1)[0][0]))


def _with_less_force(problem: Problem) -> Problem:
    """Return the problem of the energy stage and of the stage on all images."""
    return problem._replace(force_coefficient=LESS_FORCE * problem.force_coefficient)


def _has_both(problem: Problem, chosen: np.ndarray) -> bool:
    """Return True if some of the chosen images have energies and some have forces."""
    images = problem.data.images[chosen]
    return bool((images["has_energy"] > 0).any() and (images["last"] > images["force"]).any())


def choose_judges(weights_i: np.ndarray, chunk_i: Sequence[bool] | np.ndarray, n_forces_i: np.ndarray) -> Judges | None:
    """Choose the images that judge a member.

    Parameters
    ----------
    weights_i : ndarray, shape (images,)
        Multiplicity of each image in the member's sample.
    chunk_i : sequence of bool, shape (images,)
        True for chunks of a target.
    n_forces_i : ndarray of int, shape (images,)
        Trained force vectors of each image; only images with forces judge, unless none has any.

    Returns
    -------
    Judges or None
        None if every image is in the member's sample.

    Notes
    -----
    The squared loss is right for chunks of one target. On a data set one odd image moves it tenfold; the mean absolute residual
    and a longer patience are then needed.
    """
    chunk_i, n_forces_i = np.asarray(chunk_i, dtype=bool), np.asarray(n_forces_i)
    out = (np.asarray(weights_i) == 0) & ((n_forces_i > 0) | (n_forces_i.max(initial=0) == 0))
    if not out.any():
        return None
    robust = not chunk_i.any()
    patience = LONG_PATIENCE if robust and n_forces_i.sum() >= MANY_FORCES else PATIENCE
    chunks = out & chunk_i
    return Judges(chunks if chunks.sum() >= LEAST_CHUNKS else out, robust, patience)


def describe(fit: Fit) -> str:
    """Return in words how a judged fit ended.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    str
    """
    how = {
        "converged": "stopped at its out-of-bag minimum",
        "level": "loss levelled off; kept its out-of-bag minimum",
        "exhausted": "maxiter reached before an out-of-bag minimum was confirmed; kept the best so far",
    }[fit.outcome]
    error = "" if np.isnan(fit.held_out_rmse) else f"; out-of-bag force error {fit.held_out_rmse:.3g} eV/Å"
    return f"{how}, step {fit.best_step} of {fit.steps}{error}"
