"""Residuals of Amp's loss, their Jacobian in the parameters, and the loss's gradient, for one member or for many.

The residuals of a member are those of the images whose weight is not zero, in the order of the images: for an image with an
energy (Ê - E)/N, then the three components of F̂ - F for each trained force, with predictions Ê and F̂. A member counts an image
`weight` times; each energy and each force also has a separate weight. The loss is

    sum_k coefficient_k residual_k² + overfit * sum (weights of the first layers, without biases)².

Where `overfit` is not zero, those weights follow as further residuals.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.linalg import PAD
from amp.nft.kernels.simd.vectors import LANES, load, splat, store, total
from amp.nft.kernels.training.columns import Columns
from amp.nft.kernels.training.layers import Net, add_gradient, backward, forward, input_slopes, sum_outputs


class Problem(NamedTuple):
    """Networks, images and labels, and the weights of the residuals."""

    net: Net
    data: Columns
    forces: np.ndarray  # (forces, 3) eV/Å
    force_weights: np.ndarray  # (forces,)
    energy_coefficient: float
    force_coefficient: float
    overfit: float
    restore: np.ndarray  # (kinds, features, features): times the first weights, these are Amp's


class Scratch(NamedTuple):
    """Memory for one thread, sized for the largest image."""

    nodes: np.ndarray  # h, s, p and b of all segments of an image
    inputs: np.ndarray  # as many numbers as there are fingerprints in an image
    near_nodes: np.ndarray  # of the listed columns of a piece
    near_inputs: np.ndarray
    tangent: np.ndarray  # ż, ḣ and ḃ of a segment or piece, in three directions


def make_scratch(problem: Problem) -> Scratch:
    """Return memory that the functions of this module work in; one per thread.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Scratch
    """
    data, kinds = problem.data, problem.net.kinds
    most = max(data.segments["columns"].max(), data.pieces["columns"].max(initial=PAD))
    nodes, inputs = (
        np.add.reduceat(kinds[field][data.segments["kind"]] * data.segments["columns"], data.images["segment"]).max()
        for field in ("nodes", "features")
    )
    near_nodes, near_inputs = (kinds[field].max() * most for field in ("nodes", "features"))
    return Scratch(*(np.zeros(size) for size in (4 * nodes, inputs, 4 * near_nodes, near_inputs, 9 * near_nodes)))


@inner
def run_image(problem, theta, image, scratch):
    """Forward and backward pass over an image; its energy."""
    net, at, energy = problem.net, np.int64(0), 0.0
    for s in range(image.segment, image.end):
        segment = problem.data.segments[s]
        kind, n = segment.kind, segment.columns
        forward(net, kind, theta, problem.data.x, segment.x, n, scratch.nodes, at)
        backward(net, kind, theta, n, segment.real, scratch.nodes, at)
        scaling = net.kinds[kind].scaling
        energy += theta[scaling] * segment.real + theta[scaling + 1] * sum_outputs(net, kind, n, scratch.nodes, at)
        at += 4 * net.kinds[kind].nodes * n
    return energy


@inner
def _gather(rows, row0, n_near, source, at, count, out):
    """Copy the listed columns of a matrix of `count` rows."""
    for r in range(n_near):
        column = rows[row0 + r]
        begin, to = at + column // PAD * count * PAD + column % PAD, r // PAD * count * PAD + r % PAD
        for k in range(0, count * PAD, PAD):
            out[to + k] = source[begin + k]


@inner
def _fill_slopes(problem, theta, image, scratch):
    """de/dx for all rows of an image."""
    net, at, g0 = problem.net, np.int64(0), np.int64(0)
    for s in range(image.segment, image.end):
        segment = problem.data.segments[s]
        kind, n = net.kinds[segment.kind], segment.columns
        input_slopes(net, segment.kind, theta, n, scratch.nodes, at, scratch.inputs, g0)
        at += 4 * kind.nodes * n
        g0 += kind.features * n


@inner
def _dot3(g, g0, d, d0, n):
    """Scalar products of a contiguous range with three consecutive ones."""
    x = y = z = splat(0.0)
    for r in range(0, n, LANES):
        u, at = load(g, g0 + r), d0 + r
        x, y, z = x + u * load(d, at), y + u * load(d, at + n), z + u * load(d, at + 2 * n)
    return total(x), total(y), total(z)


@inner
def _fill_force_residuals(problem, theta, image, scratch, residual, k):
    """Fill the residuals of an image's forces from k on."""
    data, q = problem.data, image.piece
    for f in range(image.force, image.last):
        fx = fy = fz = 0.0
        g0 = np.int64(0)
        for s in range(image.segment, image.end):
            segment, piece = data.segments[s], data.pieces[q]
            kind = problem.net.kinds[segment.kind]
            slope, g, at = theta[kind.scaling + 1], scratch.inputs, g0
            if piece.row >= 0:
                _gather(data.row, piece.row, piece.columns, g, g0, kind.features, scratch.near_inputs)
                g, at = scratch.near_inputs, np.int64(0)
            x, y, z = _dot3(g, at, data.d, piece.d, kind.features * piece.columns)
            fx -= slope * x
            fy -= slope * y
            fz -= slope * z
            g0 += kind.features * segment.columns
            q += 1
        residual[k] = fx - problem.forces[f, 0]
        residual[k + 1] = fy - problem.forces[f, 1]
        residual[k + 2] = fz - problem.forces[f, 2]
        k += 3


