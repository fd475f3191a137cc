"""Checks of labels and their weights before a fit."""

from __future__ import annotations

import numpy as np

from amp.nft.errors import InputError
from amp.nft.kernels.training.labelled import LabelledImages


def check_labels(images: LabelledImages, weights_mi: np.ndarray) -> None:
    """Check that labels fit their images and are finite.

    Parameters
    ----------
    images : LabelledImages
    weights_mi : ndarray of int, shape (members, images)
        Multiplicity of each image in each member's sample.

    Raises
    ------
    InputError
        Sizes differ, a label is not finite, or a member has no image.
    """
    energies, forces, rows = images.energies, images.forces, images.rows
    if not len(energies) == len(forces) == len(rows) == np.shape(weights_mi)[-1]:
        sizes = f"{len(energies)} energies, {len(forces)} sets of forces, weights for {np.shape(weights_mi)[-1]}"
        raise InputError(f"{sizes}, but {len(rows)} images: give one of each for each image.")
    for i, (force, row) in enumerate(zip(forces, rows, strict=True)):
        if np.shape(force) != (len(row.force_start) - 1, 3) or not np.isfinite(force).all():
            raise InputError(f"the forces of image {i} are not {len(row.force_start) - 1} finite vectors: label it again.")
    if np.isinf(energies).any():
        raise InputError(f"the energy of image {np.flatnonzero(np.isinf(energies))[0]} is not finite: label it again.")
    empty = np.flatnonzero((np.asarray(weights_mi) > 0).sum(axis=1) == 0)
    if len(empty):
        raise InputError(f"member {empty[0]} has no image of weight above 0: draw its sample again.")


def check_weights(images: LabelledImages) -> None:
    """Check that the weights of labels fit them and are finite and not negative.

    Parameters
    ----------
    images : LabelledImages

    Raises
    ------
    InputError
        Sizes differ, or a weight or divisor is not finite, negative, or 0 for a divisor.
    """
    forces, force_weights = images.forces, images.force_weights
    if force_weights is not None and len(force_weights) != len(forces):
        raise InputError(f"force_weights has {len(force_weights)} arrays for {len(forces)} images: give one array per image.")
    for i, weights in enumerate(force_weights or ()):
        if np.shape(weights) != (len(forces[i]),) or not (np.isfinite(weights) & (np.asarray(weights) >= 0.0)).all():
            raise InputError(f"force_weights[{i}] is not {len(forces[i])} finite numbers of 0 or more: give one per trained force.")
    for name, least, values in (("energy_weights", 0.0, images.energy_weights), ("divisors", np.finfo(float).tiny, images.divisors)):
        if values is None:
            continue
        if np.shape(values) != (len(forces),) or not (np.isfinite(values) & (np.asarray(values) >= least)).all():
            rule = "above 0" if least else "of 0 or more"
            raise InputError(f"{name} is not {len(forces)} finite numbers {rule}: give one per image.")
