"""One crystal for any space group, of one element or several."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

SYSTEMS = {  # last space group of each crystal system
    "triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167, "hexagonal": 194, "cubic": 230,
}  # fmt: skip
SPREAD = 0.2  # of an edge that its crystal system leaves free, as a fraction of the first edge
TILT = 20.0  # degrees that such an angle may lie away from 90
IDEAL = (8 / 3) ** 0.5  # c/a of close-packed spheres


def crystal_system(group: int) -> str:
    """Return the crystal system of a space group.

    Parameters
    ----------
    group : int

    Returns
    -------
    str

    Raises
    ------
    ValueError
        There is no such group.
    """
    if not (isinstance(group, int | np.integer) and 1 <= group <= 230):
        raise ValueError(f"sgs contains {group!r}: a space group is an integer from 1 to 230, 225 for fcc.")
    return next(system for system, last in SYSTEMS.items() if group <= last)


def host_crystal(symbol: str, group: int, a0: float, rng: np.random.Generator) -> Atoms:
    """Return the conventional cell of a space group with one occupied site.

    Parameters
    ----------
    symbol : str
        Chemical symbol.
    group : int
        Number of the space group.
    a0 : float
        First edge, Å. The edges and angles that the crystal system leaves free are drawn around it.
    rng : numpy.random.Generator

    Returns
    -------
    Atoms
    """
    system = crystal_system(group)
    b, c = a0 * rng.uniform(1 - SPREAD, 1 + SPREAD, size=2)
    tilted = rng.uniform(90 - TILT, 90 + TILT, size=3)
    close_packed = [a0, a0, IDEAL * a0, 90, 90, 120]
    cell = {
        "triclinic": [a0, b, c, *tilted],
        "monoclinic": [a0, b, c, 90, tilted[1], 90],
        "orthorhombic": [a0, b, c, 90, 90, 90],
        "tetragonal": [a0, a0, c, 90, 90, 90],
        "trigonal": close_packed,
        "hexagonal": close_packed,
        "cubic": [a0, a0, a0, 90, 90, 90],
    }[system]
    site = (1 / 3, 2 / 3, 3 / 4) if system in ("trigonal", "hexagonal") else (0, 0, 0)
    made = crystal([symbol], [site], spacegroup=group, cellpar=cell)
    return Atoms(made.symbols, scaled_positions=made.get_scaled_positions(), cell=made.cell, pbc=True)


def alloy(host: Atoms, symbols: list[str], rng: np.random.Generator) -> Atoms:
    """Distribute the sites of a host evenly over elements.

    Parameters
    ----------
    host : Atoms
    symbols : list of str
    rng : numpy.random.Generator

    Returns
    -------
    Atoms
        The host, repeated along its shortest edge until there is a site for each element.
    """
    while len(host) < len(symbols):
        repeats = [1, 1, 1]
        repeats[int(np.argmin(host.cell.lengths()))] = 2
        host = host * repeats
    mixed = host.copy()
    mixed.symbols = rng.permutation([symbols[i % len(symbols)] for i in range(len(host))])
    return mixed
