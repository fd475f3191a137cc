"""Small dense linear algebra on flat arrays: the two tiles on which networks and optimiser spend their time.

A matrix is an array, the offset of its first element and its row length. The *lanes* of a matrix are its columns, a multiple of
PAD of them where a kernel says so. Nothing here allocates, and no BLAS is called, whose threads would compete with ours and whose
sums depend on their number.
"""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd import LANES, get, load, splat, store, total

PAD = 2 * LANES  # the lanes of a matrix are padded to a multiple of this, so that kernels may take two vectors at a time
BLOCK = 64  # rows of a Jacobian that stay in the first-level cache while they are multiplied


def padded(n):
    """The smallest multiple of PAD that is not below `n`."""
    return (n + PAD - 1) // PAD * PAD


@inner
def mix(w, w0, step_k, step_m, depth, x, x0, row, z, z0, z_row, rows, lanes, sign):
    """z[m, :lanes] = sum_k w[k, m] x[k, :lanes] for m < rows; added to z for sign 1.0, subtracted for -1.0, stored for 0.0.

    w[k, m] is ``w[w0 + k * step_k + m * step_m]``. The lanes are a multiple of PAD.
    """
    for r in range(0, lanes, PAD):
        m = 0
        while m + 4 <= rows:
            _tile4(w, w0 + m * step_m, step_k, step_m, depth, x, x0 + r, row, z, z0 + m * z_row + r, z_row, sign)
            m += 4
        while m < rows:
            _tile1(w, w0 + m * step_m, step_k, depth, x, x0 + r, row, z, z0 + m * z_row + r, sign)
            m += 1


@inner
def _put(z, at, a, b, sign):
    """Store two vectors, or add or subtract them."""
    if sign != 0.0:
        f = splat(sign)
        a, b = load(z, at) + f * a, load(z, at + LANES) + f * b
    store(z, at, a)
    store(z, at + LANES, b)


@inner
def _tile4(w, w0, step_k, step_m, depth, x, x0, row, z, z0, z_row, sign):
    """Four rows and PAD lanes of `mix`: eight accumulators."""
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat(0.0)
    for _ in range(depth):
        u, v = load(x, x0), load(x, x0 + LANES)
        f = splat(get(w, w0))
        a0, a1 = a0 + f * u, a1 + f * v
        f = splat(get(w, w0 + step_m))
        b0, b1 = b0 + f * u, b1 + f * v
        f = splat(get(w, w0 + 2 * step_m))
        c0, c1 = c0 + f * u, c1 + f * v
        f = splat(get(w, w0 + 3 * step_m))
        d0, d1 = d0 + f * u, d1 + f * v
        w0 += step_k
        x0 += row
    _put(z, z0, a0, a1, sign)
    _put(z, z0 + z_row, b0, b1, sign)
    _put(z, z0 + 2 * z_row, c0, c1, sign)
    _put(z, z0 + 3 * z_row, d0, d1, sign)


@inner
def _tile1(w, w0, step_k, depth, x, x0, row, z, z0, sign):
    """One row and PAD lanes of `mix`."""
    a0 = a1 = splat(0.0)
    for _ in range(depth):
        f = splat(get(w, w0))
        a0, a1 = a0 + f * load(x, x0), a1 + f * load(x, x0 + LANES)
        w0 += step_k
        x0 += row
    _put(z, z0, a0, a1, sign)


@inner
def add_products(a, a0, b, b0, c, c0, d, d0, rows, columns, lanes, scale, out, out0):
    """out[i, j] += scale * sum_r (a[i, r] b[j, r] + c[i, r] d[j, r]) for i < rows, j < columns."""
    i = 0
    while i + 4 <= rows:
        j = 0
        while j + 3 <= columns:
            _products43(a, a0 + i * lanes, b, b0 + j * lanes, c, c0 + i * lanes, d, d0 + j * lanes,
                        columns, lanes, scale, out, out0 + i * columns + j)
            j += 3
        while j < columns:
            _products41(a, a0 + i * lanes, b, b0 + j * lanes, c, c0 + i * lanes, d, d0 + j * lanes,
                        columns, lanes, scale, out, out0 + i * columns + j)
            j += 1
        i += 4
    while i < rows:
        for j in range(columns):
            s = dot(a, a0 + i * lanes, b, b0 + j * lanes, lanes) + dot(c, c0 + i * lanes, d, d0 + j * lanes, lanes)
            out[out0 + i * columns + j] += scale * s
        i += 1


