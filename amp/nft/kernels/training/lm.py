"""Levenberg-Marquardt with geodesic acceleration, for one member.

The step v solves (JᵀJ + mu) v = -Jᵀr with mu = lambda max(diag JᵀJ) (Moré, Lect. Notes Math. 630, 105 (1978), with his scaling
replaced by the identity). It is bent by half the acceleration a, which solves the same equations for the second directional
derivative of the residuals along v, a finite difference (Transtrum and Sethna, arXiv:1201.5885).
"""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.linalg import PAD, add_scaled, dot, solve
from amp.nft.kernels.simd.tiles import cholesky, unpack_tiles
from amp.nft.kernels.training.jacobian import add_transposed
from amp.nft.kernels.training.loss import clear
from amp.nft.kernels.training.normal import Work
from amp.nft.kernels.training.team import Team

PROBE = 0.1  # part of the step over which the second derivative is taken
BEND = 0.75  # largest 2 |a| / |v| at which the acceleration is trusted


def find_step(problem, theta, weights, scratch, work: Work, mu: float, team: Team) -> float:
    """Fill the step and the residuals after it.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (parameters,)
    weights : ndarray of int, shape (images,)
    scratch : Scratch
    work : Work
        Its `step` and `trial` are filled.
    mu : float
        Damping.
    team : Team
        Threads that may help. The result does not depend on them.

    Returns
    -------
    float
        Gain that the linear model predicts; -1 if there is no step.
    """
    n = len(theta)
    promised = propose(work, mu, n)
    if promised >= 0.0:
        team.fill_residuals(theta + PROBE * work.step[:n], work.trial)
        if len(work.single):
            accelerate(work, mu, n)
        else:
            team.fill_residuals(theta - PROBE * work.step[:n], work.behind)
            accelerate_streamed(problem, theta, weights, scratch, work, mu)
        team.fill_residuals(theta + work.step[:n], work.trial)
    return promised


@inner
def _factorize(work, mu, n_parameters):
    """Factorize the damped equations; False if they are not positive definite."""
    size = len(work.dual) if len(work.dual) > 0 else len(work.step)
    n = len(work.root) if len(work.dual) > 0 else n_parameters
    unpack_tiles(work.tiles, size // PAD, work.factor)
    for i in range(n):
        work.factor[i * size + i] += mu
    return cholesky(work.factor, n, size, work.spare, work.strip)


@inner
def _apply_inverse(work, x, mu, n_parameters):
    """Replace x by the solution y of (JᵀJ + mu) y = x.

    With fewer residuals than parameters by mu (JᵀJ + mu)⁻¹ = 1 - Jᵀ (J Jᵀ + mu)⁻¹ J.
    """
    width, zero = len(work.step), np.int64(0)
    if len(work.dual) == 0:
        solve(work.factor, n_parameters, width, x)
        return
    for k in range(len(work.root)):
        work.dual[k] = dot(work.rows, k * width, x, zero, width)
    solve(work.factor, len(work.root), len(work.dual), work.dual)
    for k in range(len(work.root)):
        add_scaled(-work.dual[k], work.rows, k * width, x, zero, width)
    for p in range(width):
        x[p] /= mu


def propose(work: Work, mu: float, n_parameters: int) -> float:
    """Fill the step v.

    Parameters
    ----------
    work : Work
    mu : float
        Damping.
    n_parameters : int

    Returns
    -------
    float
        Gain that the linear model predicts; -1 if there is no step.
    """
    return step(work, mu, n_parameters, False)


def accelerate(work: Work, mu: float, n_parameters: int) -> None:
    """Add half the acceleration to the step, if it can be trusted.

    Parameters
    ----------
    work : Work
        Its `trial` contains the residuals at PROBE of the step.
    mu : float
        Damping.
    n_parameters : int
    """
    step(work, mu, n_parameters, True)


@kernel
def step(work, mu, n_parameters, bending):
    """Fill the step, or bend it: one kernel, since both apply the same inverse."""
    width, zero, x = len(work.step), np.int64(0), work.step
    if bending:
        x = work.bend
        _fill_bend(work)
    else:
        if not _factorize(work, mu, n_parameters):
            return -1.0
        for p in range(width):
            x[p] = -work.gradient[p]
    _apply_inverse(work, x, mu, n_parameters)
    if bending:
        _bend(work)
        return 0.0
    promised = mu * dot(work.step, zero, work.step, zero, width) - dot(work.gradient, zero, work.step, zero, width)
    return promised if promised < np.inf else -1.0  # nan too


@inner
def _fill_bend(work):
    """Fill the right side of the equations of the acceleration."""
    width = len(work.step)
    clear(work.bend)
    for k in range(len(work.root)):
        slope, at = 0.0, k * width
        for p in range(width):
            slope += work.single[at + p] * work.step[p]
        second = 2.0 / PROBE * ((work.root[k] * work.trial[k] - work.residual[k]) / PROBE - slope)
        for p in range(width):
            work.bend[p] -= second * work.single[at + p]


@kernel
def accelerate_streamed(problem, theta, weights, scratch, work, mu):
    """Return the same without a stored Jacobian; work.behind contains the residuals at -PROBE of the step."""
    clear(work.bend)
    for k in range(len(work.root)):
        second = (work.root[k] * (work.trial[k] + work.behind[k]) - 2.0 * work.residual[k]) / PROBE**2
        work.behind[k] = -second * work.root[k]
    add_transposed(problem, theta, weights, scratch, work.behind, work.spare, work.bend)
    _apply_inverse(work, work.bend, mu, np.int64(len(theta)))
    _bend(work)


@inner
def _bend(work):
    """Add half the acceleration to the step if it can be trusted."""
    width, zero = len(work.step), np.int64(0)
    if 4.0 * dot(work.bend, zero, work.bend, zero, width) < BEND**2 * dot(work.step, zero, work.step, zero, width):
        add_scaled(0.5, work.bend, zero, work.step, zero, width)
