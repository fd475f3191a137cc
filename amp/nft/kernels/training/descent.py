"""Descent of one member to its convergence criteria.

The damping lambda follows the ratio of a step's gain to its prediction (Nielsen, IMM-REP-1999-05).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amp.nft.kernels.threads import ALONE, Threads
from amp.nft.kernels.training.lm import find_step
from amp.nft.kernels.training.loss import Problem, make_scratch
from amp.nft.kernels.training.normal import linearize, make_work
from amp.nft.kernels.training.team import Team

if TYPE_CHECKING:
    from amp.nft.kernels.training.held_out import HeldOut

FIRST_LAMBDA, LARGEST_LAMBDA = 1e-4, 1e10
TILT = 2.0  # factor on the residuals of the kind whose rms alone exceeds its criterion
POLISH = 10  # accepted points beyond the first that meets the criteria
WORTH = 0.02  # part of the loss that each of them has to take off
EMPHASIS = 3.0  # additional weight of a residual at its limit, while only limits on the largest are exceeded


@dataclass(frozen=True)
class Rules:
    """When a fit ends.

    Attributes
    ----------
    criteria : ndarray, shape (4,)
        Bounds on the rms and the largest residual of the energies (eV/atom), then of the forces (eV/Å); inf where not asked.
        A residual whose label has weight w counts as sqrt(w) times its size.
    max_steps : int
    window, patience : int
        A fit has stalled if, at the pace of its last `window` steps, the criteria are more than `patience` steps away.
    """

    criteria: np.ndarray
    max_steps: int = 100_000
    window: int = 40
    patience: int = 1000


@dataclass(frozen=True)
class Fit:
    """Result of a fit.

    Attributes
    ----------
    theta : ndarray, shape (parameters,)
    outcome : str
        'converged', 'exhausted' (`max_steps` done) or 'stalled'; with a judge 'converged' (the held-out error rises), 'level'
        (the loss levelled off before) or 'exhausted'.
    steps : int
        Steps tried.
    loss : float
        Amp's.
    measures : ndarray, shape (4,)
        As the criteria.
    distance : float
        Distance of the measures from the criteria: the sum of the logarithms of their ratios where these exceed 1.
    best_step : int
        With a judge: the step whose parameters are kept.
    held_out_rmse : float
        With a judge: root mean square of its force residuals at that step, eV/Å; nan else.
    """

    theta: np.ndarray
    outcome: str
    steps: int
    loss: float
    measures: np.ndarray
    distance: float
    best_step: int = -1
    held_out_rmse: float = np.nan


class Residuals:
    """Kind and weight of each residual of a member.

    Parameters
    ----------
    problem : Problem
    weights : ndarray of int, shape (images,)
        Multiplicity of each image in the member's sample.
    """

    def __init__(self, problem: Problem, weights: np.ndarray) -> None:
        images, times = problem.data.images[weights > 0], weights[weights > 0]
        n_forces = images["last"] - images["force"]
        n_residuals = images["has_energy"] + 3 * n_forces
        first = np.cumsum(n_residuals) - n_residuals
        self.is_energy = np.zeros(n_residuals.sum(), dtype=bool)
        self.is_energy[first[images["has_energy"] > 0]] = True
        of_force = np.concatenate([problem.force_weights[image["force"] : image["last"]] for image in images])
        weight = np.repeat(images["energy_weight"], n_residuals)
        weight[~self.is_energy] = np.repeat(of_force, 3)
        self.size = np.sqrt(weight)
        divisor = np.where(self.is_energy, 1.0, np.repeat(3.0 * images["divisor"], n_residuals))
        self.share = np.repeat(times, n_residuals) * weight / divisor
        in_image = np.bincount(np.repeat(np.arange(len(images)), n_forces), weights=of_force, minlength=len(images))
        self.count = np.array([images["energy_weight"].sum() or 1.0, (in_image / images["divisor"]).sum() or 1.0])
        coefficient = np.where(self.is_energy, problem.energy_coefficient, problem.force_coefficient)
        kinds, layers = problem.net.kinds, problem.net.layers
        n_penalties = (kinds["features"] * layers["n_out"][:, 0]).sum() if problem.overfit > 0.0 else 0
        self.most = max(n_residuals.max(), n_penalties)  # of an image or of the penalty
        self.root = np.sqrt(np.concatenate([self.share * coefficient, np.full(n_penalties, problem.overfit)]))

    def measures(self, residual: np.ndarray) -> np.ndarray:
        """Return root mean square and largest of the residuals of energies and of forces.

        As in Amp, except that energies are averaged over the images that have one. The mean is weighted; the largest is that of the
        residuals times the roots of their weights.

        Parameters
        ----------
        residual : ndarray

        Returns
        -------
        ndarray, shape (4,)
            Of energies in eV/atom, then of forces in eV/Å.
        """
        residual, result = residual[: len(self.share)], []
        size = self.size * np.abs(residual)
        for chosen, count in zip((self.is_energy, ~self.is_energy), self.count, strict=True):
            result += [np.sqrt(self.share[chosen] @ residual[chosen] ** 2 / count), size[chosen].max(initial=0.0)]
        return np.array(result)

    def emphasized(self, residual: np.ndarray, measures: np.ndarray, criteria: np.ndarray) -> np.ndarray:
        """Return the roots of the residuals' weights, changed to favour the criteria that are still missed.

        If one of the root mean squares alone is exceeded, the residuals of its kind count more; if neither is, large residuals do.

        Parameters
        ----------
        residual : ndarray
        measures, criteria : ndarray, shape (4,)

        Returns
        -------
        ndarray
        """
        root, n = self.root.copy(), len(self.share)
        exceeded = measures > criteria
        if exceeded[0] != exceeded[2]:
            root[:n][self.is_energy == exceeded[0]] *= TILT
        elif not exceeded[0] and exceeded.any():
            limit = np.where(self.is_energy, criteria[1], criteria[3])
            root[:n] *= np.sqrt(1.0 + EMPHASIS * (self.size * residual[:n] / limit) ** 2)
        return root


def distance(measures: np.ndarray, criteria: np.ndarray, objective: float = 1.0) -> float:
    """Return the distance from the criteria; see :class:`Fit`.

    Parameters
    ----------
    measures, criteria : ndarray, shape (4,)
    objective : float
        Quantity that is minimised; without criteria its logarithm is the distance.

    Returns
    -------
    float
    """
    if not np.isfinite(criteria).any():
        return float(np.log(objective + 1e-300))
    return float(np.log(np.maximum(measures / criteria, 1.0)).sum())


def descend(
    problem: Problem,
    theta: np.ndarray,
    weights: np.ndarray,
    rules: Rules,
    tell: Callable[[int, float, float], object] = lambda steps, loss, distance: None,
    held_out: HeldOut | None = None,
    threads: Threads = ALONE,
) -> Fit:
    """Fit one member.

    Once the criteria are met it continues for a few steps while each reduces the loss substantially: labels cost more than
    steps. What it keeps meets the criteria.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (parameters,)
        The start.
    weights : ndarray of int, shape (images,)
        Multiplicity of each image.
    rules : Rules
    tell : callable
        Is called with the steps, the loss and the distance from the criteria (nan with none), after each step; with a judge the
        distance is that from the smallest held-out error.
    held_out : HeldOut, optional
        Judge of this fit, which then keeps the point of the smallest held-out error; give it rules without criteria.
    threads : Threads
        Those without a fit of their own help. The result does not depend on them.

    Returns
    -------
    Fit
    """
    theta, weights = np.array(theta, dtype=float), np.ascontiguousarray(weights, dtype=np.int64)
    residuals, scratch = Residuals(problem, weights), make_scratch(problem)
    n, work = len(residuals.root), make_work(residuals.root, len(theta), residuals.most)
    team = Team(problem, weights, scratch, work, threads)
    team.fill_residuals(theta, work.trial)
    damping, growth, accepted, best = FIRST_LAMBDA, 2.0, True, []  # best: the smallest distance so far, after each step
    met: list[Fit] = []  # those that meet the criteria, after each step from the first on
    while True:
        if accepted:
            current = work.trial[:n].copy()
            measures = residuals.measures(current)
            work.root[:] = residuals.emphasized(current, measures, rules.criteria)
            objective = float(((work.root * current) ** 2).sum())
            loss = float(((residuals.root * current) ** 2).sum())
            if held_out is not None:
                held_out.see(Fit(theta.copy(), "", len(best), loss, measures, np.nan))
        best.append(min([distance(measures, rules.criteria, objective), *best[-1:]]))
        tell(len(best) - 1, loss, held_out.distance if held_out else distance(measures, rules.criteria, np.nan))
        if held_out is not None:
            if (end := held_out.end(len(best) - 1, rules.max_steps, damping)) is not None:
                return end
        elif (outcome := _outcome(measures, best, damping, rules)) or met:
            fit = Fit(theta.copy(), outcome, len(best) - 1, loss, measures, best[-1])
            if outcome == "converged":
                met.append(fit)
            if not met or _polished(met, fit, rules):
                return min(met or [fit], key=lambda fit: fit.loss)
        if accepted:
            largest = linearize(problem, theta, weights, scratch, work, team)
        promised = find_step(problem, theta, weights, scratch, work, damping * largest, team)
        gain = objective - float(((work.root * work.trial[:n]) ** 2).sum())
        accepted = promised >= 0.0 and gain > 0.0
        if accepted:
            theta += work.step[: len(theta)]
            damping, growth = damping * max(0.2, 1.0 - (2.0 * gain / promised - 1.0) ** 3), 2.0
        else:
            damping, growth = damping * growth, 2.0 * growth


def _polished(met: list[Fit], last: Fit, rules: Rules) -> bool:
    """Return True if a fit that meets its criteria should stop."""
    if last.outcome != "converged" or len(met) > POLISH or last.steps >= rules.max_steps:
        return True
    return len(met) > 1 and met[-1].loss > (1.0 - WORTH) * met[-2].loss


def _outcome(measures: np.ndarray, best: list[float], damping: float, rules: Rules) -> str:
    """Return the outcome if the fit ends here, or an empty string."""
    if np.isfinite(rules.criteria).any() and np.all(measures <= rules.criteria):
        return "converged"
    if len(best) > rules.max_steps:
        return "exhausted"
    fallen = best[-1 - rules.window] - best[-1] if len(best) > rules.window else np.inf
    slow = fallen * rules.patience < rules.window * abs(best[-1])
    return "stalled" if slow or damping > LARGEST_LAMBDA else ""
