"""Amp's files, read without ``eval`` and written whole; the door to all that reads what Amp writes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(list(texts), file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """This process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
