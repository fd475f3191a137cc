"""The verdict: a pure function of numbers, by the rules of its states, and the verdict in a run's journal."""

import json

import numpy as np
import pytest
from journals import begin, evaluated, start
from scipy.stats import chi2

from amp.nft.errors import InputError
from amp.nft.run.replay import replay
from amp.nft.run.store import RunStore
from amp.nft.run.verdict import COLORS, RandomErrors, Verdict, how_to_test, judge, recorded_verdict, verdict_of

K, N = 10, 100
STD = np.full(N, 0.1)
DRAWS = 400
SLACK = 0.033  # of a fraction over 400 draws: three standard deviations at 0.95


def on_labels(error, **changes):
    """Verdict on ten labels with errors of one length, where the predicted standard deviation is 0.1 eV/Å."""
    of_errors = {name: changes.pop(name) for name in ("std_i", "differences_l", "energy_error") if name in changes}
    errors = RandomErrors(**{"errors_k": np.full(K, error), "std_k": STD[:K], "std_i": STD} | of_errors)
    return judge(**{"converged": True, "aim": 0.05, "errors": errors} | changes)


def mean_bound(error):
    return np.sqrt(8 / (3 * np.pi)) * error * np.sqrt(3 * K / chi2.ppf(0.05, 3 * K))


def test_without_random_labels_nothing_is_known():
    verdict = judge(converged=True, aim=0.05, errors=RandomErrors(std_i=STD))
    assert (verdict.state, verdict.color, verdict.n_test) == ("UNKNOWN", "grey", 0)
    assert verdict.sentence == "converged by its criterion; not tested: rerun with test_labels=10"
    assert np.isnan(verdict.mean_bound)
    for untrained, text in ((3, "not tested: rerun with test_labels=3"), (0, "not tested: no atom of the target is left for a test")):
        assert text in judge(converged=True, aim=0.05, remedy=how_to_test(untrained)).sentence
    assert judge(converged=False, aim=0.05).sentence.startswith("not converged by its criterion; not tested")


def test_a_factor_that_is_too_large_is_said_without_labels():
    assert "1.7 times the uncertainty" in judge(converged=True, aim=0.05, factor=1.7).sentence
    assert "out of bag" not in judge(converged=True, aim=0.05, factor=1.19).sentence


def test_good_means_a_bound_within_the_aim():
    error = 0.03
    for aim, state in ((1.001 * mean_bound(error), "GOOD"), (0.999 * mean_bound(error), "NOT YET")):
        verdict = on_labels(error, aim=aim)
        assert (verdict.state, verdict.n_test) == (state, K)
        assert verdict.mean_bound == pytest.approx(mean_bound(error))
    assert COLORS["GOOD"] == "green"


def test_labels_as_uncertain_as_the_error_limit_it():
    verdict = on_labels(0.1, differences_l=np.full(5, 0.1))
    assert (verdict.state, verdict.color) == ("LABEL-LIMITED", "amber")
    assert verdict.label_error == pytest.approx(np.sqrt(8 / (3 * np.pi)) * 0.1)
    assert verdict.error95_floor == pytest.approx(np.sqrt(chi2.ppf(0.95, 3) / 3) * 0.1)
    assert on_labels(0.1, differences_l=np.full(5, 0.01)).state == "NOT YET"
    assert on_labels(0.1).state == "NOT YET" and np.isnan(on_labels(0.1).error95_floor)


def test_criteria_that_cause_most_of_the_error_limit_it():
    """3 force_rmse² against half of the mean square."""
    limit = 0.1 / np.sqrt(6)
    assert on_labels(0.1, force_rmse=1.01 * limit).state == "FIT-LIMITED"
    assert on_labels(0.1, force_rmse=0.99 * limit).state == "NOT YET"
    assert "tighten" in on_labels(0.1, force_rmse=1.01 * limit).sentence


def test_an_out_of_bag_error_that_levelled_off_limits_the_fit():
    flat, falling, small = [0.2, 0.105, 0.1, 0.1], [0.2, 0.12, 0.1, 0.1], np.full(5, 0.08)  # 0.08: 0.046 per component
    assert on_labels(0.2, oob_rmse=flat, differences_l=small).state == "FIT-LIMITED"
    assert on_labels(0.2, oob_rmse=falling, differences_l=small).state == "NOT YET"
    assert on_labels(0.2, oob_rmse=flat[:2], differences_l=small).state == "NOT YET"
    assert on_labels(0.2, oob_rmse=flat, differences_l=np.full(5, 0.09)).state == "NOT YET"  # 0.052: above half of 0.1
    assert on_labels(0.2, oob_rmse=flat).state == "NOT YET"  # the error of the labels is not known


def test_failed_runs_are_red():
    for verdict in (judge(converged=False, aim=1.0, failed="the uncertainty grew"), on_labels(0.1, std_i=np.full(N, 1e-15))):
        assert (verdict.state, verdict.color) == ("FAILED", "red")


def test_trust_is_said_only_of_tested_forces():
    untested = [judge(converged=True, aim=0.1), judge(converged=True, aim=0.1, factor=2.0), on_labels(0.1), on_labels(0.1, force_rmse=0.1)]
    assert not any("trust" in str(verdict).lower() for verdict in untested)
    assert "trust its forces" in str(on_labels(0.001))
    assert "Energies are not tested." in on_labels(0.001).sentence
    assert "Energies have a mean error of 0.004 eV/atom." in on_labels(0.001, energy_error=0.004).sentence


def test_good_is_contradicted_in_few_draws():
    """Errors whose true mean is just above the aim must rarely pass."""
    rng, good = np.random.default_rng(11), 0
    for _ in range(DRAWS):
        errors = np.linalg.norm(rng.normal(size=(N, 3)), axis=1)
        drawn = rng.choice(N, K, replace=False)
        tested = RandomErrors(errors[drawn], STD[:K], STD)
        good += judge(converged=True, aim=0.999 * errors.mean(), errors=tested).state == "GOOD"
    assert good / DRAWS <= 0.05 + SLACK


def test_an_aim_of_zero_is_refused():
    with pytest.raises(InputError, match="aim is 0"):
        judge(converged=True, aim=0)


def test_the_journal_gives_the_verdict_on_the_last_ensemble(tmp_path):
    with RunStore(tmp_path) as store:
        begin(store)
        evaluated(store, 0, 0.005, error95_factor=1.5)
        assert verdict_of(replay(store.events)) is None
        store.append("stopped", reason="stop_delta", message="", converged=True)
        assert verdict_of(replay(store.events)) == judge(converged=True, aim=1.0, factor=1.5)
        found = on_labels(0.1)
        store.append("verdict", **found.as_dict())
        state = replay(store.events)
        assert str(recorded_verdict(state)) == str(verdict_of(state)) == str(found)
        start(store)
        store.append("chosen", iteration=0, atoms=[1])
        store.append("added", iteration=0, chosen=[1], atoms=[1])
        evaluated(store, 1, 0.004)
        assert recorded_verdict(replay(store.events)) is None


def test_a_verdict_survives_the_journal():
    verdict = on_labels(0.1, differences_l=np.full(5, 0.03))
    assert Verdict(**json.loads(json.dumps(verdict.as_dict()))) == verdict
