"""
Fingerprints of one atom and their gradients in its neighbours' positions: the innermost kernels.

With unit vectors u, distances r and radial functions P, Q of the form exp(-eta r² / Rc²) fc(r), a triplet adds

    h = A(c) P(r_j) P(r_k) Q(r_jk),   A = 2**(1 - zeta) (1 + gamma c)**zeta,   c = u_j . u_k

to a G4 (Khorshidi and Peterson, Comput. Phys. Commun. 207, 310 (2016), supplement; Q = 1 in a G5). Its gradient is

    dh/dx_j = e_j x_j - g x_k,   g = z - y / (r_j r_k),   e_j = L_j h + z - c y / r_j²,

with z = A P P Q' / r_jk, y = A' P P Q and L = P' / (P r). So a pair (j, k) needs one P P Q and one P P Q' / r_jk
for all functions of one eta, and each function four sums for j and four for k. The sum over k turns e_j into

    L_j h + z (1 - c r_k / r_j) + u_j . (sum of g x_k) / r_j,

where the last term is taken once, at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels import simd
from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd import LANES, get, load, put, root, splat, store
from amp.nft.kernels.tables import BITS, Tables

RECORD = 8  # x, y, z, 1/r, r, P, L of a neighbour
BATCH, ROOM = 128, 512  # pairs (j, k) worked on together: no more are begun, no more are taken; all stay in the cache
_NUMBERS = (4 + 2 * BITS) * LANES  # per vector of functions
_UNROLL = 4 * LANES  # values of a series worked on together, to hide the latency of its chain of additions
_TINY = 1e-12  # so close to the cutoff, in 1 - s, P < 1e-23 counts as 0


class Workspace(NamedTuple):
    """One centre and its neighbours, sorted by kind; everything is overwritten by the next centre."""

    atom: np.ndarray  # (neighbours,) which atom each neighbour is
    first: np.ndarray  # (kinds + 1,) first neighbour of each kind
    near: np.ndarray  # (4, neighbours) x / Rc, y / Rc, z / Rc, s = r² / Rc²
    record: np.ndarray  # (shapes, neighbours, RECORD)
    radial: np.ndarray  # (neighbours, radial slots) gradient of the G2: times (x, y, z)
    grad: np.ndarray  # (neighbours, vectors, 4, LANES) gradient of the G4 and G5 in rows 1 to 3; row 0 is scratch
    value: np.ndarray  # (slots,) the fingerprints
    dense: np.ndarray  # (neighbours,) s_jk of one j and every k
    run: np.ndarray  # (neighbours + 1, 3) runs of pairs: j, and where the run begins and ends
    other: np.ndarray  # (ROOM,) k of each pair
    pairs: np.ndarray  # (7, ROOM) c = cos(jik), s_jk = r_jk² / Rc², and what `_weigh` makes of them
    power: np.ndarray  # (ROOM, LANES) 2**(1 - zeta) (1 + gamma c)**(zeta - 1) of one vector of functions


def make_workspace(tables: Tables, most_neighbors: int) -> Workspace:
    """Room for centres with up to so many neighbours."""
    n = -(-max(most_neighbors, 1) // _UNROLL) * _UNROLL
    n_kinds = len(tables.kinds)
    radial, others = (int(tables.kinds[:, column].max()) for column in (4, 5))
    near, dense, pairs = simd.zeros(4, n), simd.zeros(n), simd.zeros(7, ROOM)
    near[:], dense[:], pairs[:] = 0.5, 0.5, 0.5  # harmless in the lanes that no neighbour takes
    return Workspace(
        np.zeros(n, dtype=np.int64), np.zeros(n_kinds + 1, dtype=np.int64), near, simd.zeros(len(tables.shapes), n, RECORD),
        simd.zeros(n, radial), simd.zeros(n, others // LANES, 4, LANES), simd.zeros(radial + others), dense,
        np.zeros((n + 1, 3), dtype=np.int64), np.zeros(ROOM, dtype=np.int64), pairs, simd.zeros(ROOM, LANES),
    )


@inner
def compute(begin, end, index, vector, kind, atom, special, tables, ws):
    """
    Fingerprints of one atom and their gradients, from its lines of a neighbour list.

    Parameters
    ----------
    begin, end : int
        The lines.
    index, vector : ndarray
        Which atom each neighbour is, and the way to it, Å.
    kind : ndarray of int, shape (atoms,)
        Elements.
    atom : int
        The centre.
    special : int
        -1, or the one atom in whose position gradients are wanted; neighbours that are images of it come first in their kind.
    tables, ws : Tables, Workspace
        The fingerprints wanted, and where everything is written.

    Returns
    -------
    int
        The number of neighbours.
    """
    n = _gather(begin, end, index, vector, kind, special, tables.radius, ws.atom, ws.first, ws.near, ws.record)
    for shape in range(tables.shapes.shape[0]):
        _neighbor_shape(shape, n, tables.shapes, tables.radius, tables.gamma, ws.near, ws.record, ws.pairs)
    centre = kind[atom]
    _clear(n, ws.radial, ws.grad, ws.value)
    for vector in range(tables.kinds[centre, 0], tables.kinds[centre, 1]):
        slot, neighbor = tables.radials[vector, 1], tables.radials[vector, 0]
        _radial(vector, slot, ws.first[neighbor], ws.first[neighbor + 1], tables.radial_numbers,
                ws.record, ws.radial, ws.value)

    for block in range(tables.kinds[centre, 2], tables.kinds[centre, 3]):
        _block(block, tables.kinds[centre, 4], special, kind, tables, ws)
    _finish_gradients(n, ws.record, ws.grad)
    return n


@inner
def _gather(begin, end, index, vector, kind, special, radius, atom, first, near, record):
    """Take in the neighbours, sorted by kind, the special one's images first."""
    stride = near.shape[1]
    n = 0
    for wanted in range(first.size - 1):
        first[wanted] = n
        for later in range(2):
            for line in range(begin, end):
                j = index[line]
                if kind[j] != wanted or (j == special) == (later == 1):
                    continue
                x, y, z = vector[line, 0], vector[line, 1], vector[line, 2]
                r = np.sqrt(x * x + y * y + z * z)
                inverse, scale = 1.0 / r, 1.0 / radius
                atom[n] = j
                put(near, n, x * scale)
                put(near, n + stride, y * scale)
                put(near, n + 2 * stride, z * scale)
                put(near, n + 3 * stride, r * scale * (r * scale))
                for shape in range(record.shape[0]):
                    at = (shape * stride + n) * RECORD
                    store(record, at, simd.pack(x, y, z, inverse))
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
        _shape(shape, count, shapes, gamma, near, 3 * stride + begin, pairs)
        for m in range(count):
            value, slope = get(pairs, 2 * ROOM + m), get(pairs, 3 * ROOM + m)
            inside = 1.0 - get(near, 3 * stride + begin + m) > _TINY
            at = (shape * stride + begin + m) * RECORD
            put(record, at + 5, value if inside else 0.0)
            put(record, at + 6, scale * slope / value if inside else 0.0)


