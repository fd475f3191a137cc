"""Forces of labelled chunks that are trained, and their weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from amp.nft.chunks.label_error import LabelError, default_floor, label_rows
from amp.nft.records import ForceRows


def rows_of_chunks(
    chunks: Sequence[Atoms], first: Sequence[int], forces: str, energies: bool = False, labels: Sequence[np.ndarray] | None = None
) -> list[ForceRows]:
    """Choose the forces of labelled chunks that are trained, and their weights.

    Parameters
    ----------
    chunks : sequence of Atoms
        Labelled chunks of the training set.
    first : sequence of int
        For each chunk the number of the first atom of its target.
    forces : {'centre', 'weighted', 'all'}
        The central force alone; all forces, each with the weight floor² / (sigma(depth)² + floor²), where sigma is the label error
        that overlapping chunks show; or all with weight 1. Forces on caps are never trained.
    energies : bool
        Train the chunks' energies too: without other images the zero of the energy is arbitrary otherwise.
    labels : sequence of ndarray, shape (atoms, 3), optional
        Forces of each chunk, eV/Å, where they are not those of its calculator; nan on caps.

    Returns
    -------
    list of ForceRows
        One per chunk, in their order. They follow from the labels alone.
    """
    energy = 1.0 if energies else 0.0
    if forces == "centre" or not len(chunks):
        return [ForceRows((0,), (1.0,), energy) for _ in chunks]
    if forces == "all":
        kept = [np.flatnonzero(chunk.arrays["target_index"] >= 0).tolist() for chunk in chunks]
        return [ForceRows(tuple(atoms), (1.0,) * len(atoms), energy) for atoms in kept]
    if labels is None:
        labels = [chunk.get_forces(apply_constraint=False) for chunk in chunks]
    rows = label_rows(chunks, labels, first)
    error, floor = LabelError.fit(rows), default_floor(rows.forces_rx)
    trained = [error.rows(chunk, floor) for chunk in chunks]
    return [ForceRows(tuple(atoms.tolist()), tuple(weights.tolist()), energy) for atoms, weights in trained]


def deepest_atoms(chunk: Atoms) -> np.ndarray:
    """Return one atom of a chunk for each atom of the target in it: the centre, else the deepest of its periodic images.

    Parameters
    ----------
    chunk : Atoms
        As `carve_chunks` makes it.

    Returns
    -------
    ndarray of int
        Indices in the chunk, the centre first; no caps.
    """
    index, depth = chunk.arrays["target_index"], chunk.arrays["depth"]
    kept = np.flatnonzero(index >= 0)
    order = kept[np.lexsort((kept, -depth[kept], kept != 0))]
    _, place = np.unique(index[order], return_index=True)
    return order[np.sort(place)]


def rows_in_target(rows: ForceRows, chunk: Atoms) -> ForceRows:
    """Return the forces of a chunk that are trained as forces on atoms of its target, the central one first.

    Parameters
    ----------
    rows : ForceRows
        Of the chunk.
    chunk : Atoms

    Returns
    -------
    ForceRows
        Each atom of the target once; see `deepest_atoms`.
    """
    weights = dict(zip(rows.atoms, rows.weights, strict=True))
    kept = [atom for atom in deepest_atoms(chunk).tolist() if atom in weights]
    return ForceRows(tuple(chunk.arrays["target_index"][kept].tolist()), tuple(weights[atom] for atom in kept))
