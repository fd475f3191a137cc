"""
G4 and G5 of one atom, and their gradients.

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

import numpy as np

from amp.nft.kernels.fingerprints.shapes import radial_shape
from amp.nft.kernels.fingerprints.tables import BITS
from amp.nft.kernels.fingerprints.workspace import BATCH, BUFFER, RECORD, UNROLL
from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd import vectors as simd
from amp.nft.kernels.simd.vectors import LANES, get, load, put, splat, store

_NUMBERS = (4 + 2 * BITS) * LANES  # per vector of functions


@inner
def add_triplets(block, radial, special, kind, tables, ws):
    """
    All triplets of one sort, a batch of pairs at a time.

    If only one atom's gradients are requested, its images are j first; the other j come without gradients.
    """
    a, b, far = tables.blocks[block, 0], tables.blocks[block, 1], tables.blocks[block, 2] == 1
    if special >= 0 and kind[special] == b:
        a, b = b, a
    j, k, end_j, moved = ws.first[a], np.int64(0), ws.first[a + 1], ws.first[a + 1]
    if special >= 0:
        moved = j
        while moved < end_j and ws.atom[moved] == special:
            moved += 1
    while j < end_j:
        gradients = j < moved
        j, k, runs = _list_pairs(
            j, k, moved if gradients else end_j, ws.first[b], ws.first[b + 1], a == b, far, ws.near, ws.dense, ws.run, ws.other, ws.pairs
        )
        for group in range(tables.blocks[block, 3], tables.blocks[block, 4]):
            shape = tables.groups[group, 0]
            if far:
                _constant_shape(ws.run[runs - 1, 2], ws.pairs)
            else:
                radial_shape(shape, ws.run[runs - 1, 2], tables.shapes, tables.gamma, ws.pairs, np.int64(BUFFER), ws.pairs)
            _weigh(shape, gradients, runs, tables.radius, ws.near, ws.record, ws.run, ws.other, ws.pairs)
            for vector in range(tables.groups[group, 1], tables.groups[group, 2]):
                slot, bits = tables.vectors[vector, 0], tables.vectors[vector, 1]
                if bits != 2:
                    _powers(vector, bits, ws.run[runs - 1, 2], tables.vector_numbers, ws.pairs, ws.power)
                if gradients:
                    _sum_gradients(
                        vector,
                        bits,
                        radial,
                        slot,
                        shape,
                        runs,
                        tables.vector_numbers,
                        ws.near,
                        ws.record,
                        ws.grad,
                        ws.value,
                        ws.run,
                        ws.other,
                        ws.pairs,
                        ws.power,
                    )
                else:
                    _sum_values(vector, bits, radial + slot, ws.run[runs - 1, 2], tables.vector_numbers, ws.value, ws.pairs, ws.power)


@inner
def _list_pairs(j, k, end_j, begin_k, end_k, same, far, near, dense, run, other, pairs):
    """
    List pairs (j, k) from these on until the batch is full; return the next j and k, and the number of runs.

    A run is one j with several k. Runs begin at a multiple of LANES; the space between is filled with pairs
    that do not count.
    """
    stride, limit = near.shape[1], np.inf if far else 1.0
    m, runs = 0, 0
    while j < end_j and m < BATCH:
        x, y, z = splat(2.0 * get(near, j)), splat(2.0 * get(near, stride + j)), splat(2.0 * get(near, 2 * stride + j))
        s = splat(get(near, 3 * stride + j))
        first = max(k, j + 1 if same else begin_k)
        last = min(end_k, first + BUFFER - 2 * UNROLL - m)
        for k in range(first - first % LANES, last, LANES):
            product = x * load(near, k) + y * load(near, stride + k) + z * load(near, 2 * stride + k)
            store(dense, k, s + load(near, 3 * stride + k) - product)
        put(run, 3 * runs, j)
        put(run, 3 * runs + 1, m)
        for k in range(first, last):
            across = get(dense, k)
            put(other, m, k)
            put(pairs, BUFFER + m, across)
            m += across < limit
        put(run, 3 * runs + 2, m)
        store(pairs, BUFFER + m, splat(1.0))
        while m % LANES:
            put(other, m, j)
            m += 1
        runs += 1
        k = last if last < end_k else 0
        j += last == end_k
    return j, k, runs


@inner
def _take(record, other, p, at):
    """Return a number of the records of four pairs' k."""
    return simd.pack(
        get(record, get(other, p) * RECORD + at),
        get(record, get(other, p + 1) * RECORD + at),
        get(record, get(other, p + 2) * RECORD + at),
        get(record, get(other, p + 3) * RECORD + at),
    )


@inner
def _constant_shape(n, pairs):
    """Q = 1."""
    for p in range(0, n, LANES):
        store(pairs, 2 * BUFFER + p, splat(1.0))
        store(pairs, 3 * BUFFER + p, splat(0.0))


@inner
def _weigh(shape, gradients, runs, radius, near, record, run, other, pairs):
    """
    Return the cosine c of each pair, and from Q and dQ/ds P P Q, P P Q' / r_jk, P P Q / (r_j r_k), 1 - c r_k / r_j and 1 - c r_j / r_k.

    Without gradients only P P Q, where the third of these goes, and 0 between runs.
    """
    records = shape * near.shape[1] * RECORD
    one, scale, half, square = splat(1.0), splat(2.0 / radius**2), splat(0.5), splat(radius**2)
    for n in range(runs):
        at = records + get(run, 3 * n) * RECORD
        inverse_j, r_j, factor = splat(get(record, at + 3)), splat(get(record, at + 4)), splat(get(record, at + 5))
        for p in range(get(run, 3 * n + 1), get(run, 3 * n + 2), LANES):
            inverse, r = _take(record, other, p, records + 3), _take(record, other, p, records + 4)
            both = factor * _take(record, other, p, records + 5)
            value = both * load(pairs, 2 * BUFFER + p)
            inverses = inverse * inverse_j
            c = half * inverses * (r_j * r_j + r * r - square * load(pairs, BUFFER + p))
            store(pairs, p, c)
            if not gradients:
                store(pairs, 4 * BUFFER + p, value)
                continue
            store(pairs, 2 * BUFFER + p, value)
            store(pairs, 3 * BUFFER + p, both * scale * load(pairs, 3 * BUFFER + p))
            store(pairs, 4 * BUFFER + p, value * inverses)
            store(pairs, 5 * BUFFER + p, one - c * inverse_j * r)
            store(pairs, 6 * BUFFER + p, one - c * inverse * r_j)
        if not gradients:
            store(pairs, 4 * BUFFER + get(run, 3 * n + 2), splat(0.0))


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
        total = total + angular * x * splat(get(pairs, 4 * BUFFER + p))
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
            h = x * splat(get(pairs, 2 * BUFFER + p))
            z = x * splat(get(pairs, 3 * BUFFER + p))
            g = z - angular * (slope * splat(get(pairs, 4 * BUFFER + p)))
            sum_h = sum_h + h
            sum_e = sum_e + z * splat(get(pairs, 5 * BUFFER + p))
            sum_gx = sum_gx + g * splat(get(record, at))
            sum_gy = sum_gy + g * splat(get(record, at + 1))
            sum_gz = sum_gz + g * splat(get(record, at + 2))
            to = (k * stride * 4 + slot) * LANES
            store(grad, to, load(grad, to) + z * splat(get(pairs, 6 * BUFFER + p)) + h * splat(get(record, at + 6)))
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
def finish_gradients(n, record, grad):
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
