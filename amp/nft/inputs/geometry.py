"""Checks of the geometry of structures."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from vesin import NeighborList

ONE_PLACE = 1e-6  # Å between two atoms, below which no force has a direction


def check_cell(atoms: Atoms, name: str = "The structure") -> None:
    """Raise ValueError if the cell of a periodic structure does not span its periodic directions.

    Parameters
    ----------
    atoms : Atoms
    name : str
        What it is called in the error.
    """
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and not (np.isfinite(periodic).all() and np.linalg.matrix_rank(periodic) == len(periodic)):
        raise ValueError(
            f"{name} is periodic (pbc {atoms.pbc.tolist()}), but its cell {atoms.cell.array.tolist()} spans no space "
            "there: set the cell, or pbc=False."
        )


def check_apart(atoms: Atoms, name: str = "The structure") -> None:
    """Raise ValueError if two atoms are in one place.

    Parameters
    ----------
    atoms : Atoms
    name : str
        What it is called in the error.
    """
    pairs, distances = NeighborList(cutoff=1.0, full_list=False).compute(
        points=atoms.positions, box=np.asarray(atoms.cell), periodic=atoms.pbc, quantities="Pd"
    )
    if len(distances) and distances.min() < ONE_PLACE:
        first, second = sorted(pairs[distances.argmin()].tolist())
        raise ValueError(
            f"{name}: atoms {first} and {second} are in one place, {atoms.positions[first].round(3).tolist()} Å (or one is the "
            "other's periodic image there): move one, or remove it."
        )
