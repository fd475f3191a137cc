"""Docstrings of the packages list parameters with types and return values; their examples run."""

import dataclasses
import doctest
import enum
import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "amp" / "nft"
MODULES = sorted(
    "amp.nft." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")
)
ROW = re.compile(r"^   \* - \d\n     - (\w+)$", re.MULTILINE)
PACKAGES = ROW.findall((PACKAGE.parents[1] / "CONTRIBUTING.rst").read_text(encoding="utf-8"))
CHECKS = {"GL08", "PR01", "PR02", "PR03", "PR04", "PR10", "RT01"}  # of numpydoc: present, parameters all there with types, returns
INHERITED = {"EnsembleCalculator.calculate", "EnsembleCalculator.export_properties"}  # called by ASE, and described there


def public(module):
    """Yield names that a module defines or exports in its ``__all__``, and the methods of its classes."""
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__
    ]
    for name in names:
        thing = getattr(module, name)
        if name.startswith("_") or not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        attributes_instead = dataclasses.is_dataclass(thing) or getattr(thing, "_is_protocol", False)
        if not attributes_instead and not (inspect.isclass(thing) and issubclass(thing, enum.Enum)):
            yield f"{module.__name__}.{name}"
        if inspect.isclass(thing):
            methods = [key for key, value in vars(thing).items() if inspect.isfunction(value) and not key.startswith("_")]
            yield from (f"{module.__name__}.{name}.{key}" for key in methods if f"{name}.{key}" not in INHERITED)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_of_packages_are_described(package):
    validate = pytest.importorskip("numpydoc.validate").validate
    names = list(public(importlib.import_module(f"amp.nft.{package}")))
    faults = [f"{name}: {text}" for name in names for code, text in validate(name)["errors"] if code in CHECKS]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0
