"""True forces on the targets from the user."""

from __future__ import annotations

from typing import Any

import numpy as np

from amp.nft.inputs.structures import read_images
from amp.nft.run.history import Run


def read_truth(truth: Any, run: Run) -> np.ndarray | None:
    """Return true forces on the atoms of all targets, shape (atoms, 3), from the user's argument.

    Parameters
    ----------
    truth : list of Atoms, Atoms, path or None
        The targets with forces of the parent, in their order.
    run : Run

    Returns
    -------
    ndarray or None

    Raises
    ------
    ValueError
        If these are not the targets, or carry no forces.
    """
    if truth is None:
        return None
    images = read_images(truth, "truth")
    if [list(image.numbers) for image in images] != [list(target.numbers) for target in run.targets] or not all(
        np.allclose(image.positions, target.positions, atol=1e-3) for image, target in zip(images, run.targets, strict=True)
    ):
        raise ValueError("truth is not the run's target: give the same atoms in the same order, at the same places (0.001 Å).")
    try:
        return np.concatenate([image.get_forces(apply_constraint=False) for image in images])
    except Exception as error:  # ASE raises several kinds where there are no forces
        raise ValueError(f"truth carries no forces ({type(error).__name__}: {error}): compute them with the parent.") from error
