"""Normal equations of a member, streamed: Jacobian rows are filled, weighted, packed and added up.

The Jacobian itself is never stored in double precision, unless there are fewer residuals than parameters: then the equations
are those of the residuals. Rows are added in strips of DEPTH from the first residual on, so the sums depend neither on the size
of the blocks nor on threads: of each block, a thread fills the rows of some images, and then adds all rows to some columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.linalg import PAD, padded
from amp.nft.kernels.simd.tiles import DEPTH, add_strip, pack_columns
from amp.nft.kernels.simd.vectors import LANES, load, splat, store, store_single, zeros
from amp.nft.kernels.training.jacobian import count_residuals, fill_image_rows, fill_penalty_rows
from amp.nft.kernels.training.loss import clear
from amp.nft.kernels.training.team import Private, Range, Team

BLOCK_ROWS, BLOCK_BYTES = 1024, 16_000_000  # limits of a block, unless one image has more
SINGLE_BYTES = 32_000_000  # largest Jacobian of one member that is kept in single precision, for the acceleration


class Work(NamedTuple):
    """Memory of one fit: k residuals, p parameters, both padded, and s = k or p equations, whichever are fewer."""

    root: np.ndarray  # (count,) factor of each residual
    residual: np.ndarray  # (k,) times root
    trial: np.ndarray  # (k,) at a trial point
    behind: np.ndarray  # (k,) at the point opposite to it; empty if `single` is not
    rows: np.ndarray  # (rows of an image * p,) Jacobian; (k * p,) times root if the equations are those of the residuals
    packed: np.ndarray  # (strips of a block * DEPTH * p,) Jacobian times root, else empty; place s % strips contains strip s
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
    strips = min(max(min(block_rows, BLOCK_BYTES // (8 * p)), most) // DEPTH + 2, count // DEPTH + 1)
    blocks = s // PAD
    sizes = {
        "residual": k, "trial": k, "behind": 0 if single else k, "rows": (k if few else min(most, count)) * p,
        "packed": 0 if few else strips * DEPTH * p, "tiles": blocks * (blocks + 1) // 2 * PAD**2,
        "strip": DEPTH * s, "factor": s * s, "gradient": p, "step": p, "bend": p, "dual": s if few else 0, "spare": 4 * s,
    }  # fmt: skip
    arrays = {name: zeros(size) for name, size in sizes.items()}
    return Work(root=root.copy(), single=np.zeros(count * p if single else 0, np.float32), **arrays)


def linearize(
    problem: Any, theta: np.ndarray, weights: np.ndarray, scratch: Any, work: Work, team: Team | None = None
) -> float:  # fmt: skip
    """Fill residual, gradient, tiles and single.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (parameters,)
    weights : ndarray of int, shape (images,)
    scratch : Scratch
    work : Work
    team : Team, optional
        Threads that may help. The result does not depend on them.

    Returns
    -------
    float
        Largest element of the diagonal of JᵀJ.
    """
    count, width, few = len(work.root), len(work.step), len(work.dual) > 0
    room = count if few else len(work.packed) // width  # rows
    image, k, strip, largest = 0, 0, 0, 0.0
    while k < count:
        limit = strip * DEPTH + room
        if team is not None and team.helps:
            image, k = _fill_together(team, problem, theta, weights, work, image, limit)
        else:
            image, k = fill_rows(problem, theta, weights, scratch, work.rows, work, image, len(weights) + 1, k, limit)
        begin, strip = strip, k // DEPTH if k < count else -(-(width if few else count) // DEPTH)
        if team is not None and team.helps:
            largest = _add_together(team, work, begin, strip)
        else:
            largest = add_strips(work, work.strip, begin, strip, 0, _block_columns(work))
    return largest


def _block_columns(work: Work) -> int:
    """Return the number of block columns of the equations."""
    return (len(work.dual) or len(work.step)) // PAD


def _fill_together(team: Team, problem: Any, theta: np.ndarray, weights: np.ndarray, work: Work, image: int, limit: int) -> tuple[int, int]:
    """Do the same as `fill_rows` by several threads."""
    last = int(np.searchsorted(team.start, limit, side="right")) - 1

    def fill(private: Private, part: Range) -> None:
        """Fill the rows of some images."""
        fill_rows(problem, theta, weights, private.scratch, private.rows, work, *part, int(team.start[part[0]]), limit)

    team.share(fill, team.ranges(image, last))
    return last, int(team.start[last])


def _add_together(team: Team, work: Work, begin: int, end: int) -> float:
    """Do the same as `add_strips` by several threads."""
    largest = []

    def add(private: Private, part: Range) -> None:
        """Add the strips to some columns."""
        largest.append(add_strips(work, private.strip, begin, end, *part))

    team.share(add, team.columns(_block_columns(work)))
    return max(largest)


@kernel
def fill_rows(problem, theta, weights, scratch, rows, work, first, last, k, limit):
    """Fill residuals from k on, and their rows, of images first <= i < last or until these would be more than `limit`.

    The penalty counts as one more image. Returns the next image and residual.
    """
    for i in range(first, last):
        n = np.int64(0)
        if i == len(weights):
            n = len(work.root) - k
        elif weights[i] > 0:
            n = count_residuals(problem.data.images[i])
        if k + n > limit:
            return i, k
        if n > 0:
            width, row = len(work.step), k if len(work.dual) > 0 else np.int64(0)
            clear(rows[row * width : (row + n) * width])
            if i == len(weights):
                fill_penalty_rows(problem, theta, work.residual, k, rows, row, width)
            else:
                fill_image_rows(problem, theta, problem.data.images[i], scratch, work.residual, k, rows, row, width)
            _weigh_rows(work, k, n, rows, row)
            k += n
    return last, k


@inner
def _weigh_rows(work, k, n, rows, row):
    """Multiply n residuals from k on, and their rows, by their roots; write these to `packed` or in place, and to `single`."""
    width = len(work.step)
    room = max(len(work.packed) // width, 1)
    for r in range(k, k + n):
        work.residual[r] *= work.root[r]
        root, at, in_strip = splat(work.root[r]), (row + r - k) * width, r % DEPTH
        depth, to = min(DEPTH, len(work.root) - r + in_strip), (r - in_strip) % room * width + in_strip * PAD
        for p in range(0, width, PAD):
            u, v = root * load(rows, at + p), root * load(rows, at + p + LANES)
            if len(work.dual) > 0:
                store(rows, at + p, u)
                store(rows, at + p + LANES, v)
            else:
                store(work.packed, to + p * depth, u)
                store(work.packed, to + p * depth + LANES, v)
            if len(work.single) > 0:
                store_single(work.single, r * width + p, u)
                store_single(work.single, r * width + p + LANES, v)


@kernel
def add_strips(work, strip, begin, end, first, last):
    """Add strips begin <= s < end to the tiles of block columns first <= c < last; `strip` is memory of the calling thread.

    Returns the largest element of the diagonal of JᵀJ that it knows after the last strip.
    """
    width, few = len(work.step), len(work.dual) > 0
    rows = width if few else len(work.root)
    if begin == 0:
        clear(work.tiles[first * (first + 1) // 2 * PAD * PAD : last * (last + 1) // 2 * PAD * PAD])
    for s in range(begin, end):
        depth = min(DEPTH, rows - s * DEPTH)
        packed = strip
        if few:
            pack_columns(work.rows, width, s * DEPTH, depth, len(work.dual), strip)
        else:
            packed = work.packed[s * DEPTH % (len(work.packed) // width) * width :]
            _add_to_gradient(work, packed, s * DEPTH, depth, first, last)
        add_strip(packed, depth, first, last, work.tiles)
    if end * DEPTH < rows:
        return 0.0
    if not few:
        return _largest_diagonal(work.tiles, first, last)
    return _finish_dual(work) if first == 0 else 0.0


@inner
def _add_to_gradient(work, packed, k, depth, first, last):
    """Add the residuals from k on times the rows of a strip to the gradient, in some block columns."""
    for c in range(first * PAD, last * PAD, PAD):
        u, v = load(work.gradient, c), load(work.gradient, c + LANES)
        if k == 0:
            u = v = splat(0.0)
        for r in range(depth):
            residual, at = splat(work.residual[k + r]), c * depth + r * PAD
            u, v = u + residual * load(packed, at), v + residual * load(packed, at + LANES)
        store(work.gradient, c, u)
        store(work.gradient, c + LANES, v)


@inner
def _finish_dual(work):
    """Fill the gradient where the whole Jacobian is stored; return the largest element of the diagonal of JᵀJ."""
    width, largest = len(work.step), 0.0
    clear(work.gradient)
    clear(work.bend)
    for r in range(len(work.root)):
        residual = splat(work.residual[r])
        for p in range(0, width, LANES):
            derivative = load(work.rows, r * width + p)
            store(work.gradient, p, load(work.gradient, p) + residual * derivative)
            store(work.bend, p, load(work.bend, p) + derivative * derivative)
    for p in range(width):
        largest = max(largest, work.bend[p])
    return largest


@inner
def _largest_diagonal(tiles, first, last):
    """Return the largest element of the diagonal in some block columns."""
    largest = 0.0
    for c in range(first, last):
        tile = (c * (c + 1) // 2 + c) * PAD * PAD
        for i in range(PAD):
            largest = max(largest, tiles[tile + i * PAD + i])
    return largest
