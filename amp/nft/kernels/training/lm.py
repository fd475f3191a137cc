"""Levenberg-Marquardt with geodesic acceleration, for one member.

The step v solves (JᵀJ + mu) v = -Jᵀr with mu = lambda max(diag JᵀJ) (Moré, Lect. Notes Math. 630, 105 (1978), with his scaling
replaced by the identity). It is bent by half the acceleration a, which solves the same equations for the second directional
derivative of the residuals along v, a finite difference (Transtrum and Sethna, arXiv:1201.5885).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.linalg import add_scaled, cholesky, dot, gram, padded, solve

PROBE = 0.1  # part of the step over which the second derivative is taken
BEND = 0.75  # largest 2 |a| / |v| at which the acceleration is trusted


class Work(NamedTuple):
    """Memory of one fit: k residuals, p parameters, both padded, and s = k or p equations, whichever are fewer."""

    root: np.ndarray  # (count,) factor of each residual
    residual: np.ndarray  # (k,) times root
    trial: np.ndarray  # (k,) at the trial point
    jacobian: np.ndarray  # (k * p,) times root
    transposed: np.ndarray  # (p * s,) jacobian / sqrt(mu); empty if the equations are those of the parameters
    normal: np.ndarray  # (s * s,)
    factor: np.ndarray  # (s * s,)
    gradient: np.ndarray  # (p,) half that of the sum of squares
    step: np.ndarray  # (p,)
    bend: np.ndarray  # (p,)
    dual: np.ndarray  # (s,)
    spare: np.ndarray  # (4 * s,)


def make_work(count: int, n_parameters: int) -> Work:
    """Memory for the fit of `count` residuals by `n_parameters` parameters."""
    k, p, few = padded(count), padded(n_parameters), count < n_parameters
    s = k if few else p
    return Work(*map(np.zeros, (count, k, k, k * p, p * s if few else 0, s * s, s * s, p, p, p, s, 4 * s)))


@kernel
def prepare(work):
    """Multiply residual and jacobian by root, and fill gradient and normal; the largest element of the diagonal of JᵀJ."""
    width, zero = len(work.step), np.int64(0)
    for p in range(width):
        work.gradient[p] = work.bend[p] = 0.0  # bend: the diagonal, for now
    for k in range(len(work.root)):
        work.residual[k] *= work.root[k]
        for p in range(width):
            work.jacobian[k * width + p] *= work.root[k]
            work.bend[p] += work.jacobian[k * width + p] ** 2
        add_scaled(work.residual[k], work.jacobian, k * width, work.gradient, zero, width)
    largest = 0.0
    for p in range(width):
        largest = max(largest, work.bend[p])
    if len(work.transposed) == 0:
        gram(work.jacobian, len(work.root), width, work.normal)
    return largest


@inner
def _factorize(work, mu, n_parameters):
    """Factorize the damped equations; False if they are not positive definite."""
    width, size, count = len(work.step), len(work.dual), len(work.root)
    if len(work.transposed) == 0:
        for i in range(size * size):
            work.factor[i] = work.normal[i]
        for p in range(n_parameters):
            work.factor[p * size + p] += mu
        return cholesky(work.factor, n_parameters, size, work.spare)
    scale = 1.0 / np.sqrt(mu)
    for k in range(count):
        for p in range(n_parameters):
            work.transposed[p * size + k] = work.jacobian[k * width + p] * scale
    gram(work.transposed, n_parameters, size, work.factor)
    for k in range(count):
        work.factor[k * size + k] += 1.0
    return cholesky(work.factor, count, size, work.spare)


@inner
def _apply_inverse(work, x, mu, n_parameters):
    """Replace x by the solution y of (JᵀJ + mu) y = x.

    With fewer residuals than parameters by mu (JᵀJ + mu)⁻¹ = 1 - Jᵀ (1 + J Jᵀ / mu)⁻¹ J / mu.
    """
    width, zero = len(work.step), np.int64(0)
    if len(work.transposed) == 0:
        solve(work.factor, n_parameters, len(work.dual), x)
        return
    for k in range(len(work.root)):
        work.dual[k] = dot(work.jacobian, k * width, x, zero, width) / mu
    solve(work.factor, len(work.root), len(work.dual), work.dual)
    for k in range(len(work.root)):
        add_scaled(-work.dual[k], work.jacobian, k * width, x, zero, width)
    for p in range(width):
        x[p] /= mu


@kernel
def propose(work, mu, n_parameters):
    """Fill the step v; the gain that the linear model promises for it, -1 if there is no step."""
    if not _factorize(work, mu, n_parameters):
        return -1.0
    width, zero = len(work.step), np.int64(0)
    for p in range(width):
        work.step[p] = -work.gradient[p]
    _apply_inverse(work, work.step, mu, n_parameters)
    promised = mu * dot(work.step, zero, work.step, zero, width) - dot(work.gradient, zero, work.step, zero, width)
    return promised if promised < np.inf else -1.0  # nan too


@kernel
def accelerate(work, mu, n_parameters):
    """Add half the geodesic acceleration to the step, if it can be trusted; work.trial has the residuals at PROBE of the step."""
    width, zero = len(work.step), np.int64(0)
    for p in range(width):
        work.bend[p] = 0.0
    for k in range(len(work.root)):
        slope = dot(work.jacobian, k * width, work.step, zero, width)
        second = 2.0 / PROBE * ((work.root[k] * work.trial[k] - work.residual[k]) / PROBE - slope)
        add_scaled(-second, work.jacobian, k * width, work.bend, zero, width)
    _apply_inverse(work, work.bend, mu, n_parameters)
    if 4.0 * dot(work.bend, zero, work.bend, zero, width) < BEND**2 * dot(work.step, zero, work.step, zero, width):
        add_scaled(0.5, work.bend, zero, work.step, zero, width)
