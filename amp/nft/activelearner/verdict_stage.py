"""Last stage of a run: test the best ensemble by random labels, and record the verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from amp.nft.activelearner.random_test import RandomTest, out_of_bag_errors
from amp.nft.activelearner.setup import Setup
from amp.nft.activelearner.stopping import History, StopReason, best_of
from amp.nft.calculator.members import Members
from amp.nft.run.verdict import how_to_test, judge


def record_verdict(
    setup: Setup, test: RandomTest, history: History, members: Members, used: Collection[int], reason: StopReason, stop: Callable[[], bool]
) -> None:
    """Test the best ensemble of a run by random labels, and write the verdict into the journal.

    Parameters
    ----------
    setup : Setup
    test : RandomTest
        Its store gets the verdict.
    history : sequence of Iteration
    members : Members
        Of the best ensemble.
    used : collection of int
        Atoms whose chunks are in the training set.
    reason : StopReason
    stop : callable
        Returns True when no further label is to begin.

    Raises
    ------
    BatchStopped
        If `stop` kept a label from beginning: nothing is recorded but the labels that are made.
    """
    method = setup.method
    predicted = [members.predict(target) for target in setup.targets]
    forces, delta = (np.concatenate([getattr(one, name) for one in predicted]) for name in ("forces", "uncertainty"))
    errors = test.errors(forces, delta, used, method.test_labels, method.larger_labels, stop)
    verdict = judge(
        converged=reason.converged,
        aim=setup.aim,
        errors=errors,
        force_rmse=setup.force_rmse if method.fit_until == "criteria" else None,
        oob_rmse=out_of_bag_errors(history),
        factor=test.state().evaluated(best_of(history).iteration).error95_factor,
        remedy=how_to_test(len(delta) - len(used)),
    )
    test.store.append("verdict", **verdict.as_dict())
