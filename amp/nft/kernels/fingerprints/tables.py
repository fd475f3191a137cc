"""Amp's symmetry functions as the arrays that the kernels loop over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from amp.nft.kernels.simd.vectors import LANES

BITS = 6  # whole zetas up to 2**BITS are multiplied out
_MAX_DEGREE = 20  # beyond it a monomial series loses digits, and exp is as cheap
_TOLERANCE = 3e-15


class Tables(NamedTuple):
    """
    Symmetry functions, four to a vector. The lanes of a vector differ only in numbers.

    "Kind" is an element's index. Every centre kind has its own row of *slots*, four per vector: radial ones first.
    Triplets come in blocks (neighbours of two kinds, G4 or G5), blocks in groups (one eta), groups in vectors.
    """

    radius: float
    gamma: float  # power of a Polynomial cutoff; 0 for the Cosine
    kinds: np.ndarray  # (kinds, 6) radial vectors from, to; blocks from, to; radial slots, other slots
    radials: np.ndarray  # (radial vectors, 2) neighbour's kind, first slot
    radial_numbers: np.ndarray  # (radial vectors, 3, LANES) 1, or 0 for padding; eta / Rc²; offset
    blocks: np.ndarray  # (blocks, 5) kinds of the neighbours, 1 for a G5, groups from, to
    groups: np.ndarray  # (groups, 3) shape, vectors from, to
    vectors: np.ndarray  # (vectors, 2) first slot after the radial ones, binary digits of zeta - 1 (-1: not whole)
    vector_numbers: np.ndarray  # (vectors, 4 + 2 BITS, LANES) gamma, gamma zeta, zeta - 1, 2**(1 - zeta); for each
    #                             digit the factor is first * power + second
    shapes: np.ndarray  # (shapes, 2 + degrees) eta of the exponential, where the series begins, and the series
    sees: np.ndarray  # (kinds, vectors of slots, 2) kinds of the neighbours, equal for a G2
    seen: np.ndarray  # (kinds, kinds, 4) functions that see a neighbour kind: radial slots from, to; `ranges` of others from, to
    ranges: np.ndarray  # (ranges, 2) slots after the radial ones from, to; the first of each centre kind contains all of its slots


def build_tables(gs: dict[str, list[dict]], cutoff: dict, elements: tuple[str, ...]) -> tuple[Tables, list[list[int]]]:
    """Return arrays for the kernels from Amp's dictionaries.

    Parameters
    ----------
    gs : dict of str to list of dict
        Symmetry functions of each element.
    cutoff : dict
        Cutoff function.
    elements : tuple of str

    Returns
    -------
    tables : Tables
    features : list of list of int
        For each element the function of each slot; -1: padding.

    Raises
    ------
    ValueError
        A symmetry function or the cutoff is of a type that Amp's Gaussian descriptor does not have.
    """
    radius, gamma = _read_cutoff(cutoff)
    number = {element: kind for kind, element in enumerate(elements)}
    functions = [[_read_function(g, number) for g in gs[element]] for element in elements]
    etas = [0.0, *sorted({f["eta"] for fs in functions for f in fs if f["order"] > 2} - {0.0})]
    plan = _Plan(radius, len(elements), etas)
    features = [plan.add(fs) for fs in functions]
    shapes = np.array([_radial_series(eta) if gamma == 0.0 else np.array([eta, 2.0]) for eta in etas])
    return Tables(radius, gamma, *plan.arrays(), shapes, *_by_neighbor(plan)), features


def _by_neighbor(plan: _Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `Tables.sees`, `Tables.seen` and `Tables.ranges`."""
    n, ranges = plan.n_kinds, []
    sees, seen = np.full((n, max(map(len, plan.sees)), 2), -1), np.zeros((n, n, 4), dtype=np.int64)
    for centre, of_centre in enumerate(plan.sees):
        sees[centre, : len(of_centre)] = np.reshape(of_centre, (-1, 2))
        n_radial = plan.kinds[centre][4]
        ranges.append([0, len(of_centre) * LANES])
        for neighbor in range(n):
            begin = len(ranges)
            slots = [vector * LANES for vector, pair in enumerate(of_centre) if neighbor in pair]
            radial = [slot for slot in slots if slot < n_radial] or [0, -LANES]
            for slot in (slot - n_radial for slot in slots if slot >= n_radial):
                if len(ranges) > begin and ranges[-1][1] == slot:
                    ranges[-1][1] += LANES
                else:
                    ranges.append([slot, slot + LANES])
            seen[centre, neighbor] = radial[0], radial[-1] + LANES, begin, len(ranges)
    return sees, seen, _integers(ranges, 2)


