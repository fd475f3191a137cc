"""Amp's files, read without ``eval`` and written whole; the door to all that reads what Amp writes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from amp.nft import atomic
from amp.nft.amp_literal import AmpFileError, parse_literal
from amp.nft.amp_model import AmpModel, UnsupportedModel, check_text, read_amp, write_amp
from amp.nft.calc_text import QUEUE_VARIABLES, CalculatorSpec, read_calc_text, spec_of

__all__ = [
    "QUEUE_VARIABLES",
    "AmpFileError",
    "AmpModel",
    "CalculatorSpec",
    "UnsupportedModel",
    "check_text",
    "parse_literal",
    "read_amp",
    "read_calc_text",
    "read_ensemble",
    "read_texts",
    "spec_of",
    "write_amp",
    "write_ensemble",
]


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """The members' ``.amp`` texts in an ``.ensemble`` file, for any kind of model.

    Parameters
    ----------
    path : path
        What ``BootStrap`` or :func:`write_ensemble` wrote: a JSON list of texts.

    Returns
    -------
    list of str

    Raises
    ------
    AmpFileError
        The file is no such list, or is cut off.
    FileNotFoundError
        There is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file {os.fspath(path)!r} in {os.getcwd()}: give an ensemble that a run has left, such as best.al.ensemble."
        )
    try:
        texts = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AmpFileError(
            f"{path}: not an ensemble file ({error}); is it cut off or of another kind?"
        ) from None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise AmpFileError(f"{path}: not an ensemble file: expected a JSON list of .amp texts")
    return texts


def read_ensemble(path: str | os.PathLike[str]) -> list[AmpModel]:
    """The members in an ``.ensemble`` file.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of AmpModel

    Raises
    ------
    AmpFileError, UnsupportedModel
        As :func:`read_amp`, with the file and the member named.
    """
    return [_read_member(path, member, text) for member, text in enumerate(read_texts(path))]


def _read_member(path: str | os.PathLike[str], member: int, text: str) -> AmpModel:
    try:
        return read_amp(text)
    except (AmpFileError, UnsupportedModel) as error:
        raise type(error)(f"{path}, member {member}: {error}") from None


def write_ensemble(path: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write an ``.ensemble`` file that ``BootStrap(load=...)`` reads; it appears whole or not at all.

    Parameters
    ----------
    path : path
    texts : sequence of str
        The members' ``.amp`` texts.
    """
    atomic.write(path, json.dumps(list(texts)).encode())
