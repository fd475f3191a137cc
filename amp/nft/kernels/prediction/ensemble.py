"""Networks of all members together, four to a register, and forces on the atoms from their energies' gradients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.fingerprints.environment import compute
from amp.nft.kernels.fingerprints.workspace import RECORD
from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd import vectors as simd
from amp.nft.kernels.simd.vectors import LANES, get, load, splat, store

_ACTIVATIONS = ("linear", "tanh", "sigmoid")
MEMBERS = 3 * LANES  # members that forces are worked out for at a time
_SMALLEST_RANGE = 1e-8  # Amp leaves inputs alone that vary less


class Networks(NamedTuple):
    """Feed-forward networks of all members, for every kind of centre. Members run fastest in `weights`."""

    columns: int  # members, rounded up
    activation: int
    layers: np.ndarray  # (kinds, layers, 3) inputs, outputs, where the weights begin; 0 outputs: no such layer
    weights: np.ndarray  # of each layer (outputs, inputs + 1, members); the last input is the bias
    scale: np.ndarray  # (kinds, 2, members) slope, intercept
    inputs: np.ndarray  # (kinds, 3, slots) number subtracted from each fingerprint; trained range, from and to


def build_networks(models: list, slot_feature: np.ndarray, elements: tuple[str, ...]) -> Networks:
    """Return the networks of models that share fingerprints, hidden layers and activation.

    The scaling of the inputs goes into the first layer, except for the value that the first member subtracts: where a
    fingerprint varies little, that difference is small and must be taken before it is multiplied.

    Parameters
    ----------
    models : list of AmpModel
    slot_feature : ndarray of int, shape (elements, slots)
        Fingerprint in each slot; -1: padding.
    elements : tuple of str

    Returns
    -------
    Networks
    """
    n, columns = len(models), -(-len(models) // MEMBERS) * MEMBERS
    depth = max(len(models[0].weights[element]) for element in elements)
    layers, blocks = np.zeros((len(elements), depth, 3), dtype=np.int64), []
    scale, inputs = np.zeros((len(elements), 2, columns)), np.zeros((len(elements), 3, slot_feature.shape[1]))
    inputs[:, 1], inputs[:, 2] = -np.inf, np.inf
    for kind, element in enumerate(elements):
        used = slot_feature[kind] >= 0
        ranges = np.array([model.fprange[element] for model in models], dtype=float)[:, slot_feature[kind][used]]
        inputs[kind][:, used] = ranges[0, :, 0], ranges[:, :, 0].max(axis=0), ranges[:, :, 1].min(axis=0)
        scale[kind, :, :n] = np.array([model.scalings[element] for model in models], dtype=float)[:, ::-1].T
        for layer in range(len(models[0].weights[element])):
            weights = np.array([model.weights[element][layer] for model in models], dtype=float).transpose(2, 1, 0)
            if layer == 0:
                weights = _scale_inputs(weights[:, [*slot_feature[kind][used], -1]], ranges, used)
            layers[kind, layer] = weights.shape[1] - 1, weights.shape[0], sum(block.size for block in blocks)
            blocks.append(np.concatenate([weights, np.zeros((*weights.shape[:2], columns - n))], axis=2))
    activation = _ACTIVATIONS.index(models[0].activation)
    return Networks(columns, activation, layers, np.concatenate([b.ravel() for b in blocks]), scale, inputs)


def _scale_inputs(weights: np.ndarray, ranges: np.ndarray, used: np.ndarray) -> np.ndarray:
    """
    First-layer weights for inputs in slots, less the first member's minimum, from those for inputs scaled to [-1, 1].

    Shapes: weights (outputs, features + 1, members), ranges (members, features, 2), used (slots,).
    """
    low, span = ranges[..., 0], ranges[..., 1] - ranges[..., 0]
    scaled = span > _SMALLEST_RANGE
    factor = np.where(scaled, 2.0 / np.where(scaled, span, 1.0), 1.0)
    offset = np.where(scaled, -1.0 - (low - low[0]) * factor, low[0])
    result = np.zeros((len(weights), len(used) + 1, weights.shape[2]))
    result[:, :-1][:, used] = weights[:, :-1] * factor.T
    result[:, -1] = weights[:, -1] + np.einsum("ofm,mf->om", weights[:, :-1], offset)
    return result


class Scratch(NamedTuple):
    """Buffers of one thread: one centre's networks, and the forces of one block of centres on all atoms they touch."""

    output: np.ndarray  # (layers + 1, nodes, members) of each layer; the first is the input
    slope: np.ndarray  # (layers + 1, nodes, members) derivative of the activation; later of the energy in the excitation
    gradient: np.ndarray  # (slots, members) dE/dG
    total: np.ndarray  # (1, vectors, 4, LANES) dG/dx of the centre itself, laid out as `Workspace.grad`
    strain: np.ndarray  # (xyz, vectors, 4, LANES) dG/d(strain), likewise
    line: np.ndarray  # (atoms,) where in `force` an atom is, or -1
    touched: np.ndarray  # (atoms touched,)
    force: np.ndarray  # (atoms touched, xyz, members)
    virial: np.ndarray  # (atoms of a block * xyz, xyz, members): with as many dimensions as `force`, so that `_pull` is compiled once
    energy: np.ndarray  # (atoms of a block, members)
    outside: np.ndarray  # (atoms of a block,) True if a fingerprint is outside the trained range
    count: np.ndarray  # type: ignore[assignment]  # (1,) atoms touched


