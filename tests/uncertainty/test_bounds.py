"""Bounds on errors from random labels, and the out-of-bag calibration, against synthetic draws whose truth is known."""

import numpy as np
import pytest
from scipy.stats import chi2, f

from amp.nft.uncertainty import bound_errors, calibrate_out_of_bag, error95, error95_floor, force_uncertainty, is_label_error
from amp.nft.uncertainty.calibration import MEAN_OVER_RMS, quantile_over_rms

DRAWS = 400
LEVEL = 0.95
SLACK = 0.033  # of a fraction over 400 draws: three standard deviations at 0.95
SAMPLING = 0.02  # of a mean over 40 000 draws
COVERAGE = 0.05  # of the calibrated band, which takes members and their mean as equally wide


def lengths(std, rng):
    """Lengths of normal, isotropic vectors whose root mean square is `std`."""
    return np.linalg.norm(rng.normal(size=(len(std), 3)) * (std / np.sqrt(3))[:, None], axis=1)


def test_constants_of_a_normal_vector():
    assert quantile_over_rms(0.95) == pytest.approx(np.sqrt(chi2.ppf(0.95, 3) / 3), rel=1e-12)
    length = lengths(np.full(40_000, 2.0), np.random.default_rng(0))
    assert length.mean() / 2.0 == pytest.approx(MEAN_OVER_RMS, rel=SAMPLING)


@pytest.mark.parametrize("n_labels", [5, 10])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_bounds_hold_in_as_many_draws_as_they_promise(n_labels, scale):
    """The true errors are `scale` times the predicted ones, which bounds do not know."""
    rng = np.random.default_rng(n_labels)
    std = rng.lognormal(-3.0, 0.4, 200)
    valid = []
    for _ in range(DRAWS):
        errors = lengths(scale * std, rng)
        drawn = rng.choice(len(std), n_labels, replace=False)
        bounds = bound_errors(errors[drawn], std[drawn], std)
        valid.append((bounds.mean >= errors.mean(), bounds.max >= errors.max()))
    mean_valid, max_valid = np.mean(valid, axis=0)
    assert mean_valid >= LEVEL - SLACK
    assert max_valid >= LEVEL - SLACK


def test_bounds_of_one_hand_made_case():
    bounds = bound_errors(np.full(10, 0.2), np.full(10, 0.1), np.array([0.1, 0.3]), label_error=0.1)
    scale = np.sqrt(4.0 * 30 / chi2.ppf(0.05, 30))
    assert bounds.mean == pytest.approx(MEAN_OVER_RMS * scale * 0.2, rel=1e-10)
    assert bounds.max == pytest.approx(scale * 0.3 * np.sqrt(chi2.ppf(0.95**0.5, 3) / 3), rel=1e-10)
    assert bounds.estimate == pytest.approx(MEAN_OVER_RMS * np.sqrt(0.03), rel=1e-10)
    assert bounds.n == 10


def test_a_label_error_lowers_no_bound():
    plain, lowered = (bound_errors(np.full(5, 0.2), np.full(5, 0.1), np.full(9, 0.1), error) for error in (0.0, 0.5))
    assert (plain.mean, plain.max) == (lowered.mean, lowered.max)
    assert lowered.estimate == 0.0 < plain.estimate


@pytest.mark.parametrize(
    ("errors", "std", "all_std"),
    [([], [], [1.0]), ([1.0], [0.0], [1.0]), ([1.0], [1.0], []), ([np.nan], [1.0], [1.0]), ([1.0], [1.0, 2.0], [1.0])],
)
def test_what_bounds_nothing_is_refused(errors, std, all_std):
    with pytest.raises(ValueError, match=r"shapes|standard deviations"):
        bound_errors(np.array(errors), np.array(std), np.array(all_std))


def test_errors_of_the_labels_are_recognized():
    rng = np.random.default_rng(3)
    of_labels = [is_label_error(lengths(np.full(10, 0.1), rng), lengths(np.full(5, 0.1), rng)) for _ in range(DRAWS)]
    assert np.mean(of_labels) == pytest.approx(LEVEL, abs=SLACK)
    assert not is_label_error(np.full(10, 0.3), np.full(5, 0.1))
    assert is_label_error(np.full(10, 0.101 * np.sqrt(f.ppf(0.95, 30, 15)) / 1.02), np.full(5, 0.1))
    assert not is_label_error(np.full(10, 0.1), np.zeros(0))


