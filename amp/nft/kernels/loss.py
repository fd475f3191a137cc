"""Residuals of Amp's loss, their Jacobian in the parameters, and the loss's gradient, for one member or for many.

The residuals of a member are those of the images whose weight is not zero, in the order of the images: for an image with an
energy (Ê - E)/N, then the three components of F̂ - F for each trained force, with predictions Ê and F̂. The loss is

    sum_k coefficient_k residual_k² + overfit * sum (weights of the first layers, biases left out)².
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.lanes import Lanes
from amp.nft.kernels.layers import (
    Net,
    Nodes,
    Tangent,
    add_gradient,
    backward,
    energy,
    forward,
    input_slopes,
)
from amp.nft.kernels.linalg import PAD, add_scaled, dot


class Problem(NamedTuple):
    """A network, the images it is to learn, and what it is to say of them."""

    net: Net
    images: Lanes
    energies: np.ndarray  # (images,) eV; nan where there is none to learn
    n_atoms: np.ndarray  # (images,) atoms of the whole image, by which its energy is divided
    forces: np.ndarray  # (forces, 3) eV/Å
    energy_coefficient: float
    force_coefficient: float
    penalty: np.ndarray  # (parameters,) overfit for each penalised parameter, else 0


class Scratch(NamedTuple):
    """Memory for one thread, sized for the largest image."""

    nodes: Nodes  # of all segments of an image
    near: Nodes  # of the listed lanes of a piece
    tangent: Tangent
    x: np.ndarray  # fingerprints of the listed lanes of a piece
    g: np.ndarray  # de/dx of all segments of an image
    near_g: np.ndarray  # de/dx of the listed lanes of a piece
    t: np.ndarray  # a direction in the fingerprints of all segments of an image
    zero: np.ndarray  # the direction that is none


def make_scratch(problem: Problem) -> Scratch:
    """Memory that the functions of this module work in; one per thread."""
    net, images = problem.net, problem.images
    total = net.node[np.arange(len(net.layers)), net.layers]  # nodes of a whole network
    of_images = (np.add.reduceat(per_lane[images.kind] * images.lanes, images.segment_start[:-1]).max()
                 for per_lane in (total, images.features))
    n_nodes, n_inputs = of_images
    piece = max(images.lanes.max(), images.piece_lanes.max(initial=PAD))
    near_nodes, near_inputs = (int(size.max()) * piece for size in (total, images.features))
    return Scratch(
        Nodes(*np.zeros((4, n_nodes))), Nodes(*np.zeros((4, near_nodes))), Tangent(*np.zeros((3, near_nodes))),
        np.zeros(near_inputs), np.zeros(n_inputs), np.zeros(near_inputs), np.zeros(n_inputs), np.zeros(near_inputs),
    )


@kernel
def count_residuals(problem, weights):
    """Number of residuals of a member."""
    count = 0
    for i in range(len(weights)):
        if weights[i] > 0:
            count += 3 * (problem.images.force_start[i + 1] - problem.images.force_start[i])
            count += 0 if np.isnan(problem.energies[i]) else 1
    return count


@kernel
def fill_shares(problem, weights, share, is_energy):
    """Fill what each squared residual of a member counts in its sum over energies or over forces, and which sum that is."""
    k = 0
    start = problem.images.force_start
    for i in range(len(weights)):
        if weights[i] > 0:
            if not np.isnan(problem.energies[i]):
                share[k], is_energy[k] = weights[i], True
                k += 1
            n = 3 * (start[i + 1] - start[i])
            share[k : k + n] = weights[i] / max(n, 1)
            is_energy[k : k + n] = False
            k += n


@kernel
def _run_image(problem, theta, i, scratch):
    """Forward and backward pass over an image; its energy."""
    net, images, at, e = problem.net, problem.images, 0, 0.0
    for s in range(images.segment_start[i], images.segment_start[i + 1]):
        kind, n, real = images.kind[s], images.lanes[s], images.real[s]
        forward(net, kind, theta, images.x, images.segment_x[s], n, scratch.nodes, at)
        backward(net, kind, theta, n, real, scratch.nodes, at)
        e += energy(net, kind, theta, n, real, scratch.nodes, at)
        at += net.node[kind, net.layers[kind]] * n
    return e


@kernel
def _image_slopes(problem, theta, i, scratch):
    """de/dx for all rows of an image."""
    net, images, at, g0 = problem.net, problem.images, 0, 0
    for s in range(images.segment_start[i], images.segment_start[i + 1]):
        kind, n = images.kind[s], images.lanes[s]
        input_slopes(net, kind, theta, n, scratch.nodes, at, scratch.g, g0)
        at += net.node[kind, net.layers[kind]] * n
        g0 += images.features[kind] * n


@kernel
def _gather(rows, row0, n_near, source, at, n, count, out):
    """Copy `count` stretches of lanes, of which only the listed ones are wanted."""
    for k in range(count):
        for r in range(n_near):
            out[k * n_near + r] = source[at + k * n + rows[row0 + r]]


@kernel
def _force_residuals(problem, theta, i, scratch, residual, k):
    """Fill the residuals of an image's forces from k on."""
    net, images = problem.net, problem.images
    for f in range(images.force_start[i], images.force_start[i + 1]):
        fx = fy = fz = 0.0
        g0, q = 0, images.piece_start[f]
        for s in range(images.segment_start[i], images.segment_start[i + 1]):
            kind, n, n_near, d0 = images.kind[s], images.lanes[s], images.piece_lanes[q], images.piece_d[q]
            size, slope = images.features[kind] * n_near, theta[net.scaling[kind] + 1]
            g, at = scratch.g, g0
            if images.piece_row[q] >= 0:
                _gather(images.row, images.piece_row[q], n_near, g, g0, n, images.features[kind], scratch.near_g)
                g, at = scratch.near_g, 0
            fx -= slope * dot(g, at, images.d, d0, size)
            fy -= slope * dot(g, at, images.d, d0 + size, size)
            fz -= slope * dot(g, at, images.d, d0 + 2 * size, size)
            g0 += images.features[kind] * n
            q += 1
        residual[k] = fx - problem.forces[f, 0]
        residual[k + 1] = fy - problem.forces[f, 1]
        residual[k + 2] = fz - problem.forces[f, 2]
        k += 3


