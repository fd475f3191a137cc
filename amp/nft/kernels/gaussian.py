"""Amp's Gaussian fingerprints (G2, G4, G5) and their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.neighbors import find_neighbors


@dataclass(frozen=True)
class Rows:
    """
    What a loss function needs to know of one image.

    With e(row) the model's atomic energy, E = sum of e over rows, and the force on the atom a is minus the sum over
    its entries of ``de/dx[force_row[entry]] . dx[entry]``.

    Attributes
    ----------
    x : ndarray, shape (rows, width)
        Fingerprints, padded with zeros.
    kind : ndarray of int, shape (rows,)
        Index of each row's element in `Fingerprints.elements`.
    force_start : ndarray of int, shape (force atoms + 1,)
        The entries of force atom a are ``force_start[a]:force_start[a + 1]``.
    force_row : ndarray of int, shape (entries,)
        The row that an entry differentiates.
    dx : ndarray, shape (entries, xyz, width)
        Derivative of ``x[force_row[entry]]`` with respect to the force atom's position, in 1/Å, summed over periodic images.
    """

    x: np.ndarray
    kind: np.ndarray
    force_start: np.ndarray
    force_row: np.ndarray
    dx: np.ndarray


class _Tables(NamedTuple):
    """Symmetry functions as arrays: one line per function, by element of the centre."""

    start: np.ndarray  # (elements + 1,) lines of each element
    order: np.ndarray  # 2, 4 or 5
    kinds: np.ndarray  # (lines, 2) elements of the neighbours, ascending
    values: np.ndarray  # (lines, 3): eta / Rc², offset or gamma, zeta
    cutoff: np.ndarray  # Rc and gamma of a Polynomial, -1 for the Cosine


class Fingerprints:
    """
    Gaussian fingerprints for a fixed list of elements.

    Parameters
    ----------
    gs : dict of str to list of dict
        For each element its symmetry functions, as Amp writes them.
    cutoff : dict
        Amp's ``{'name': 'Cosine' | 'Polynomial', 'kwargs': {'Rc': ..., 'gamma': ...}}``.
    """

    def __init__(self, gs: dict[str, list[dict]], cutoff: dict):
        self.elements = tuple(sorted(gs))
        self.radius = float(cutoff["kwargs"]["Rc"])
        self.n_features = np.array([len(gs[element]) for element in self.elements])
        self.width = int(self.n_features.max())
        self._tables = _compile(gs, cutoff, self.elements)

    def kinds(self, atoms: Atoms) -> np.ndarray:
        """Index of each atom's element; ValueError for one without symmetry functions."""
        symbols = atoms.get_chemical_symbols()
        unknown = sorted(set(symbols) - set(self.elements))
        if unknown:
            raise ValueError(f"No symmetry functions for {', '.join(unknown)}; there are some for {', '.join(self.elements)}.")
        return np.array([self.elements.index(symbol) for symbol in symbols], dtype=np.int64)

    def rows(self, atoms: Atoms, centre: int | None = None) -> Rows:
        """
        Fingerprints and derivatives of one image.

        Parameters
        ----------
        atoms : Atoms
            The image.
        centre : int, optional
            None: every atom is a row and a force atom. Otherwise only the force on this atom is wanted, and
            only it (row 0) and its neighbours are rows.
        """
        kind = self.kinds(atoms)
        found = find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, self.radius)
        x, dx = _fingerprints(kind, found.start, found.index, found.vector, self._tables, self.width)
        forces = np.arange(len(atoms)) if centre is None else np.array([centre])
        pairs = [np.array([a, *sorted(set(found.index[found.start[a]:found.start[a + 1]]) - {a})]) for a in forces]
        rows = np.arange(len(atoms)) if centre is None else pairs[0]
        row_of = np.full(len(atoms), -1)
        row_of[rows] = np.arange(len(rows))
        entries = np.concatenate([dx[pair, a] for a, pair in zip(forces, pairs, strict=True)])
        start = np.cumsum([0, *map(len, pairs)])
        return Rows(x[rows], kind[rows], start, row_of[np.concatenate(pairs)], entries)


