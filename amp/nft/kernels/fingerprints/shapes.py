"""The radial factor of a G4 or G5, exp(-eta s) fc(s) with s = r² / Rc², and its derivative."""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.fingerprints.workspace import BUFFER, UNROLL
from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd import vectors as simd
from amp.nft.kernels.simd.vectors import LANES, get, load, root, splat, store


@inner
def radial_shape(shape, n, shapes, gamma, source, at, pairs):
    """Q = exp(-eta s) fc(s) and dQ/ds of n values s <= 1, into rows 2 and 3 of `pairs`."""
    start = shape * shapes.shape[1]
    eta = get(shapes, start)
    if gamma > 0.0:
        _polynomial_cutoff(n, gamma, source, at, pairs)
    else:
        _series(n, shapes, start + np.int64(get(shapes, start + 1)), start + shapes.shape[1], source, at, pairs)
    if eta == 0.0:
        return
    for p in range(0, n, LANES):
        value, slope = load(pairs, 2 * BUFFER + p), load(pairs, 3 * BUFFER + p)
        gauss = simd.exp(splat(-eta) * load(source, at + p))
        store(pairs, 2 * BUFFER + p, gauss * value)
        store(pairs, 3 * BUFFER + p, gauss * (slope - splat(eta) * value))


@inner
def _series(n, shapes, first, end, source, at, pairs):
    """(1 - s)² times a series in 2s - 1, and its derivative in s."""
    one, two, zero = splat(1.0), splat(2.0), splat(0.0)
    for p in range(0, n, UNROLL):
        s0, s1 = load(source, at + p), load(source, at + p + LANES)
        s2, s3 = load(source, at + p + 2 * LANES), load(source, at + p + 3 * LANES)
        t0, t1, t2, t3 = two * s0 - one, two * s1 - one, two * s2 - one, two * s3 - one
        f0, f1, f2, f3, d0, d1, d2, d3 = zero, zero, zero, zero, zero, zero, zero, zero
        for c in range(first, end):
            a = splat(get(shapes, c))
            d0, d1, d2, d3 = d0 * t0 + f0, d1 * t1 + f1, d2 * t2 + f2, d3 * t3 + f3
            f0, f1, f2, f3 = f0 * t0 + a, f1 * t1 + a, f2 * t2 + a, f3 * t3 + a
        _times_square(one - s0, f0, d0, p, pairs)
        _times_square(one - s1, f1, d1, p + LANES, pairs)
        _times_square(one - s2, f2, d2, p + 2 * LANES, pairs)
        _times_square(one - s3, f3, d3, p + 3 * LANES, pairs)


@inner
def _times_square(w, series, change, p, pairs):
    """w² f and its derivative in s, of w = 1 - s and f(2s - 1)."""
    store(pairs, 2 * BUFFER + p, w * w * series)
    store(pairs, 3 * BUFFER + p, splat(2.0) * w * (w * change - series))


@inner
def _polynomial_cutoff(n, gamma, source, at, pairs):
    """Compute fc = 1 + gamma q**(gamma + 1) - (gamma + 1) q**gamma and its derivative in s = q²."""
    one = splat(1.0)
    whole = np.int64(gamma) - 2
    rest = gamma - 2.0 - whole
    for p in range(0, n, LANES):
        s = load(source, at + p)
        q = root(s)
        power = one
        for _ in range(whole):
            power = power * q
        if rest != 0.0:
            power = power * simd.power(q, splat(rest))
        store(pairs, 2 * BUFFER + p, one + power * s * (splat(gamma) * q - splat(gamma + 1.0)))
        store(pairs, 3 * BUFFER + p, splat(0.5 * gamma * (gamma + 1.0)) * power * (q - one))
