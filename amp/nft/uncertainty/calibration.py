"""Compare predicted uncertainties with the errors of labels that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc

from amp.nft.uncertainty.forces import CONFIDENCE


@dataclass(frozen=True)
class Calibration:
    """How honest uncertainties were, and what would make them so; `before` is as predicted, `after` is scaled.

    Attributes
    ----------
    factor : float
        Multiply predicted uncertainties by this. The fixed 2.58 is never replaced by it.
    nll_before, nll_after : float
        Mean negative log-likelihood of the error vectors (in eV/Å).
    area_before, area_after : float
        Miscalibration area, 0 (perfect) to 0.5.
    coverage_before, coverage_after : float
        Fraction of the errors that are not larger than the uncertainty.
    n : int
        Number of errors.
    """

    factor: float
    nll_before: float
    nll_after: float
    area_before: float
    area_after: float
    coverage_before: float
    coverage_after: float
    n: int

    def __str__(self) -> str:
        return (
            f"factor {self.factor:.3g} on {self.n} forces; as predicted -> scaled: coverage "
            f"{self.coverage_before:.3f} -> {self.coverage_after:.3f}, miscalibration area {self.area_before:.3f} -> "
            f"{self.area_after:.3f}, negative log-likelihood {self.nll_before:.3f} -> {self.nll_after:.3f}"
        )


def calibrate(predicted: np.ndarray, actual: np.ndarray) -> Calibration:
    """Find the factor that makes uncertainties honest on labels that were not trained on.

    Parameters
    ----------
    predicted : ndarray, shape (atoms,)
        Uncertainties as `force_uncertainty` gives them, factor 2.58 included, eV/Å.
    actual : ndarray, shape (atoms, 3) or (atoms,)
        Errors of the mean force, as vectors or their lengths, eV/Å.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If the shapes do not fit, or an uncertainty is not positive and finite.

    Notes
    -----
    Error vectors are taken as normal and isotropic with the standard deviation ``factor * predicted / 2.58``
    (of the whole vector), whose likelihood the factor maximises. The miscalibration area lies between expected and
    observed fractions of errors within each quantile: K. Tran et al., Mach. Learn.: Sci. Technol. 1, 025006
    (2020); V. Kuleshov, N. Fenner, S. Ermon, ICML (2018).
    """
    sigma, errors = _sigmas_and_errors(predicted, actual)
    factor = float(np.sqrt(np.mean((errors / sigma) ** 2)))
    scores = [_scores(sigma * scale, errors) for scale in (1.0, factor)]
    (nll, area, coverage), (nll_after, area_after, coverage_after) = scores
    return Calibration(factor, nll, nll_after, area, area_after, coverage, coverage_after, len(errors))


def _sigmas_and_errors(predicted: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations and lengths of the error vectors, checked."""
    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if predicted.ndim != 1 or not len(predicted) or actual.shape not in (predicted.shape, (*predicted.shape, 3)):
        raise ValueError(f"predicted has shape {predicted.shape} and actual {actual.shape}: give (atoms,) and (atoms, 3) or (atoms,).")
    errors = np.linalg.norm(actual, axis=1) if actual.ndim == 2 else np.abs(actual)
    if not (np.isfinite(predicted).all() and (predicted > 0).all() and np.isfinite(errors).all() and errors.any()):
        raise ValueError("Uncertainties must be positive and finite, errors finite and not all zero.")
    return predicted / CONFIDENCE, errors


def _scores(sigma: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Negative log-likelihood, miscalibration area and coverage for vectors of standard deviation `sigma`."""
    variance = sigma**2 / 3  # of one component
    nll = np.mean(errors**2 / (2 * variance) + 1.5 * np.log(2 * np.pi * variance))
    quantiles = np.sort(gammainc(1.5, errors**2 / (2 * variance)))  # chi distribution of a vector's length
    expected = np.linspace(0, 1, 1001)
    observed = np.searchsorted(quantiles, expected, side="right") / len(quantiles)
    area = np.mean(np.abs(observed - expected))
    return float(nll), float(area), float(np.mean(errors <= CONFIDENCE * sigma))