def make_scratch(networks: Networks, n_atoms: int, n_centres: int, most_touched: int) -> Scratch:
    """Allocate buffers for blocks of centres.

    Parameters
    ----------
    networks : Networks
    n_atoms : int
        Atoms of the structure.
    n_centres : int
        Centres of a block.
    most_touched : int
        Largest number of atoms on which a block adds forces.

    Returns
    -------
    Scratch
    """
    columns, depth, n_slots = networks.columns, networks.layers.shape[1], networks.inputs.shape[2]
    nodes = max(n_slots, int(networks.layers[..., :2].max()))
    most_touched = min(most_touched, n_atoms)
    vectors = n_slots // LANES
    return Scratch(
        simd.zeros(depth + 1, nodes, columns), simd.zeros(depth + 1, nodes, columns), simd.zeros(n_slots, columns),
        simd.zeros(1, vectors, 4, LANES), simd.zeros(3, vectors, 4, LANES), np.full(n_atoms, -1, dtype=np.int64),
        np.zeros(most_touched, dtype=np.int64), simd.zeros(most_touched, 3, columns), simd.zeros(3 * n_centres, 3, columns),
        simd.zeros(n_centres, columns), np.zeros(n_centres, dtype=np.bool_), np.zeros(1, dtype=np.int64),
    )  # fmt: skip


def virials(scratch: Scratch) -> np.ndarray:
    """Return the virials of a block.

    Parameters
    ----------
    scratch : Scratch

    Returns
    -------
    ndarray, shape (atoms of a block, xyz, xyz, members)
    """
    return scratch.virial.reshape(-1, 3, *scratch.virial.shape[1:])