@inner
def _fill_image_residuals(problem, theta, image, scratch, residual, k):
    """Fill an image's residuals from k on; where the next image's begin."""
    energy = run_image(problem, theta, image, scratch)
    if image.has_energy:
        residual[k] = (energy - image.energy) / image.n_atoms
        k += 1
    if image.last > image.force:
        _fill_slopes(problem, theta, image, scratch)
        _fill_force_residuals(problem, theta, image, scratch, residual, k)
    return k + 3 * (image.last - image.force)


@inner
def fill_penalties(problem, theta, residual, k):
    """Fill the residuals of the penalty, one for each weight of the first layers as Amp has it."""
    for kind in range(len(problem.net.kinds)):
        layer = problem.net.layers[kind, 0]
        for g in range(layer.n_in):
            for h in range(layer.n_out):
                weight = 0.0
                for i in range(layer.n_in):
                    weight += problem.restore[kind, g, i] * theta[layer.weight + i * layer.n_out + h]
                residual[k] = weight
                k += 1


@kernel
def fill_residuals(problem, theta, weights, scratch, residual):
    """Fill the residuals of a member."""
    k = np.int64(0)
    for i in range(len(weights)):
        if weights[i] > 0:
            k = _fill_image_residuals(problem, theta, problem.data.images[i], scratch, residual, k)
    if problem.overfit > 0.0:
        fill_penalties(problem, theta, residual, k)


@inner
def add_gradients(problem, theta, image, force, scratch, plain, scale, value, v0, out, out0, width):
    """Add scale * E_t to `value` and scale * d(E_t + plain * E)/d(parameters) to `out`, E the energy of an image.

    t are the three directions in which the atom of a force moves or, for force -1, the contents of scratch.inputs.
    """
    net, data, at, t0 = problem.net, problem.data, np.int64(0), np.int64(0)
    q = image.piece + (force - image.force) * (image.end - image.segment)
    for s in range(image.segment, image.end):
        segment = data.segments[s]
        kind, n, real, parts, t = net.kinds[segment.kind], segment.columns, segment.real, np.int64(1), scratch.inputs
        nodes, nodes0, x, x0, begin = scratch.nodes, at, data.x, segment.x, t0
        if force >= 0:
            piece, parts, t = data.pieces[q], np.int64(3), data.d
            n, begin = piece.columns, piece.d
            if piece.row >= 0:
                _gather(data.row, piece.row, n, x, x0, kind.features, scratch.near_inputs)
                for k in range(4):
                    _gather(
                        data.row,
                        piece.row,
                        n,
                        nodes,
                        at + k * kind.nodes * segment.columns,
                        kind.nodes,
                        scratch.near_nodes[k * kind.nodes * n :],
                    )
                nodes, nodes0, x, x0 = scratch.near_nodes, np.int64(0), scratch.near_inputs, np.int64(0)
        add_gradient(
            net,
            segment.kind,
            theta,
            x,
            x0,
            t,
            begin,
            parts,
            n,
            real,
            nodes,
            nodes0,
            scratch.tangent,
            plain,
            scale,
            value,
            v0,
            out,
            out0,
            width,
        )
        at += 4 * kind.nodes * segment.columns
        t0 += kind.features * segment.columns
        q += 1


