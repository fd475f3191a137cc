"""Docstrings of what users call say what goes in, with types, and what comes out; their examples run."""

import dataclasses
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "amp" / "nft"
MODULES = sorted(
    "amp.nft." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")
)
FRONT = (
    "activelearner", "calculator", "chunks", "features", "initialization", "errors", "refinement", "report", "selection",
    "uncertainty",
)  # fmt: skip
CHECKS = {"GL08", "PR01", "PR02", "PR03", "PR04", "PR10", "RT01"}  # of numpydoc: present, parameters all there with types, returns
INHERITED = {"EnsembleCalculator.calculate", "EnsembleCalculator.export_properties"}  # called by ASE, and described there


def public(module):
    """What a module defines, or takes into its ``__all__``, and the methods that its classes define."""
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__
    ]
    for name in names:
        thing = getattr(module, name)
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if not dataclasses.is_dataclass(thing):  # its attributes are described instead
            yield f"{module.__name__}.{name}"
        if inspect.isclass(thing):
            methods = [key for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")]
            yield from (f"{module.__name__}.{name}.{key}" for key in methods if f"{name}.{key}" not in INHERITED)


@pytest.mark.parametrize("room", FRONT)
def test_what_users_call_is_described(room):
    validate = pytest.importorskip("numpydoc.validate").validate
    if not (PACKAGE / room).exists() and not (PACKAGE / f"{room}.py").exists():
        pytest.skip("not there")
    names = list(public(importlib.import_module(f"amp.nft.{room}")))
    assert names
    faults = [f"{name}: {text}" for name in names for code, text in validate(name)["errors"] if code in CHECKS]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0