@kernel
def evaluate_block(first, found, kind, stress, tables, networks, ws, scratch):
    """Energies of the atoms from `first` on whose neighbours were found, and their forces on all atoms, of every member."""
    everyone, none = np.int64(-1), np.int64(0)  # literals would make for more compilations
    for centre in range(found.start.size - 1):
        i = first + centre
        compute(found.start[centre], found.start[centre + 1], found, kind, i, everyone, tables, ws)
        scratch.outside[centre] = _outside(kind[i], networks.inputs, ws.value)
        _forward(kind[i], networks.columns, networks.activation, networks.layers, networks.weights, networks.inputs,
                 ws.value, scratch.output, scratch.slope)  # fmt: skip
        _backward(kind[i], networks.columns, networks.layers, networks.weights, networks.scale,
                  scratch.output, scratch.slope, scratch.gradient, scratch.energy, centre)  # fmt: skip
        n_radial, whole = tables.kinds[kind[i], 4], tables.seen[kind[i], 0, 2] - 1
        _add_up(kind[i], n_radial, tables.kinds[kind[i], 5], stress, tables.sees, ws.first, ws.record, ws.radial, ws.grad,
                scratch.total, scratch.strain)  # fmt: skip
        size = ws.grad.shape[1] * 4 * LANES
        for neighbor in range(ws.first.size - 1):
            begin, end = tables.seen[kind[i], neighbor, 0], tables.seen[kind[i], neighbor, 1]
            from_range, to_range = tables.seen[kind[i], neighbor, 2], tables.seen[kind[i], neighbor, 3]
            for j in range(ws.first[neighbor], ws.first[neighbor + 1]):
                line = _line_of(ws.atom[j], scratch.line, scratch.touched, scratch.force, scratch.count)
                for member in range(0, networks.columns, MEMBERS):
                    _pull(member, networks.columns, line, j, j * ws.radial.shape[1], begin, end, ws.record, ws.radial, j * size, n_radial,
                          tables.ranges, from_range, to_range, ws.grad, scratch.gradient, scratch.force)  # fmt: skip
        line = _line_of(i, scratch.line, scratch.touched, scratch.force, scratch.count)
        for member in range(0, networks.columns, MEMBERS):
            _pull(member, networks.columns, line, none, none, none, none, ws.record, ws.radial, none, none,
                  tables.ranges, whole, whole + 1, scratch.total, scratch.gradient, scratch.force)  # fmt: skip
            for axis in range(3 if stress else 0):
                _pull(member, networks.columns, 3 * centre + axis, none, none, none, none, ws.record, ws.radial,
                      axis * scratch.total.size, none, tables.ranges, whole, whole + 1,
                      scratch.strain, scratch.gradient, scratch.virial)  # fmt: skip


@inner
def _outside(kind, inputs, value):
    """Return True if any fingerprint is outside the trained range."""
    for slot in range(inputs.shape[2]):  # value may be longer
        if value[slot] < inputs[kind, 1, slot] or value[slot] > inputs[kind, 2, slot]:
            return True
    return False


@inner
def _line_of(atom, lines, touched, force, count):
    """Return the line that sums an atom's forces; it is zeroed at its first use in a block."""
    line = lines[atom]
    if line < 0:
        line = count[0]
        count[0] += 1
        lines[atom] = line
        touched[line] = atom
        width = force.shape[1] * force.shape[2]
        for at in range(line * width, (line + 1) * width, LANES):
            store(force, at, splat(0.0))
    return line


@inner
def _forward(kind, columns, activation, layers, weights, inputs, value, output, slope):
    """Return the outputs of all layers and derivatives of their activation."""
    size = output.shape[1] * columns
    for slot in range(layers[kind, 0, 0]):
        x = splat(value[slot] - inputs[kind, 0, slot])
        for member in range(0, columns, LANES):
            store(output, slot * columns + member, x)
    for layer in range(layers.shape[1]):
        n_in, n_out, at = layers[kind, layer, 0], layers[kind, layer, 1], layers[kind, layer, 2]
        for node in range(n_out):
            for member in range(0, columns, LANES):
                begin = at + node * (n_in + 1) * columns + member
                total = load(weights, begin + n_in * columns)
                for source in range(n_in):
                    total = total + load(weights, begin + source * columns) * load(output, layer * size + source * columns + member)
                _activate(activation, total, (layer + 1) * size + node * columns + member, output, slope)


