"""Labels of an image that are trained, and their weights in the loss."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from amp.nft.records import ForceRows, TrainingTask


def trained_energy(image: Atoms, chosen: ForceRows | None) -> float:
    """Return the energy that is trained.

    Parameters
    ----------
    image : Atoms
        With its label.
    chosen : ForceRows or None
        None: the energy and all forces are trained.

    Returns
    -------
    float
        In eV; nan if the energy is not trained.
    """
    return image.get_potential_energy() if energy_weight(chosen) > 0.0 else np.nan


def trained_forces(image: Atoms, chosen: ForceRows | None) -> np.ndarray:
    """Return the forces that are trained.

    Parameters
    ----------
    image, chosen : as there
        As for :func:`trained_energy`.

    Returns
    -------
    ndarray, shape (forces, 3)
        In eV/Å.
    """
    forces = image.get_forces(apply_constraint=False)
    return forces if chosen is None else forces[list(chosen.atoms)]


def force_weights(image: Atoms, chosen: ForceRows | None) -> np.ndarray:
    """Return the weight of each trained force.

    Parameters
    ----------
    image, chosen : as there
        As for :func:`trained_energy`.

    Returns
    -------
    ndarray, shape (forces,)
    """
    return np.ones(len(image)) if chosen is None else np.array(chosen.weights)


def force_divisor(image: Atoms, chosen: ForceRows | None) -> float:
    """Return the divisor of the sum over the forces of an image in the loss: their number as in Amp, 1 for a chunk.

    Parameters
    ----------
    image, chosen : as there
        As for :func:`trained_energy`.

    Returns
    -------
    float
    """
    return float(len(image)) if chosen is None else 1.0


def energy_weight(chosen: ForceRows | None) -> float:
    """Return the weight of the energy.

    Parameters
    ----------
    chosen : ForceRows or None

    Returns
    -------
    float
    """
    return 1.0 if chosen is None else chosen.energy


def calibrating_forces(task: TrainingTask) -> list[range]:
    """Choose the forces that calibrate: of the central atoms of chunks, or all of a data set without a target.

    Parameters
    ----------
    task : TrainingTask

    Returns
    -------
    list of range
        Trained forces of each image; none of the first images of a run, which represent its target poorly.
    """
    if task.targets or any(rows is not None for rows in task.rows):
        return [range(rows is not None) for rows in task.rows]  # the central atom comes first
    return [range(len(image)) for image in task.images]
