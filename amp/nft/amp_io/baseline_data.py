"""The baseline to which members add: its description among the data of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amp.nft.amp_io.model import AmpModel, read_amp, write_amp
from amp.nft.errors import InputError, UnsupportedModel

KEY = "baseline"  # of its description among the data of a member


def stored_baseline(models: Sequence[AmpModel]) -> dict[str, Any] | None:
    """Return the description of the baseline that members add to.

    Parameters
    ----------
    models : sequence of AmpModel

    Returns
    -------
    dict or None
        None if their energies are complete.

    Raises
    ------
    InputError
        They were trained with different ones.
    """
    found = [model.nft.get(KEY) for model in models]
    if any(one != found[0] for one in found[1:]):
        raise InputError("the members of the ensemble were trained with different baselines: give members of one training.")
    return found[0] if found else None


def described(stored: dict[str, Any]) -> str:
    """Return class and settings of a baseline in words.

    Parameters
    ----------
    stored : dict
        As `stored_baseline` returns it.

    Returns
    -------
    str
    """
    identity = stored["identity"]
    settings = ", ".join(f"{name}={value!r}" for name, value in identity.get("parameters", {}).items())
    return f"{class_of(identity)}({settings})"


def baseline_of_texts(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return the description of the baseline that members of any kind of model add to.

    Parameters
    ----------
    texts : sequence of str
        ``.amp`` texts.

    Returns
    -------
    dict or None
        None if their energies are complete.
    """
    try:
        return stored_baseline([read_amp(text) for text in texts])
    except UnsupportedModel:
        return None


def with_baseline(text: str, description: dict[str, Any] | None) -> str:
    """Return a member with a description of its baseline, so that plain Amp refuses to load it, or without any.

    Parameters
    ----------
    text : str
        ``.amp`` text.
    description : dict or None
        Plain data.

    Returns
    -------
    str
    """
    data = {} if description is None else {KEY: description}
    model = read_amp(text)
    return write_amp(replace(model, nft={name: value for name, value in model.nft.items() if name != KEY} | data))


def class_of(identity: dict[str, Any]) -> str:
    """Return the name of the class in an identity, without its module.

    Parameters
    ----------
    identity : dict

    Returns
    -------
    str
    """
    return str(identity.get("calculator", "calculator")).rpartition(".")[2]
