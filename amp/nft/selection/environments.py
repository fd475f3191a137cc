"""Compare atoms by their fingerprints: find duplicate environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.features import SymmetryFunctions, g2x

NARROW = 1e-9  # a fingerprint whose values lie within this is constant


def fingerprints(
    images: Sequence[Atoms], Gs: SymmetryFunctions | None = None, cutoff: float | dict[str, Any] = 6.5, *, centres: bool = False
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return fingerprints of all atoms of images, one image after the other.

    Parameters
    ----------
    images : sequence of Atoms
    Gs : dict of str to list of dict, optional
        Those of `amp.nft.features.g2x` if not given.
    cutoff : float or dict
        As for `choose_features`.
    centres : bool
        Only atom 0 of each image, as of a chunk.

    Returns
    -------
    x : ndarray, shape (atoms, features)
        Padded with zeros for an element with fewer fingerprints.
    kinds : ndarray of int, shape (atoms,)
        Place of each atom's element in `elements`.
    elements : tuple of str
        Sorted.
    """
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints  # numba: only where it is needed

    if Gs is None:
        Gs = g2x({symbol for image in images for symbol in image.symbols})
    made = Fingerprints(Gs, cutoff if isinstance(cutoff, dict) else {"name": "Cosine", "kwargs": {"Rc": float(cutoff)}})
    found = [made.centre(image) if centres else made.values(image) for image in images]
    return np.concatenate([one.x for one in found]), np.concatenate([one.kind for one in found]), made.elements


def distinct(x: np.ndarray, kinds: np.ndarray, chosen: Sequence[int], known: Sequence[int], distance: float) -> list[int]:
    """Drop chosen atoms whose environment an atom before them, or a known one, covers.

    Parameters
    ----------
    x : ndarray, shape (atoms, features)
        Fingerprints of all atoms.
    kinds : ndarray of int, shape (atoms,)
        Element of each; atoms of different elements never cover each other.
    chosen : sequence of int
        At least one atom, the most important first.
    known : sequence of int
        Atoms that cover others already. A chosen atom among them stays.
    distance : float
        Two atoms cover each other if the root mean square difference of their fingerprints is at most this, each
        fingerprint scaled to between -1 and 1 over all atoms of the element.

    Returns
    -------
    list of int
        Those of `chosen` that stay, in their order; if none does, the known atom that is most like the first of them.
    """
    x = scaled(x, kinds)
    taken = list(known)
    kept: list[int] = []
    for atom in chosen:
        if atom in known or not (_differences(x, kinds, atom, taken) <= distance).any():
            kept.append(atom)
            taken.append(atom)
    return kept or [known[int(np.argmin(_differences(x, kinds, chosen[0], known)))]]


def _differences(x: np.ndarray, kinds: np.ndarray, atom: int, others: Sequence[int]) -> np.ndarray:
    """Return root mean square differences of an atom's fingerprints from those of others; inf for other elements."""
    differences = np.sqrt(((x[list(others)] - x[atom]) ** 2).mean(axis=1))
    return np.where(kinds[list(others)] == kinds[atom], differences, np.inf)


def scaled(x: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Scale fingerprints to [-1, 1] by their ranges over the atoms of each element.

    Parameters
    ----------
    x : ndarray, shape (atoms, fingerprints)
    kinds : ndarray of int, shape (atoms,)
        Element of each atom.

    Returns
    -------
    ndarray, shape (atoms, fingerprints)
        0 where the range is a point.
    """
    result = np.zeros_like(x)
    for kind in np.unique(kinds):
        here = kinds == kind
        low, high = x[here].min(axis=0), x[here].max(axis=0)
        half = np.where(high - low > NARROW, (high - low) / 2, np.inf)
        result[here] = (x[here] - (low + high) / 2) / half
    return result


def apart(x: np.ndarray, kinds: np.ndarray, n_kinds: int) -> np.ndarray:
    """Put the fingerprints of each element into separate columns, so that the rows of two elements are orthogonal.

    Each element gets one more column, of 1 for its atoms. With it, CUR separates rows of opposite sign.

    Parameters
    ----------
    x : ndarray, shape (atoms, fingerprints)
    kinds : ndarray of int, shape (atoms,)
        Element of each atom.
    n_kinds : int
        Number of elements.

    Returns
    -------
    ndarray, shape (atoms, n_kinds * (fingerprints + 1))
    """
    wide = np.zeros((len(x), n_kinds, x.shape[1] + 1))
    wide[np.arange(len(x)), kinds] = np.hstack([x, np.ones((len(x), 1))])
    return wide.reshape(len(x), -1)
