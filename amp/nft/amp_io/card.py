"""Model card of an ensemble: its origin, errors and terms of use, in the text of each member, so that a copied file keeps it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Parameters

from amp.nft.amp_io.committee_file import is_committee, read_index
from amp.nft.amp_io.ensemble_file import read_texts
from amp.nft.amp_io.external import is_external, read_external
from amp.nft.amp_io.literal import parse_literal
from amp.nft.amp_io.model import read_amp, with_data
from amp.nft.errors import AmpFileError, InputError, UnsupportedModel
from amp.nft.records import MemberReport

TRAINING_ERRORS = {"training_force_rmse": "force_rmse", "oob_force_rmse": "oob_force_rmse"}  # of a card, by the field of a report
TERMS = ("licence", "citation", "date")  # that the user gives


def checked_terms(card: Mapping[str, str | None] | None, allowed: Sequence[str] = TERMS) -> dict[str, str | None]:
    """Return the fields of a card that the user gives.

    Parameters
    ----------
    card : dict of str to str or None
        As the user gave it.
    allowed : sequence of str
        Names of the fields.

    Returns
    -------
    dict of str to str or None
        All fields; None where nothing was given.

    Raises
    ------
    InputError
        It is no dictionary, has another field, or a value is not a text.
    """
    if card is not None and not isinstance(card, Mapping):
        raise InputError(f"card is {card!r}: it must be a dictionary, such as {{'licence': 'CC-BY-4.0', 'citation': 'doi:...'}}.")
    given = dict(card or {})
    for name, value in given.items():
        if name not in allowed:
            raise InputError(f"card has a field {name!r}: use {', '.join(map(repr, allowed))}.")
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise InputError(f"card[{name!r}] is {value!r}: it must be a text, or None.")
    return {name: given.get(name) for name in allowed}


def training_errors(reports: Sequence[MemberReport]) -> dict[str, float | None]:
    """Return the force errors of a card that the reports of the members contain.

    Parameters
    ----------
    reports : sequence of MemberReport

    Returns
    -------
    dict
        Means over the members, eV/Å; None where they are not known.
    """
    return {name: _mean([getattr(report, field) for report in reports]) for name, field in TRAINING_ERRORS.items()}


def described(structures: Iterable[Atoms], digests: Iterable[str]) -> list[dict[str, Any]]:
    """Return formula, number of atoms and digest of each structure.

    Parameters
    ----------
    structures : iterable of Atoms
    digests : iterable of str

    Returns
    -------
    list of dict
    """
    pairs = zip(structures, digests, strict=True)
    return [{"formula": atoms.get_chemical_formula("hill"), "atoms": len(atoms), "digest": digest} for atoms, digest in pairs]


def network_fields(text: str, elements: Iterable[str]) -> dict[str, Any]:
    """Return the elements, cutoff and error factor of a member as fields of a card.

    Parameters
    ----------
    text : str
        Its ``.amp`` text, or its description if another program trained it.
    elements : iterable of str
        Of the structures, for a model that only Amp or another program can read.

    Returns
    -------
    dict
    """
    if is_external(text):
        return {"elements": sorted(set(elements)), "fingerprints": None, "error95_factor": read_external(text).error95_factor}
    try:
        model = read_amp(text)
    except (AmpFileError, UnsupportedModel):
        return {"elements": sorted(set(elements)), "fingerprints": None, "error95_factor": None}
    cutoff = {"cutoff": float(model.cutoff["kwargs"]["Rc"]), "function": model.cutoff["name"]}
    return {"elements": list(model.elements), "fingerprints": cutoff, "error95_factor": model.error95_factor}


def with_card(texts: Sequence[str], card: Mapping[str, Any]) -> list[str]:
    """Return the texts of the members with a card in each, which Amp ignores.

    Parameters
    ----------
    texts : sequence of str
        ``.amp`` texts.
    card : dict
        Plain data. It replaces a card that is there.

    Returns
    -------
    list of str
        A text that is not data, of a model of the user's own, stays as it is.
    """
    return [_with_card(text, card) for text in texts]


def _with_card(text: str, card: Mapping[str, Any]) -> str:
    try:
        return with_data(text, card=dict(card))
    except AmpFileError:
        return text


def without_card(text: str) -> str:
    """Return a member's text without its card.

    Parameters
    ----------
    text : str
        ``.amp`` text.

    Returns
    -------
    str
        The same text if it has no card.
    """
    try:
        parts = parse_literal(text)
    except AmpFileError:
        return text
    own = parts.get("nft") if isinstance(parts, dict) else None
    if not isinstance(own, dict) or "card" not in own:
        return text
    kept = {key: value for key, value in own.items() if key != "card"}
    others = {key: value for key, value in parts.items() if key != "nft"}
    return Parameters(**others, **({"nft": kept} if kept else {})).tostring()


def read_card(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the model card of an ensemble.

    Parameters
    ----------
    path : path
        An ``.ensemble`` file, an ``.amp`` file of one member, or a ``.committee`` directory.

    Returns
    -------
    dict or None
        Plain data, lengths in Å, energies in eV, forces in eV/Å; None if the members carry no card, or different ones.

    Raises
    ------
    AmpFileError, FileNotFoundError
        The file is missing or damaged.
    """
    if is_committee(path):
        return read_index(path)["card"]
    texts = [Path(path).read_text(encoding="utf-8", errors="replace")] if Path(path).suffix == ".amp" else read_texts(path)
    cards = [card_of(text) for text in texts]
    return cards[0] if all(card == cards[0] for card in cards) else None


def card_of(text: str) -> dict[str, Any] | None:
    """Return the card in the text of one member.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict or None

    Raises
    ------
    AmpFileError
        The text is not data.
    """
    parts = parse_literal(text)
    own = parts.get("nft") if isinstance(parts, dict) else None
    card = own.get("card") if isinstance(own, dict) else None
    return card if isinstance(card, dict) else None


def _mean(values: Sequence[float]) -> float | None:
    mean = float(np.mean(values)) if len(values) else np.nan
    return mean if np.isfinite(mean) else None