def _read_cutoff(cutoff: dict) -> tuple[float, float]:
    """Return Rc and gamma, the latter 0 for the Cosine."""
    name, kwargs = cutoff["name"], cutoff["kwargs"]
    if name not in ("Cosine", "Polynomial"):
        raise ValueError(f"Cutoff function {name!r} is not supported: use Cosine or Polynomial.")
    radius, gamma = float(kwargs["Rc"]), float(kwargs.get("gamma", 4.0)) if name == "Polynomial" else 0.0
    if radius <= 0.0 or (name == "Polynomial" and gamma < 2.0):
        raise ValueError(f"Cutoff {cutoff} needs Rc > 0 and, if Polynomial, gamma >= 2.")
    return radius, gamma


def _read_function(g: dict, number: dict[str, int]) -> dict:
    """Return one symmetry function with kinds for elements; kind -1 never occurs in an image."""
    if g["type"] == "G2":
        return {"order": 2, "kinds": (number.get(g["element"], -1),), "eta": float(g["eta"]), "offset": float(g.get("offset", 0.0))}
    if g["type"] not in ("G4", "G5"):
        raise ValueError(f"Symmetry function type {g['type']!r} is not supported: use G2, G4 or G5.")
    kinds = tuple(sorted(number.get(element, -1) for element in g["elements"]))
    return {"order": int(g["type"][1]), "kinds": kinds, "eta": float(g["eta"]), "gamma": float(g["gamma"]), "zeta": float(g["zeta"])}


def _radial_series(eta: float) -> np.ndarray:
    """
    Return a line of `Tables.shapes`: a series of exp(-eta s) fc(s) / (1 - s)² in t = 2s - 1, highest power first.

    With s = r² / Rc² the cosine cutoff is cos²(pi sqrt(s) / 2) = sin²(pi (1 - sqrt(s)) / 2): an entire function of s with a double
    zero at s = 1. What remains after dividing by (1 - s)² is smooth and its series short; for a large eta the
    exponential is not part of it.
    """

    def target(t: np.ndarray, eta: float) -> np.ndarray:
        s = (t + 1.0) / 2.0
        a = 0.5 / (1.0 + np.sqrt(s))
        return np.exp(-eta * s) * (np.pi * a * np.sinc((1.0 - s) * a)) ** 2

    check = np.linspace(-1.0, 1.0, 401)
    for inside in (eta, 0.0):
        for degree in range(6, _MAX_DEGREE + 1):
            series = chebyshev.cheb2poly(chebyshev.chebinterpolate(target, degree, (inside,)))  # type: ignore
            if np.abs(np.polynomial.polynomial.polyval(check, series) - target(check, inside)).max() < _TOLERANCE:
                leading = np.zeros(_MAX_DEGREE - degree)
                return np.concatenate([[eta - inside, 2.0 + len(leading)], leading, series[::-1]])
    raise AssertionError("the series of the cutoff function itself is short")


def _chunks(items: list) -> list[list]:
    """Split into lists of LANES at most."""
    return [items[i : i + LANES] for i in range(0, len(items), LANES)]


def _padded(values: Sequence[float]) -> np.ndarray:
    """Return a vector with zeros in the lanes not used."""
    return np.concatenate([values, np.zeros(LANES - len(values))])


