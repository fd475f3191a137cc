"""Out-of-bag stop: each member keeps its best parameters by the error on images that its bootstrap sample lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from amp.nft.kernels.training.descent import Fit
from amp.nft.kernels.training.held_out import HeldOut
from amp.nft.kernels.training.loss import Problem

Until = Literal["criteria", "out-of-bag"]
UNTIL: tuple[Until, ...] = ("criteria", "out-of-bag")
LEAST_CHUNKS = 3  # out-of-bag chunks that can judge a member; with fewer all out-of-bag images do
PATIENCE, LONG_PATIENCE = 15, 80  # accepted steps without improvement, for few and for many forces
MANY_FORCES = 2000  # trained force vectors of a data set from which patience is long


@dataclass(frozen=True)
class Judges:
    """Images that judge one member.

    Attributes
    ----------
    images : ndarray of bool, shape (images,)
    robust : bool
        True: the error is the mean absolute residual, for a data set. False: the loss, for chunks of one target.
    patience : int
        Accepted steps without improvement after which its fit ends.
    """

    images: np.ndarray
    robust: bool
    patience: int

    def over(self, problem: Problem) -> HeldOut:
        """Return the judge of one descent.

        Parameters
        ----------
        problem : Problem

        Returns
        -------
        HeldOut
        """
        return HeldOut(problem, self.images, self.robust, self.patience)


def choose_judges(weights_i: np.ndarray, chunk_i: Sequence[bool] | np.ndarray, n_forces_i: np.ndarray) -> Judges | None:
    """Choose the images that judge a member.

    Parameters
    ----------
    weights_i : ndarray, shape (images,)
        Multiplicity of each image in the member's sample.
    chunk_i : sequence of bool, shape (images,)
        True for chunks of a target.
    n_forces_i : ndarray of int, shape (images,)
        Trained force vectors of each image; only images with forces judge, unless none has any.

    Returns
    -------
    Judges or None
        None if every image is in the member's sample.

    Notes
    -----
    The squared loss is right for chunks of one target. On a data set one odd image moves it tenfold; the mean absolute residual
    and a longer patience are then needed.
    """
    chunk_i, n_forces_i = np.asarray(chunk_i, dtype=bool), np.asarray(n_forces_i)
    out = (np.asarray(weights_i) == 0) & ((n_forces_i > 0) | (n_forces_i.max(initial=0) == 0))
    if not out.any():
        return None
    robust = not chunk_i.any()
    patience = LONG_PATIENCE if robust and n_forces_i.sum() >= MANY_FORCES else PATIENCE
    chunks = out & chunk_i
    return Judges(chunks if chunks.sum() >= LEAST_CHUNKS else out, robust, patience)


def describe(fit: Fit) -> str:
    """Return in words how a judged fit ended.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    str
    """
    how = {
        "converged": "stopped at its out-of-bag minimum",
        "level": "loss levelled off; kept its out-of-bag minimum",
        "exhausted": "maxiter reached before an out-of-bag minimum was confirmed; kept the best so far",
    }[fit.outcome]
    error = "" if np.isnan(fit.held_out_rmse) else f"; out-of-bag force error {fit.held_out_rmse:.3g} eV/Å"
    return f"{how}, step {fit.best_step} of {fit.steps}{error}"
