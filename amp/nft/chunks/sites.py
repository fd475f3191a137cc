"""Sites of a target: its atoms and their periodic images, addressed by atom and cell shift."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

Site = tuple[int, int, int, int]  # index of the atom in the target, and its shift in cell vectors
MARGIN = 6.0  # Å beyond a chunk, in which the atoms that it lacks are searched first


def site_positions(target: Atoms, sites: Collection[Site] | np.ndarray) -> np.ndarray:
    """Return the positions of sites.

    Parameters
    ----------
    target : Atoms
    sites : collection of Site

    Returns
    -------
    ndarray, shape (sites, 3)
        In Å.
    """
    table = np.asarray(list(sites), dtype=int).reshape(-1, 4)
    return target.positions[table[:, 0]] + table[:, 1:] @ target.cell.array


def sites_within(target: Atoms, point: np.ndarray, radius: float) -> np.ndarray:
    """Return all sites within a sphere, by the shift and then by the atom.

    Parameters
    ----------
    target : Atoms
    point : ndarray, shape (3,)
        Centre of the sphere, Å.
    radius : float
        In Å; the surface belongs to the sphere.

    Returns
    -------
    ndarray of int, shape (sites, 4)
        Atom, and shift along the three cell vectors.
    """
    shifts = _shifts_near(target, point, radius)
    vectors = (target.positions - point)[None] + (shifts @ target.cell.array)[:, None]
    shift, atom = np.nonzero(np.einsum("sax,sax->sa", vectors, vectors) <= radius**2)
    return np.column_stack([atom, shifts[shift]])


def depths(target: Atoms, sites: np.ndarray, near: np.ndarray | None = None, reach: float = 0.0) -> np.ndarray:
    """Return the distance of each of a chunk's atoms to the nearest atom of the target that the chunk lacks.

    Parameters
    ----------
    target : Atoms
        Periodic images count as atoms.
    sites : ndarray of int, shape (atoms, 4)
        The chunk, its centre first.
    near : ndarray of int, shape (sites, 4), optional
        All sites within `reach` of the centre, where they are known; otherwise all atoms of the target are searched.
    reach : float
        In Å.

    Returns
    -------
    ndarray, shape (atoms,)
        In Å; inf where the chunk lacks no atom.
    """
    points = site_positions(target, sites)
    off_centre = np.linalg.norm(points - points[0], axis=1)
    while True:
        if near is None:
            reach = max(2 * reach, off_centre.max() + MARGIN)
            near = sites_within(target, points[0], reach)
        missing = near[~_among(near, sites)]
        found = cKDTree(site_positions(target, missing)).query(points)[0] if len(missing) else np.full(len(points), np.inf)
        # Beyond `reach - off_centre` of an atom, a nearer one may lie outside the sphere that was searched.
        if (found <= reach - off_centre).all() or (not target.pbc.any() and len(near) == len(target)):
            return found
        near = None


def _shifts_near(target: Atoms, point: np.ndarray, radius: float) -> np.ndarray:
    """Return the cell shifts, shape (shifts, 3), that bring any atom into a sphere."""
    if not target.pbc.any():
        return np.zeros((1, 3), dtype=int)
    to_fractions = np.linalg.inv(target.cell.complete().array)
    fractions = (point - target.positions) @ to_fractions
    reach = radius * np.linalg.norm(to_fractions, axis=0)
    first, last = np.ceil(fractions.min(axis=0) - reach), np.floor(fractions.max(axis=0) + reach)
    ranges = [np.arange(a, b + 1) if periodic else [0] for a, b, periodic in zip(first, last, target.pbc, strict=True)]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3).astype(int)


def _among(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return a mask of the sites in `some` that are in `others`."""
    span = 1 + max(int(np.abs(table[:, 1:]).max(initial=0)) for table in (some, others))
    weights = np.array([(2 * span + 1) ** k for k in (3, 2, 1, 0)])
    keys = [(table + np.array([0, span, span, span])) @ weights for table in (some, others)]
    return np.isin(*keys)