@inner
def _shape(shape, n, shapes, gamma, source, at, pairs):
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
        value, slope = load(pairs, 2 * ROOM + p), load(pairs, 3 * ROOM + p)
        gauss = simd.exp(splat(-eta) * load(source, at + p))
        store(pairs, 2 * ROOM + p, gauss * value)
        store(pairs, 3 * ROOM + p, gauss * (slope - splat(eta) * value))


@inner
def _series(n, shapes, first, end, source, at, pairs):
    """(1 - s)² times a series in 2s - 1, and its derivative in s."""
    one, two, zero = splat(1.0), splat(2.0), splat(0.0)
    for p in range(0, n, _UNROLL):
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
    store(pairs, 2 * ROOM + p, w * w * series)
    store(pairs, 3 * ROOM + p, splat(2.0) * w * (w * change - series))


@inner
def _polynomial_cutoff(n, gamma, source, at, pairs):
    """fc = 1 + gamma q**(gamma + 1) - (gamma + 1) q**gamma and its derivative in s = q²."""
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
        store(pairs, 2 * ROOM + p, one + power * s * (splat(gamma) * q - splat(gamma + 1.0)))
        store(pairs, 3 * ROOM + p, splat(0.5 * gamma * (gamma + 1.0)) * power * (q - one))


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
    """Zero what is added to, and what is not written for every kind of neighbour."""
    for at in range(0, n * radial.shape[1], LANES):
        store(radial, at, splat(0.0))
    for at in range(0, n * grad.shape[1] * 4 * LANES, LANES):
        store(grad, at, splat(0.0))
    for at in range(0, value.size, LANES):
        store(value, at, splat(0.0))


