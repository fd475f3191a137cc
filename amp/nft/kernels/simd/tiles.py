"""Products of packed strips: the normal equations, and the trailing matrix of a blocked Cholesky factorisation.

A *strip* is up to DEPTH rows of a matrix, stored column block by column block: PAD columns of all its rows lie next to each other, so
that a tile of a product reads two contiguous pieces. A sum over the rows of a matrix is made strip by strip, from the first
row on; its last bit does not depend on who packs the strips, when, or in how many calls.
"""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd.linalg import PAD, factorize_rows
from amp.nft.kernels.simd.vectors import HAS_WIDE, LANES, get, load, load_wide, put, splat_wide, store

DEPTH = 64  # rows of a strip: the pieces of a tile stay in the first cache
GROUP = 4  # block columns that stay in the first cache while all block rows pass
PANEL = 64  # rows of a panel of the Cholesky factorisation
BLOCKED_FROM = 256  # columns from which it is blocked


@inner
def pack_rows(a, a0, depth, width, first, strip):
    """Pack columns first <= c < width of `depth` rows that begin at ``a[a0]`` and are `width` long."""
    for k in range(depth):
        row = a0 + k * width
        for c in range(first, width, PAD):
            at = (c - first) * depth + k * PAD
            store(strip, at, load(a, row + c))
            store(strip, at + LANES, load(a, row + c + LANES))


@inner
def pack_columns(a, width, first, depth, rows, strip):
    """Pack `depth` columns from `first` on of a matrix of `rows` rows as if they were rows."""
    for r in range(rows):
        at = r // PAD * depth * PAD + r % PAD
        for k in range(depth):
            put(strip, at + k * PAD, get(a, r * width + first + k))


