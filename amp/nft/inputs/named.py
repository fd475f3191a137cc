"""Classes and functions that the user gives by name: ``module.Class``, or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from amp.nft.errors import InputError, printable


def load_named(name: str, key: str) -> Any:
    """Import a class or function by its name.

    Parameters
    ----------
    name : str
        ``module.Class``, ``module.Class.method``, or ``file.py:function``.
    key : str
        Name of the argument, for errors.

    Returns
    -------
    callable

    Raises
    ------
    InputError
        If that fails.
    """
    where, colon, what = name.rpartition(":")
    try:
        found = getattr(module_of(Path(where)), what) if colon else _attribute(name)
    except Exception as error:  # an import runs any code
        raise InputError(
            f"{key} {printable(name)} cannot be imported ({type(error).__name__}: {error}): check the name, and that the package "
            "is installed in this Python."
        ) from error
    if not callable(found):
        raise InputError(f"{key} {printable(name)} is a {type(found).__name__}: it must be a class or a function.")
    return found


def module_of(file: Path) -> Any:
    """Run a Python file as a module.

    Parameters
    ----------
    file : Path

    Returns
    -------
    module

    Raises
    ------
    FileNotFoundError, ImportError
        There is no such file, or it is not Python.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"_amp_nft_{file.stem}", file)
    if spec is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # exec_module would write bytecode next to the file
    return module


def _attribute(name: str) -> Any:
    """Return the object of a dotted name: the longest part that is a module, and attributes of it."""
    parts = name.split(".")
    if len(parts) < 2 or not all(parts):
        raise ImportError("give module.Class")
    for k in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:k])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if k == 1 or error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
                raise
            continue
        for part in parts[k:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)
