"""Sets of Gaussian fingerprints by name, for the ``Gs`` of Amp's Gaussian descriptor.

Amp's eight defaults leave errors of some 0.05 eV/Å on metal clusters with any optimiser; these do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import string2symbols

from amp.nft.errors import InputError

SymmetryFunctions = dict[str, list[dict[str, Any]]]

_PAPER_G2 = {
    0.0: (0.42813323987193913, 2.636650898730358, 16.23776739188721),
    2.0: (0.42813323987193913, 4.832930238571752, 54.555947811685144, 100.0),
    4.0: (0.001, 29.763514416313193, 54.555947811685144, 100.0),
}
_PAPER_G4 = (
    (0.005, 1.0, -1.0), (0.005, 1.0, 1.0), (0.005, 4.0, -1.0), (0.005, 4.0, 1.0), (0.005, 16.0, -1.0),
    (1.0, 1.0, -1.0), (1.0, 1.0, 1.0), (1.0, 4.0, -1.0), (1.0, 4.0, 1.0),
)  # fmt: skip
OFFSETS = (2.0, 2.56, 3.12, 3.68, 4.24, 4.8)  # Å, of the shifted radial functions


def symbols_of(elements: str | Iterable[str]) -> list[str]:
    """Return chemical symbols, each once.

    Parameters
    ----------
    elements : iterable of str, or str
        Symbols, or a formula such as 'Cu' or 'CuAu'.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        There are none, or one is not an element.
    """
    try:
        symbols = list(dict.fromkeys(string2symbols(elements) if isinstance(elements, str) else elements))
    except ValueError:
        symbols = [str(elements)]
    if not symbols or not set(symbols) <= set(chemical_symbols[1:]):
        given = elements if isinstance(elements, str) else symbols
        raise ValueError(f"elements is {given!r}: give chemical symbols, as in ['Pt'] or ['Cu', 'Au'].")
    return symbols


def candidates(elements: str | Iterable[str]) -> SymmetryFunctions:
    """Return the 78 functions of the paper, for a selection with `amp.nft.selection.choose_features`.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.

    Returns
    -------
    dict
        For each element the list of its functions: 60 radial and 18 angular ones for one element.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022).
    """
    radial = [(float(eta), offset) for offset in (0.0, 2.0, 4.0) for eta in np.logspace(-3, 2, 20)]
    angular = [(eta, zeta, gamma) for eta in (0.005, 0.1, 1.0) for zeta in (1.0, 4.0, 16.0) for gamma in (1.0, -1.0)]
    return _for_all(elements, radial, angular)


def g2x(elements: str | Iterable[str], radial: int = 8) -> SymmetryFunctions:
    """Return radial functions from wide to narrow, and Amp's four default angular ones.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.
    radial : int
        Number of radial functions, with eta from 1 to 100 (Rc = 6.5 Å: widths of 4.6 to 0.46 Å). 8 suit (5, 5) nodes, 16
        give more to (10, 10).

    Returns
    -------
    dict
        For each element the list of its functions: 12 for one element and 8 radial ones.

    Raises
    ------
    ValueError
        A symbol is not an element, or there are fewer than two radial functions.
    """
    if radial < 2:
        raise ValueError(f"radial is {radial}: there must be at least 2 radial functions, 8 for example.")
    angular = [(0.005, zeta, gamma) for zeta in (1.0, 4.0) for gamma in (1.0, -1.0)]
    return _for_all(elements, [(float(eta), 0.0) for eta in np.geomspace(1.0, 100.0, radial)], angular)


def large(elements: str | Iterable[str], offsets: Sequence[float] = OFFSETS) -> SymmetryFunctions:
    """Return radial, shifted radial and many angular functions, for data sets of many images.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.
    offsets : sequence of float
        Centres of the shifted radial functions, Å; from just below the nearest-neighbour distance to some 80 % of the cutoff.

    Returns
    -------
    dict
        For each element the list of its functions: 8 radial, 6 shifted and 16 angular ones for one element.
    """
    return _many(elements, offsets, (0.005, 2.0))


def larger(elements: str | Iterable[str], offsets: Sequence[float] = OFFSETS) -> SymmetryFunctions:
    """Return the functions of `large`, with angular ones of two more widths.

    Lower errors on the data sets of ``benchmarks/mlearn.py`` than `large`, and up to half more time for each evaluation.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.
    offsets : sequence of float
        As in `large`, Å.

    Returns
    -------
    dict
        For each element the list of its functions: 8 radial, 6 shifted and 32 angular ones for one element.
    """
    return _many(elements, offsets, (0.005, 0.5, 2.0, 8.0))


def large5(elements: str | Iterable[str], offsets: Sequence[float] = OFFSETS) -> SymmetryFunctions:
    """Return the functions of `large`, and G5 functions of two more widths.

    A G4 vanishes where the two neighbours are farther from each other than the cutoff, as opposite neighbours often are. A G5 does not
    depend on their distance. Lower errors of the forces on the data sets of ``benchmarks/mlearn.py`` than `larger`, and more time for
    each evaluation.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.
    offsets : sequence of float
        As in `large`, Å.

    Returns
    -------
    dict
        For each element the list of its functions: 8 radial, 6 shifted and 32 angular ones for one element.
    """
    of_both, more = _many(elements, offsets, (0.005, 2.0)), _many(elements, offsets, (0.5, 4.0))
    return {
        name: functions + [function | {"type": "G5"} for function in more[name] if function["type"] == "G4"]
        for name, functions in of_both.items()
    }


def named(name: str, elements: str | Iterable[str]) -> SymmetryFunctions:
    """Return a set of functions by its name.

    Parameters
    ----------
    name : {'g2x', 'large', 'larger', 'large5', 'paper20'}
    elements : iterable of str, or str

    Returns
    -------
    dict

    Raises
    ------
    InputError
        There is no such set.
    """
    known: dict[str, Callable[[Any], SymmetryFunctions]] = {
        "g2x": g2x, "large": large, "larger": larger, "large5": large5, "paper20": paper20,
    }  # fmt: skip
    if name not in known:
        raise InputError(f"features is {name!r}: it must be one of {', '.join(map(repr, known))}, or Amp's Gs.")
    return known[name](elements)


def paper20(elements: str | Iterable[str]) -> SymmetryFunctions:
    """Return the 20 functions that the paper selected for platinum.

    Parameters
    ----------
    elements : iterable of str, or str
        Chemical symbols; each pair and triple of them gets its own functions.

    Returns
    -------
    dict
        For each element the list of its functions: 20 for one element.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022); made for Rc = 6.5 Å.
    """
    radial = [(eta, offset) for offset, etas in _PAPER_G2.items() for eta in etas]
    return _for_all(elements, radial, _PAPER_G4)


def _many(elements: str | Iterable[str], offsets: Sequence[float], widths: Sequence[float]) -> SymmetryFunctions:
    """Return radial and shifted radial functions, and angular ones of these widths (eta)."""
    radial = [(float(eta), 0.0) for eta in np.geomspace(0.5, 80.0, 8)] + [(40.0, float(offset)) for offset in offsets]
    angular = [(eta, zeta, gamma) for eta in widths for zeta in (1.0, 2.0, 4.0, 16.0) for gamma in (1.0, -1.0)]
    return _for_all(elements, radial, angular)


def _for_all(
    elements: str | Iterable[str],
    radial: Sequence[tuple[float, float]],
    angular: Sequence[tuple[float, float, float]],
) -> SymmetryFunctions:
    """Return the same (eta, offset) and (eta, zeta, gamma) around each element, for all kinds of neighbours."""
    names = sorted(symbols_of(elements))
    pairs = [[a, b] for i, a in enumerate(names) for b in names[i:]]
    functions = [{"type": "G2", "element": name, "eta": eta, "offset": offset} for eta, offset in radial for name in names] + [
        {"type": "G4", "elements": pair, "eta": eta, "gamma": gamma, "zeta": zeta} for eta, zeta, gamma in angular for pair in pairs
    ]
    return {name: [dict(function) for function in functions] for name in names}