@inner
def clear(array):
    """Set everything to zero."""
    for r in range(len(array)):
        array[r] = 0.0


@inner
def fill_direction(problem, image, scratch, factor, k):
    """Fill scratch.inputs with minus the derivatives of the fingerprints times the factors of the image's forces from k on."""
    data, t0, per_force = problem.data, np.int64(0), image.end - image.segment
    clear(scratch.inputs)
    for s in range(image.segment, image.end):
        segment = data.segments[s]
        features = problem.net.kinds[segment.kind].features
        for f in range(image.last - image.force):
            piece, c = data.pieces[image.piece + f * per_force + s - image.segment], k + 3 * f
            x, y, z = splat(-factor[c]), splat(-factor[c + 1]), splat(-factor[c + 2])
            size, t, at = features * piece.columns, scratch.inputs, t0
            if piece.row >= 0:
                t, at = scratch.near_inputs, np.int64(0)
                clear(t)
            for r in range(0, size, LANES):
                d = piece.d + r
                change = x * load(data.d, d) + y * load(data.d, d + size) + z * load(data.d, d + 2 * size)
                store(t, at + r, load(t, at + r) + change)
            if piece.row >= 0:
                _scatter(data.row, piece.row, piece.columns, t, features, scratch.inputs, t0)
        t0 += features * segment.columns


@inner
def _scatter(rows, row0, n_near, source, count, out, at):
    """Add a matrix of `count` rows to the listed columns of another."""
    for r in range(n_near):
        column = rows[row0 + r]
        begin, to = r // PAD * count * PAD + r % PAD, at + column // PAD * count * PAD + column % PAD
        for k in range(0, count * PAD, PAD):
            out[to + k] += source[begin + k]


@kernel
def add_losses(problem, theta_mp, weights_mi, scratch, work, loss_m, gradient, with_gradient):
    """Add the losses of members to `loss_m` and, if requested, their gradients to `gradient`, one after the other, without the penalty.

    Image by image, so that an image's data stay in the cache for all members. `work` is a buffer for the residuals of an image.
    """
    none, width = np.int64(-1), theta_mp.shape[1]
    for i in range(weights_mi.shape[1]):
        image = problem.data.images[i]
        n_forces = image.last - image.force
        for m in range(weights_mi.shape[0]):
            w = weights_mi[m, i]
            if w > 0:
                theta = theta_mp[m]
                _fill_image_residuals(problem, theta, image, scratch, work, np.int64(0))
                energy_factor = w * image.energy_weight * problem.energy_coefficient
                loss_m[m] += energy_factor * work[0] ** 2
                plain = 2.0 * energy_factor * work[0] / image.n_atoms
                for c in range(3 * n_forces):
                    factor = w * problem.force_weights[image.force + c // 3] * problem.force_coefficient / (3.0 * image.divisor)
                    at = image.has_energy + c
                    loss_m[m] += factor * work[at] ** 2
                    work[at] *= 2.0 * factor
                if with_gradient:
                    fill_direction(problem, image, scratch, work, image.has_energy)
                    add_gradients(problem, theta, image, none, scratch, plain, 1.0, work, none + 1, gradient, m * width, width)
