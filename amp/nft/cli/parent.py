"""The parent of an input file: a class or function by its name, imported where a label is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amp.nft.errors import InputError
from amp.nft.inputs.named import load_named

DIRECTORY = "{directory}"  # in a text of the arguments: the directory of the label


class Source:
    """Make calculators of a class ``module.Class``, or by a function ``file.py:name``.

    Its ``__module__`` and ``__qualname__`` are those of the class or function, since logs and the journal name a parent by these.

    Parameters
    ----------
    name : str
    in_file : bool
        True if it names a function in a file.
    """

    def __init__(self, name: str, in_file: bool = False) -> None:
        where, colon, what = name.rpartition(":" if in_file else ".")
        if not (where and colon and what):
            key, form = ("parent.factory", "file.py:function") if in_file else ("parent.calculator", "module.Class")
            raise InputError(f"{key} is {name!r}: give {form}.")
        self.__module__, self.__qualname__ = where, what
        self._file = Path(where).absolute() if in_file else None  # absolute: a worker may have another working directory

    def load(self) -> Any:
        """Import the class or function.

        Returns
        -------
        callable

        Raises
        ------
        InputError
            If that fails.
        """
        if self._file is not None:
            return load_named(f"{self._file}:{self.__qualname__}", "parent.factory")
        return load_named(f"{self.__module__}.{self.__qualname__}", "parent.calculator")

    def __call__(self, directory: str, **arguments: Any) -> Any:
        """Return a fresh calculator that works in `directory`."""
        found, given = self.load(), _placed(arguments, directory)
        if self._file is not None:
            return found(directory, **given)
        calculator = found(**given)
        if isinstance(getattr(calculator, "directory", None), str | Path):
            calculator.directory = directory
        return calculator


def _placed(value: Any, directory: str) -> Any:
    """Return arguments with the directory in place of its name."""
    if isinstance(value, str):
        return value.replace(DIRECTORY, directory)
    if isinstance(value, dict):
        return {key: _placed(item, directory) for key, item in value.items()}
    return [_placed(item, directory) for item in value] if isinstance(value, list) else value
