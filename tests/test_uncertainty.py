import numpy as np
import pytest

from amp.nft.uncertainty import force_uncertainty, select


def test_against_the_definition_written_out():
    forces_mni = np.random.default_rng(1).normal(size=(5, 7, 3))
    mean = forces_mni.mean(axis=0)
    for i, value in enumerate(force_uncertainty(forces_mni)):
        squares = [np.linalg.norm(forces_mni[m, i] - mean[i]) ** 2 for m in range(5)]
        assert value == pytest.approx(2.58 * np.sqrt(sum(squares) / 4), rel=1e-14)


def test_equals_amps_own(amp_ensemble_forces_rule):
    forces_mni = np.random.default_rng(2).normal(size=(4, 9, 3))
    np.testing.assert_allclose(force_uncertainty(forces_mni), amp_ensemble_forces_rule(forces_mni), rtol=1e-13)


def test_scales_and_does_not_feel_a_shift_or_a_rotation():
    rng = np.random.default_rng(3)
    forces_mni = rng.normal(size=(4, 6, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    delta = force_uncertainty(forces_mni)
    np.testing.assert_allclose(force_uncertainty(3 * forces_mni + rng.normal(size=(6, 3))), 3 * delta, rtol=1e-12)
    np.testing.assert_allclose(force_uncertainty(forces_mni @ rotation), delta, rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 5), (3, 5, 2)])
def test_one_member_has_no_uncertainty(shape):
    with pytest.raises(ValueError, match="at least two members"):
        force_uncertainty(np.zeros(shape))


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
