"""Disagreement of the members of an ensemble on the forces, and selection of atoms by it."""

from __future__ import annotations

from numbers import Real

import numpy as np

CONFIDENCE = 2.58
"""Standard deviations that contain 99 % of a normal distribution."""

VANISHING = 1e-9  # eV/Å; independent fits never agree so closely, and forces below it vanish by symmetry but for roundoff


def force_uncertainty(forces_mni: np.ndarray) -> np.ndarray:
    """Return the uncertainty of the force on each atom.

    Parameters
    ----------
    forces_mni : ndarray, shape (members, atoms, 3)
        Forces of every member in eV/Å.

    Returns
    -------
    ndarray, shape (atoms,)
        ``2.58 * sqrt(sum_m |F_im - <F_i>|^2 / (members - 1))`` in eV/Å: the half width of a 99 %
        interval, if the members scattered normally. The largest is the structure's uncertainty; nan for a single member.

    Raises
    ------
    ValueError
        There are no members, or the shape differs.

    Notes
    -----
    Equation for delta in C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022).
    """
    forces_mni = np.asarray(forces_mni, dtype=float)
    if forces_mni.ndim != 3 or forces_mni.shape[2] != 3 or not len(forces_mni):
        raise ValueError(f"Forces of shape {forces_mni.shape}: an uncertainty needs (members, atoms, 3) with at least one member.")
    if len(forces_mni) == 1:
        return np.full(forces_mni.shape[1], np.nan)
    deviations = forces_mni - forces_mni.mean(axis=0)
    return CONFIDENCE * np.sqrt((deviations**2).sum(axis=(0, 2)) / (len(forces_mni) - 1))


def are_covered(errors: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return which errors of forces are not larger than their widths.

    Parameters
    ----------
    errors : ndarray, shape (atoms,)
        Lengths of the error vectors, eV/Å.
    widths : ndarray, shape (atoms,)
        Uncertainties, or widths of a band, eV/Å.

    Returns
    -------
    ndarray of bool, shape (atoms,)
        True also where an error is roundoff, as that of a force which vanishes by symmetry in the label and in all members.
    """
    return np.asarray(errors, dtype=float) <= np.asarray(widths, dtype=float) + VANISHING


def check_threshold(threshold: float | None) -> None:
    """Raise ValueError for a threshold that `select` does not take.

    Parameters
    ----------
    threshold : float or None
        As for `select`.
    """
    if threshold is not None and not (isinstance(threshold, Real) and (threshold > 0 or -1 < threshold < 0)):
        raise ValueError(
            f"threshold is {threshold!r}: give a positive number (every atom more uncertain than that, in eV/Å), "
            "a number between -1 and 0 (-0.9 takes the most uncertain 10 %), or None (the most uncertain atom)."
        )


def select(uncertainty: np.ndarray, threshold: float | None) -> np.ndarray:
    """Select atoms that get a labelled chunk.

    Parameters
    ----------
    uncertainty : ndarray, shape (atoms,)
        Per-atom uncertainty in eV/Å.
    threshold : float or None
        Above 0: every atom above that many eV/Å. Between -1 and 0: the top fraction
        ``1 + threshold``, at least one atom. None: the most uncertain atom.

    Returns
    -------
    ndarray of int
        Indices in rising order; empty if no atom is above an absolute threshold.

    Raises
    ------
    ValueError
        For any other threshold.
    """
    check_threshold(threshold)
    uncertainty = np.asarray(uncertainty, dtype=float)
    if threshold is None:
        return np.array([int(np.argmax(uncertainty))])
    if threshold > 0:
        return np.flatnonzero(uncertainty > threshold)
    chosen = np.flatnonzero(uncertainty > np.percentile(uncertainty, 100 * abs(threshold)))
    return chosen if len(chosen) else np.array([int(np.argmax(uncertainty))])  # all are equal