@inner
def _block(block, radial, special, kind, tables, ws):
    """
    All triplets of one sort, a batch of pairs at a time.

    If only one atom's gradients are wanted, its images take the part of j first; the other j come without gradients.
    """
    a, b, far = tables.blocks[block, 0], tables.blocks[block, 1], tables.blocks[block, 2] == 1
    if special >= 0 and kind[special] == b:
        a, b = b, a
    j, k, end_j, moved = ws.first[a], 0, ws.first[a + 1], ws.first[a + 1]
    if special >= 0:
        moved = j
        while moved < end_j and ws.atom[moved] == special:
            moved += 1
    while j < end_j:
        gradients = j < moved
        j, k, runs = _list_pairs(j, k, moved if gradients else end_j, ws.first[b], ws.first[b + 1], a == b, far,
                                 ws.near, ws.dense, ws.run, ws.other, ws.pairs)
        for group in range(tables.blocks[block, 3], tables.blocks[block, 4]):
            shape = tables.groups[group, 0]
            if far:
                _constant_shape(ws.run[runs - 1, 2], ws.pairs)
            else:
                _shape(shape, ws.run[runs - 1, 2], tables.shapes, tables.gamma, ws.pairs, ROOM, ws.pairs)
            _weigh(shape, gradients, runs, tables.radius, ws.near, ws.record, ws.run, ws.other, ws.pairs)
            for vector in range(tables.groups[group, 1], tables.groups[group, 2]):
                slot, bits = tables.vectors[vector, 0], tables.vectors[vector, 1]
                if bits != 2:
                    _powers(vector, bits, ws.run[runs - 1, 2], tables.vector_numbers, ws.pairs, ws.power)
                if gradients:
                    _sum_gradients(vector, bits, radial, slot, shape, runs, tables.vector_numbers,
                                   ws.near, ws.record, ws.grad, ws.value, ws.run, ws.other, ws.pairs, ws.power)
                else:
                    _sum_values(vector, bits, radial + slot, ws.run[runs - 1, 2], tables.vector_numbers,
                                ws.value, ws.pairs, ws.power)


@inner
def _list_pairs(j, k, end_j, begin_k, end_k, same, far, near, dense, run, other, pairs):
    """
    List pairs (j, k) from these on until the batch is full; returns the next j and k, and how many runs there are.

    A run is one j with several k. Runs begin at a multiple of LANES; what lies between is filled with pairs
    that do not count.
    """
    stride, limit = near.shape[1], np.inf if far else 1.0
    m, runs = 0, 0
    while j < end_j and m < BATCH:
        x, y, z = splat(2.0 * get(near, j)), splat(2.0 * get(near, stride + j)), splat(2.0 * get(near, 2 * stride + j))
        s = splat(get(near, 3 * stride + j))
        first = max(k, j + 1 if same else begin_k)
        last = min(end_k, first + ROOM - 2 * _UNROLL - m)
        for k in range(first - first % LANES, last, LANES):
            product = x * load(near, k) + y * load(near, stride + k) + z * load(near, 2 * stride + k)
            store(dense, k, s + load(near, 3 * stride + k) - product)
        put(run, 3 * runs, j)
        put(run, 3 * runs + 1, m)
        for k in range(first, last):
            across = get(dense, k)
            put(other, m, k)
            put(pairs, ROOM + m, across)
            m += across < limit
        put(run, 3 * runs + 2, m)
        store(pairs, ROOM + m, splat(1.0))
        while m % LANES:
            put(other, m, j)
            m += 1
        runs += 1
        k = last if last < end_k else 0
        j += last == end_k
    return j, k, runs


