from types import SimpleNamespace

import numpy as np
import pytest
from amp.utilities import get_atomic_uncertainties

from amp.nft.uncertainty import calibrate, force_uncertainty, select
from amp.nft.uncertainty.forces import VANISHING, are_covered


def test_against_the_definition_written_out():
    forces_mni = np.random.default_rng(1).normal(size=(5, 7, 3))
    mean = forces_mni.mean(axis=0)
    for i, value in enumerate(force_uncertainty(forces_mni)):
        squares = [np.linalg.norm(forces_mni[m, i] - mean[i]) ** 2 for m in range(5)]
        assert value == pytest.approx(2.58 * np.sqrt(sum(squares) / 4), rel=1e-14)


def test_equals_amps_own(tmp_path, monkeypatch):
    """Amp's rule, fed with forces through the ensemble object that it builds from a file."""
    forces_mni = np.random.default_rng(2).normal(size=(4, 9, 3))
    ensemble = SimpleNamespace(ensemble=range(4), get_forces=lambda atoms, output: [None, None, forces_mni])
    monkeypatch.setattr("amp.stats.bootstrap.BootStrap", lambda load, label: ensemble)
    _, _, delta = get_atomic_uncertainties("any", None, threshold=0.1)
    np.testing.assert_allclose(force_uncertainty(forces_mni), delta, rtol=1e-13)


def test_scales_and_does_not_feel_a_shift_or_a_rotation():
    rng = np.random.default_rng(3)
    forces_mni = rng.normal(size=(4, 6, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    delta = force_uncertainty(forces_mni)
    np.testing.assert_allclose(force_uncertainty(3 * forces_mni + rng.normal(size=(6, 3))), 3 * delta, rtol=1e-12)
    np.testing.assert_allclose(force_uncertainty(forces_mni @ rotation), delta, rtol=1e-12)


def test_roundoff_is_covered_by_any_width():
    errors, widths = [VANISHING, 2 * VANISHING, 0.1, 0.1], [0.0, 0.0, 0.1, 0.0999]
    np.testing.assert_array_equal(are_covered(errors, widths), [True, False, True, False])
    calibration = calibrate(np.full(4, 1e-20), [[0.5 * VANISHING, 0, 0]] * 4)
    assert calibration.coverage_before == 1


@pytest.mark.parametrize("shape", [(0, 5, 3), (3, 5), (3, 5, 2)])
def test_an_uncertainty_needs_members(shape):
    with pytest.raises(ValueError, match="at least one member"):
        force_uncertainty(np.zeros(shape))


def test_the_uncertainty_of_one_member_is_not_a_number():
    assert np.isnan(force_uncertainty(np.zeros((1, 5, 3)))).tolist() == [True] * 5


def test_select():
    delta = np.array([0.1, 0.5, 0.3, 0.2])
    assert list(select(delta, 0.25)) == [1, 2]
    assert list(select(delta, 0.9)) == []
    assert list(select(delta, None)) == [1]
    assert list(select(delta, -0.5)) == [1, 2]
    assert len(select(np.arange(260.0), -0.9)) == 26
    assert len(select(np.ones(10), -0.9)) == 1


@pytest.mark.parametrize("threshold", [0, -1, -1.5])
def test_threshold_outside_its_range(threshold):
    with pytest.raises(ValueError, match=rf"threshold is {threshold}: give a positive number"):
        select(np.ones(3), threshold)


def vectors(sigma, rng):
    """Return the normal, isotropic error vectors whose lengths have the root mean square `sigma`."""
    return rng.normal(size=(len(sigma), 3)) * (sigma / np.sqrt(3))[:, None]


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_calibration_finds_the_factor_that_is_in_the_data(factor):
    rng = np.random.default_rng(5)
    sigma = rng.uniform(0.01, 0.2, size=20000)
    result = calibrate(2.58 * sigma, vectors(factor * sigma, rng))
    assert result.factor == pytest.approx(factor, rel=0.02)  # 1 / sqrt(6 n) is 0.003
    assert result.area_after < 0.01
    assert result.nll_after <= result.nll_before
    assert (result.area_before > 0.1) == (factor != 1.0)
    # 2.58 standard deviations of the whole vector hold chi_3 <= 2.58 sqrt(3) of it
    assert result.coverage_after == pytest.approx(0.9998, abs=5e-4)


def test_calibration_takes_lengths_too_and_refuses_nonsense():
    rng = np.random.default_rng(6)
    sigma = rng.uniform(0.01, 0.2, size=50)
    errors = vectors(sigma, rng)
    assert calibrate(sigma, errors) == calibrate(sigma, np.linalg.norm(errors, axis=1))
    assert "coverage" in str(calibrate(sigma, errors))
    for predicted, actual in ((sigma, errors[:10]), (0 * sigma, errors), (sigma, 0 * errors), (sigma[:0], errors[:0])):
        with pytest.raises(ValueError, match=r"shape|positive"):
            calibrate(predicted, actual)