@inner
def _activate(activation, total, at, output, slope):
    """Write a node's output and its derivative."""
    one, half = splat(1.0), splat(0.5)
    if activation == 1:
        total = simd.tanh(total)
        store(slope, at, one - total * total)
    elif activation == 2:
        total = half + half * simd.tanh(half * total)
        store(slope, at, total * (one - total))
    else:
        store(slope, at, one)
    store(output, at, total)


@inner
def _backward(kind, columns, layers, weights, scale, output, slope, gradient, energies, row):
    """Energies, and their derivatives in the fingerprints, from the outputs; `slope` is overwritten."""
    size, depth = output.shape[1] * columns, layers.shape[1]
    while layers[kind, depth - 1, 1] == 0:
        depth -= 1
    for member in range(0, columns, LANES):
        factor = load(scale, 2 * kind * columns + member)
        energy = factor * load(output, depth * size + member) + load(scale, (2 * kind + 1) * columns + member)
        store(energies, row * columns + member, energy)
        store(slope, depth * size + member, factor * load(slope, depth * size + member))
    for layer in range(depth - 1, -1, -1):
        n_in, n_out, at = layers[kind, layer, 0], layers[kind, layer, 1], layers[kind, layer, 2]
        for source in range(n_in):
            for member in range(0, columns, LANES):
                total = splat(0.0)
                for node in range(n_out):
                    total = total + load(weights, at + (node * (n_in + 1) + source) * columns + member) * load(
                        slope, (layer + 1) * size + node * columns + member
                    )
                to = layer * size + source * columns + member
                if layer > 0:
                    store(slope, to, total * load(slope, to))
                else:
                    store(gradient, source * columns + member, total)


