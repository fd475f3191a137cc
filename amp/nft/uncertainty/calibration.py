"""Compare predicted uncertainties with errors: of labels that were not trained on, out of bag, and of random labels.

A force error is taken as a normal, isotropic vector; its standard deviation is that of the whole vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, fdtri, gammainc

from amp.nft.errors import InputError
from amp.nft.uncertainty.forces import CONFIDENCE, VANISHING, are_covered

LEVEL = 0.95  # of bands and one-sided bounds
MEAN_OVER_RMS = float(np.sqrt(8.0 / (3.0 * np.pi)))  # of the length of such a vector
LEAST_MEMBERS = 2  # members out of bag that have a standard deviation
LEAST_FORCES = 3  # forces from which a factor is stated


def quantile_over_rms(level: float) -> float:
    """Return the quantile of the length of a normal, isotropic vector, in units of its root mean square.

    Parameters
    ----------
    level : float
        Between 0 and 1; 0.95 gives 1.614.

    Returns
    -------
    float
    """
    return float(np.sqrt(chdtri(3, 1.0 - level) / 3.0))


@dataclass(frozen=True)
class Calibration:
    """Calibration of uncertainties; `before` is as predicted, `after` is scaled.

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
    """Find the factor that calibrates uncertainties on labels that were not trained on.

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
    """Return checked standard deviations and lengths of the error vectors."""
    predicted, actual = np.asarray(predicted, dtype=float), np.asarray(actual, dtype=float)
    if predicted.ndim != 1 or not len(predicted) or actual.shape not in (predicted.shape, (*predicted.shape, 3)):
        raise InputError(f"predicted has shape {predicted.shape} and actual {actual.shape}: give (atoms,) and (atoms, 3) or (atoms,).")
    errors = np.linalg.norm(actual, axis=1) if actual.ndim == 2 else np.abs(actual)
    if not (np.isfinite(predicted).all() and (predicted > 0).all() and np.isfinite(errors).all() and errors.any()):
        raise InputError("Uncertainties must be positive and finite, errors finite and not all zero.")
    return predicted / CONFIDENCE, errors


def _scores(sigma: np.ndarray, errors: np.ndarray) -> tuple[float, float, float]:
    """Return negative log-likelihood, miscalibration area and coverage for vectors of standard deviation `sigma`."""
    variance = sigma**2 / 3  # of one component
    nll = np.mean(errors**2 / (2 * variance) + 1.5 * np.log(2 * np.pi * variance))
    quantiles = np.sort(gammainc(1.5, errors**2 / (2 * variance)))  # chi distribution of a vector's length
    expected = np.linspace(0, 1, 1001)
    observed = np.searchsorted(quantiles, expected, side="right") / len(quantiles)
    area = np.mean(np.abs(observed - expected))
    return float(nll), float(area), float(np.mean(are_covered(errors, CONFIDENCE * sigma)))


@dataclass(frozen=True)
class OutOfBag:
    """Calibration of the uncertainty by forces, each predicted by the members that were not trained on it.

    Attributes
    ----------
    factor : float
        c: ``c * uncertainty`` covers 95 % of the errors.
    coverage : float
        Fraction of the out-of-bag errors within c times their uncertainty.
    rms_error : float
        Root mean square length of the out-of-bag errors, eV/Å.
    n : int
        Number of forces.
    """

    factor: float
    coverage: float
    rms_error: float
    n: int


def calibrate_out_of_bag(forces_mni: np.ndarray, known_ni: np.ndarray, weights_mn: np.ndarray, least: float = 0.0) -> OutOfBag | None:
    """Calibrate the uncertainty with the training labels, without further ones.

    Parameters
    ----------
    forces_mni : ndarray, shape (members, forces, 3)
        Predictions of labelled forces, eV/Å.
    known_ni : ndarray, shape (forces, 3)
        Their labels, eV/Å.
    weights_mn : ndarray, shape (members, forces)
        Multiplicity of each force in each member's bootstrap sample.
    least : float
        Smallest factor, where forces out of a sample are not independent of those in it.

    Returns
    -------
    OutOfBag or None
        None if fewer than three forces are out of the samples of two members.

    Raises
    ------
    ValueError
        The shapes do not fit together.

    Notes
    -----
    With d the error of the mean of the members whose sample lacks the force, and s their standard deviation, the factor is
    ``1.614 g / 2.58`` where g is the root mean square of d/s.
    """
    forces_mni, known_ni, weights_mn = (np.asarray(a, dtype=float) for a in (forces_mni, known_ni, weights_mn))
    if forces_mni.shape != (*weights_mn.shape, 3) or known_ni.shape != forces_mni.shape[1:]:
        raise InputError(
            f"Forces of shape {forces_mni.shape}, labels {known_ni.shape}, weights {weights_mn.shape}: "
            "give (members, forces, 3), (forces, 3) and (members, forces)."
        )
    out = (weights_mn == 0).astype(float)
    n_out = out.sum(axis=0)
    mean = np.einsum("mn,mni->ni", out, forces_mni) / np.maximum(n_out, 1)[:, None]
    square = np.einsum("mn,mni->n", out, (forces_mni - mean) ** 2)
    std = np.sqrt(square / np.maximum(n_out - 1, 1))
    judged = (n_out >= LEAST_MEMBERS) & (std > VANISHING)
    if judged.sum() < LEAST_FORCES:
        return None
    error, std = np.linalg.norm(mean - known_ni, axis=1)[judged], std[judged]
    width = max(quantile_over_rms(LEVEL) * np.sqrt(np.mean((error / std) ** 2)), least * CONFIDENCE)
    rms = float(np.sqrt(np.mean(error**2)))
    return OutOfBag(float(width / CONFIDENCE), float(np.mean(are_covered(error, width * std))), rms, int(judged.sum()))


def error95_floor(differences_l: np.ndarray) -> float | None:
    """Return the width below which a 95 % band of the force error says less than the labels allow.

    Parameters
    ----------
    differences_l : ndarray, shape (larger labels,)
        Lengths of the differences between labels and labels of the same atoms in larger chunks, eV/Å.

    Returns
    -------
    float or None
        1.614 times their root mean square, the 95 % quantile of a normal vector of that size, eV/Å; None without any.

    Notes
    -----
    Out-of-bag errors are differences from labels, and do not contain the error that all labels share. In such a case members agree
    where all are wrong: on Mg50O50 the factor alone covered 0.18 to 0.92 of the errors.
    """
    differences_l = np.asarray(differences_l, dtype=float)
    return quantile_over_rms(LEVEL) * float(np.sqrt(np.mean(differences_l**2))) if len(differences_l) else None


def error95(uncertainty: np.ndarray, factor: float, floor: float | None = None) -> np.ndarray:
    """Return the 95 % band of the force error.

    Parameters
    ----------
    uncertainty : ndarray
        As `force_uncertainty` gives it, eV/Å.
    factor : float
        From `calibrate_out_of_bag`.
    floor : float, optional
        From `error95_floor`, eV/Å: no part of the band is narrower. Not known if not given.

    Returns
    -------
    ndarray
        In eV/Å, in the shape of `uncertainty`.
    """
    return np.maximum(factor * np.asarray(uncertainty), floor or 0.0)


@dataclass(frozen=True)
class Bounds:
    """One-sided 95 % bounds on force errors, eV/Å.

    Attributes
    ----------
    mean, max : float
        On the mean and the largest error.
    estimate : float
        Of the mean error, not a bound.
    n : int
        Number of random labels.
    """

    mean: float
    max: float
    estimate: float
    n: int


def bound_errors(errors_k: np.ndarray, std_k: np.ndarray, std_i: np.ndarray, label_error: float = 0.0) -> Bounds:
    """Bound the errors on a target from labels of atoms drawn at random.

    Parameters
    ----------
    errors_k : ndarray, shape (labels,)
        Lengths of the errors of the mean force on the drawn atoms, eV/Å.
    std_k : ndarray, shape (labels,)
        Predicted standard deviation there, eV/Å: the uncertainty over 2.58.
    std_i : ndarray, shape (atoms,)
        The same on all atoms from which the labels were drawn.
    label_error : float
        Root mean square length of the labels' own errors, eV/Å. It lowers the estimate, never a bound.

    Returns
    -------
    Bounds

    Raises
    ------
    ValueError
        There is no label, the shapes do not fit, or a standard deviation is not positive.

    Notes
    -----
    With z = error / std of K labels, s² = <z²> 3K / chi²_{3K}(0.05) bounds the factor between the true and the predicted
    variance. The mean error is at most 0.921 s <std>, the largest of N at most s max(std) sqrt(chi²_3(0.95^(1/N)) / 3).
    """
    errors_k, std_k, std_i = (np.asarray(a, dtype=float) for a in (errors_k, std_k, std_i))
    if errors_k.ndim != 1 or not len(errors_k) or std_k.shape != errors_k.shape or std_i.ndim != 1 or not len(std_i):
        shapes = f"{errors_k.shape}, {std_k.shape} and {std_i.shape}"
        raise InputError(f"errors_k, std_k and std_i have shapes {shapes}: give (labels,), (labels,) and (atoms,), none empty.")
    if not (np.isfinite(errors_k).all() and (std_k > 0).all() and (std_i > 0).all() and np.isfinite(std_i).all()):
        raise InputError("Errors must be finite and standard deviations positive: an ensemble whose members agree bounds nothing.")
    n = 3 * len(errors_k)
    scale = float(np.sqrt(np.mean((errors_k / std_k) ** 2) * n / chdtri(n, LEVEL)))  # chdtri: upper tail
    estimate = MEAN_OVER_RMS * np.sqrt(max(np.mean(errors_k**2) - label_error**2, 0.0))
    largest = quantile_over_rms(LEVEL ** (1.0 / len(std_i)))
    return Bounds(MEAN_OVER_RMS * scale * float(std_i.mean()), scale * float(std_i.max()) * largest, float(estimate), len(errors_k))


def is_label_error(errors_k: np.ndarray, differences_l: np.ndarray) -> bool:
    """Return True if errors cannot be distinguished from those of the labels.

    Parameters
    ----------
    errors_k : ndarray, shape (labels,)
        Lengths of the errors of the mean force, eV/Å.
    differences_l : ndarray, shape (larger labels,)
        Lengths of the differences between labels and labels of the same atoms in larger chunks, eV/Å; none is never enough.

    Returns
    -------
    bool
        True if the ratio of their mean squares is below the 95 % quantile of the F distribution.
    """
    errors_k, differences_l = np.asarray(errors_k, dtype=float), np.asarray(differences_l, dtype=float)
    if not len(errors_k) or not len(differences_l):
        return False
    limit = fdtri(3 * len(errors_k), 3 * len(differences_l), LEVEL)
    return bool(np.mean(errors_k**2) < limit * np.mean(differences_l**2))
