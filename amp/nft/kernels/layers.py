"""Feed-forward networks on lanes: one lane per atom, one row of lanes per node.

With z the input of a node, h = f(z) its output and e = h of the last node (the atomic energy before Amp's slope and intercept),
`forward` and `backward` leave for every node and lane

    s = f'(z),   b = de/dz,   p = f''(z) de/dh.

The derivative of e along a change t of the fingerprints is a second pass forward, ż = Wᵀ ḣ and ḣ = s ż; its derivative in the
weights a second pass backward, with ḃ = p ż + s W ḃ' (Pearlmutter, Neural Comput. 6, 147 (1994), eqs. 6-9, in the roles used here).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.linalg import add_products, dot, mix
from amp.nft.kernels.simd import LANES, get, load, splat, store, tanh, total

ACTIVATIONS = ("linear", "tanh", "sigmoid")
_LINEAR, _TANH, _SIGMOID = range(3)


class Net(NamedTuple):
    """Where the parameters of each element's network are in the vector of all parameters."""

    activation: int  # index into ACTIVATIONS
    layers: np.ndarray  # (kinds,) layers of weights
    width: np.ndarray  # (kinds, layers + 1) nodes; the fingerprint comes first
    node: np.ndarray  # (kinds, layers + 1) number of the layer's first node; the total comes last
    weight: np.ndarray  # (kinds, layers) offset of W[0, 0]; the biases follow the weights
    scaling: np.ndarray  # (kinds,) offset of the intercept; the slope follows


class Nodes(NamedTuple):
    """Node values of one image, see the module's docstring."""

    h: np.ndarray
    s: np.ndarray
    p: np.ndarray
    b: np.ndarray


class Tangent(NamedTuple):
    """ż, ḣ and ḃ of one piece."""

    z: np.ndarray
    h: np.ndarray
    b: np.ndarray


@kernel
def forward(net, kind, theta, x, x0, n, nodes, at):
    """Fill h and s for n lanes whose fingerprints begin at x[x0] and whose nodes begin at `at`."""
    for layer in range(net.layers[kind]):
        n_in, n_out = net.width[kind, layer], net.width[kind, layer + 1]
        weight, here = net.weight[kind, layer], at + net.node[kind, layer] * n
        if layer == 0:
            mix(theta, weight, n_out, 1, n_in, x, x0, n, nodes.h, here, n, n_out, n, 0)
        else:
            below = here - n_in * n
            mix(theta, weight, n_out, 1, n_in, nodes.h, below, n, nodes.h, here, n, n_out, n, 0)
        bias = weight + n_in * n_out
        for j in range(n_out):
            _activate(net.activation, splat(get(theta, bias + j)), nodes, here + j * n, n)


@kernel
def _activate(activation, bias, nodes, at, n):
    """Turn the input of a node, still without bias and in the place of h, into h and s."""
    one, half = splat(1.0), splat(0.5)
    for r in range(at, at + n, LANES):
        z = load(nodes.h, r) + bias
        if activation == _TANH:
            h = tanh(z)
            store(nodes.h, r, h)
            store(nodes.s, r, one - h * h)
        elif activation == _SIGMOID:
            h = half + half * tanh(half * z)
            store(nodes.h, r, h)
            store(nodes.s, r, h - h * h)
        else:
            store(nodes.h, r, z)
            store(nodes.s, r, one)


@kernel
def _curvature(activation, h, s):
    """f'' from f and f'."""
    if activation == _TANH:
        return splat(-2.0) * h * s
    if activation == _SIGMOID:
        return s - splat(2.0) * h * s
    return splat(0.0)


@kernel
def backward(net, kind, theta, n, real, nodes, at):
    """Fill b and p; zero in the last layer's lanes from `real` on, so that padding adds nothing to any sum."""
    last = net.layers[kind] - 1
    top = at + net.node[kind, last] * n
    nodes.b[top : top + real] = 1.0
    nodes.b[top + real : top + n] = 0.0
    _times_derivatives(net.activation, nodes, top, n)
    for layer in range(last, 0, -1):
        n_in, n_out = net.width[kind, layer], net.width[kind, layer + 1]
        here = at + net.node[kind, layer] * n
        below = here - n_in * n
        mix(theta, net.weight[kind, layer], 1, n_out, n_out, nodes.b, here, n, nodes.b, below, n, n_in, n, 0)
        _times_derivatives(net.activation, nodes, below, n_in * n)


@kernel
def _times_derivatives(activation, nodes, at, n):
    """Turn de/dh, in the place of b, into b and p."""
    for r in range(at, at + n, LANES):
        s, b = load(nodes.s, r), load(nodes.b, r)
        store(nodes.p, r, b * _curvature(activation, load(nodes.h, r), s))
        store(nodes.b, r, b * s)


