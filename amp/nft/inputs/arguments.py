"""Checks of numbers and texts that the user gives."""

from __future__ import annotations

import os
from numbers import Real
from pathlib import Path

import numpy as np


def check_positive(**numbers: float) -> None:
    """Raise ValueError for a value that is no number above 0."""
    for name, value in numbers.items():
        if not (isinstance(value, Real) and value > 0):
            kind = "" if isinstance(value, Real) else "a number "
            raise ValueError(f"{name} is {value!r}: it must be {kind}above 0.")


def check_texts(**texts: str) -> None:
    """Raise TypeError for what is no text."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}: it must be a str.")


def check_label(label: str | os.PathLike[str]) -> None:
    """Raise ValueError for a label that names no files."""
    if not (isinstance(label, str | os.PathLike) and Path(label).name):
        raise ValueError(f"label is {label!r}: it must be a name, such as 'al'; the results are named after it.")


def check_count(name: str, value: int, least: int, why: str = "") -> None:
    """Raise ValueError, which says `why`, unless `value` is an integer and at least `least`."""
    if not (isinstance(value, int | np.integer) and value >= least):
        raise ValueError(f"{name} is {value!r}: it must be an integer, at least {least}{why}.")
