"""Carve the surroundings of an atom out of a large target as a free cluster."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms
from vesin import NeighborList

from amp.nft.inputs.geometry import check_cell

VACUUM = 5.0  # Å of empty space around a chunk on every side, as in the paper
_NOT_CARRIED = ("positions", "numbers", "momenta")


def carve_chunks(target: Atoms, indices: Iterable[int], cutoff: float = 6.5, vacuum: float = VACUUM) -> list[Atoms]:
    """Carve one chunk around each of several atoms, with one neighbour search for all.

    Parameters
    ----------
    target : Atoms
        The structure to carve from; never changed. It may be periodic in any direction,
        also with cells smaller than `cutoff`: periodic images become atoms of the chunk.
    indices : iterable of int
        The central atoms.
    cutoff : float
        Radius of a chunk in Å.
    vacuum : float
        Empty space around a chunk in Å.

    Returns
    -------
    list of Atoms
        Free clusters (no periodic boundaries, constraints, velocities or calculator), atom 0 being
        the central one. Initial magnetic moments, charges, tags and masses are kept, and
        ``chunk.info['target_atom']`` is the index of the central atom in the target.

    Raises
    ------
    ValueError
        If `cutoff` is not positive, or the target is periodic without a cell.
    IndexError
        If an index is not one of the target's.

    Notes
    -----
    Step 3 of the method: C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022).
    """
    centres = _checked(target, indices, cutoff)
    first, second, vectors = NeighborList(cutoff=cutoff, full_list=True).compute(
        points=target.positions, box=np.asarray(target.cell), periodic=target.pbc, quantities="ijD"
    )
    # A fixed order, whatever the search returned: a chunk's hash must not depend on it.
    order = np.lexsort((*np.round(vectors, 9).T, second, first))
    first, second, vectors = first[order], second[order], vectors[order]
    start, stop = np.searchsorted(first, centres), np.searchsorted(first, centres, side="right")
    return [_cluster(target, c, second[a:b], vectors[a:b], vacuum) for c, a, b in zip(centres, start, stop, strict=True)]


def carve_chunk(target: Atoms, index: int, cutoff: float = 6.5, vacuum: float = VACUUM) -> Atoms:
    """Carve the chunk around one atom.

    Parameters
    ----------
    target : Atoms
        The structure to carve from; never changed.
    index : int
        The central atom.
    cutoff, vacuum : float
        Radius of the chunk, and empty space around it, Å.

    Returns
    -------
    Atoms
        As `carve_chunks` makes it, with the same errors. For many atoms that is quicker: it searches for neighbours once.
    """
    return carve_chunks(target, [index], cutoff, vacuum)[0]


def _checked(target: Atoms, indices: Iterable[int], cutoff: float) -> np.ndarray:
    if not cutoff > 0:
        raise ValueError(f"cutoff is {cutoff} Å: the radius of a chunk must be positive, 6.5 for example.")
    check_cell(target, "The target")
    centres = np.asarray(list(indices), dtype=int)
    outside = centres[(centres < 0) | (centres >= len(target))]
    if len(outside):
        raise IndexError(f"There is no atom {outside[0]} in a target of {len(target)} atoms (counted from 0).")
    return centres


def _cluster(target: Atoms, centre: int, neighbours: np.ndarray, vectors: np.ndarray, vacuum: float) -> Atoms:
    members = np.concatenate([[centre], neighbours]).astype(int)
    positions = target.positions[centre] + np.vstack([np.zeros(3), vectors])
    chunk = Atoms(numbers=target.numbers[members], positions=positions, pbc=False)
    for name, values in target.arrays.items():
        if name not in _NOT_CARRIED:
            chunk.set_array(name, values[members])
    chunk.center(vacuum=vacuum)
    chunk.info["target_atom"] = int(centre)
    return chunk
