"""True forces on the targets from the user."""

from __future__ import annotations

from typing import Any

import numpy as np

from amp.nft.inputs.label_keys import check_keys, forces_of
from amp.nft.inputs.structures import read_images
from amp.nft.run.history import Run


def read_truth(truth: Any, run: Run, forces_key: str | None = None) -> np.ndarray | None:
    """Return true forces on the atoms of all targets, shape (atoms, 3), from the user's argument.

    Parameters
    ----------
    truth : list of Atoms, Atoms, path or None
        The targets with forces of the parent, in their order.
    run : Run
    forces_key : str, optional
        Name of the forces in the arrays; those of the calculator if not given.

    Returns
    -------
    ndarray or None

    Raises
    ------
    ValueError
        If these are not the targets, or carry no forces.
    """
    check_keys(forces_key=forces_key)
    if truth is None:
        return None
    images = read_images(truth, "truth")
    if [list(image.numbers) for image in images] != [list(target.numbers) for target in run.targets] or not all(
        np.allclose(image.positions, target.positions, atol=1e-3) for image, target in zip(images, run.targets, strict=True)
    ):
        raise ValueError("truth is not the run's target: give the same atoms in the same order, at the same places (0.001 Å).")
    return np.concatenate([forces_of(image, "truth", forces_key) for image in images])