@inner
def _take(record, other, p, at):
    """A number of the records of four pairs' k."""
    return simd.pack(get(record, get(other, p) * RECORD + at), get(record, get(other, p + 1) * RECORD + at),
                     get(record, get(other, p + 2) * RECORD + at), get(record, get(other, p + 3) * RECORD + at))


@inner
def _constant_shape(n, pairs):
    """Q = 1."""
    for p in range(0, n, LANES):
        store(pairs, 2 * ROOM + p, splat(1.0))
        store(pairs, 3 * ROOM + p, splat(0.0))


@inner
def _weigh(shape, gradients, runs, radius, near, record, run, other, pairs):
    """
    The cosine c of each pair, and from Q and dQ/ds P P Q, P P Q' / r_jk, P P Q / (r_j r_k), 1 - c r_k / r_j and 1 - c r_j / r_k.

    Without gradients only P P Q, where the third of these goes, and 0 for what lies between runs.
    """
    records = shape * near.shape[1] * RECORD
    one, scale, half, square = splat(1.0), splat(2.0 / radius**2), splat(0.5), splat(radius**2)
    for n in range(runs):
        at = records + get(run, 3 * n) * RECORD
        inverse_j, r_j, factor = splat(get(record, at + 3)), splat(get(record, at + 4)), splat(get(record, at + 5))
        for p in range(get(run, 3 * n + 1), get(run, 3 * n + 2), LANES):
            inverse, r = _take(record, other, p, records + 3), _take(record, other, p, records + 4)
            both = factor * _take(record, other, p, records + 5)
            value = both * load(pairs, 2 * ROOM + p)
            inverses = inverse * inverse_j
            c = half * inverses * (r_j * r_j + r * r - square * load(pairs, ROOM + p))
            store(pairs, p, c)
            if not gradients:
                store(pairs, 4 * ROOM + p, value)
                continue
            store(pairs, 2 * ROOM + p, value)
            store(pairs, 3 * ROOM + p, both * scale * load(pairs, 3 * ROOM + p))
            store(pairs, 4 * ROOM + p, value * inverses)
            store(pairs, 5 * ROOM + p, one - c * inverse_j * r)
            store(pairs, 6 * ROOM + p, one - c * inverse * r_j)
        if not gradients:
            store(pairs, 4 * ROOM + get(run, 3 * n + 2), splat(0.0))


@inner
def _powers(vector, bits, n, numbers, pairs, power):
    """2**(1 - zeta) (1 + gamma c)**(zeta - 1) of n pairs, by binary digits, or by the C library if bits < 0."""
    start = vector * _NUMBERS
    gamma = load(numbers, start)
    for p in range(n):
        x = splat(get(pairs, p)) * gamma + splat(1.0)
        if bits < 0:
            result = simd.power(x, load(numbers, start + 2 * LANES)) * load(numbers, start + 3 * LANES)
        else:
            result = _two_digits(x, start, numbers)
            x = x * x
            for at in range(start + 8 * LANES, start + (4 + 2 * bits) * LANES, 2 * LANES):
                x = x * x
                result = result * (load(numbers, at) * x + load(numbers, at + LANES))
        store(power, p * LANES, result)


@inner
def _two_digits(x, start, numbers):
    """2**(1 - zeta) x**(zeta - 1) as far as the last two binary digits of zeta - 1 go."""
    low = load(numbers, start + 4 * LANES) * x + load(numbers, start + 5 * LANES)
    return low * (load(numbers, start + 6 * LANES) * (x * x) + load(numbers, start + 7 * LANES))


