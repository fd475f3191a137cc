"""Levenberg-Marquardt with geodesic acceleration, for one member.

The step v solves (JᵀJ + mu + penalty) v = -Jᵀr - penalty θ with mu = lambda max(diag JᵀJ) (Moré, Lect. Notes Math. 630, 105 (1978), with
his scaling replaced by the identity). It is bent by half the acceleration a, which solves the same equations for the second
directional derivative of the residuals along v, a finite difference (Transtrum and Sethna, arXiv:1201.5885, eqs. 7, 12 and 15).
lambda follows the ratio of the gain to its prediction (Nielsen, IMM-REP-1999-05, eq. 2.5).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.linalg import add_scaled, cholesky, dot, gram, padded, solve
from amp.nft.kernels.loss import count_residuals, fill_jacobian, fill_residuals, fill_shares

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


class _Work(NamedTuple):
    """Memory of one fit: k residuals, p parameters (rows padded to a multiple of PAD), s = p or k equations."""

    root: np.ndarray  # (k,) square roots of the coefficients in the loss
    residual: np.ndarray  # (k,) times root
    trial: np.ndarray  # (k,)
    jacobian: np.ndarray  # (k, p) times root
    transposed: np.ndarray  # (p, s) jacobian / sqrt(diagonal) if k < p
    diagonal: np.ndarray  # (p,) mu + penalty
    normal: np.ndarray  # (s, s)
    factor: np.ndarray  # (s, s)
    gradient: np.ndarray  # (p,) half the loss's
    step: np.ndarray  # (p,) v
    bend: np.ndarray  # (p,) a
    dual: np.ndarray  # (s,)


@kernel
def _allocate(count, n_parameters):
    """Memory for `count` residuals."""
    k, p = padded(count), padded(n_parameters)
    by_residuals = count < n_parameters
    s = k if by_residuals else p
    return _Work(
        np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k * p), np.zeros(p * s if by_residuals else 0), np.zeros(p),
        np.zeros(s * s), np.zeros(s * s), np.zeros(p), np.zeros(p), np.zeros(p), np.zeros(s),
    )


@kernel
def measure(problem, weights, residual, share, is_energy):
    """Root mean square and largest absolute residual of the energies, then of the forces.

    The mean squares are those of Amp, but that the energies' is over the images that carry one.
    """
    result = np.zeros(4)
    images = np.zeros(2)
    start = problem.images.force_start
    for i in range(len(weights)):
        if weights[i] > 0:
            images[0] += 0 if np.isnan(problem.energies[i]) else 1
            images[1] += 1 if start[i + 1] > start[i] else 0
    for k in range(len(share)):
        column = 0 if is_energy[k] else 2
        result[column] += share[k] * residual[k] ** 2
        result[column + 1] = max(result[column + 1], abs(residual[k]))
    result[0] = np.sqrt(result[0] / max(images[0], 1.0))
    result[2] = np.sqrt(result[2] / max(images[1], 1.0))
    return result


@kernel
def _loss(residual, penalty, theta):
    """Sum of squares and penalty."""
    result = 0.0
    for k in range(len(residual)):
        result += residual[k] ** 2
    for p in range(len(theta)):
        result += penalty[p] * theta[p] ** 2
    return result


@kernel
def _linearize(problem, theta, weights, scratch, work, count):
    """Fill residuals, Jacobian, gradient and, in the primal form, JᵀJ; the largest element of its diagonal."""
    width = len(work.step)
    fill_jacobian(problem, theta, weights, scratch, work.residual, work.jacobian, width)
    work.gradient[:] = 0.0
    squares = np.zeros(width)
    for k in range(count):
        work.residual[k] *= work.root[k]
        row = work.jacobian[k * width : (k + 1) * width]
        for p in range(width):
            row[p] *= work.root[k]
            squares[p] += row[p] ** 2
        add_scaled(work.residual[k], work.jacobian, k * width, work.gradient, 0, width)
    for p in range(len(theta)):
        work.gradient[p] += problem.penalty[p] * theta[p]
    if len(work.transposed) == 0:
        gram(work.jacobian, count, width, work.normal)
    return squares.max()


@kernel
def _factorize(problem, work, mu, count, n_parameters):
    """Factorize the damped normal equations; False if they are not positive definite."""
    width, size = len(work.step), len(work.dual)
    work.diagonal[:] = 1.0
    for p in range(n_parameters):
        work.diagonal[p] = mu + problem.penalty[p]
    if len(work.transposed) == 0:
        work.factor[:] = work.normal
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


@kernel
def _apply_inverse(work, x, count, n_parameters):
    """Replace x by the solution y of the damped normal equations for y, from the right-hand side x.

    With fewer residuals than parameters by (JᵀJ + D)⁻¹ = D⁻¹ - D⁻¹Jᵀ (1 + J D⁻¹ Jᵀ)⁻¹ J D⁻¹.
    """
    width, size = len(work.step), len(work.dual)
    if len(work.transposed) == 0:
        solve(work.factor, n_parameters, size, x)
        return
    x /= work.diagonal
    for k in range(count):
        work.dual[k] = dot(work.jacobian, k * width, x, 0, width)
    solve(work.factor, count, size, work.dual)
    for k in range(count):
        for p in range(n_parameters):
            x[p] -= work.dual[k] * work.jacobian[k * width + p] / work.diagonal[p]


@kernel
def _accelerate(problem, theta, weights, scratch, work, count):
    """Add half the geodesic acceleration to the step, if it can be trusted."""
    width, n_parameters = len(work.step), len(theta)
    fill_residuals(problem, theta + PROBE * work.step[:n_parameters], weights, scratch, work.trial)
    work.bend[:] = 0.0
    for k in range(count):
        slope = dot(work.jacobian, k * width, work.step, 0, width)
        second = 2.0 / PROBE * ((work.root[k] * work.trial[k] - work.residual[k]) / PROBE - slope)
        add_scaled(-second, work.jacobian, k * width, work.bend, 0, width)
    _apply_inverse(work, work.bend, count, n_parameters)
    if 4.0 * dot(work.bend, 0, work.bend, 0, width) < BEND**2 * dot(work.step, 0, work.step, 0, width):
        work.step[:] += 0.5 * work.bend


@kernel
def _propose(problem, theta, weights, scratch, work, mu, count):
    """Fill the step; the gain that the linear model promises for it, negative if there is no step."""
    if not _factorize(problem, work, mu, count, len(theta)):
        return -1.0
    work.step[:] = -work.gradient
    _apply_inverse(work, work.step, count, len(theta))
    width = len(work.step)
    promised = mu * dot(work.step, 0, work.step, 0, width) - dot(work.gradient, 0, work.step, 0, width)
    if not np.isfinite(promised):
        return -1.0
    _accelerate(problem, theta, weights, scratch, work, count)
    return promised


@kernel
def minimize(problem, theta, weights, rules, scratch):
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
        Of this thread.

    Returns
    -------
    outcome : int
        CONVERGED, EXHAUSTED (max_steps done) or STALLED.
    steps : int
        Steps tried.
    loss : float
    measures : ndarray, shape (4,)
        See :func:`measure`.
    """
    count = count_residuals(problem, weights)
    work = _allocate(count, len(theta))
    share, is_energy = np.zeros(count), np.zeros(count, np.bool_)
    fill_shares(problem, weights, share, is_energy)
    for k in range(count):
        factor = problem.energy_coefficient if is_energy[k] else problem.force_coefficient
        work.root[k] = np.sqrt(share[k] * factor)
    fill_residuals(problem, theta, weights, scratch, work.trial)
    measures = measure(problem, weights, work.trial, share, is_energy)
    loss = _loss(work.root * work.trial, problem.penalty, theta)
    damping, growth, largest, fresh, outcome, steps = FIRST_LAMBDA, 2.0, 0.0, True, EXHAUSTED, 0
    past = np.full(rules.window, np.inf)
    while True:
        if np.all(measures <= rules.criteria):
            outcome = CONVERGED
            break
        if steps >= rules.max_steps:
            break
        if loss > (1.0 - rules.gain) * past[steps % rules.window] or damping > LARGEST_LAMBDA:
            outcome = STALLED
            break
        past[steps % rules.window] = loss
        steps += 1
        if fresh:
            largest = _linearize(problem, theta, weights, scratch, work, count)
            fresh = False
        promised = _propose(problem, theta, weights, scratch, work, damping * largest, count)
        if promised >= 0.0:
            trial = theta + work.step[: len(theta)]
            fill_residuals(problem, trial, weights, scratch, work.trial)
            new_loss = _loss(work.root * work.trial, problem.penalty, trial)
            if new_loss < loss:
                ratio = (loss - new_loss) / promised
                damping, growth, fresh = damping * max(0.2, 1.0 - (2.0 * ratio - 1.0) ** 3), 2.0, True
                theta[:], loss = trial, new_loss
                measures = measure(problem, weights, work.trial, share, is_energy)
                continue
        damping, growth = damping * growth, 2.0 * growth
    return outcome, steps, loss, measures