def ensemble(n_forces, spread, bias, rng):
    """Members that scatter by `spread` about a mean which is wrong by `bias`; labels; and bootstrap weights."""
    known = rng.normal(size=(n_forces, 3))
    mean = known + bias / np.sqrt(3) * rng.normal(size=(n_forces, 3))
    forces = mean + spread / np.sqrt(3) * rng.normal(size=(10, n_forces, 3))
    return forces, known, rng.poisson(1.0, (10, n_forces))


def test_calibrated_bands_cover_errors():
    rng = np.random.default_rng(5)
    forces, known, weights = ensemble(2000, 0.1, 0.3, rng)
    found = calibrate_out_of_bag(forces, known, weights)
    error = np.linalg.norm(forces.mean(axis=0) - known, axis=1)
    covered = np.mean(error <= found.factor * force_uncertainty(forces))
    assert covered == pytest.approx(LEVEL, abs=COVERAGE)
    assert np.mean(error <= force_uncertainty(forces)) < 0.8
    assert found.coverage == pytest.approx(LEVEL, abs=COVERAGE)


def test_only_members_that_lack_a_force_predict_it():
    """Members that were trained on a force give it exactly, which must not count."""
    forces, known, weights = ensemble(50, 0.1, 0.3, np.random.default_rng(6))
    found = calibrate_out_of_bag(forces, known, weights)
    fitted = np.where((weights > 0)[:, :, None], known, forces)
    assert calibrate_out_of_bag(fitted, known, weights) == found


def test_the_factor_scales_with_the_errors():
    forces, known, weights = ensemble(300, 0.1, 0.2, np.random.default_rng(7))
    found = calibrate_out_of_bag(forces, known, weights)
    scaled = calibrate_out_of_bag(5 * forces, 5 * known, weights)
    wider = calibrate_out_of_bag(forces, known, weights, least=2 * found.factor)
    assert wider.factor == 2 * found.factor and wider.coverage >= found.coverage and wider.rms_error == found.rms_error
    assert calibrate_out_of_bag(forces, known, weights, least=0.5 * found.factor) == found
    assert scaled.factor == pytest.approx(found.factor, rel=1e-10)
    assert scaled.rms_error == pytest.approx(5 * found.rms_error, rel=1e-10)


def test_too_few_forces_out_of_bag_give_no_factor():
    forces, known, weights = ensemble(20, 0.1, 0.1, np.random.default_rng(8))
    assert calibrate_out_of_bag(forces, known, np.ones_like(weights)) is None
    weights = np.ones_like(weights)
    weights[:2, :2] = 0
    assert calibrate_out_of_bag(forces, known, weights) is None
    weights[:2, :3] = 0
    assert calibrate_out_of_bag(forces, known, weights).n == 3
    with pytest.raises(ValueError, match="members, forces"):
        calibrate_out_of_bag(forces, known[:5], weights)


def test_members_that_share_a_label_error_have_a_band_of_its_size():
    """Fits that agree within 0.02 follow the labels, which are all off: the factor finds only their disagreement."""
    rng, size, n = np.random.default_rng(4), 0.1, 4000
    label_error = rng.normal(size=(n, 3)) * size / np.sqrt(3)
    forces_mni = label_error + rng.normal(size=(10, n, 3)) * 0.02
    factor = calibrate_out_of_bag(forces_mni, label_error, np.zeros((10, n))).factor
    delta, error = force_uncertainty(forces_mni), np.linalg.norm(forces_mni.mean(axis=0), axis=1)
    floor = error95_floor(lengths(np.full(5 * n, size), rng))
    assert np.mean(error <= error95(delta, factor)) < 0.2
    assert np.mean(error <= error95(delta, factor, floor)) == pytest.approx(LEVEL, abs=SAMPLING)


def test_the_floor_widens_what_is_narrower_and_nothing_else():
    delta = np.array([0.01, 0.1, np.nan])
    np.testing.assert_array_equal(error95(delta, 2.0, 0.05), [0.05, 0.2, np.nan])
    np.testing.assert_array_equal(error95(delta, 2.0), 2.0 * delta)
    assert error95_floor(np.full(5, 0.1)) == pytest.approx(0.1 * np.sqrt(chi2.ppf(0.95, 3) / 3), rel=1e-10)
    assert error95_floor([]) is None
