"""The page on the interface: each public class and function has an example, and the examples run."""

import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from small_runs import CALC_TEXT

DOCS = Path(__file__).parents[2] / "docs"
PUBLIC = (DOCS / "api.rst").read_text(encoding="utf-8").split("Internal modules")[0]
MODULES = re.findall(r"^\.\. automodule:: (\S+)$", PUBLIC, re.MULTILINE)
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", re.MULTILINE)
OTHERS = {"amp.nft.cli.input_file", "amp.nft.errors"}  # tables of one input file, and errors, of which one example shows all
OF_COMMANDS = {"run_deck", "run_and_relearn"}  # amp-nft lammps and relearn call them: docs/lammps.rst


def public_names(module):
    """Yield the classes and functions that a module exports."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, thing in vars(found).items() if not name.startswith("_") and getattr(thing, "__module__", None) == module
    ]
    yield from (name for name in names if inspect.isclass(getattr(found, name)) or inspect.isfunction(getattr(found, name)))


@pytest.mark.parametrize("module", [module for module in MODULES if module not in OTHERS])
def test_each_public_name_has_an_example(module):
    code = "\n".join(block for page in sorted(DOCS.glob("*.rst")) for block in BLOCK.findall(page.read_text(encoding="utf-8")))
    found = importlib.import_module(module)
    missing = [
        name for name in public_names(module)
        if name not in OF_COMMANDS and not re.search(rf"\b{name}\b", code) and ">>>" not in (inspect.getdoc(getattr(found, name)) or "")
    ]  # fmt: skip
    assert not missing, f"no example of {', '.join(missing)}: add one to docs/api.rst or to the docstring"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"calc_text": CALC_TEXT}
    for block in BLOCK.findall(PUBLIC):
        exec(textwrap.dedent(block), names)
    assert Path("best.api-refined-1.ensemble").exists() and Path("api.html").exists()