@inner
def _products43(a, a0, b, b0, c, c0, d, d0, columns, lanes, scale, out, out0):
    """Four rows and three columns of `add_products`: twelve accumulators."""
    s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = s30 = s31 = s32 = splat(0.0)
    for left, l0, right, r0 in ((a, a0, b, b0), (c, c0, d, d0)):
        for r in range(0, lanes, LANES):
            x, y, z = load(right, r0 + r), load(right, r0 + lanes + r), load(right, r0 + 2 * lanes + r)
            u = load(left, l0 + r)
            s00, s01, s02 = s00 + u * x, s01 + u * y, s02 + u * z
            u = load(left, l0 + lanes + r)
            s10, s11, s12 = s10 + u * x, s11 + u * y, s12 + u * z
            u = load(left, l0 + 2 * lanes + r)
            s20, s21, s22 = s20 + u * x, s21 + u * y, s22 + u * z
            u = load(left, l0 + 3 * lanes + r)
            s30, s31, s32 = s30 + u * x, s31 + u * y, s32 + u * z
    _add3(out, out0, s00, s01, s02, scale)
    _add3(out, out0 + columns, s10, s11, s12, scale)
    _add3(out, out0 + 2 * columns, s20, s21, s22, scale)
    _add3(out, out0 + 3 * columns, s30, s31, s32, scale)


@inner
def _add3(out, at, a, b, c, scale):
    """Add the scaled sums of three vectors to neighbouring numbers."""
    out[at] += scale * total(a)
    out[at + 1] += scale * total(b)
    out[at + 2] += scale * total(c)


@inner
def _products41(a, a0, b, b0, c, c0, d, d0, columns, lanes, scale, out, out0):
    """Four rows and one column of `add_products`."""
    s0 = s1 = s2 = s3 = splat(0.0)
    for left, l0, right, r0 in ((a, a0, b, b0), (c, c0, d, d0)):
        for r in range(0, lanes, LANES):
            x = load(right, r0 + r)
            s0, s1 = s0 + load(left, l0 + r) * x, s1 + load(left, l0 + lanes + r) * x
            s2 = s2 + load(left, l0 + 2 * lanes + r) * x
            s3 = s3 + load(left, l0 + 3 * lanes + r) * x
    out[out0] += scale * total(s0)
    out[out0 + columns] += scale * total(s1)
    out[out0 + 2 * columns] += scale * total(s2)
    out[out0 + 3 * columns] += scale * total(s3)


@inner
def add_sums(a, a0, rows, lanes, scale, out, out0):
    """out[i] += scale * sum_r a[i, r]."""
    for i in range(rows):
        s = splat(0.0)
        for r in range(a0 + i * lanes, a0 + (i + 1) * lanes, LANES):
            s = s + load(a, r)
        out[out0 + i] += scale * total(s)


@inner
def dot(a, a0, b, b0, n):
    """Scalar product of two stretches whose length is a multiple of PAD."""
    s = t = splat(0.0)
    for r in range(0, n, PAD):
        s = s + load(a, a0 + r) * load(b, b0 + r)
        t = t + load(a, a0 + r + LANES) * load(b, b0 + r + LANES)
    return total(s + t)


@inner
def add_scaled(factor, a, a0, b, b0, n):
    """b += factor * a on stretches whose length is a multiple of PAD."""
    f = splat(factor)
    for r in range(0, n, LANES):
        store(b, b0 + r, load(b, b0 + r) + f * load(a, a0 + r))


@inner
def gram(j, rows, width, out):
    """Upper triangle (by tiles) of jᵀj, for `rows` rows of `width` numbers, a multiple of PAD."""
    for i in range(width * width):
        out[i] = 0.0
    for k in range(0, rows, BLOCK):
        depth = min(BLOCK, rows - k)
        for r in range(0, width, PAD):
            mix(j, k * width, width, np.int64(1), depth, j, k * width + r, width, out, r, width, r + PAD, np.int64(PAD), 1.0)


@inner
def cholesky(a, n, width):
    """Replace the upper triangle of a by its factor r with rᵀr = a; False if a is not positive definite.

    The matrix is (n, width), width a multiple of PAD not below n; columns from n on must be zero.
    """
    for i0 in range(0, n, 4):
        rows = min(4, n - i0)
        first = i0 - i0 % PAD
        mix(a, i0, width, np.int64(1), i0, a, first, width, a, i0 * width + first, width, rows, width - first, -1.0)
        for i in range(i0, i0 + rows):
            for k in range(i0, i):
                add_scaled(-a[k * width + i], a, k * width + first, a, i * width + first, width - first)
            pivot = a[i * width + i]
            if not pivot > 0.0:
                return False
            scale = 1.0 / np.sqrt(pivot)
            for c in range(i, width):
                a[i * width + c] *= scale
    return True


@inner
def solve(r, n, width, x):
    """Replace x by the solution y of rᵀr y = x, with the factor that `cholesky` left; x has `width` numbers."""
    for i in range(n):
        x[i] /= r[i * width + i]
        for c in range(i + 1, n):
            x[c] -= r[i * width + c] * x[i]
    for i in range(n - 1, -1, -1):
        s = 0.0
        for c in range(i + 1, n):
            s += r[i * width + c] * x[c]
        x[i] = (x[i] - s) / r[i * width + i]
