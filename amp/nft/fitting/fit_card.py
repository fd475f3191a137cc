"""Model card of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ase import Atoms

from amp.nft.amp_io.card import network_fields, training_errors, with_card
from amp.nft.fitting.ensemble import Ensemble
from amp.nft.fitting.evaluation import evaluate
from amp.nft.labels.single_point import Parent


def with_card_of_fit(
    ensemble: Ensemble, images: Sequence[Atoms], rows: Sequence[object], settings: Mapping[str, Any], others: Mapping[str, Any],
    baseline: Parent | None = None,
) -> Ensemble:  # fmt: skip
    """Return a fitted ensemble with a model card in each member.

    Parameters
    ----------
    ensemble : Ensemble
    images : sequence of Atoms
        Labelled, each once.
    rows : sequence
        Of each image None if its energy and all its forces are trained.
    settings : dict
        Of the fit, with the digest of the images.
    others : dict
        Fields that the user gave, and versions.
    baseline : ASE calculator, or callable, optional
        To which the members add.

    Returns
    -------
    Ensemble
    """
    n_validation = len(ensemble.validation_indices)
    network = network_fields(ensemble.texts[0], ())
    card = {
        "elements": network["elements"],
        "cutoffs": {"fingerprints": network["fingerprints"], "chunks": None},
        "parent": others["parent"],
        **({"baseline": settings["baseline"]} if "baseline" in settings else {}),
        "target": None,
        "labels": {"images": len(images) - n_validation, "validation": n_validation, "digest": settings["images"][0]},
        "errors": {
            **training_errors(ensemble.reports),
            **_validation_errors(ensemble, [images[i] for i in ensemble.validation_indices if rows[i] is None], baseline),
        },
        "error95_factor": network["error95_factor"],
        "verdict": None,
        "method": {"name": "fit", "members": len(ensemble.texts), **{name: settings[name] for name in ("fit_until", "seed")}},
        **{name: value for name, value in others.items() if name != "parent"},
    }
    return replace(ensemble, texts=with_card(ensemble.texts, card))


def _validation_errors(ensemble: Ensemble, images: Sequence[Atoms], baseline: Parent | None) -> dict[str, float | None]:
    """Return the errors on images to which no member was fitted: eV/Å per component, and eV/atom."""
    if not images:
        return {"validation_force_rmse": None, "validation_energy_rmse": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of atoms outside the range of the training set, which the errors contain
        table = evaluate(ensemble, list(images), baseline=baseline)
    return {
        "validation_force_rmse": table.errors("forces").rmse,
        "validation_energy_rmse": table.errors("energy").rmse,
    }
