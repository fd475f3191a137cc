"""Fingerprints of many images as one block of memory, in the order in which the network kernels walk through it.

Within an image the rows of one element form a *segment*: a matrix (features, lanes) of scaled fingerprints, padded with lanes that
count for nothing. Each trained force has one *piece* per segment: a matrix (xyz, features, lanes) of derivatives, whose lanes are
those of the segment or, where only few rows are near, a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.linalg import padded

ALIGN_FROM = 0.7  # a piece that touches this fraction of a segment's rows takes all of its lanes
NO_SCALING_BELOW = 1e-8  # Amp leaves an input alone whose range is not wider than this


class Lanes(NamedTuple):
    """All images of a training set; offsets are into the flat arrays `x`, `d` and `row`."""

    x: np.ndarray  # scaled fingerprints of the segments
    d: np.ndarray  # derivatives of the pieces
    row: np.ndarray  # lanes of a segment that a piece refers to
    features: np.ndarray  # (kinds,)
    segment_start: np.ndarray  # (images + 1,)
    kind: np.ndarray  # (segments,)
    real: np.ndarray  # (segments,) lanes that are atoms
    lanes: np.ndarray  # (segments,) with padding
    segment_x: np.ndarray  # (segments,) offset into x
    force_start: np.ndarray  # (images + 1,)
    piece_start: np.ndarray  # (forces + 1,)
    piece_lanes: np.ndarray  # (pieces,)
    piece_d: np.ndarray  # (pieces,) offset into d
    piece_row: np.ndarray  # (pieces,) offset into row; -1 where the lanes are those of the segment


def scaling_of(fprange: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor and shift of Amp's scaling of inputs, from ranges of shape (features, 2)."""
    low, width = fprange[:, 0], fprange[:, 1] - fprange[:, 0]
    scaled = width > NO_SCALING_BELOW
    safe = np.where(scaled, width, 1.0)
    return np.where(scaled, 2.0 / safe, 1.0), np.where(scaled, -1.0 - 2.0 * low / safe, 0.0)


def pack_lanes(rows: Sequence[Any], fpranges: Sequence[np.ndarray], with_forces: bool = True) -> Lanes:
    """Arrange the fingerprints of all images, scaled to the networks' inputs.

    Parameters
    ----------
    rows : sequence of Rows
        One per image.
    fpranges : sequence of ndarray, shape (features, 2)
        Per element, in the order of `Rows.kind`, the values that are mapped to -1 and 1.
    with_forces : bool
        False leaves the derivatives out.

    Returns
    -------
    Lanes
    """
    n_forces = np.array([len(r.force_start) - 1 if with_forces else 0 for r in rows])
    features = np.array([len(r) for r in fpranges])
    width = max(features)
    factor, shift = np.zeros((2, len(features), width))
    for k, fprange in enumerate(fpranges):
        factor[k, : features[k]], shift[k, : features[k]] = scaling_of(np.asarray(fprange, dtype=float))
    row_start, force_start = _offsets([len(r.x) for r in rows]), _offsets(n_forces)
    entries = [np.diff(r.force_start)[:n] for r, n in zip(rows, n_forces, strict=True)]
    entry_start = _offsets(np.concatenate(entries))
    kind = np.concatenate([r.kind for r in rows]).astype(np.int64)
    entry_row = np.concatenate([r.force_row[: e.sum()] for r, e in zip(rows, entries, strict=True)]).astype(np.int64)
    place, segments, pieces = _plan(row_start, kind, force_start, entry_start, entry_row, features)
    x = np.zeros(segments[-1][-1])
    d, row = np.zeros(pieces[2][-1]), np.zeros(np.maximum(pieces[3], 0).max(initial=0) + pieces[1].max(initial=0), dtype=np.int64)
    packed = Lanes(x, d, row, features, *segments[:4], segments[4][:-1], force_start, *pieces[:2], pieces[2][:-1], pieces[3])
    for i, r in enumerate(rows):
        _fill(packed, i, place[row_start[i] :], r.x, r.kind, factor, shift)
        if n_forces[i]:
            _fill_pieces(packed, i, place[row_start[i] :], r.kind, r.force_start, r.force_row, r.dx, factor)
    return packed