@kernel
def energy(net, kind, theta, n, real, nodes, at):
    """Sum of the atomic energies of the lanes."""
    intercept = net.scaling[kind]
    return theta[intercept] * real + theta[intercept + 1] * _sum_outputs(net, kind, n, real, nodes, at)


@kernel
def _sum_outputs(net, kind, n, real, nodes, at):
    """Sum of e over the lanes."""
    top = at + net.node[kind, net.layers[kind] - 1] * n
    result = 0.0
    for r in range(top, top + real):
        result += nodes.h[r]
    return result


@kernel
def input_slopes(net, kind, theta, n, nodes, at, g, g0):
    """de/dx, without Amp's slope, for each fingerprint and lane."""
    n_in, n_out = net.width[kind, 0], net.width[kind, 1]
    mix(theta, net.weight[kind, 0], 1, n_out, n_out, nodes.b, at, n, g, g0, n, n_in, n, 0)


@kernel
def add_gradient(net, kind, theta, x, x0, t, t0, n, real, nodes, at, tangent, plain, scale, out, out0):
    """Add scale * d(E_t + plain * E)/d(parameters) to `out`, E_t the derivative along t of the lanes' energy E.

    Returns E_t.
    """
    e_t = _forward_tangent(net, kind, theta, t, t0, n, nodes, at, tangent)
    _backward_tangent(net, kind, theta, n, nodes, at, tangent, plain)
    slope = theta[net.scaling[kind] + 1]
    for layer in range(net.layers[kind]):
        n_in, n_out = net.width[kind, layer], net.width[kind, layer + 1]
        here, weight = net.node[kind, layer] * n, out0 + net.weight[kind, layer]
        below = here - n_in * n
        if layer == 0:
            add_products(t, t0, nodes.b, at, x, x0, tangent.b, 0, n_in, n_out, n, scale * slope, out, weight)
        else:
            add_products(tangent.h, below, nodes.b, at + here, nodes.h, at + below, tangent.b, here,
                         n_in, n_out, n, scale * slope, out, weight)
        for j in range(n_out):
            out[weight + n_in * n_out + j] += scale * slope * _sum(tangent.b, here + j * n, n)
    intercept = out0 + net.scaling[kind]
    out[intercept] += scale * plain * real
    out[intercept + 1] += scale * (e_t + plain * _sum_outputs(net, kind, n, real, nodes, at))
    return slope * e_t


@kernel
def _sum(a, a0, n):
    """Sum of a stretch of lanes."""
    s = splat(0.0)
    for r in range(a0, a0 + n, LANES):
        s = s + load(a, r)
    return total(s)


@kernel
def _forward_tangent(net, kind, theta, t, t0, n, nodes, at, tangent):
    """Fill ż and ḣ; the sum of ė over the lanes."""
    for layer in range(net.layers[kind]):
        n_in, n_out = net.width[kind, layer], net.width[kind, layer + 1]
        weight, here = net.weight[kind, layer], net.node[kind, layer] * n
        if layer == 0:
            mix(theta, weight, n_out, 1, n_in, t, t0, n, tangent.z, here, n, n_out, n, 0)
        else:
            mix(theta, weight, n_out, 1, n_in, tangent.h, here - n_in * n, n, tangent.z, here, n, n_out, n, 0)
        for r in range(here, here + n_out * n, LANES):
            store(tangent.h, r, load(nodes.s, at + r) * load(tangent.z, r))
    top = net.node[kind, net.layers[kind] - 1] * n
    return dot(nodes.b, at + top, tangent.z, top, n)


@kernel
def _backward_tangent(net, kind, theta, n, nodes, at, tangent, plain):
    """Fill ḃ, with `plain` times b added to it."""
    last = net.layers[kind] - 1
    top = net.node[kind, last] * n
    for r in range(top, top + n, LANES):
        b = splat(plain) * load(nodes.b, at + r)
        store(tangent.b, r, b + load(nodes.p, at + r) * load(tangent.z, r))
    for layer in range(last, 0, -1):
        n_in, n_out = net.width[kind, layer], net.width[kind, layer + 1]
        here = net.node[kind, layer] * n
        below = here - n_in * n
        mix(theta, net.weight[kind, layer], 1, n_out, n_out, tangent.b, here, n, tangent.b, below, n, n_in, n, 0)
        for r in range(below, here, LANES):
            b = load(nodes.p, at + r) * load(tangent.z, r)
            store(tangent.b, r, b + load(nodes.s, at + r) * load(tangent.b, r))
