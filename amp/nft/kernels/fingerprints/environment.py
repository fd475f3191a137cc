"""Fingerprints of one atom and their gradients in its neighbours' positions: the innermost kernels."""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.fingerprints.shapes import radial_shape
from amp.nft.kernels.fingerprints.triplets import add_triplets, finish_gradients
from amp.nft.kernels.fingerprints.workspace import BATCH, BUFFER, RECORD
from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd import vectors as simd
from amp.nft.kernels.simd.vectors import LANES, get, load, put, splat, store

_TINY = 1e-12  # so close to the cutoff, in 1 - s, P < 1e-23 counts as 0


@inner
def compute(begin, end, found, kind, atom, special, tables, ws):
    """
    Fingerprints of one atom and their gradients, from its lines of a neighbour list.

    Parameters
    ----------
    begin, end : int
        The lines.
    found : Neighbors
        The list; entries beyond the cutoff do not count.
    kind : ndarray of int, shape (atoms,)
        Elements.
    atom : int
        The centre.
    special : int
        -1, or the one atom in whose position gradients are requested; neighbours that are images of it come first in their kind.
    tables, ws : Tables, Workspace
        The requested fingerprints, and the buffers for the results.

    Returns
    -------
    int
        The number of neighbours.
    """
    n = _gather(
        begin,
        end,
        found.index,
        found.image,
        found.shift,
        found.position,
        kind,
        atom,
        special,
        tables.radius,
        ws.atom,
        ws.first,
        ws.near,
        ws.record,
    )
    for shape in range(tables.shapes.shape[0]):
        _neighbor_shape(shape, n, tables.shapes, tables.radius, tables.gamma, ws.near, ws.record, ws.pairs)
    centre = kind[atom]
    _clear(n, ws.radial, ws.grad, ws.value)
    for vector in range(tables.kinds[centre, 0], tables.kinds[centre, 1]):
        slot, neighbor = tables.radials[vector, 1], tables.radials[vector, 0]
        _radial(vector, slot, ws.first[neighbor], ws.first[neighbor + 1], tables.radial_numbers, ws.record, ws.radial, ws.value)

    for block in range(tables.kinds[centre, 2], tables.kinds[centre, 3]):
        add_triplets(block, tables.kinds[centre, 4], special, kind, tables, ws)
    finish_gradients(n, ws.record, ws.grad)
    return n


@inner
def _gather(begin, end, index, image, shift, position, kind, centre, special, radius, atom, first, near, record):
    """Take in the neighbours, sorted by kind, the special one's images first."""
    stride = near.shape[1]
    inverse_radius = 1.0 / radius
    n = 0
    for wanted in range(first.size - 1):
        first[wanted] = n
        for later in range(special < 0, 2):
            for line in range(begin, end):
                j, move = np.int64(get(index, line)), np.int64(get(image, line))
                if get(kind, j) != wanted or (j == special) == (later == 1):
                    continue
                x = get(position, 3 * j) + get(shift, 3 * move) - get(position, 3 * centre)
                y = get(position, 3 * j + 1) + get(shift, 3 * move + 1) - get(position, 3 * centre + 1)
                z = get(position, 3 * j + 2) + get(shift, 3 * move + 2) - get(position, 3 * centre + 2)
                square = x * x + y * y + z * z
                if square > radius * radius:
                    continue
                r = np.sqrt(square)
                atom[n] = j
                put(near, n, x * inverse_radius)
                put(near, n + stride, y * inverse_radius)
                put(near, n + 2 * stride, z * inverse_radius)
                put(near, n + 3 * stride, square * (inverse_radius * inverse_radius))
                for shape in range(record.shape[0]):
                    at = (shape * stride + n) * RECORD
                    store(record, at, simd.pack(x, y, z, 1.0 / r))
                    put(record, at + 4, r)
                n += 1
    first[-1] = n
    return n


@inner
def _neighbor_shape(shape, n, shapes, radius, gamma, near, record, pairs):
    """P and L of all neighbours."""
    stride = near.shape[1]
    scale = 2.0 / radius**2
    for begin in range(0, n, BATCH):
        count = min(BATCH, n - begin)
        radial_shape(shape, count, shapes, gamma, near, 3 * stride + begin, pairs)
        for m in range(count):
            value, slope = get(pairs, 2 * BUFFER + m), get(pairs, 3 * BUFFER + m)
            inside = 1.0 - get(near, 3 * stride + begin + m) > _TINY
            at = (shape * stride + begin + m) * RECORD
            put(record, at + 5, value if inside else 0.0)
            put(record, at + 6, scale * slope / value if inside else 0.0)


@inner
def _radial(vector, slot, begin, end, numbers, record, radial, value):
    """Four G2 functions and their gradients, over (x, y, z), from all neighbours of one kind."""
    width = radial.shape[1]
    at = 3 * LANES * vector
    used, eta, offset = load(numbers, at), load(numbers, at + LANES), load(numbers, at + 2 * LANES)
    total = splat(0.0)
    for j in range(begin, end):
        at = j * RECORD
        away = splat(get(record, at + 4)) - offset
        bend = eta * away
        term = simd.exp(splat(0.0) - bend * away) * used * splat(get(record, at + 5))
        store(radial, j * width + slot, term * (splat(get(record, at + 6)) - bend * splat(2.0 * get(record, at + 3))))
        total = total + term
    store(value, slot, total)


@inner
def _clear(n, radial, grad, value):
    """Zero all buffers that are added to, or not written for every kind of neighbour."""
    for at in range(0, n * radial.shape[1], LANES):
        store(radial, at, splat(0.0))
    for at in range(0, n * grad.shape[1] * 4 * LANES, LANES):
        store(grad, at, splat(0.0))
    for at in range(0, value.size, LANES):
        store(value, at, splat(0.0))