class _Plan:
    """Collects the lines of `Tables`, one centre kind after the other."""

    def __init__(self, radius: float, n_kinds: int, etas: list[float]) -> None:
        self.radius, self.n_kinds, self.etas = radius, n_kinds, etas
        self.kinds, self.radials, self.radial_numbers = [], [], []
        self.blocks, self.groups, self.vectors, self.vector_numbers = [], [], [], []
        self.sees: list[list[tuple]] = []  # of each centre kind, the kinds of neighbours of each vector

    def add(self, functions: list[dict]) -> list[int]:
        """Plan the functions of one centre kind, and return the function of each slot."""
        begin = len(self.radials), len(self.blocks)
        self.sees.append([])
        radial: list[int] = []
        for neighbor in range(self.n_kinds):
            self._add_radials(neighbor, functions, radial)
        others: list[int] = []
        for pair in combinations_with_replacement(range(self.n_kinds), 2):
            for order in (4, 5):
                mine = [i for i, f in enumerate(functions) if f["order"] == order and f["kinds"] == pair]
                if mine:
                    self._add_block(pair, order, mine, functions, others)
        self.kinds.append([begin[0], len(self.radials), begin[1], len(self.blocks), len(radial), len(others)])
        return radial + others

    def _add_radials(self, neighbor: int, functions: list[dict], slots: list[int]) -> None:
        """Vectors of the G2 functions that see one kind of neighbour."""
        mine = [i for i, f in enumerate(functions) if f["order"] == 2 and f["kinds"] == (neighbor,)]
        for chunk in _chunks(mine):
            self.radials.append([neighbor, len(slots)])
            self.sees[-1].append((neighbor, neighbor))
            etas = [functions[i]["eta"] / self.radius**2 for i in chunk]
            offsets = [functions[i]["offset"] for i in chunk]
            self.radial_numbers.append([_padded(v) for v in ([1.0] * len(chunk), etas, offsets)])
            slots += chunk + [-1] * (LANES - len(chunk))

    def _add_block(self, pair: tuple, order: int, mine: list[int], functions: list[dict], slots: list[int]) -> None:
        """Triplets of one sort, by eta."""
        begin = len(self.groups)
        for eta in sorted({functions[i]["eta"] for i in mine}):
            first = len(self.vectors)
            members = [i for i in mine if functions[i]["eta"] == eta]
            members.sort(key=lambda i: (not functions[i]["zeta"].is_integer(), functions[i]["zeta"]))
            for chunk in _chunks(members):
                self._add_vector([functions[i] for i in chunk], len(slots))
                self.sees[-1].append(pair)
                slots += chunk + [-1] * (LANES - len(chunk))
            self.groups.append([self.etas.index(eta), first, len(self.vectors)])
        self.blocks.append([*pair, int(order == 5), begin, len(self.groups)])

    def _add_vector(self, functions: list[dict], slot: int) -> None:
        """2**(1 - zeta) (1 + gamma cos)**(zeta - 1) as a product over the binary digits of zeta - 1."""
        gamma, zeta = (np.array([f[name] for f in functions]) for name in ("gamma", "zeta"))
        whole = bool(np.all((zeta == np.round(zeta)) & (zeta >= 1.0) & (zeta <= 2**BITS)))
        numbers = [gamma, gamma * zeta, zeta - 1.0, 2.0 ** (1.0 - zeta)]
        digits = zeta.astype(int) - 1
        for bit in range(BITS):
            taken = np.array([digits >> bit & 1, 1 - (digits >> bit & 1)], dtype=float)
            numbers += list(taken * 2.0 ** (1.0 - zeta) if bit == 0 else taken)
        self.vectors.append([slot, max(2, int(digits.max()).bit_length()) if whole else -1])
        self.vector_numbers.append([_padded(v) for v in numbers])

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return `Tables.kinds` to `Tables.vector_numbers`."""
        return (
            _integers(self.kinds, 6),
            _integers(self.radials, 2),
            np.array(self.radial_numbers, dtype=float).reshape(-1, 3, LANES),
            _integers(self.blocks, 5),
            _integers(self.groups, 3),
            _integers(self.vectors, 2),
            np.array(self.vector_numbers, dtype=float).reshape(-1, 4 + 2 * BITS, LANES),
        )


def _integers(lines: list, width: int) -> np.ndarray:
    """Return a table of whole numbers, perhaps an empty one."""
    return np.array(lines, dtype=np.int64).reshape(-1, width)
