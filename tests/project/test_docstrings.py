"""Docstrings of the packages list parameters with types and return values; their examples run."""

import dataclasses
import doctest
import enum
import importlib
import inspect
from pathlib import Path

import pytest
from numba.core import types
from pydantic import BaseModel

PACKAGE = Path(__file__).parents[2] / "amp" / "nft"
MODULES = sorted(
    "amp.nft." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")
)
CHECKS = {"GL08", "PR01", "PR02", "PR03", "PR04", "PR10", "RT01"}  # of numpydoc: present, parameters all there with types, returns
FIELDS = (enum.Enum, BaseModel, types.Type)  # numba's metaclass hides the parameters of its types
INHERITED = {"EnsembleCalculator.calculate", "EnsembleCalculator.export_properties"}  # called by ASE, and described there


def describes_fields(thing):
    """Return True for classes whose fields or members are described instead of parameters.

    Dataclasses and protocols list attributes; named tuples of the kernels have a comment with the shape of each array, and tables of
    the input file a description of each key.
    """
    if not inspect.isclass(thing):
        return False
    tuple_of_arrays = issubclass(thing, tuple) and hasattr(thing, "_fields")
    return dataclasses.is_dataclass(thing) or getattr(thing, "_is_protocol", False) or tuple_of_arrays or issubclass(thing, FIELDS)


def public(module):
    """Yield the public names that a module defines, and the methods of its classes.

    Compiled functions are not among them: numba's dispatchers are not Python functions, and their arguments are described where
    Python calls them.
    """
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if not describes_fields(thing):
            yield f"{module.__name__}.{name}"
        if inspect.isclass(thing):
            methods = [key for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")]
            yield from (f"{module.__name__}.{name}.{key}" for key in methods if f"{name}.{key}" not in INHERITED)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_described(module):
    validate = pytest.importorskip("numpydoc.validate").validate
    names = list(public(importlib.import_module(module)))
    faults = [f"{name}: {text}" for name in names for code, text in validate(name)["errors"] if code in CHECKS]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0
