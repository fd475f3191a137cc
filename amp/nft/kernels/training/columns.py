"""Fingerprints of many images as one block of memory, in the order in which the network kernels walk through it.

Within an image the rows of one element form a *segment*: a matrix (features, columns) of the networks' inputs, padded with columns
that count for nothing. Each trained force has one *piece* per segment: for each direction a matrix (features, columns) of derivatives,
whose columns are those of the segment or, where only few rows are near, a list of them. Matrices are stored block by block, see
:mod:`amp.nft.kernels.simd.linalg`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from amp.nft.kernels.simd.linalg import PAD, padded

BATCH = 8192  # derivatives that are arranged together
ALIGN_FROM = 0.7  # a piece that touches this fraction of a segment's rows takes all of its columns

IMAGE = np.dtype([
    ("segment", "i8"), ("end", "i8"),  # its segments: segment <= s < end
    ("force", "i8"), ("last", "i8"),  # its forces: force <= f < last
    ("piece", "i8"),  # the first piece of the first force; each force has one per segment
    ("has_energy", "i8"),
    ("energy", "f8"),  # eV
    ("n_atoms", "f8"),  # by which the energy is divided
    ("energy_weight", "f8"),  # 0 where there is no energy
    ("divisor", "f8"),  # of the weighted sum over the forces
])  # fmt: skip
SEGMENT = np.dtype([("kind", "i8"), ("real", "i8"), ("columns", "i8"), ("x", "i8")])  # real: columns that are atoms
PIECE = np.dtype([("columns", "i8"), ("d", "i8"), ("row", "i8")])  # row: -1 where the columns are those of the segment


class Columns(NamedTuple):
    """All images of a training set."""

    images: np.ndarray  # of IMAGE
    segments: np.ndarray  # of SEGMENT
    pieces: np.ndarray  # of PIECE
    x: np.ndarray  # inputs, from segment.x on
    d: np.ndarray  # their derivatives, from piece.d on
    row: np.ndarray  # columns of the segment that a piece's columns refer to, from piece.row on


def pack_images(
    rows: Sequence[Any],
    energies: np.ndarray,
    n_atoms: np.ndarray,
    inputs: Sequence[tuple[np.ndarray, np.ndarray]],
    with_forces: bool = True,
    energy_weights: np.ndarray | None = None,
    divisors: np.ndarray | None = None,
) -> Columns:
    """Arrange the data of all images, with fingerprints turned into the networks' inputs.

    Parameters
    ----------
    rows : sequence of Rows
        One per image.
    energies : ndarray, shape (images,)
        In eV; nan where there is none to learn.
    n_atoms : ndarray, shape (images,)
        Atoms of each whole image.
    inputs : sequence of (ndarray, ndarray), shapes (inputs, fingerprints) and (inputs,)
        Per element, in the order of `Rows.kind`, the matrix and the shift that make a network's inputs of the fingerprints.
    with_forces : bool
        False leaves the derivatives out.
    energy_weights, divisors : ndarray, shape (images,), optional
        See :func:`amp.nft.kernels.training.network.make_problem`.

    Returns
    -------
    Columns
    """
    features = np.array([len(shift) for _, shift in inputs])
    n_forces = np.array([len(r.force_start) - 1 if with_forces else 0 for r in rows])
    kind = np.concatenate([r.kind for r in rows])
    group = np.repeat(np.arange(len(rows)), [len(r.x) for r in rows]) * len(features) + kind  # a number for each segment
    images, segments = _plan_segments(np.bincount(group, minlength=len(rows) * len(features)), features, n_forces)
    _describe(images, energies, n_atoms, energy_weights, divisors)
    segment, column = np.unique(group, return_inverse=True)[1], _rank(group)
    x, values = np.zeros((features[segments["kind"]] * segments["columns"]).sum()), np.concatenate([r.x for r in rows])
    for k, (matrix, shift) in enumerate(inputs):
        chosen = np.flatnonzero(kind == k)
        _scatter(x, segments["x"][segment[chosen]], column[chosen], values[chosen, : matrix.shape[1]] @ matrix.T + shift)
    if not n_forces.any():
        return Columns(images, segments, np.zeros(0, PIECE), x, np.zeros(0), np.zeros(0, np.int64))
    return Columns(images, segments, *_pack_pieces(rows, images, segments, segment, column, [matrix for matrix, _ in inputs], x))


def _describe(images, energies, n_atoms, energy_weights, divisors):
    """Fill the labels and weights of the images."""
    weights = np.where(np.isnan(energies), 0.0, 1.0 if energy_weights is None else energy_weights)
    images["has_energy"], images["energy"] = weights > 0.0, np.nan_to_num(energies)
    images["n_atoms"], images["energy_weight"] = n_atoms, weights
    images["divisor"] = np.maximum(images["last"] - images["force"], 1) if divisors is None else divisors


def _pack_pieces(rows, images, segments, segment, column, matrices, x):
    """Return pieces, x, derivatives and listed columns, from each row's segment and column."""
    n_forces, per_image = images["last"] - images["force"], images["end"] - images["segment"]
    force = np.repeat(np.arange(n_forces.sum()), np.concatenate([np.diff(r.force_start) for r in rows]))  # of each entry
    image = np.repeat(np.arange(len(rows)), n_forces)[force]
    row = _offsets([len(r.x) for r in rows])[image] + np.concatenate([r.force_row for r in rows])
    of_image = images[image]
    piece = of_image["piece"] + (force - of_image["force"]) * per_image[image] + segment[row] - of_image["segment"]
    features = np.array([len(matrix) for matrix in matrices])
    pieces, d = _plan_pieces(np.bincount(piece, minlength=(per_image * n_forces).sum()), images, segments, features)
    listed, place = pieces["row"][piece] >= 0, _rank(piece)
    columns_listed = np.zeros(pieces["columns"][pieces["row"] >= 0].sum(), dtype=np.int64)
    columns_listed[(pieces["row"][piece] + place)[listed]] = column[row][listed]
    place, kind = np.where(listed, place, column[row]), segments["kind"][segment[row]]
    for first, last, dx in _batches(rows):
        for k, matrix in enumerate(matrices):
            chosen = np.flatnonzero(kind[first:last] == k)
            at = pieces[piece[first + chosen]]
            for c in range(3):
                values = dx[chosen, c, : matrix.shape[1]] @ matrix.T
                _scatter(d, at["d"] + c * features[k] * at["columns"], place[first + chosen], values)
    return pieces, x, d, columns_listed