@inner
def _sum_values(vector, bits, slot, n, numbers, value, pairs, power):
    """Add four functions of a batch of pairs to `value`."""
    one = splat(1.0)
    gamma, total = load(numbers, vector * _NUMBERS), load(value, slot)
    for p in range(n):
        x = splat(get(pairs, p)) * gamma + one
        angular = _two_digits(x, vector * _NUMBERS, numbers) if bits == 2 else load(power, p * LANES)
        total = total + angular * x * splat(get(pairs, 4 * ROOM + p))
    store(value, slot, total)


@inner
def _sum_gradients(vector, bits, radial, slot, shape, runs, numbers, near, record, grad, value, run, other, pairs, power):
    """Add four functions of a batch of pairs to `value`, and their sums e and g to `grad`, run by run: one j, several k."""
    stride, records = grad.shape[1], shape * near.shape[1] * RECORD
    at = vector * _NUMBERS
    gamma, slope, zero = load(numbers, at), load(numbers, at + LANES), splat(0.0)
    total = load(value, radial + slot)
    for n in range(runs):
        j = get(run, 3 * n)
        at = records + j * RECORD
        xj, yj, zj = splat(get(record, at)), splat(get(record, at + 1)), splat(get(record, at + 2))
        sum_h, sum_e, sum_gx, sum_gy, sum_gz = zero, zero, zero, zero, zero
        for p in range(get(run, 3 * n + 1), get(run, 3 * n + 2)):
            k = get(other, p)
            at = records + k * RECORD
            x = splat(get(pairs, p)) * gamma + splat(1.0)
            angular = _two_digits(x, vector * _NUMBERS, numbers) if bits == 2 else load(power, p * LANES)
            x = angular * x
            h = x * splat(get(pairs, 2 * ROOM + p))
            z = x * splat(get(pairs, 3 * ROOM + p))
            g = z - angular * (slope * splat(get(pairs, 4 * ROOM + p)))
            sum_h = sum_h + h
            sum_e = sum_e + z * splat(get(pairs, 5 * ROOM + p))
            sum_gx = sum_gx + g * splat(get(record, at))
            sum_gy = sum_gy + g * splat(get(record, at + 1))
            sum_gz = sum_gz + g * splat(get(record, at + 2))
            to = (k * stride * 4 + slot) * LANES
            store(grad, to, load(grad, to) + z * splat(get(pairs, 6 * ROOM + p)) + h * splat(get(record, at + 6)))
            store(grad, to + LANES, load(grad, to + LANES) + g * xj)
            store(grad, to + 2 * LANES, load(grad, to + 2 * LANES) + g * yj)
            store(grad, to + 3 * LANES, load(grad, to + 3 * LANES) + g * zj)
        to = (j * stride * 4 + slot) * LANES
        store(grad, to, load(grad, to) + sum_e + sum_h * splat(get(record, records + j * RECORD + 6)))
        store(grad, to + LANES, load(grad, to + LANES) + sum_gx)
        store(grad, to + 2 * LANES, load(grad, to + 2 * LANES) + sum_gy)
        store(grad, to + 3 * LANES, load(grad, to + 3 * LANES) + sum_gz)
        total = total + sum_h
    store(value, radial + slot, total)


@inner
def _finish_gradients(n, record, grad):
    """From the sums to the gradient e x_j - sum of g x_k, in place."""
    size = grad.shape[1] * 4 * LANES
    for j in range(n):
        at = j * RECORD
        x, y, z = splat(get(record, at)), splat(get(record, at + 1)), splat(get(record, at + 2))
        inverse = get(record, at + 3)
        for to in range(j * size, (j + 1) * size, 4 * LANES):
            gx, gy, gz = load(grad, to + LANES), load(grad, to + 2 * LANES), load(grad, to + 3 * LANES)
            e = load(grad, to) + (gx * x + gy * y + gz * z) * splat(inverse * inverse)
            store(grad, to + LANES, e * x - gx)
            store(grad, to + 2 * LANES, e * y - gy)
            store(grad, to + 3 * LANES, e * z - gz)