@inner
def add_strip(strip, depth, begin, end, tiles):
    """Add stripᵀ strip to the tiles of an upper triangle in block columns begin <= c < end; tiles follow each other column by column."""
    for first in range(begin, end, GROUP):
        for r in range(min(first + GROUP, end)):
            for c in range(first, min(first + GROUP, end), 2):
                if c + 1 >= r:
                    at = (c * (c + 1) // 2 + r) * PAD * PAD
                    to = at + (c + 1) * PAD * PAD
                    _add_pair(strip, r, c, depth, end, 1.0, tiles, at, to, np.int64(PAD))


@inner
def _subtract_strip(strip, depth, blocks, a, a0, width):
    """Subtract stripᵀ strip from the upper triangle of a matrix that begins at ``a[a0]``, with rows of `width` numbers."""
    for first in range(0, blocks, GROUP):
        for r in range(min(first + GROUP, blocks)):
            for c in range(first, min(first + GROUP, blocks), 2):
                if c + 1 >= r:
                    at = a0 + r * PAD * width + c * PAD
                    _add_pair(strip, r, c, depth, blocks, -1.0, a, at, at + PAD, width)


@inner
def unpack_tiles(tiles, blocks, a):
    """Write the tiles of an upper triangle into a square matrix of blocks * PAD columns."""
    width = blocks * PAD
    for c in range(blocks):
        for r in range(c + 1):
            tile, at = (c * (c + 1) // 2 + r) * PAD * PAD, r * PAD * width + c * PAD
            for row in range(PAD):
                store(a, at + row * width, load_wide(tiles, tile + row * PAD))


@inner
def _add_pair(strip, r, c, depth, blocks, sign, out, at, to, stride):
    """Add sign * stripᵀ strip to those of the tiles (r, c) and (r, c + 1) that are in the upper triangle of `blocks` blocks."""
    a, b, next_b = r * PAD * depth, c * PAD * depth, (c + 1) * PAD * depth
    if c >= r and c + 1 < blocks and HAS_WIDE:
        _add_two_tiles(strip, a, b, next_b, depth, sign, out, at, to, stride)
        return
    if c >= r:
        _add_tile(strip, a, b, depth, sign, out, at, stride)
    if c + 1 < blocks:
        _add_tile(strip, a, next_b, depth, sign, out, to, stride)


@inner
def _add_tile(strip, a, b, depth, sign, out, at, stride):
    """Add sign * stripᵀ strip to one tile, its rows `stride` apart."""
    _add_half_tile(strip, a, b, depth, sign, out, at, stride)
    _add_half_tile(strip, a + LANES, b, depth, sign, out, at + LANES * stride, stride)


@inner
def _put(out, at, sign, value):
    """Add sign * value to a row of a tile."""
    store(out, at, load_wide(out, at) + splat_wide(sign) * value)


@inner
def _put_pair(out, at, to, sign, first, second):
    """Add to a row of each of two tiles."""
    _put(out, at, sign, first)
    _put(out, to, sign, second)


@inner
def _add_half_tile(strip, a, b, depth, sign, out, at, stride):
    """Four rows of a tile: eight accumulators of four doubles, as many as the processor can keep busy."""
    s0 = s1 = s2 = s3 = splat_wide(0.0)
    for _ in range(depth):
        v = load_wide(strip, b)
        s0 = s0 + splat_wide(get(strip, a + 0)) * v
        s1 = s1 + splat_wide(get(strip, a + 1)) * v
        s2 = s2 + splat_wide(get(strip, a + 2)) * v
        s3 = s3 + splat_wide(get(strip, a + 3)) * v
        a += PAD
        b += PAD
    _put(out, at, sign, s0)
    _put(out, at + stride, sign, s1)
    _put(out, at + 2 * stride, sign, s2)
    _put(out, at + 3 * stride, sign, s3)


@inner
def _add_two_tiles(strip, a, b, next_b, depth, sign, out, at, to, stride):
    """Two tiles next to each other: sixteen accumulators of eight doubles, so that few of the reads are repeated."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = splat_wide(0.0)
    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = splat_wide(0.0)
    for _ in range(depth):
        u, v = load_wide(strip, b), load_wide(strip, next_b)
        f = splat_wide(get(strip, a + 0))
        s0, t0 = s0 + f * u, t0 + f * v
        f = splat_wide(get(strip, a + 1))
        s1, t1 = s1 + f * u, t1 + f * v
        f = splat_wide(get(strip, a + 2))
        s2, t2 = s2 + f * u, t2 + f * v
        f = splat_wide(get(strip, a + 3))
        s3, t3 = s3 + f * u, t3 + f * v
        f = splat_wide(get(strip, a + 4))
        s4, t4 = s4 + f * u, t4 + f * v
        f = splat_wide(get(strip, a + 5))
        s5, t5 = s5 + f * u, t5 + f * v
        f = splat_wide(get(strip, a + 6))
        s6, t6 = s6 + f * u, t6 + f * v
        f = splat_wide(get(strip, a + 7))
        s7, t7 = s7 + f * u, t7 + f * v
        a += PAD
        b += PAD
        next_b += PAD
    _put_pair(out, at, to, sign, s0, t0)
    _put_pair(out, at + stride, to + stride, sign, s1, t1)
    _put_pair(out, at + 2 * stride, to + 2 * stride, sign, s2, t2)
    _put_pair(out, at + 3 * stride, to + 3 * stride, sign, s3, t3)
    _put_pair(out, at + 4 * stride, to + 4 * stride, sign, s4, t4)
    _put_pair(out, at + 5 * stride, to + 5 * stride, sign, s5, t5)
    _put_pair(out, at + 6 * stride, to + 6 * stride, sign, s6, t6)
    _put_pair(out, at + 7 * stride, to + 7 * stride, sign, s7, t7)


@inner
def cholesky(a, n, width, spare, strip):
    """Replace the upper triangle of a by its factor r with rᵀr = a; False if a is not positive definite.

    The matrix is (width, width), width a multiple of PAD not below n; columns from n on must be zero. `spare` has space for four
    rows, `strip` for PANEL.
    """
    panel = n if n < BLOCKED_FROM else np.int64(PANEL)
    for first in range(0, n, panel):
        last = min(first + panel, n)
        if not factorize_rows(a, first, last, width, spare):
            return False
        if last < n:
            pack_rows(a, first * width, panel, width, last, strip)
            _subtract_strip(strip, panel, (width - last) // PAD, a, last * width + last, width)
    return True