def _offsets(counts) -> np.ndarray:
    """Where each of consecutive stretches begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@kernel
def _plan(row_start, kind, force_start, entry_start, entry_row, features):
    """Place of each row in its segment, and the tables of segments and pieces as in `Lanes`."""
    n_images, n_kinds = len(row_start) - 1, len(features)
    place = np.zeros(len(kind), np.int64)
    segment_start = np.zeros(n_images + 1, np.int64)
    seg_kind, seg_real, seg_lanes = np.zeros((3, n_images * n_kinds), np.int64)
    seg_x = np.zeros(n_images * n_kinds + 1, np.int64)
    n_forces = len(entry_start) - 1
    piece_start = np.zeros(n_forces + 1, np.int64)
    piece_lanes, piece_row = np.zeros((2, n_forces * n_kinds), np.int64)
    piece_d = np.zeros(n_forces * n_kinds + 1, np.int64)
    s = q = listed = 0
    for i in range(n_images):
        counts = np.zeros(n_kinds, np.int64)
        for r in range(row_start[i], row_start[i + 1]):
            place[r] = counts[kind[r]]
            counts[kind[r]] += 1
        for f in range(force_start[i], force_start[i + 1]):
            near = np.zeros(n_kinds, np.int64)
            for e in range(entry_start[f], entry_start[f + 1]):
                near[kind[row_start[i] + entry_row[e]]] += 1
            for k in range(n_kinds):
                if counts[k] > 0:
                    aligned = near[k] >= ALIGN_FROM * counts[k]
                    piece_lanes[q] = padded(counts[k] if aligned else near[k])
                    piece_row[q] = -1 if aligned else listed
                    listed += 0 if aligned else piece_lanes[q]
                    piece_d[q + 1] = piece_d[q] + 3 * features[k] * piece_lanes[q]
                    q += 1
            piece_start[f + 1] = q
        for k in range(n_kinds):
            if counts[k] > 0:
                seg_kind[s], seg_real[s], seg_lanes[s] = k, counts[k], padded(counts[k])
                seg_x[s + 1] = seg_x[s] + features[k] * seg_lanes[s]
                s += 1
        segment_start[i + 1] = s
    segments = segment_start, seg_kind[:s].copy(), seg_real[:s].copy(), seg_lanes[:s].copy(), seg_x[: s + 1].copy()
    return place, segments, (piece_start, piece_lanes[:q].copy(), piece_d[: q + 1].copy(), piece_row[:q].copy())


@kernel
def _fill(packed, i, place, x, kind, factor, shift):
    """Write the scaled fingerprints of an image."""
    for s in range(packed.segment_start[i], packed.segment_start[i + 1]):
        k, n, x0 = packed.kind[s], packed.lanes[s], packed.segment_x[s]
        for r in range(len(kind)):
            if kind[r] == k:
                for g in range(packed.features[k]):
                    packed.x[x0 + g * n + place[r]] = factor[k, g] * x[r, g] + shift[k, g]


@kernel
def _fill_pieces(packed, i, place, kind, start, near, dx, factor):
    """Write the scaled derivatives of an image."""
    first = packed.segment_start[i]
    for f in range(len(start) - 1):
        piece = packed.piece_start[packed.force_start[i] + f]
        for s in range(first, packed.segment_start[i + 1]):
            q, k = piece + s - first, packed.kind[s]
            n, d0, listed, lane = packed.piece_lanes[q], packed.piece_d[q], packed.piece_row[q], 0
            for e in range(start[f], start[f + 1]):
                r = near[e]
                if kind[r] != k:
                    continue
                if listed < 0:
                    lane = place[r]
                else:
                    packed.row[listed + lane] = place[r]
                for c in range(3):
                    for g in range(packed.features[k]):
                        packed.d[d0 + (c * packed.features[k] + g) * n + lane] += factor[k, g] * dx[e, c, g]
                lane += 1
