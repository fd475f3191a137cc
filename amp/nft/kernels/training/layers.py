"""Feed-forward networks on columns: one column per atom, one row of columns per node.

With z the input of a node, h = f(z) its output and e = h of the last node (the atomic energy before Amp's slope and intercept),
`forward` and `backward` leave for every node and column

    h,   s = f'(z),   b = de/dz,   p = f''(z) de/dh

as four matrices (nodes, columns), one after the other, each block by block as :mod:`amp.nft.kernels.simd.linalg` says. The derivative of e
along a change t of the fingerprints is a second pass forward, ż = Wᵀ ḣ and ḣ = s ż; its derivative in the weights a second pass
backward, with ḃ = p ż + s W ḃ' (Pearlmutter, Neural Comput. 6, 147 (1994), in the roles used here). Both leave ż, ḣ and ḃ in the
same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.jit import inner
from amp.nft.kernels.simd.linalg import PAD, add_products, mix
from amp.nft.kernels.simd.vectors import LANES, get, load, splat, store, tanh, total

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
    """Fill h and s for n columns whose fingerprints begin at x[x0] and whose nodes begin at `at`."""
    blocks, stride, size = n // PAD, net.kinds[kind].nodes * PAD, net.kinds[kind].nodes * n
    source, s0, s_block = x, x0, net.kinds[kind].features * PAD
    one, row = np.int64(1), np.int64(PAD)
    for number in range(net.kinds[kind].layers):
        layer = net.layers[kind, number]
        here = at + layer.node * PAD
        mix(theta, layer.weight, layer.n_out, one, layer.n_in, source, s0, row, s_block, nodes, here, row, stride, layer.n_out, blocks)
        for j in range(layer.n_out):
            bias = splat(get(theta, layer.bias + j))
            for block in range(blocks):
                _activate(net.activation, bias, nodes, here + j * PAD + block * stride, size)
        source, s0, s_block = nodes, here, stride


@inner
def _activate(activation, bias, nodes, at, size):
    """Turn the input of a node in one block, still without bias and in the place of h, into h and s."""
    one, half = splat(1.0), splat(0.5)
    for r in range(at, at + PAD, LANES):
        z = load(nodes, r) + bias
        if activation == _LINEAR:
            store(nodes, r, z)
            store(nodes, r + size, one)
        else:
            h = tanh(z if activation == _TANH else half * z)
            if activation == _SIGMOID:
                h = half + half * h
            store(nodes, r, h)
            store(nodes, r + size, one - h * h if activation == _TANH else h - h * h)


@inner
def backward(net, kind, theta, n, real, nodes, at):
    """Fill b and p; in the last layer zero, as h is, in the columns from `real` on, so that padding adds nothing to any sum."""
    blocks, stride, size = n // PAD, net.kinds[kind].nodes * PAD, net.kinds[kind].nodes * n
    last, b, one, row = net.kinds[kind].layers - 1, at + 3 * size, np.int64(1), np.int64(PAD)
    top = net.layers[kind, last].node * PAD
    for block in range(blocks):
        for r in range(PAD):
            used = 1.0 if block * PAD + r < real else 0.0
            nodes[b + top + block * stride + r] = used
            nodes[at + top + block * stride + r] *= used
    _times_derivatives(net.activation, nodes, at + top, size, stride, row, blocks)
    for number in range(last, 0, -1):
        layer = net.layers[kind, number]
        here, below = layer.node * PAD, (layer.node - layer.n_in) * PAD
        mix(
            theta,
            layer.weight,
            one,
            layer.n_out,
            layer.n_out,
            nodes,
            b + here,
            row,
            stride,
            nodes,
            b + below,
            row,
            stride,
            layer.n_in,
            blocks,
        )
        _times_derivatives(net.activation, nodes, at + below, size, stride, layer.n_in * PAD, blocks)


@inner
def _times_derivatives(activation, nodes, at, size, stride, count, blocks):
    """Turn de/dh, in the place of b, into b and p."""
    two = splat(2.0)
    for block in range(blocks):
        begin = at + block * stride
        for r in range(begin, begin + count, LANES):
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
def sum_outputs(net, kind, n, nodes, at):
    """Sum of e over the columns."""
    return _sum(nodes, at + net.layers[kind, net.kinds[kind].layers - 1].node * PAD, net.kinds[kind].nodes * PAD, n // PAD)


@inner
def input_slopes(net, kind, theta, n, nodes, at, g, g0):
    """de/dx, without Amp's slope, for each fingerprint and column."""
    layer, one, row = net.layers[kind, 0], np.int64(1), np.int64(PAD)
    b, stride = at + 3 * net.kinds[kind].nodes * n, net.kinds[kind].nodes * PAD
    mix(theta, layer.weight, one, layer.n_out, layer.n_out, nodes, b, row, stride, g, g0, row, layer.n_in * PAD, layer.n_in, n // PAD)


@inner
def add_gradient(net, kind, theta, x, x0, t, t0, parts, n, real, nodes, at, tangent, plain, scale, value, v0, out, out0, width):
    """Gradients of the columns' energy E and of its derivatives E_t along some directions t of the fingerprints.

    There are `parts` directions, one matrix (features, columns) after the other. For part c, add scale * E_t to ``value[v0 + c]``,
    and scale * d(E_t + plain * E)/d(parameters) to the part of `out` that begins at ``out0 + c * width``.
    """
    blocks, features, size = n // PAD, net.kinds[kind].features, net.kinds[kind].nodes * n
    b, stride, slope = at + 3 * size, net.kinds[kind].nodes * PAD, theta[net.kinds[kind].scaling + 1]
    _forward_tangent(net, kind, theta, t, t0, parts, n, nodes, at, tangent)
    _backward_tangent(net, kind, theta, parts, n, nodes, at, tangent, plain)
    outputs = plain * sum_outputs(net, kind, n, nodes, at)
    for c in range(parts):
        begin, part = out0 + c * width, c * size
        h, h0, h_dot, h_dot0, left = x, x0, t, t0 + c * features * n, features * PAD
        here, dot_b = np.int64(0), (2 * parts + c) * size
        for number in range(net.kinds[kind].layers):
            layer = net.layers[kind, number]
            here = layer.node * PAD
            add_products(
                h_dot,
                h_dot0,
                h,
                h0,
                left,
                nodes,
                b + here,
                tangent,
                dot_b + here,
                stride,
                layer.n_in,
                layer.n_out,
                blocks,
                scale * slope,
                out,
                begin + layer.weight,
            )
            for j in range(layer.n_out):
                out[begin + layer.bias + j] += scale * slope * _sum(tangent, dot_b + here + j * PAD, stride, blocks)
            h, h0, h_dot, h_dot0, left = nodes, at + here, tangent, parts * size + part + here, stride
        e_t = _dot_rows(nodes, b + here, tangent, part + here, stride, blocks)
        value[v0 + c] += scale * slope * e_t
        out[begin + net.kinds[kind].scaling] += scale * plain * real
        out[begin + net.kinds[kind].scaling + 1] += scale * (e_t + outputs)


@inner
def _sum(a, a0, stride, blocks):
    """Sum of a row."""
    s = splat(0.0)
    for block in range(blocks):
        s = s + load(a, a0 + block * stride) + load(a, a0 + block * stride + LANES)
    return total(s)


@inner
def _dot_rows(a, a0, b, b0, stride, blocks):
    """Scalar product of two rows."""
    s = splat(0.0)
    for block in range(blocks):
        at, to = a0 + block * stride, b0 + block * stride
        s = s + load(a, at) * load(b, to) + load(a, at + LANES) * load(b, to + LANES)
    return total(s)


@inner
def _forward_tangent(net, kind, theta, t, t0, parts, n, nodes, at, tangent):
    """Fill ż and ḣ."""
    blocks, stride, size = n // PAD, net.kinds[kind].nodes * PAD, net.kinds[kind].nodes * n
    source, s0, s_block = t, t0, net.kinds[kind].features * PAD
    one, row = np.int64(1), np.int64(PAD)
    for number in range(net.kinds[kind].layers):
        layer = net.layers[kind, number]
        here = layer.node * PAD
        mix(
            theta,
            layer.weight,
            layer.n_out,
            one,
            layer.n_in,
            source,
            s0,
            row,
            s_block,
            tangent,
            here,
            row,
            stride,
            layer.n_out,
            parts * blocks,
        )
        for c in range(parts):
            for block in range(blocks):
                s, z = at + size + here + block * stride, c * size + here + block * stride
                for r in range(0, layer.n_out * PAD, LANES):
                    store(tangent, parts * size + z + r, load(nodes, s + r) * load(tangent, z + r))
        source, s0, s_block = tangent, parts * size + here, stride


@inner
def _backward_tangent(net, kind, theta, parts, n, nodes, at, tangent, plain):
    """Fill ḃ, with `plain` times b added to it."""
    blocks, stride, size = n // PAD, net.kinds[kind].nodes * PAD, net.kinds[kind].nodes * n
    last, b_dot, more, one, row = net.kinds[kind].layers - 1, 2 * parts * size, splat(plain), np.int64(1), np.int64(PAD)
    for number in range(last, -1, -1):
        layer = net.layers[kind, number]
        here, above = layer.node * PAD, (layer.node + layer.n_out) * PAD
        if number < last:
            upper = net.layers[kind, number + 1]
            mix(
                theta,
                upper.weight,
                one,
                upper.n_out,
                upper.n_out,
                tangent,
                b_dot + above,
                row,
                stride,
                tangent,
                b_dot + here,
                row,
                stride,
                layer.n_out,
                parts * blocks,
            )
        for c in range(parts):
            for block in range(blocks):
                s, z = at + size + here + block * stride, c * size + here + block * stride
                for r in range(0, layer.n_out * PAD, LANES):
                    if number < last:
                        value = load(nodes, s + r) * load(tangent, b_dot + z + r)
                    else:
                        value = more * load(nodes, s + 2 * size + r)
                    store(tangent, b_dot + z + r, value + load(nodes, s + size + r) * load(tangent, z + r))
