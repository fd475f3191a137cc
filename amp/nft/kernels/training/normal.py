"""Normal equations of a member, streamed: blocks of Jacobian rows are filled, weighted, packed and added up.

The Jacobian itself is never stored in double precision, unless there are fewer residuals than parameters: then the equations
are those of the residuals. Rows are added in strips of DEPTH from the first residual on, so the sums depend neither on the size
of the blocks nor on threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.linalg import PAD, padded
from amp.nft.kernels.simd.tiles import DEPTH, add_strip, pack_columns, pack_rows
from amp.nft.kernels.simd.vectors import LANES, load, splat, store, store_single, zeros
from amp.nft.kernels.training.jacobian import count_residuals, fill_image_rows, fill_penalty_rows
from amp.nft.kernels.training.loss import clear

BLOCK_ROWS, BLOCK_BYTES = 1024, 16_000_000  # limits of a block, unless one image has more
SINGLE_BYTES = 32_000_000  # largest Jacobian of one member that is kept in single precision, for the acceleration


class Work(NamedTuple):
    """Memory of one fit: k residuals, p parameters, both padded, and s = k or p equations, whichever are fewer."""

    root: np.ndarray  # (count,) factor of each residual
    residual: np.ndarray  # (k,) times root
    trial: np.ndarray  # (k,) at a trial point
    behind: np.ndarray  # (k,) at the point opposite to it; empty if `single` is not
    rows: np.ndarray  # (rows of a block * p,) Jacobian times root; all rows if the equations are those of the residuals
    single: np.ndarray  # (count * p,) Jacobian times root in single precision; empty if it would be too large
    tiles: np.ndarray  # upper triangle of the (s, s) equations
    strip: np.ndarray  # (DEPTH * s,)
    factor: np.ndarray  # (s * s,)
    gradient: np.ndarray  # (p,) half that of the sum of squares
    step: np.ndarray  # (p,)
    bend: np.ndarray  # (p,)
    dual: np.ndarray  # (s,); empty if the equations are those of the parameters
    spare: np.ndarray  # (4 * s,)


def make_work(root: np.ndarray, n_parameters: int, most: int, block_rows: int = BLOCK_ROWS) -> Work:
    """Allocate memory for a fit.

    Parameters
    ----------
    root : ndarray, shape (residuals,)
        Factor of each residual.
    n_parameters : int
    most : int
        Residuals of the largest image.
    block_rows : int
        Rows of the Jacobian in memory at a time, about.

    Returns
    -------
    Work
    """
    count = len(root)
    k, p, few = padded(count), padded(n_parameters), count < n_parameters
    s, single = k if few else p, 4 * count * p <= SINGLE_BYTES
    block = k if few else min(count, max(min(block_rows, BLOCK_BYTES // (8 * p)), most) + DEPTH)
    blocks = s // PAD
    sizes = {
        "residual": k, "trial": k, "behind": 0 if single else k, "rows": block * p, "tiles": blocks * (blocks + 1) // 2 * PAD**2,
        "strip": DEPTH * s, "factor": s * s, "gradient": p, "step": p, "bend": p, "dual": s if few else 0, "spare": 4 * s,
    }  # fmt: skip
    arrays = {name: zeros(size) for name, size in sizes.items()}
    return Work(root=root.copy(), single=np.zeros(count * p if single else 0, np.float32), **arrays)


@kernel
def linearize(problem, theta, weights, scratch, work):
    """Fill residual, gradient, tiles and single; the largest element of the diagonal of JᵀJ."""
    width, row, k = len(work.step), np.int64(0), np.int64(0)
    clear(work.tiles)
    clear(work.gradient)
    clear(work.rows)
    for i in range(len(weights)):
        if weights[i] > 0:
            image = problem.data.images[i]
            n = count_residuals(image)
            if (row + n) * width > len(work.rows):
                row = _add_strips(work, row)
            fill_image_rows(problem, theta, image, scratch, work.residual, k, work.rows, row, width)
            _weigh_rows(work, k, row, n)
            row += n
            k += n
    n = len(work.root) - k
    if n > 0:
        if (row + n) * width > len(work.rows):
            row = _add_strips(work, row)
        fill_penalty_rows(problem, theta, work.residual, k, work.rows, row, width)
        _weigh_rows(work, k, row, n)
        row += n
    return _finish(work, row)


@inner
def _weigh_rows(work, k, row, n):
    """Multiply n residuals from k on, and their rows, by their roots; add to the gradient and to `single`."""
    width = len(work.step)
    for r in range(n):
        work.residual[k + r] *= work.root[k + r]
        root, residual = splat(work.root[k + r]), splat(work.residual[k + r])
        at, begin = (row + r) * width, (k + r) * width
        for p in range(0, width, LANES):
            derivative = root * load(work.rows, at + p)
            store(work.rows, at + p, derivative)
            store(work.gradient, p, load(work.gradient, p) + residual * derivative)
            if len(work.single) > 0:
                store_single(work.single, begin + p, derivative)


@inner
def _add_strips(work, row):
    """Add the strips among the first rows to the tiles, move the other rows to the front, and return their number."""
    width = len(work.step)
    whole = row - row % DEPTH
    for first in range(0, whole, DEPTH):
        pack_rows(work.rows, first * width, DEPTH, width, 0, work.strip)
        add_strip(work.strip, DEPTH, width // PAD, work.tiles)
    if whole > 0:
        left = (row - whole) * width
        for p in range(left):
            work.rows[p] = work.rows[whole * width + p]
        clear(work.rows[left : row * width])
    return row - whole


@inner
def _finish(work, row):
    """Add the remaining rows; return the largest element of the diagonal of JᵀJ."""
    width, size = len(work.step), len(work.dual)
    if size == 0:
        row = _add_strips(work, row)
        if row > 0:
            pack_rows(work.rows, np.int64(0), row, width, 0, work.strip)
            add_strip(work.strip, row, width // PAD, work.tiles)
        return _largest_diagonal(work.tiles, width // PAD)
    for first in range(0, width, DEPTH):
        depth = min(DEPTH, width - first)
        pack_columns(work.rows, width, first, depth, size, work.strip)
        add_strip(work.strip, depth, size // PAD, work.tiles)
    clear(work.bend)
    largest = 0.0
    for r in range(row):
        for p in range(0, width, LANES):
            derivative = load(work.rows, r * width + p)
            store(work.bend, p, load(work.bend, p) + derivative * derivative)
    for p in range(width):
        largest = max(largest, work.bend[p])
    return largest


@inner
def _largest_diagonal(tiles, blocks):
    """Return the largest element of the diagonal."""
    largest = 0.0
    for c in range(blocks):
        tile = (c * (c + 1) // 2 + c) * PAD * PAD
        for i in range(PAD):
            largest = max(largest, tiles[tile + i * PAD + i])
    return largest
