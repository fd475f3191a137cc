"""Mean label error of all atoms of a target, from a few labels and the errors of a cheap calculator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # not scipy.stats, which takes half a second to import

SHARPER = 0.5  # of the spread: by less, the errors of a few atoms look proportional by chance
_SHOWN = 1e-4  # eV/Å; a smaller error is shown as below it, since no label is that exact


@dataclass(frozen=True)
class Estimate:
    """Mean label error over all atoms of the target, from a few, with its 95 % interval, and the largest one found; eV/Å."""

    mean: float
    low: float
    high: float
    largest: float
    n_atoms: int

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "too few labels"
        return f"{_shown(self.mean)} ({_shown(self.low)} to {_shown(self.high)}), largest {_shown(self.largest)}"


def mean_error(errors_a: np.ndarray, cheap_a: np.ndarray | None = None, mean_cheap: float = np.nan) -> Estimate:
    """Estimate the mean error of all atoms.

    Parameters
    ----------
    errors_a : ndarray, shape (atoms,)
        Errors of some atoms, eV/Å; nan where there is no label.
    cheap_a : ndarray, shape (atoms,), optional
        Errors of a cheap calculator on the same atoms. Where they are proportional to `errors_a`, they sharpen the estimate.
    mean_cheap : float
        Mean of the cheap errors over all atoms of the target.

    Returns
    -------
    Estimate
        With an interval by Student's t; nan for fewer than two labels.
    """
    known = errors_a[np.isfinite(errors_a)]
    n = len(known)
    if n < 2:
        return Estimate(np.nan, np.nan, np.nan, np.nan, n)
    mean, spread = float(known.mean()), float(known.std(ddof=1) / np.sqrt(n))
    if cheap_a is not None:
        by_ratio = _ratio(errors_a, cheap_a, mean_cheap)
        mean, spread = by_ratio if by_ratio[1] < SHARPER * spread else (mean, spread)
    # Errors are positive and skewed: the interval is symmetric in their logarithm, and for narrow ones that of Student's t.
    factor = float(np.exp(stdtrit(n - 1, 0.975) * spread / mean)) if mean else 1.0
    return Estimate(mean, mean / factor, mean * factor, float(known.max()), n)


def _ratio(errors: np.ndarray, cheap: np.ndarray, mean_cheap: float) -> tuple[float, float]:
    """Return the mean over all atoms and its standard error, for errors that are proportional to those of a cheap calculator."""
    known = np.isfinite(errors) & np.isfinite(cheap)
    if known.sum() < 3 or not cheap[known].any():
        return np.nan, np.inf
    ratio = errors[known].sum() / cheap[known].sum()
    residuals = errors[known] - ratio * cheap[known]
    spread = np.sqrt((residuals**2).sum() / (known.sum() - 1) / known.sum()) * mean_cheap / cheap[known].mean()
    return float(ratio * mean_cheap), float(spread)


def _shown(value: float) -> str:
    return f"{value:.2g}" if value >= _SHOWN or np.isnan(value) else f"<{_SHOWN:g}"
