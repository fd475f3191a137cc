"""Checks of the geometry of structures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from amp.nft.errors import InputError

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.neighbors import Neighbors, Search

CLOSEST = 0.3  # Å between two atoms: less than half of the shortest bond, H-H
HEAVIEST = max(atomic_numbers.values())
LARGEST_CHUNK = 20_000  # atoms: a label is one single point of a chunk
_SMALL = 16.0  # Å; a chunk within this has fewer: the search allows 1 atom per Å3
_SAMPLE = 1000  # atoms of a large structure whose chunks are counted
_NEIGHBOUR = 4.0  # Å; most atoms have one within this
_SLICE = 64  # atoms whose neighbours are listed together


def check_atoms(atoms: Atoms, name: str = "the structure") -> None:
    """Raise InputError if a structure has no atoms, atoms of no element, or a cell that cannot repeat.

    Parameters
    ----------
    atoms : Atoms
    name : str
        Its name in the error.
    """
    if not len(atoms):
        raise InputError(f"{name} has no atoms: give a structure with at least one.")
    outside = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > HEAVIEST))
    if len(outside):
        raise InputError(
            f"{name}: atom {outside[0]} has the atomic number {atoms.numbers[outside[0]]}: it must be an element's, 1 (H) to "
            f"{HEAVIEST} ({chemical_symbols[HEAVIEST]})."
        )
    check_cell(atoms, name)


def check_cell(atoms: Atoms, name: str = "the structure") -> None:
    """Raise InputError if the cell of a periodic structure does not span its periodic directions.

    Parameters
    ----------
    atoms : Atoms
    name : str
        Its name in the error.
    """
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and not (np.isfinite(periodic).all() and np.linalg.matrix_rank(periodic) == len(periodic)):
        raise InputError(
            f"{name} is periodic (pbc {atoms.pbc.tolist()}), but its cell {atoms.cell.array.tolist()} spans no space "
            "there: set the cell, or pbc=False."
        )


def check_places(atoms: Atoms, name: str = "the structure") -> None:
    """Raise InputError if a position is not finite or beyond 10^6 Å, or if two atoms are closer than 0.3 Å.

    Parameters
    ----------
    atoms : Atoms
    name : str
        Its name in the error.
    """
    try:
        for _ in _neighbor_lists(atoms, CLOSEST, closest=CLOSEST):
            pass
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def check_chunks(atoms: Atoms, cutoff: float, radius: float, name: str = "the structure") -> None:
    """Raise InputError if chunks would contain one atom only, or more than 20 000.

    Parameters
    ----------
    atoms : Atoms
    cutoff : float
        Radius of a chunk, Å.
    radius : float
        Radius of the model's fingerprints, Å: an atom without neighbours within it may be alone in its chunk.
    name : str
        Its name in the error.
    """
    try:
        _check_sizes(atoms, cutoff)
        if np.isfinite(nearest_distances(atoms, min(cutoff, _NEIGHBOUR))).all():
            return
        nearest = nearest_distances(atoms, max(cutoff, radius))
    except InputError as error:
        raise InputError(f"cutoff = {cutoff:g} Å, {name}: {error}") from None
    lone = np.flatnonzero((nearest > cutoff) & np.isfinite(nearest))
    if len(lone):
        raise InputError(
            f"cutoff = {cutoff:g} Å cuts out atom {lone[0]} of {name} alone: its nearest neighbour is {nearest[lone[0]]:.2f} Å away; "
            "use a cutoff that contains neighbours of each atom, for example 6.5 Å."
        )


def _check_sizes(atoms: Atoms, cutoff: float) -> None:
    """Raise InputError if a chunk has too many atoms; of a structure with more than 1000 atoms, that many are centres."""
    search = _search(atoms, cutoff)
    if cutoff <= _SMALL or (len(atoms) <= LARGEST_CHUNK and not atoms.pbc.any()):
        return
    for place in np.linspace(0, len(atoms) - 1, min(len(atoms), _SAMPLE)).astype(int):  # neighbours follow each other in this order
        found = 1 + len(search.neighbors(place, place + 1).index)
        if found > LARGEST_CHUNK:
            raise InputError(
                f"the chunk around atom {search.order[place]} has {found} atoms: the parent computes each chunk, of at most "
                f"{LARGEST_CHUNK} atoms; use a smaller cutoff, for example 6.5 Å, and check that positions and cell are in Å."
            )


def nearest_distances(atoms: Atoms, radius: float) -> np.ndarray:
    """Return the distance of each atom to the nearest other one, or periodic image.

    Parameters
    ----------
    atoms : Atoms
    radius : float
        Of the search, Å.

    Returns
    -------
    ndarray, shape (atoms,)
        In Å; inf where there is none within `radius`.

    Raises
    ------
    InputError
        If two atoms are in one place, or the search cannot be made.
    """
    nearest = np.full(len(atoms), np.inf)
    for order, first, found in _neighbor_lists(atoms, radius):
        centre = first + np.repeat(np.arange(len(found.start) - 1), np.diff(found.start))
        vectors = found.position[found.index] + found.shift[found.image] - found.position[centre]
        np.minimum.at(nearest, order[centre], np.linalg.norm(vectors, axis=1))
    return nearest


class Pairs(NamedTuple):
    """Neighbours of centres: pairs `start[c]` to `start[c + 1]` are those of centre c.

    Parameters
    ----------
    start : ndarray of int, shape (centres + 1,)
        First pair of each centre.
    first : ndarray of int, shape (pairs,)
        Index of the central atom.
    second : ndarray of int, shape (pairs,)
        Index of its neighbour.
    shift : ndarray of int, shape (pairs, 3)
        Periodic image of the neighbour, in cell vectors.
    vector : ndarray, shape (pairs, 3)
        From the centre to the neighbour, Å.
    """

    start: np.ndarray  # (centres + 1,)
    first: np.ndarray  # (pairs,) the centre, an atom
    second: np.ndarray  # (pairs,) its neighbour
    shift: np.ndarray  # (pairs, 3) of the neighbour, in cell vectors
    vector: np.ndarray  # (pairs, xyz) from the centre to the neighbour, Å


def neighbor_pairs(atoms: Atoms, radius: float, centres: Sequence[int] | None = None) -> Pairs:
    """List the neighbours of atoms, with the cell shift of each.

    Parameters
    ----------
    atoms : Atoms
    radius : float
        In Å.
    centres : sequence of int, optional
        Atoms whose neighbours are listed; all if not given.

    Returns
    -------
    Pairs

    Raises
    ------
    InputError
        If two atoms are in one place, or the search cannot be made.
    """
    chosen = np.asarray(range(len(atoms)) if centres is None else centres, dtype=np.int64)
    search = _search(atoms, radius)
    found = search.neighbors_of(chosen)
    first, second = np.repeat(chosen, np.diff(found.start)), found.index.astype(np.int64)
    shift = search.images[found.image] - search.whole[second] + search.whole[first]
    vector = atoms.positions[second] - atoms.positions[first] + shift @ atoms.cell.array
    return Pairs(found.start, first, second, shift, vector)


def _neighbor_lists(atoms: Atoms, radius: float, **settings: float) -> Iterator[tuple[np.ndarray, int, Neighbors]]:
    """Yield the order of the search, and for each slice its first atom and the lists of neighbours."""
    search = _search(atoms, radius, **settings)
    for first in range(0, len(atoms), _SLICE):
        yield search.order, first, search.neighbors(first, min(first + _SLICE, len(atoms)))


def _search(atoms: Atoms, radius: float, **settings: float) -> Search:
    from amp.nft.kernels.fingerprints.neighbors import Search  # numba: only where it is needed

    return Search(atoms.positions, atoms.cell.array, atoms.pbc, radius, **settings)


def with_cell(atoms: Atoms) -> Atoms:
    """Return elements, positions and cell; free atoms without a cell get one with 10 Å of vacuum, which some trainers need.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    Atoms
    """
    plain = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if not plain.pbc.any() and plain.cell.rank < 3:
        plain.center(vacuum=10.0)
    return plain