def _compile(gs: dict[str, list[dict]], cutoff: dict, elements: tuple[str, ...]) -> _Tables:
    """Turn Amp's dictionaries into arrays."""
    number = {element: i for i, element in enumerate(elements)}
    radius = cutoff["kwargs"]["Rc"]
    lines = [g for element in elements for g in gs[element]]
    order = [{"G2": 2, "G4": 4, "G5": 5}[g["type"]] for g in lines]
    kinds = [sorted(number[e] for e in (g["elements"] if "elements" in g else [g["element"]] * 2)) for g in lines]
    values = [(g["eta"] / radius**2, g.get("offset", g.get("gamma", 0.0)), g.get("zeta", 0.0)) for g in lines]
    start = np.cumsum([0] + [len(gs[element]) for element in elements])
    gamma = cutoff["kwargs"].get("gamma", 4.0) if cutoff["name"] == "Polynomial" else -1.0
    return _Tables(start, np.array(order), np.array(kinds), np.array(values, dtype=float), np.array([radius, gamma]))


@kernel
def _cutoff(r, cutoff):
    """The cutoff function and its derivative."""
    radius, gamma = cutoff
    if r >= radius:
        return 0.0, 0.0
    if gamma < 0.0:
        return 0.5 * (np.cos(np.pi * r / radius) + 1.0), -0.5 * np.pi / radius * np.sin(np.pi * r / radius)
    q = r / radius
    return (1.0 + gamma * q ** (gamma + 1.0) - (gamma + 1.0) * q**gamma,
            gamma * (gamma + 1.0) / radius * (q**gamma - q ** (gamma - 1.0)))


@kernel
def _radial(r, eta, offset, cutoff):
    """exp(-eta (r - offset)²) fc(r) and its derivative."""
    value, slope = _cutoff(r, cutoff)
    gauss = np.exp(-eta * (r - offset) ** 2)
    return gauss * value, gauss * (slope - 2.0 * eta * (r - offset) * value)


@kernel
def _fingerprints(kind, start, index, vector, tables, width):
    """x (atoms, width) and dx (differentiated atom, moved atom, xyz, width)."""
    n = kind.size
    x, dx = np.zeros((n, width)), np.zeros((n, n, 3, width))
    for i in range(n):
        lines = range(tables.start[kind[i]], tables.start[kind[i] + 1])
        for a in range(start[i], start[i + 1]):
            j, u = index[a], vector[a]
            rj = np.sqrt(u @ u)
            for line in lines:
                f = line - tables.start[kind[i]]
                eta, gamma, zeta = tables.values[line]
                if tables.order[line] == 2:
                    if tables.kinds[line, 0] == kind[j]:
                        value, slope = _radial(rj, eta, gamma, tables.cutoff)
                        x[i, f] += value
                        dx[i, j, :, f] += slope / rj * u
                        dx[i, i, :, f] -= slope / rj * u
                    continue
                for b in range(a + 1, start[i + 1]):
                    k, v = index[b], vector[b]
                    low, high = min(kind[j], kind[k]), max(kind[j], kind[k])
                    if tables.kinds[line, 0] != low or tables.kinds[line, 1] != high:
                        continue
                    w = v - u
                    rk, rw = np.sqrt(v @ v), np.sqrt(w @ w)
                    fj, gj = _radial(rj, eta, 0.0, tables.cutoff)
                    fk, gk = _radial(rk, eta, 0.0, tables.cutoff)
                    fw, gw = _radial(rw, eta, 0.0, tables.cutoff) if tables.order[line] == 4 else (1.0, 0.0)
                    cosine = (u @ v) / (rj * rk)
                    base = max(1.0 + gamma * cosine, 0.0)
                    power = base ** (zeta - 1.0) * 2.0 ** (1.0 - zeta)
                    value, bend = power * base, zeta * gamma * power * fj * fk * fw
                    x[i, f] += value * fj * fk * fw
                    moved_j = (value * gj * fk * fw / rj - bend * cosine / rj**2) * u + bend / (rj * rk) * v
                    moved_k = (value * fj * gk * fw / rk - bend * cosine / rk**2) * v + bend / (rj * rk) * u
                    pull = value * fj * fk * gw / rw * w
                    dx[i, j, :, f] += moved_j - pull
                    dx[i, k, :, f] += moved_k + pull
                    dx[i, i, :, f] -= moved_j + moved_k
    return x, dx
