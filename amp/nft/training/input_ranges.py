"""Ranges of the fingerprints, which are scaled to [-1, 1] for the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows

DISPLACEMENT = 0.3  # Å; a range holds the change of the fingerprint when one atom moves by this to either side


def ranges_of(fingerprints: Fingerprints, rows: Sequence[Rows], displacement: float = 0.0) -> dict[str, np.ndarray]:
    """Return the range of each fingerprint over some images.

    Parameters
    ----------
    fingerprints : Fingerprints
    rows : sequence of Rows
        Of the images. Those with forces have derivatives.
    displacement : float
        The range is made at least as wide as the change of the fingerprint, to first order, when one atom moves by this distance (Å) to
        either side, for the atom and the environment where it changes most. 0: the range is from the smallest to the largest value.

    Returns
    -------
    dict of str to ndarray, shape (features, 2)

    Notes
    -----
    A molecule that occurs once has the same bond in each chunk, so the fingerprints of its atoms hardly vary among the images, but
    change much when the bond does. Scaled by the values alone such inputs are magnified without limit, and so are the forces of a
    network with random weights: on carbon monoxide at a surface, members predicted hundreds of eV/Å for chunks that they lacked.
    """
    x, kind = np.concatenate([some.x for some in rows]), np.concatenate([some.kind for some in rows])
    ranges = {}
    for number, element in enumerate(fingerprints.elements):
        values = x[kind == number, : fingerprints.n_features[number]]
        low, high = values.min(axis=0), values.max(axis=0)
        if displacement > 0.0:
            more = np.maximum(displacement * _largest_slopes(rows, number, len(low)) - (high - low) / 2, 0.0)
            low, high = low - more, high + more
        ranges[element] = np.column_stack([low, high])
    return ranges


def _largest_slopes(rows: Sequence[Rows], number: int, n_features: int) -> np.ndarray:
    """Return the largest gradient of each fingerprint of an element in the position of one atom, 1/Å."""
    slopes = np.zeros(n_features)
    for some in rows:
        dx = some.dx[some.kind[some.force_row] == number][..., :n_features]
        if len(dx):
            np.maximum(slopes, np.sqrt(np.einsum("exf,exf->ef", dx, dx).max(axis=0)), out=slopes)
    return slopes