@kernel
def _image_residuals(problem, theta, i, scratch, residual, k):
    """Fill an image's residuals from k on; where the next image's begin."""
    images = problem.images
    e = _run_image(problem, theta, i, scratch)
    if not np.isnan(problem.energies[i]):
        residual[k] = (e - problem.energies[i]) / problem.n_atoms[i]
        k += 1
    n_forces = images.force_start[i + 1] - images.force_start[i]
    if n_forces > 0:
        _image_slopes(problem, theta, i, scratch)
        _force_residuals(problem, theta, i, scratch, residual, k)
    return k + 3 * n_forces


@kernel
def fill_residuals(problem, theta, weights, scratch, residual):
    """Fill the residuals of a member."""
    k = 0
    for i in range(len(weights)):
        if weights[i] > 0:
            k = _image_residuals(problem, theta, i, scratch, residual, k)


@kernel
def fill_jacobian(problem, theta, weights, scratch, residual, jacobian, width):
    """Fill the residuals of a member and their derivatives: rows of `width` numbers, of which the first are the parameters'."""
    k = 0
    for i in range(len(weights)):
        if weights[i] > 0:
            e = _run_image(problem, theta, i, scratch)
            if not np.isnan(problem.energies[i]):
                residual[k] = (e - problem.energies[i]) / problem.n_atoms[i]
                jacobian[k * width : (k + 1) * width] = 0.0
                _add_image_gradient(problem, theta, i, scratch, False, 1.0 / problem.n_atoms[i], jacobian, k * width)
                k += 1
            for f in range(problem.images.force_start[i], problem.images.force_start[i + 1]):
                jacobian[k * width : (k + 3) * width] = 0.0
                _force_jacobian(problem, theta, i, f, scratch, residual, jacobian, k, width)
                k += 3


@kernel
def _add_image_gradient(problem, theta, i, scratch, tilted, plain, out, out0):
    """Add d(E_t + plain * E)/d(parameters) of an image, t being scratch.t if `tilted`, else zero."""
    net, images, at, t0 = problem.net, problem.images, 0, 0
    for s in range(images.segment_start[i], images.segment_start[i + 1]):
        kind, n = images.kind[s], images.lanes[s]
        t = scratch.t if tilted else scratch.zero
        add_gradient(net, kind, theta, images.x, images.segment_x[s], t, t0 if tilted else 0, n, images.real[s],
                     scratch.nodes, at, scratch.tangent, plain, 1.0, out, out0)
        at += net.node[kind, net.layers[kind]] * n
        t0 += images.features[kind] * n


