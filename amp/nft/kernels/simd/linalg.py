"""Small dense linear algebra on flat arrays: the two tiles on which networks and optimiser spend their time.

PAD *columns* of a matrix make a *block*. A matrix is an array, the offset of its first
element, the distance of its rows within a block, and that of its blocks. The matrices of the networks are stored block by block
(rows PAD apart), so that all a block needs is read in one stream; those of the optimiser row by row (blocks PAD apart). Nothing
here allocates or calls BLAS: its threads would compete with those of the fits, and its sums depend on their number.
"""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd.vectors import HAS_WIDE, LANES, get, load, load_full, pack, splat, splat_full, store, total

PAD = 2 * LANES  # the columns of a matrix are padded to a multiple of this, so that kernels may take two vectors at a time
TOGETHER = 2 if HAS_WIDE else 1  # blocks that are multiplied at the same time: two registers


def padded(n):
    """Return the smallest multiple of PAD that is not below a number.

    Parameters
    ----------
    n : int

    Returns
    -------
    int
    """
    return (n + PAD - 1) // PAD * PAD


@inner
def mix(w, w0, step_k, step_m, depth, x, x0, x_row, x_block, z, z0, z_row, z_block, rows, blocks):
    """z[m] = sum_k w[k, m] x[k] for m < rows, in all columns.

    w[k, m] is ``w[w0 + k * step_k + m * step_m]``.
    """
    for m in range(0, rows, 4):  # eight accumulators: as many as the processor can keep busy; rows beyond the last one repeat it
        second, third, fourth = min(m + 1, rows - 1), min(m + 2, rows - 1), min(m + 3, rows - 1)
        for block in range(0, blocks, TOGETHER):
            is_last = block + TOGETHER > blocks
            to, at_z = (0, 0) if is_last else (x_block if HAS_WIDE else LANES, z_block if HAS_WIDE else LANES)
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat_full(0.0)
            at, f = x0 + block * x_block, w0
            for _ in range(depth):
                u, v = load_full(x, at), load_full(x, at + to)
                a, b = splat_full(get(w, f + m * step_m)), splat_full(get(w, f + second * step_m))
                a0, a1, b0, b1 = a0 + a * u, a1 + a * v, b0 + b * u, b1 + b * v
                a, b = splat_full(get(w, f + third * step_m)), splat_full(get(w, f + fourth * step_m))
                c0, c1, d0, d1 = c0 + a * u, c1 + a * v, d0 + b * u, d1 + b * v
                f += step_k
                at += x_row
            at = z0 + block * z_block
            _put(z, at + m * z_row, at_z, a0, a1)
            _put(z, at + second * z_row, at_z, b0, b1)
            _put(z, at + third * z_row, at_z, c0, c1)
            _put(z, at + fourth * z_row, at_z, d0, d1)


@inner
def _put(z, at, to, a, b):
    """Store a vector of each of two blocks, or two of one."""
    store(z, at, a)
    store(z, at + to, b)


@inner
def add_products(a, a0, c, c0, left, b, b0, d, d0, right, rows, width, blocks, scale, out, out0):
    """out[i, j] += scale * (a[i] . b[j] + c[i] . d[j]) for i < rows, j < width, summing over all columns.

    Blocks of a and c are `left` apart, those of b and d `right`; rows PAD.
    """
    for i in range(0, rows - 1, 2):
        for j in range(0, width - 3, 4):
            _products24(
                a,
                a0 + i * PAD,
                c,
                c0 + i * PAD,
                left,
                b,
                b0 + j * PAD,
                d,
                d0 + j * PAD,
                right,
                width,
                blocks,
                scale,
                out,
                out0 + i * width + j,
            )
    square, whole = width - width % 4, rows - rows % 2
    for i in range(rows):
        for j in range(square if i < whole else 0, width):
            s = t = splat(0.0)
            for block in range(blocks):
                at, to = i * PAD + block * left, j * PAD + block * right
                s = s + load(a, a0 + at) * load(b, b0 + to) + load(a, a0 + at + LANES) * load(b, b0 + to + LANES)
                t = t + load(c, c0 + at) * load(d, d0 + to) + load(c, c0 + at + LANES) * load(d, d0 + to + LANES)
            out[out0 + i * width + j] += scale * total(s + t)


