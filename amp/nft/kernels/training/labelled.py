"""Labelled images of a fit: fingerprints, labels and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Fingerprints and labels of the images of a fit.

    Attributes
    ----------
    rows : sequence of Rows
        Fingerprints of each image; `Rows.kind` counts the sorted elements of the layout.
    energies : ndarray, shape (images,)
        In eV; nan for an energy that is not trained.
    forces : sequence of ndarray, shape (forces, 3)
        Trained forces of each image, eV/Å.
    n_atoms : ndarray of int, shape (images,)
        Atoms of each whole image, by which its energy is divided.
    force_weights : sequence of ndarray, shape (forces,), optional
        Of each image, the weight of each trained force, 0 or more; 1 if not given. The criteria apply to residuals times the
        root of their weight.
    energy_weights : ndarray, shape (images,), optional
        Weight of each energy; 1 if not given. An energy of weight 0 is not trained.
    divisors : ndarray, shape (images,), optional
        Divisor of the sum over the weighted forces of each image in the loss. If not given, the number of forces, as in Amp.
    """

    rows: Sequence[Any]
    energies: np.ndarray
    forces: Sequence[np.ndarray]
    n_atoms: np.ndarray
    force_weights: Sequence[np.ndarray] | None = None
    energy_weights: np.ndarray | None = None
    divisors: np.ndarray | None = None
