"""Feed-forward networks on lanes: one lane per atom, one row of lanes per node.

With z the input of a node, h = f(z) its output and e = h of the last node (the atomic energy before Amp's slope and intercept),
`forward` and `backward` leave for every node and lane

    h,   s = f'(z),   b = de/dz,   p = f''(z) de/dh

as four matrices (nodes, lanes), one after the other. The derivative of e along a change t of the fingerprints is a second pass
forward, ż = Wᵀ ḣ and ḣ = s ż; its derivative in the weights a second pass backward, with ḃ = p ż + s W ḃ' (Pearlmutter, Neural
Comput. 6, 147 (1994), eqs. 6-9, in the roles used here). Both leave ż, ḣ and ḃ in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner
from amp.nft.kernels.linalg import add_products, dot, mix
from amp.nft.kernels.simd import LANES, get, load, splat, store, tanh, total

ACTIVATIONS = ("linear", "tanh", "sigmoid")
_LINEAR, _TANH, _SIGMOID = range(3)

KIND = np.dtype([
    ("layers", "i8"),  # layers of weights
    ("features", "i8"),
    ("nodes", "i8"),  # without the fingerprint
    ("scaling", "i8"),  # where the intercept is among the parameters; the slope follows
])  # fmt: skip
LAYER = np.dtype([
    ("n_in", "i8"),
    ("n_out", "i8"),
    ("node", "i8"),  # number of the first of the n_out nodes
    ("weight", "i8"),  # where W[0, 0] is among the parameters; the biases follow the weights
    ("bias", "i8"),
])  # fmt: skip


class Net(NamedTuple):
    """The networks of all elements."""

    activation: int  # index into ACTIVATIONS
    kinds: np.ndarray  # (kinds,) of KIND
    layers: np.ndarray  # (kinds, layers) of LAYER


@inner
def forward(net, kind, theta, x, x0, n, nodes, at):
    """Fill h and s for n lanes whose fingerprints begin at x[x0] and whose nodes begin at `at`."""
    size = net.kinds[kind].nodes * n
    source, s0 = x, x0
    for number in range(net.kinds[kind].layers):
        layer = net.layers[kind, number]
        here = at + layer.node * n
        mix(theta, layer.weight, layer.n_out, np.int64(1), layer.n_in, source, s0, n, nodes, here, n, layer.n_out, n, 0.0)
        for j in range(layer.n_out):
            _activate(net.activation, get(theta, layer.bias + j), nodes, here + j * n, size, n)
        source, s0 = nodes, here


@inner
def _activate(activation, bias, nodes, at, size, n):
    """Turn the input of a node, still without bias and in the place of h, into h and s."""
    one, half, shift = splat(1.0), splat(0.5), splat(bias)
    for r in range(at, at + n, LANES):
        z = load(nodes, r) + shift
        if activation == _LINEAR:
            store(nodes, r, z)
            store(nodes, r + size, one)
        elif activation == _TANH:
            h = tanh(z)
            store(nodes, r, h)
            store(nodes, r + size, one - h * h)
        else:
            h = half + half * tanh(half * z)
            store(nodes, r, h)
            store(nodes, r + size, h - h * h)


@inner
def backward(net, kind, theta, n, real, nodes, at):
    """Fill b and p; zero in the last layer's lanes from `real` on, so that padding adds nothing to any sum."""
    size, last = net.kinds[kind].nodes * n, net.kinds[kind].layers - 1
    top = at + net.layers[kind, last].node * n
    for r in range(n):
        nodes[top + 3 * size + r] = 1.0 if r < real else 0.0
    _times_derivatives(net.activation, nodes, top, size, n)
    for number in range(last, 0, -1):
        layer = net.layers[kind, number]
        here = at + 3 * size + layer.node * n
        below = here - layer.n_in * n
        mix(theta, layer.weight, np.int64(1), layer.n_out, layer.n_out, nodes, here, n, nodes, below, n, layer.n_in, n, 0.0)
        _times_derivatives(net.activation, nodes, below - 3 * size, size, layer.n_in * n)


@inner
def _times_derivatives(activation, nodes, at, size, n):
    """Turn de/dh, in the place of b, into b and p."""
    two = splat(2.0)
    for r in range(at, at + n, LANES):
        h, s, b = load(nodes, r), load(nodes, r + size), load(nodes, r + 3 * size)
        if activation == _LINEAR:
            curvature = splat(0.0)
        elif activation == _TANH:
            curvature = splat(0.0) - two * h * s
        else:
            curvature = s - two * h * s
        store(nodes, r + 2 * size, b * curvature)
        store(nodes, r + 3 * size, b * s)


@inner
def sum_outputs(net, kind, n, real, nodes, at):
    """Sum of e over the lanes."""
    top = at + net.layers[kind, net.kinds[kind].layers - 1].node * n
    result = 0.0
    for r in range(top, top + real):
        result += nodes[r]
    return result