@inner
def _products24(a, a0, c, c0, left, b, b0, d, d0, right, width, blocks, scale, out, out0):
    """Two rows and four width of `add_products`: eight accumulators."""
    p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = splat(0.0)
    for block in range(blocks):
        for half in range(0, PAD, LANES):
            at, to = a0 + block * left + half, b0 + block * right + half
            u, v = load(a, at), load(a, at + PAD)
            x, y = load(b, to), load(b, to + PAD)
            p0, q0, p1, q1 = p0 + u * x, q0 + v * x, p1 + u * y, q1 + v * y
            x, y = load(b, to + 2 * PAD), load(b, to + 3 * PAD)
            p2, q2, p3, q3 = p2 + u * x, q2 + v * x, p3 + u * y, q3 + v * y
            at, to = c0 + block * left + half, d0 + block * right + half
            u, v = load(c, at), load(c, at + PAD)
            x, y = load(d, to), load(d, to + PAD)
            p0, q0, p1, q1 = p0 + u * x, q0 + v * x, p1 + u * y, q1 + v * y
            x, y = load(d, to + 2 * PAD), load(d, to + 3 * PAD)
            p2, q2, p3, q3 = p2 + u * x, q2 + v * x, p3 + u * y, q3 + v * y
    f = splat(scale)
    store(out, out0, load(out, out0) + f * pack(total(p0), total(p1), total(p2), total(p3)))
    store(out, out0 + width, load(out, out0 + width) + f * pack(total(q0), total(q1), total(q2), total(q3)))


@inner
def dot(a, a0, b, b0, n):
    """Scalar product of two contiguous ranges whose length is a multiple of PAD."""
    s = t = splat(0.0)
    for r in range(0, n, PAD):
        s = s + load(a, a0 + r) * load(b, b0 + r)
        t = t + load(a, a0 + r + LANES) * load(b, b0 + r + LANES)
    return total(s + t)


@inner
def add_scaled(factor, a, a0, b, b0, n):
    """Add factor * a to b, on slices whose length is a multiple of PAD."""
    f = splat(factor)
    for r in range(0, n, LANES):
        store(b, b0 + r, load(b, b0 + r) + f * load(a, a0 + r))


@inner
def factorize_rows(a, begin, end, width, spare):
    """Rows begin <= i < end of the Cholesky factor of a matrix from which the rows above are subtracted; False if there is none.

    `width` is a multiple of PAD; `spare` has space for four rows.
    """
    one, step, zero = np.int64(1), np.int64(PAD), np.int64(0)
    for i0 in range(begin, end, 4):
        rows, first = min(4, end - i0), i0 - i0 % PAD
        blocks = (width - first) // PAD
        mix(a, begin * width + i0, width, one, i0 - begin, a, begin * width + first, width, step, spare, zero, width, step, rows, blocks)
        for i in range(i0, i0 + rows):
            row = i * width + first
            add_scaled(-1.0, spare, (i - i0) * width, a, row, width - first)
            for k in range(i0, i):
                add_scaled(-a[k * width + i], a, k * width + first, a, row, width - first)
            pivot = a[i * width + i]
            if not pivot > 0.0:
                return False
            add_scaled(1.0 / np.sqrt(pivot) - 1.0, a, row, a, row, width - first)
    return True


@inner
def solve(r, n, width, x):
    """Replace x by the solution y of rᵀr y = x, with the factor that `cholesky` left."""
    for i in range(n):
        x[i] /= r[i * width + i]
        for c in range(i + 1, n):
            x[c] -= r[i * width + c] * x[i]
    for i in range(n - 1, -1, -1):
        s = 0.0
        for c in range(i + 1, n):
            s += r[i * width + c] * x[c]
        x[i] = (x[i] - s) / r[i * width + i]
