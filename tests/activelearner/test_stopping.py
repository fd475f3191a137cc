import pytest

from amp.nft.activelearner.stopping import (
    Iteration,
    best_of,
    certain_enough,
    enough_iterations,
    first_reason,
    no_improvement,
)


def history(*deltas):
    return [Iteration(k, 10 * k, delta, delta / 2) for k, delta in enumerate(deltas)]


def test_certain_enough():
    assert certain_enough(0.1)(history(3.0, 0.1)) is None
    reason = certain_enough(0.1)(history(3.0, 0.0999))
    assert (reason.name, reason.converged) == ("stop_delta", True)
    assert "0.0999 eV/Å" in str(reason)


def test_agreement_that_is_too_good_is_not_convergence():
    reason = certain_enough(0.1)(history(0.0))
    assert (reason.name, reason.converged) == ("vanishing", False)
    assert "Rattle it" in str(reason)


def test_max_iterations_counts_retrainings():
    rule = enough_iterations(2)
    assert rule(history(3, 2)) is None
    assert rule(history(3, 2, 1)).name == "max_iterations"
    assert enough_iterations(0)(history(3)).name == "max_iterations"


@pytest.mark.parametrize(
    ("deltas", "stops"),
    [((3, 2, 1), False), ((3, 1, 2), False), ((3, 1, 2, 2), True), ((1, 2, 2), True), ((3, 3, 3), True)],
)
def test_no_improvement(deltas, stops):
    reason = no_improvement(2)(history(*deltas))
    assert (reason is not None) == stops
    if stops:
        assert not reason.converged and "steps_not_improved = 2" in str(reason)


def test_first_reason_and_best():
    rules = [certain_enough(0.5), enough_iterations(1)]
    assert first_reason(rules, history(3)) is None
    assert first_reason(rules, history(3, 0.1)).name == "stop_delta"
    assert best_of(history(3, 1, 2, 1)).iteration == 1