@inner
def _add_up(kind, n_radial, others, stress, sees, first, record, radial, grad, total, strain):
    """Gradients of the fingerprints in the centre's own position and, if requested, in the strain.

    Only neighbours of the kinds that a function sees count.
    """
    size, block = grad.shape[1] * 4 * LANES, total.size
    for slot in range(0, n_radial + others, LANES):
        x, y, z = splat(0.0), splat(0.0), splat(0.0)
        for at in range(4 * slot, 4 * slot + 3 * block, block):
            for row in range(LANES, 4 * LANES, LANES):
                store(strain, at + row, x)
        for part in range(1 if sees[kind, slot // LANES, 0] == sees[kind, slot // LANES, 1] else 2):
            neighbor = sees[kind, slot // LANES, part]
            for j in range(first[neighbor], first[neighbor + 1]):
                way_x, way_y, way_z = (splat(get(record, j * RECORD)), splat(get(record, j * RECORD + 1)),
                                       splat(get(record, j * RECORD + 2)))  # fmt: skip
                if slot < n_radial:
                    bend = load(radial, j * radial.shape[1] + slot)
                    gx, gy, gz = bend * way_x, bend * way_y, bend * way_z
                else:
                    at = j * size + 4 * (slot - n_radial)
                    gx, gy, gz = load(grad, at + LANES), load(grad, at + 2 * LANES), load(grad, at + 3 * LANES)
                x, y, z = x - gx, y - gy, z - gz
                if stress:
                    _add_row(4 * slot, way_x, gx, gy, gz, strain)
                    _add_row(4 * slot + block, way_y, gx, gy, gz, strain)
                    _add_row(4 * slot + 2 * block, way_z, gx, gy, gz, strain)
        store(total, 4 * slot + LANES, x)
        store(total, 4 * slot + 2 * LANES, y)
        store(total, 4 * slot + 3 * LANES, z)


@inner
def _add_row(at, way, gx, gy, gz, strain):
    """Add one row of position times gradient."""
    store(strain, at + LANES, load(strain, at + LANES) + way * gx)
    store(strain, at + 2 * LANES, load(strain, at + 2 * LANES) + way * gy)
    store(strain, at + 3 * LANES, load(strain, at + 3 * LANES) + way * gz)


@inner
def _pull(member, columns, line, j, at_radial, begin, end, record, radial, at, n_radial, ranges, first, last, grad, gradient, force):
    """
    Add -dE/dx of three vectors of members to a line of forces.

    The gradients of the fingerprints in slots begin <= slot < end point to the j-th neighbour; those of the others, in the ranges
    first <= r < last of slots from `n_radial` on, begin at `at`. The rest do not depend on that neighbour.
    """
    to, axis = 3 * line * columns + member, columns
    ax, bx, cx = load(force, to), load(force, to + LANES), load(force, to + 2 * LANES)
    ay, by, cy = load(force, to + axis), load(force, to + axis + LANES), load(force, to + axis + 2 * LANES)
    az, bz, cz = load(force, to + 2 * axis), load(force, to + 2 * axis + LANES), load(force, to + 2 * axis + 2 * LANES)
    if end > begin:
        a, b, c = splat(0.0), splat(0.0), splat(0.0)
        for slot in range(begin, end):
            bend, of = splat(get(radial, at_radial + slot)), slot * columns + member
            a, b, c = (a + bend * load(gradient, of), b + bend * load(gradient, of + LANES),
                       c + bend * load(gradient, of + 2 * LANES))  # fmt: skip
        x, y, z = splat(get(record, j * RECORD)), splat(get(record, j * RECORD + 1)), splat(get(record, j * RECORD + 2))
        ax, ay, az = ax - a * x, ay - a * y, az - a * z
        bx, by, bz = bx - b * x, by - b * y, bz - b * z
        cx, cy, cz = cx - c * x, cy - c * y, cz - c * z
    for r in range(first, last):
        for slot in range(ranges[r, 0], ranges[r, 1]):
            of = (n_radial + slot) * columns + member
            row = at + 4 * slot - 3 * (slot % LANES)
            x, y, z = (splat(get(grad, row + LANES)), splat(get(grad, row + 2 * LANES)),
                       splat(get(grad, row + 3 * LANES)))  # fmt: skip
            a, b, c = load(gradient, of), load(gradient, of + LANES), load(gradient, of + 2 * LANES)
            ax, ay, az = ax - a * x, ay - a * y, az - a * z
            bx, by, bz = bx - b * x, by - b * y, bz - b * z
            cx, cy, cz = cx - c * x, cy - c * y, cz - c * z
    store(force, to, ax)
    store(force, to + LANES, bx)
    store(force, to + 2 * LANES, cx)
    store(force, to + axis, ay)
    store(force, to + axis + LANES, by)
    store(force, to + axis + 2 * LANES, cy)
    store(force, to + 2 * axis, az)
    store(force, to + 2 * axis + LANES, bz)
    store(force, to + 2 * axis + 2 * LANES, cz)


@kernel
def add_block(count, touched, block_force, line, forces):
    """Add a block's forces to those of all atoms, and forget which they were."""
    width = forces.shape[1] * forces.shape[2]
    for n in range(count[0]):
        line[touched[n]] = -1
        to = touched[n] * width
        for at in range(0, width, LANES):
            store(forces, to + at, load(forces, to + at) + load(block_force, n * width + at))


@kernel
def summarise(forces, order, members, mean, std, uncertainty):
    """
    Mean, standard deviation and uncertainty of the force on every atom; `forces` come in another order.

    The uncertainty is 2.58 sqrt(sum |F_m - mean|² / (members - 1)); with one member neither it nor the deviation is a number.
    """
    for n in range(len(order)):
        i = order[n]
        spread = 0.0
        for axis in range(3):
            total = 0.0
            for member in range(members):
                total += forces[n, axis, member]
            average, square = total / members, 0.0
            mean[i, axis] = average
            for member in range(members):
                square += (forces[n, axis, member] - average) ** 2
            std[i, axis] = np.sqrt(square / (members - 1)) if members > 1 else np.nan
            spread += square
        uncertainty[i] = 2.58 * np.sqrt(spread / (members - 1)) if members > 1 else np.nan