def _batches(rows):
    """Return derivatives of a few images at a time, so that they are not in memory twice, and the numbers of their entries."""
    first, parts, count = 0, [], 0
    for i, image in enumerate(rows):
        parts.append(image.dx)
        count += len(image.dx)
        if count >= BATCH or i == len(rows) - 1:
            yield first, first + count, np.concatenate(parts)
            first, parts, count = first + count, [], 0


def _plan_segments(count, features, n_forces):
    """Return images and segments, from the number of rows in each image of each element."""
    present = np.flatnonzero(count)
    segments = np.zeros(len(present), SEGMENT)
    segments["kind"], segments["real"], segments["columns"] = present % len(features), count[present], padded(count[present])
    segments["x"] = _offsets(features[segments["kind"]] * segments["columns"])[:-1]
    images = np.zeros(len(n_forces), IMAGE)
    per_image = np.bincount(present // len(features), minlength=len(images))
    for first, end, number in (("segment", "end", per_image), ("force", "last", n_forces)):
        images[first], images[end] = _offsets(number)[:-1], np.cumsum(number)
    images["piece"] = _offsets(per_image * n_forces)[:-1]
    return images, segments


def _plan_pieces(near, images, segments, features):
    """Return pieces, from the number of rows near in each, and memory for their derivatives."""
    per_image = images["end"] - images["segment"]
    image = np.repeat(np.arange(len(images)), per_image * (images["last"] - images["force"]))
    segment = segments[images["segment"][image] + (np.arange(len(near)) - images["piece"][image]) % per_image[image]]
    aligned = near >= ALIGN_FROM * segment["real"]
    pieces = np.zeros(len(near), PIECE)
    pieces["columns"] = np.where(aligned, segment["columns"], padded(near))
    pieces["row"] = np.where(aligned, -1, _offsets(np.where(aligned, 0, pieces["columns"]))[:-1])
    offsets = _offsets(3 * features[segment["kind"]] * pieces["columns"])
    pieces["d"] = offsets[:-1]
    return pieces, np.zeros(offsets[-1])


def _offsets(counts):
    """Return the start of each of consecutive slices, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _rank(group):
    """Count the equal numbers before each number."""
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), dtype=np.int64)
    counts = np.bincount(group)
    rank[order] = np.arange(len(group)) - np.repeat(_offsets(counts)[:-1], counts)
    return rank


def _scatter(out, start, column, values):
    """Write each line of `values` to a column of the matrix that begins at `start`."""
    n = values.shape[1]
    out[(start + column // PAD * n * PAD + column % PAD)[:, None] + PAD * np.arange(n)] = values
