"""Model card of a run: written from its journal and inputs alone, so that a resumed run leaves the same files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from amp.nft.activelearner.parent_record import recorded_parents
from amp.nft.activelearner.setup import Setup
from amp.nft.amp_io.card import described, network_fields, training_errors
from amp.nft.run.journal import Event
from amp.nft.run.state import RunState
from amp.nft.run.verdict import Verdict


def card_of_run(
    setup: Setup, events: Sequence[Event], state: RunState, texts: Sequence[str], iteration: int, verdict: Verdict | None = None
) -> dict[str, Any]:
    """Return the card of the ensemble of an iteration.

    Parameters
    ----------
    setup : Setup
    events : sequence of dict
        The journal, from which `state` was made.
    state : RunState
    texts : sequence of str
        The members.
    iteration : int
        It is trained and evaluated.
    verdict : Verdict, optional
        On this ensemble.

    Returns
    -------
    dict
        Plain data.
    """
    trained, evaluated = state.trained(iteration), state.evaluated(iteration)
    symbols = [symbol for atoms in [*setup.targets, *setup.images] for symbol in atoms.symbols]
    network = network_fields(texts[0], symbols)
    return {
        "elements": network["elements"],
        "cutoffs": {"fingerprints": network["fingerprints"], "chunks": setup.carving.cutoff},
        "parent": recorded_parents(events),
        **setup.baseline.settings,
        **({"trainer": state.settings["committee"]} if "committee" in state.settings else {}),
        "target": described(setup.targets, state.settings.get("targets", [])),
        "labels": {"images": len(setup.images), "chunks": trained.chunks, "test": 0 if verdict is None else verdict.n_test},
        "errors": {
            "uncertainty_max": evaluated.delta_max,
            "uncertainty_mean": evaluated.delta_mean,
            **training_errors(trained.reports),
        },
        "error95_factor": network["error95_factor"],
        "error95_floor": None if verdict is None or not np.isfinite(verdict.error95_floor) else verdict.error95_floor,
        "verdict": None if verdict is None else verdict.as_dict(),
        "method": {"name": setup.method.name, **setup.method.identity, "members": len(texts), "seed": setup.seed, "iteration": iteration},
        **setup.terms,
        "versions": _versions_at(events, iteration),
    }


def _versions_at(events: Sequence[Event], iteration: int) -> dict[str, str]:
    """Return the versions with which an iteration was trained, not those of a later start."""
    found: dict[str, str] = {}
    for event in events:
        if event["event"] == "start":
            found = event.get("versions", {})
        elif event["event"] == "trained" and event["iteration"] == iteration:
            return found
    return found
