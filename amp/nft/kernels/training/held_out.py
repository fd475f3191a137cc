"""Error of a fit on images that it does not train on, and the point at which that error is smallest."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from amp.nft.kernels.training.descent import LARGEST_LAMBDA, Fit, Residuals
from amp.nft.kernels.training.loss import Problem, fill_residuals, make_scratch

BETTER = 0.999  # an improvement is an error below this part of the smallest one so far
WINDOW, LEVEL = 30, 1e-3  # the loss has levelled off if these accepted steps take less than this part off it


class HeldOut:
    """Judge of one fit by images of weight zero; it sees each accepted step.

    Parameters
    ----------
    problem : Problem
    images : ndarray of bool, shape (images,)
        Those that judge the fit.
    robust : bool
        True: the error is the mean absolute residual, which one odd image hardly moves. False: the weighted sum of squares of
        the loss. Of forces where the images have any, else of energies.
    patience : int
        Accepted steps without improvement after which the fit ends.
    energies : bool
        Multiply the square of a robust error of forces by that of the energies: a step is better if the logarithm of the energies' error
        falls by more than twice the rise of the forces'.
    """

    def __init__(self, problem: Problem, images: np.ndarray, robust: bool, patience: int, energies: bool = False) -> None:
        self._problem, self._robust, self._patience = problem, robust, patience
        self._weights, self._scratch = np.ascontiguousarray(images, dtype=np.int64), make_scratch(problem)
        residuals = Residuals(problem, self._weights)
        self._has_forces = not residuals.is_energy.all()
        self._judged = np.flatnonzero(residuals.is_energy != self._has_forces)
        self._energies = np.flatnonzero(residuals.is_energy) if energies and self._has_forces else np.zeros(0, dtype=int)
        self._share, self._buffer = residuals.share[self._judged], np.zeros(len(residuals.root))
        self._losses: deque[float] = deque(maxlen=WINDOW + 1)
        self._smallest, self._last, self._waited = np.inf, np.inf, 0
        self._best: Fit | None = None

    @property
    def distance(self) -> float:
        """Logarithm of the last error over the smallest one."""
        return float(np.log((self._last + 1e-300) / (self._smallest + 1e-300)))

    def see(self, fit: Fit) -> None:
        """Judge a point of the descent, and keep it if it is the best; the first point is always kept.

        Parameters
        ----------
        fit : Fit
        """
        fill_residuals(self._problem, fit.theta, self._weights, self._scratch, self._buffer)
        size = np.abs(self._buffer[self._judged])
        square = float(self._share @ size**2)
        self._last = float(self._share @ size) if self._robust else square
        if len(self._energies):
            self._last = self._last**2 * float(np.abs(self._buffer[self._energies]).mean())
        self._losses.append(fit.loss)
        self._waited += 1
        if self._best is None or self._last < BETTER * self._smallest:
            rmse = float(np.sqrt(square / self._share.sum())) if self._has_forces else np.nan
            self._best, self._smallest, self._waited = replace(fit, held_out_rmse=rmse), self._last, 0

    def end(self, steps: int, max_steps: int, damping: float) -> Fit | None:
        """Return the best point if the fit ends.

        Parameters
        ----------
        steps, max_steps : int
            Accepted steps, and their limit.
        damping : float
            Present damping of the Levenberg-Marquardt steps.

        Returns
        -------
        Fit or None
            None while it continues.
        """
        level = len(self._losses) > WINDOW and self._losses[0] - self._losses[-1] < LEVEL * self._losses[0]
        outcome = "converged" if self._waited >= self._patience else "level" if level or damping > LARGEST_LAMBDA else ""
        if not outcome and steps < max_steps:
            return None
        assert self._best is not None
        return replace(self._best, outcome=outcome or "exhausted", steps=steps, best_step=self._best.steps)
