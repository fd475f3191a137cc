"""Fingerprints, networks and forces in plain NumPy, slow and short: the definitions that the kernels follow.

Atoms are free (no periodic images). Positions may be complex: forces are derivatives by an imaginary step, exact to rounding.
"""

import numpy as np

STEP = 1e-30  # imaginary, Å


def cutoff(r, radius):
    """Amp's cosine cutoff function."""
    return np.where(r.real < radius, 0.5 * (1.0 + np.cos(np.pi * r / radius)), 0.0)


def fingerprint(g, i, symbols, vectors, r, radius):
    """One symmetry function of atom i; `vectors` and `r` join all pairs of atoms."""
    near = [j for j in range(len(symbols)) if j != i and r[i, j].real < radius]
    f = cutoff(r, radius)
    if g["type"] == "G2":
        near = [j for j in near if symbols[j] == g["element"]]
        return (np.exp(-g["eta"] * (r[i, near] - g.get("offset", 0.0)) ** 2 / radius**2) * f[i, near]).sum()
    total = 0.0
    for j in near:
        for k in near:
            if j < k and sorted([symbols[j], symbols[k]]) == sorted(g["elements"]):
                cosine = vectors[i, j] @ vectors[i, k] / (r[i, j] * r[i, k])
                squares = r[i, j] ** 2 + r[i, k] ** 2 + r[j, k] ** 2
                damped = np.exp(-g["eta"] * squares / radius**2) * f[i, j] * f[i, k] * f[j, k]
                total += (1.0 + g["gamma"] * cosine) ** g["zeta"] * damped
    return 2.0 ** (1.0 - g["zeta"]) * total


def fingerprints(gs, radius, symbols, positions):
    """All symmetry functions of each atom, a list of vectors."""
    vectors = positions[None, :] - positions[:, None]
    r = np.sqrt((vectors**2).sum(axis=2))
    return [np.array([fingerprint(g, i, symbols, vectors, r, radius) for g in gs[symbols[i]]]) for i in range(len(symbols))]


def atomic_energy(model, element, x):
    """Energy of an atom from its fingerprints, eV."""
    low, high = np.array(model.fprange[element]).T
    h = -1.0 + 2.0 * (x - low) / (high - low)
    for layer in model.weights[element]:  # the biases are the last row
        h = np.tanh(h @ layer[:-1] + layer[-1])
    intercept, slope = model.scalings[element]
    return slope * h[0] + intercept


def energy(model, symbols, positions):
    """Energy of a structure, eV."""
    x = fingerprints(model.gs, model.cutoff["kwargs"]["Rc"], symbols, positions)
    return sum(atomic_energy(model, symbol, values) for symbol, values in zip(symbols, x, strict=True))


def forces(model, symbols, positions):
    """Force on each atom, eV/Å."""
    result = np.zeros(positions.shape)
    for at in np.ndindex(positions.shape):
        moved = positions.astype(complex)
        moved[at] += 1j * STEP
        result[at] = -energy(model, symbols, moved).imag / STEP
    return result
