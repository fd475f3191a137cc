"""Checks of numbers, texts and indices that the user gives."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from amp.nft.errors import AtomIndexError, InputError

ABSURD_FORCE = 1e4  # eV/Å; no real structure that is worth learning from comes near it


def check_positive(**numbers: float) -> None:
    """Check that values are numbers above 0.

    Parameters
    ----------
    **numbers : float
        By the names of the arguments that the user gave.

    Raises
    ------
    InputError
        A value is not a number above 0.
    """
    for name, value in numbers.items():
        if not (isinstance(value, Real) and value > 0):
            kind = "" if isinstance(value, Real) else "a number "
            raise InputError(f"{name} is {value!r}: it must be {kind}above 0.")


def check_lengths(**numbers: float) -> None:
    """Check that lengths are finite numbers above 0.

    Parameters
    ----------
    **numbers : float
        In Å, by the names of the arguments that the user gave.

    Raises
    ------
    InputError
        A value is not a finite number above 0.
    """
    check_positive(**numbers)
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise InputError(f"{name} is {value!r}: it must be a finite number of Å, for example 6.5.")


def check_texts(**texts: str) -> None:
    """Check that values are texts.

    Parameters
    ----------
    **texts : str
        By the names of the arguments that the user gave.

    Raises
    ------
    TypeError
        A value is not a str.
    """
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}: it must be a str.")


def check_new(path: str | os.PathLike[str], kind: str = "name") -> None:
    """Check that a file or directory to be written does not exist.

    Parameters
    ----------
    path : path
    kind : str
        What the user can give another of: 'name', or 'directory'.

    Raises
    ------
    InputError
        It exists.
    """
    if Path(path).exists():
        raise InputError(f"{os.fspath(path)} exists, and is not overwritten: remove it, or give another {kind}.")


def check_label(label: str | os.PathLike[str]) -> None:
    """Check that a label names the files of a run.

    Parameters
    ----------
    label : str or path
        Directory and first part of the names.

    Raises
    ------
    InputError
        It has no name.
    """
    if not (isinstance(label, str | os.PathLike) and Path(label).name):
        raise InputError(f"label is {label!r}: it must be a name, such as 'al'; the results are named after it.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint to the most similar known word, or all of them.

    Parameters
    ----------
    word : str
    known : iterable of str

    Returns
    -------
    str
    """
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}."


def check_count(name: str, value: int, least: int, why: str = "") -> None:
    """Check that a value is an integer and not too small.

    Parameters
    ----------
    name : str
        Argument that the user gave.
    value : int
    least : int
        Smallest value that is allowed.
    why : str
        Reason for the limit, appended to the error.

    Raises
    ------
    InputError
        It is not an integer, or less than `least`.
    """
    if not (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least):
        raise InputError(f"{name} is {value!r}: it must be an integer, at least {least}{why}.")


def checked_indices(name: str, values: Any, n: int, of: str = "atoms of the structure") -> np.ndarray:
    """Return the indices that the user means.

    Parameters
    ----------
    name : str
        The argument, for errors.
    values : iterable of int, or of bool
        Indices from 0, or a mask with one value for each of the `n` things.
    n : int
        Number of things to choose from.
    of : str
        Their name in errors.

    Returns
    -------
    ndarray of int, shape (chosen,)

    Raises
    ------
    InputError
        If these are texts or fractions, or a mask of another length.
    AtomIndexError
        If an index is not one of 0 to `n` - 1.
    """
    rule = f"give indices of the {n} {of} (0 to {n - 1}), or a mask of {n} booleans"
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{name} is {values!r}: {rule}.")
    found = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    if found.dtype == bool and found.shape == (n,):
        return np.flatnonzero(found)
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        raise InputError(f"{name} is {_shown(found)}: {rule}.")
    outside = found[(found < 0) | (found >= n)]
    if len(outside):
        raise AtomIndexError(f"{name} contains {outside[0]}, which does not exist: {rule}.")
    return found.astype(np.int64)


def _shown(values: np.ndarray) -> str:
    """Return the first values and their number as text."""
    few = values.ravel()[:4].tolist()
    return f"{few}" if values.size <= len(few) else f"{few[:-1]} and {values.size - len(few) + 1} more"
