"""Ranges of the numbers in an ``.amp`` file: within them no evaluation overflows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from amp.nft.errors import AmpFileError

SYMBOLS = frozenset(chemical_symbols[1:])
LARGEST = 1e8  # weight, or eV of an intercept or slope; trained ones are below 1e4
LARGEST_FINGERPRINT = 1e12
MOST_NODES = 10_000
RANGES = {"eta": (0.0, 1e6), "offset": (-100.0, 100.0), "zeta": (1.0, 512.0), "gamma": (-1.0, 1.0)}
NUMBERS = {"G2": ("eta",), "G4": ("eta", "zeta", "gamma"), "G5": ("eta", "zeta", "gamma")}
CUTOFF = {"Rc": (0.1, 25.0), "gamma": (2.0, 100.0)}


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Check that a value is a number within limits.

    Parameters
    ----------
    name : str
        Name in the error.
    value : object
    low, high : float
        Smallest and largest value allowed.

    Raises
    ------
    AmpFileError
        It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not low <= value <= high:
        raise AmpFileError(f"{name} is {str(value)[:40]}: it must be a number from {low:g} to {high:g}")


def check_elements(name: str, elements: Iterable[Any]) -> None:
    """Check that values are chemical symbols, and at least one.

    Parameters
    ----------
    name : str
        Name in the error.
    elements : iterable

    Raises
    ------
    AmpFileError
        They are not.
    """
    given = list(elements)
    wrong = [element for element in given if not isinstance(element, str) or element not in SYMBOLS]
    if wrong or not given:
        raise AmpFileError(f"{name} are for {str([*wrong, None][0])[:40]!r}: it must be a chemical symbol")


def check_cutoff(cutoff: dict[str, Any]) -> None:
    """Check the radius (Å) and the power of a cutoff function.

    Parameters
    ----------
    cutoff : dict
        Amp's, with 'name' and 'kwargs'.

    Raises
    ------
    AmpFileError
        One is out of range.
    """
    for name, value in cutoff["kwargs"].items():
        check_number(f"{name} of the cutoff", value, *CUTOFF[name])


def check_function(g: dict[str, Any]) -> None:
    """Check the parameters and elements of a symmetry function.

    Parameters
    ----------
    g : dict
        Amp's, with 'type' G2, G4 or G5.

    Raises
    ------
    AmpFileError
        A parameter is missing or out of range, or an element is not one.
    """
    kind = g["type"]
    names = NUMBERS[kind] + (("offset",) if kind == "G2" and "offset" in g else ())
    for name in names:
        if name not in g:
            raise AmpFileError(f"a {kind} has no {name}")
        check_number(f"{name} of a {kind}", g[name], *RANGES[name])
    key, count = ("element", 1) if kind == "G2" else ("elements", 2)
    neighbours = g.get(key)
    listed = [neighbours] if kind == "G2" else neighbours
    if not isinstance(listed, list | tuple) or len(listed) != count:
        raise AmpFileError(f"{key} of a {kind} is {str(neighbours)[:40]!r}: it must name {count} element(s)")
    check_elements(f"{key} of a {kind}", listed)


def check_layers(element: str, layers: tuple[Any, ...]) -> None:
    """Check the numbers of nodes of hidden layers.

    Parameters
    ----------
    element : str
    layers : tuple of int

    Raises
    ------
    AmpFileError
        One is not a whole number in the allowed range.
    """
    for nodes in layers:
        if isinstance(nodes, bool) or not isinstance(nodes, int | np.integer) or not 1 <= nodes <= MOST_NODES:
            raise AmpFileError(f"hiddenlayers of {element} contain {str(nodes)[:40]!r}: they must be whole numbers from 1 to {MOST_NODES}")


def check_size(name: str, array: np.ndarray, largest: float) -> None:
    """Check that the numbers of an array are finite and not too large.

    Parameters
    ----------
    name : str
        Name in the error.
    array : ndarray
    largest : float
        Largest absolute value allowed.

    Raises
    ------
    AmpFileError
        One is not.
    """
    worst = np.abs(array).max(initial=0.0)
    if not worst <= largest:
        kind = f"a number of size {worst:.3g}, beyond {largest:g}" if math.isfinite(worst) else "a number that is not finite"
        raise AmpFileError(f"{name} contain {kind}")