@kernel
def _force_jacobian(problem, theta, i, f, scratch, residual, jacobian, k, width):
    """Fill three residuals and three rows of the Jacobian, those of one force; the rows hold zeros."""
    net, images, at, q = problem.net, problem.images, 0, problem.images.piece_start[f]
    for c in range(3):
        residual[k + c] = -problem.forces[f, c]
    for s in range(images.segment_start[i], images.segment_start[i + 1]):
        kind, n = images.kind[s], images.lanes[s]
        size = net.node[kind, net.layers[kind]]
        n_near, d0, row0, features = images.piece_lanes[q], images.piece_d[q], images.piece_row[q], images.features[kind]
        nodes, near, x, x0 = scratch.nodes, at, images.x, images.segment_x[s]
        if row0 >= 0:
            _gather(images.row, row0, n_near, x, x0, n, features, scratch.x)
            _gather(images.row, row0, n_near, nodes.h, at, n, size, scratch.near.h)
            _gather(images.row, row0, n_near, nodes.s, at, n, size, scratch.near.s)
            _gather(images.row, row0, n_near, nodes.p, at, n, size, scratch.near.p)
            _gather(images.row, row0, n_near, nodes.b, at, n, size, scratch.near.b)
            nodes, near, x, x0 = scratch.near, 0, scratch.x, 0
        for c in range(3):
            residual[k + c] -= add_gradient(
                net, kind, theta, x, x0, images.d, d0 + c * features * n_near, n_near, 0,
                nodes, near, scratch.tangent, 0.0, -1.0, jacobian, (k + c) * width)
        at += size * n
        q += 1


@kernel
def _image_direction(problem, i, scratch, factor):
    """Fill scratch.t with minus the sum of the derivatives of the fingerprints times the factors of the image's forces."""
    images, t0 = problem.images, 0
    first, k = images.segment_start[i], 0
    for s in range(first, images.segment_start[i + 1]):
        n, features = images.lanes[s], images.features[images.kind[s]]
        scratch.t[t0 : t0 + features * n] = 0.0
        k = 0
        for f in range(images.force_start[i], images.force_start[i + 1]):
            q = images.piece_start[f] + s - first
            n_near, row0 = images.piece_lanes[q], images.piece_row[q]
            size = features * n_near
            for c in range(3):
                d0 = images.piece_d[q] + c * size
                if row0 < 0:
                    add_scaled(-factor[k + c], images.d, d0, scratch.t, t0, size)
                else:
                    for g in range(features):
                        for r in range(n_near):
                            lane = t0 + g * n + images.row[row0 + r]
                            scratch.t[lane] -= factor[k + c] * images.d[d0 + g * n_near + r]
            k += 3
        t0 += features * n


@kernel
def add_losses(problem, theta_mp, weights_mi, scratch, work, loss_m, gradient_mp):
    """Add the losses of members to `loss_m`, and their gradients to `gradient_mp` unless that has no rows.

    Image by image, so that what all members read of an image stays in the cache. `work` has room for the
    residuals of one image. The penalty is left out.
    """
    start = problem.images.force_start
    for i in range(weights_mi.shape[1]):
        n = 3 * (start[i + 1] - start[i])
        has_energy = not np.isnan(problem.energies[i])
        for m in range(weights_mi.shape[0]):
            w = weights_mi[m, i]
            if w > 0:
                _image_residuals(problem, theta_mp[m], i, scratch, work, 0)
                plain, k = 0.0, 0
                if has_energy:
                    loss_m[m] += w * problem.energy_coefficient * work[0] ** 2
                    plain = 2.0 * w * problem.energy_coefficient * work[0] / problem.n_atoms[i]
                    k = 1
                factor = w * problem.force_coefficient / max(n, 1)
                for c in range(k, k + n):
                    loss_m[m] += factor * work[c] ** 2
                    work[c] *= 2.0 * factor
                if len(gradient_mp) > 0:
                    _image_direction(problem, i, scratch, work[k:])
                    _add_image_gradient(problem, theta_mp[m], i, scratch, True, plain, gradient_mp[m], 0)