@inner
def input_slopes(net, kind, theta, n, nodes, at, g, g0):
    """de/dx for each fingerprint and lane."""
    layer = net.layers[kind, 0]
    b = at + 3 * net.kinds[kind].nodes * n
    mix(theta, layer.weight, np.int64(1), layer.n_out, layer.n_out, nodes, b, n, g, g0, n, layer.n_in, n, 0.0)


@inner
def add_gradient(net, kind, theta, x, x0, t, t0, parts, n, real, nodes, at, tangent, plain, scale, value, v0, out, out0, width):
    """Gradients of the lanes' energy E and of its derivatives E_t along some directions t of the fingerprints.

    The directions form a matrix (features, parts * n) of n lanes for each part. For part c, add scale * E_t to ``value[v0 + c]``,
    and scale * d(E_t + plain * E)/d(parameters) to the stretch of `out` that begins at ``out0 + c * width``.
    """
    wide, size = parts * n, net.kinds[kind].nodes * n
    total_size = parts * size
    b, b_dot, slope = at + 3 * size, 2 * total_size, theta[net.kinds[kind].scaling + 1]
    _forward_tangent(net, kind, theta, t, t0, parts, n, nodes, at, tangent)
    _backward_tangent(net, kind, theta, parts, n, nodes, at, tangent, plain)
    last = net.layers[kind, net.kinds[kind].layers - 1].node
    outputs = plain * sum_outputs(net, kind, n, real, nodes, at)
    for c in range(parts):
        begin, lane = out0 + c * width, c * n
        h, h0, h_dot, h_dot0 = x, x0, t, t0
        for number in range(net.kinds[kind].layers):
            layer = net.layers[kind, number]
            above, here = at + layer.node * n, layer.node * wide
            add_products(h_dot, h_dot0 + lane, tangent, b_dot + here + lane, wide, nodes, b + layer.node * n, h, h0, n,
                         layer.n_in, layer.n_out, n, scale * slope, out, begin + layer.weight)
            for j in range(layer.n_out):
                out[begin + layer.bias + j] += scale * slope * _sum(tangent, b_dot + here + j * wide + lane, n)
            h, h0, h_dot, h_dot0 = nodes, above, tangent, total_size + here
        e_t = dot(nodes, b + last * n, tangent, last * wide + lane, n)
        value[v0 + c] += scale * slope * e_t
        out[begin + net.kinds[kind].scaling] += scale * plain * real
        out[begin + net.kinds[kind].scaling + 1] += scale * (e_t + outputs)


@inner
def _sum(a, a0, n):
    """Sum of a stretch of lanes."""
    s = splat(0.0)
    for r in range(a0, a0 + n, LANES):
        s = s + load(a, r)
    return total(s)


@inner
def _forward_tangent(net, kind, theta, t, t0, parts, n, nodes, at, tangent):
    """Fill ż and ḣ."""
    wide, size = parts * n, net.kinds[kind].nodes * n
    source, s0 = t, t0
    for number in range(net.kinds[kind].layers):
        layer = net.layers[kind, number]
        here = layer.node * wide
        mix(theta, layer.weight, layer.n_out, np.int64(1), layer.n_in, source, s0, wide, tangent, here, wide, layer.n_out, wide,
            0.0)
        for j in range(layer.n_out):
            s, z = at + size + (layer.node + j) * n, here + j * wide
            for c in range(parts):
                for r in range(0, n, LANES):
                    store(tangent, parts * size + z + c * n + r, load(nodes, s + r) * load(tangent, z + c * n + r))
        source, s0 = tangent, parts * size + here


@inner
def _backward_tangent(net, kind, theta, parts, n, nodes, at, tangent, plain):
    """Fill ḃ, with `plain` times b added to it."""
    wide, size, last = parts * n, net.kinds[kind].nodes * n, net.kinds[kind].layers - 1
    b_dot, more = 2 * parts * size, splat(plain)
    for number in range(last, -1, -1):
        layer = net.layers[kind, number]
        here = layer.node * wide
        if number < last:
            upper = net.layers[kind, number + 1]
            mix(theta, upper.weight, np.int64(1), upper.n_out, upper.n_out, tangent, b_dot + upper.node * wide, wide,
                tangent, b_dot + here, wide, layer.n_out, wide, 0.0)
        for j in range(layer.n_out):
            s, z = at + size + (layer.node + j) * n, here + j * wide
            for c in range(parts):
                for r in range(0, n, LANES):
                    k, m = s + r, z + c * n + r
                    if number < last:
                        value = load(nodes, k) * load(tangent, b_dot + m)
                    else:
                        value = more * load(nodes, k + 2 * size)
                    store(tangent, b_dot + m, value + load(nodes, k + size) * load(tangent, m))
