"""Levenberg-Marquardt with geodesic acceleration, for one member.

The step v solves (JᵀJ + mu + penalty) v = -Jᵀr - penalty θ with mu = lambda max(diag JᵀJ) (Moré, Lect. Notes Math. 630, 105 (1978), with
his scaling replaced by the identity). It is bent by half the acceleration a, which solves the same equations for the second
directional derivative of the residuals along v, a finite difference (Transtrum and Sethna, arXiv:1201.5885, eqs. 7, 12 and 15).
lambda follows the ratio of the gain to its prediction (Nielsen, IMM-REP-1999-05, eq. 2.5).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.linalg import PAD, add_scaled, cholesky, dot, gram, solve
from amp.nft.kernels.loss import fill_jacobian, fill_residuals

CONVERGED, EXHAUSTED, STALLED = range(3)
FIRST_LAMBDA, LARGEST_LAMBDA = 1e-3, 1e10
PROBE = 0.1  # part of the step over which the second derivative is taken
BEND = 0.75  # largest 2 |a| / |v| at which the acceleration is trusted


class Rules(NamedTuple):
    """When a fit ends."""

    criteria: np.ndarray  # energy rmse and largest residual, force rmse and largest residual; inf where not asked
    max_steps: int
    window: int  # a fit has stalled if over so many steps
    gain: float  # the loss has not fallen by this fraction


class Work(NamedTuple):
    """Memory of one fit: k residuals, p parameters, both padded, and s = the smaller of the two equations."""

    root: np.ndarray  # (k,) square roots of the coefficients in the loss
    residual: np.ndarray  # (k,) times root
    trial: np.ndarray  # (k,) at a trial point, times root
    jacobian: np.ndarray  # (k * p,) times root
    transposed: np.ndarray  # (p * s,) jacobian / sqrt(diagonal), if k < p
    diagonal: np.ndarray  # (p,) mu + penalty
    normal: np.ndarray  # (s * s,)
    factor: np.ndarray  # (s * s,)
    gradient: np.ndarray  # (p,) half the loss's
    step: np.ndarray  # (p,) v
    bend: np.ndarray  # (p,) a
    dual: np.ndarray  # (s,)
    point: np.ndarray  # (p,) trial point
    share: np.ndarray  # (count,) weight of a squared residual in the sum over energies or forces
    is_energy: np.ndarray  # (count,) which sum that is
    measures: np.ndarray  # (4,) rms and largest residual of the energies, then of the forces


@inner
def _fill_shares(problem, weights, work):
    """Fill share, is_energy and root."""
    k = 0
    for i in range(len(weights)):
        image = problem.data.images[i]
        if weights[i] > 0:
            n = 3 * (image.last - image.force)
            for c in range(image.has_energy + n):
                energy = c < image.has_energy
                work.is_energy[k] = energy
                work.share[k] = weights[i] if energy else weights[i] / n
                work.root[k] = np.sqrt(work.share[k] * (problem.energy_coefficient if energy else problem.force_coefficient))
                k += 1


@inner
def _measure(problem, weights, work):
    """Fill the measures from unscaled residuals in work.trial.

    The mean squares are those of Amp, but that the energies' is over the images that carry one.
    """
    n_energies = n_forces = 0
    for i in range(len(weights)):
        image = problem.data.images[i]
        n_energies += 1 if weights[i] > 0 and image.has_energy else 0
        n_forces += 1 if weights[i] > 0 and image.last > image.force else 0
    m = work.measures
    for c in range(4):
        m[c] = 0.0
    for k in range(len(work.share)):
        c = 0 if work.is_energy[k] else 2
        m[c] += work.share[k] * work.trial[k] ** 2
        m[c + 1] = max(m[c + 1], abs(work.trial[k]))
    m[0], m[2] = np.sqrt(m[0] / max(n_energies, 1)), np.sqrt(m[2] / max(n_forces, 1))


@inner
def _loss(work, penalty, theta):
    """Sum of squares of the trial residuals, and penalty."""
    result = 0.0
    for k in range(len(work.share)):
        result += (work.root[k] * work.trial[k]) ** 2
    for p in range(len(penalty)):
        result += penalty[p] * theta[p] ** 2
    return result


@inner
def _linearize(problem, theta, weights, scratch, work):
    """Fill residuals, Jacobian, gradient and, in the primal form, JᵀJ; the largest element of its diagonal."""
    width = len(work.step)
    fill_jacobian(problem, theta, weights, scratch, work.residual, work.jacobian, width)
    for p in range(width):
        work.gradient[p] = work.bend[p] = 0.0  # bend: the diagonal, for now
    for k in range(len(work.share)):
        work.residual[k] *= work.root[k]
        for p in range(width):
            work.jacobian[k * width + p] *= work.root[k]
            work.bend[p] += work.jacobian[k * width + p] ** 2
        add_scaled(work.residual[k], work.jacobian, k * width, work.gradient, np.int64(0), width)
    largest = 0.0
    for p in range(len(theta)):
        work.gradient[p] += problem.penalty[p] * theta[p]
        largest = max(largest, work.bend[p])
    if len(work.transposed) == 0:
        gram(work.jacobian, len(work.share), width, work.normal)
    return largest


@inner
def _factorize(problem, work, mu):
    """Factorize the damped normal equations; False if they are not positive definite."""
    width, size, count, n_parameters = len(work.step), len(work.dual), len(work.share), len(problem.penalty)
    for p in range(width):
        work.diagonal[p] = mu + problem.penalty[p] if p < n_parameters else 1.0
    if len(work.transposed) == 0:
        for i in range(size * size):
            work.factor[i] = work.normal[i]
        for p in range(n_parameters):
            work.factor[p * size + p] += work.diagonal[p]
        return cholesky(work.factor, n_parameters, size)
    for p in range(n_parameters):
        scale = 1.0 / np.sqrt(work.diagonal[p])
        for k in range(count):
            work.transposed[p * size + k] = work.jacobian[k * width + p] * scale
    gram(work.transposed, n_parameters, size, work.factor)
    for k in range(count):
        work.factor[k * size + k] += 1.0
    return cholesky(work.factor, count, size)


@inner
def _apply_inverse(work, x, n_parameters):
    """Replace x by the solution y of the damped normal equations for y, from the right-hand side x.

    With fewer residuals than parameters by (JᵀJ + D)⁻¹ = D⁻¹ - D⁻¹Jᵀ (1 + J D⁻¹ Jᵀ)⁻¹ J D⁻¹.
    """
    width, size, count = len(work.step), len(work.dual), len(work.share)
    if len(work.transposed) == 0:
        solve(work.factor, n_parameters, size, x)
        return
    for p in range(width):
        x[p] /= work.diagonal[p]
    for k in range(count):
        work.dual[k] = dot(work.jacobian, k * width, x, np.int64(0), width)
    solve(work.factor, count, size, work.dual)
    for k in range(count):
        for p in range(n_parameters):
            x[p] -= work.dual[k] * work.jacobian[k * width + p] / work.diagonal[p]


@inner
def _evaluate(problem, theta, weights, scratch, work, part):
    """Fill the trial point theta + part * step and its residuals, unscaled."""
    for p in range(len(theta)):
        work.point[p] = theta[p] + part * work.step[p]
    fill_residuals(problem, work.point, weights, scratch, work.trial)


@inner
def _accelerate(problem, theta, weights, scratch, work):
    """Add half the geodesic acceleration to the step, if it can be trusted."""
    width, zero = len(work.step), np.int64(0)
    _evaluate(problem, theta, weights, scratch, work, PROBE)
    for p in range(width):
        work.bend[p] = 0.0
    for k in range(len(work.share)):
        slope = dot(work.jacobian, k * width, work.step, zero, width)
        second = 2.0 / PROBE * ((work.root[k] * work.trial[k] - work.residual[k]) / PROBE - slope)
        add_scaled(-second, work.jacobian, k * width, work.bend, zero, width)
    _apply_inverse(work, work.bend, len(theta))
    if 4.0 * dot(work.bend, zero, work.bend, zero, width) < BEND**2 * dot(work.step, zero, work.step, zero, width):
        add_scaled(0.5, work.bend, zero, work.step, zero, width)


@inner
def _propose(problem, theta, weights, scratch, work, mu):
    """Fill the step and the trial residuals; the gain that the linear model promises, negative if there is no step."""
    if not _factorize(problem, work, mu):
        return -1.0
    width, zero = len(work.step), np.int64(0)
    for p in range(width):
        work.step[p] = -work.gradient[p]
    _apply_inverse(work, work.step, len(theta))
    promised = mu * dot(work.step, zero, work.step, zero, width) - dot(work.gradient, zero, work.step, zero, width)
    if not promised < np.inf:  # nan too
        return -1.0
    _accelerate(problem, theta, weights, scratch, work)
    _evaluate(problem, theta, weights, scratch, work, 1.0)
    return promised


@inner
def _meets(measures, criteria):
    """Whether no measure is above its criterion."""
    for c in range(4):
        if not measures[c] <= criteria[c]:
            return False
    return True


@inner
def _copy(source, out):
    """Fill `out` with the beginning of `source`."""
    for p in range(len(out)):
        out[p] = source[p]


@kernel
def minimize(problem, theta, weights, rules, scratch, work):
    """Fit one member.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (parameters,)
        The start; replaced by the best parameters found.
    weights : ndarray of int, shape (images,)
        How often each image counts.
    rules : Rules
    scratch : Scratch
    work : Work
        Its `measures` are those of the result.

    Returns
    -------
    outcome : int
        CONVERGED, EXHAUSTED (max_steps done) or STALLED.
    steps : int
        Steps tried.
    loss : float
    """
    _fill_shares(problem, weights, work)
    _evaluate(problem, theta, weights, scratch, work, 0.0)
    _measure(problem, weights, work)
    loss = _loss(work, problem.penalty, theta)
    past, damping, growth, largest, fresh, steps = np.empty(rules.window), FIRST_LAMBDA, 2.0, 0.0, True, 0
    for k in range(rules.window):
        past[k] = np.inf
    while not _meets(work.measures, rules.criteria):
        if steps >= rules.max_steps:
            return EXHAUSTED, steps, loss
        if loss > (1.0 - rules.gain) * past[steps % rules.window] or damping > LARGEST_LAMBDA:
            return STALLED, steps, loss
        past[steps % rules.window] = loss
        steps += 1
        if fresh:
            largest, fresh = _linearize(problem, theta, weights, scratch, work), False
        promised = _propose(problem, theta, weights, scratch, work, damping * largest)
        new_loss = _loss(work, problem.penalty, work.point)
        if promised >= 0.0 and new_loss < loss:
            damping *= max(0.2, 1.0 - (2.0 * (loss - new_loss) / promised - 1.0) ** 3)
            _copy(work.point, theta)
            loss, growth, fresh = new_loss, 2.0, True
            _measure(problem, weights, work)
        else:
            damping, growth = damping * growth, 2.0 * growth
    return CONVERGED, steps, loss


def make_work(count: int, n_parameters: int) -> Work:
    """Memory for the fit of `count` residuals by `n_parameters` parameters."""
    k, p = (-(-n // PAD) * PAD for n in (count, n_parameters))
    s, dual = min(k, p), count < n_parameters
    s = k if dual else p
    sizes = (k, k, k, k * p, p * s if dual else 0, p, s * s, s * s, p, p, p, s, p, count)
    return Work(*map(np.zeros, sizes), np.zeros(count, dtype=bool), np.zeros(4))
