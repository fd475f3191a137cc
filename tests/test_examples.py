"""The examples run as they stand, and so do the code blocks of the documentation, in an example's directory."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase.io import read

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", re.MULTILINE)
PAGES = ("learning.rst", "ensemble.rst")

pytestmark = pytest.mark.slow


def run_example(name, cwd):
    """Output of an example, started where a user would start it."""
    done = subprocess.run([sys.executable, ROOT / "examples" / name], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory in which the main example ran, and what it printed."""
    directory = tmp_path_factory.mktemp("pt260")
    return directory, run_example("pt260.py", directory)


def test_the_documented_script(tmp_path):
    output = run_example("documented.py", tmp_path)
    assert re.search(r"Converged: the largest uncertainty|Not converged: ", output)
    info = tmp_path / "al-training" / "saved-info"
    deltas = np.load(info / "deltas.npy")
    assert deltas.shape[1] == 55
    ensembles = ["al.ensemble", "best.al.ensemble", *(f"al.{k}.ensemble" for k in range(len(deltas)))]
    for name in ensembles:
        assert len(BootStrap(load=str(tmp_path / name), log=Logger(None), label=str(tmp_path / "scratch")).ensemble) == 4
    if len(deltas) > 1:
        assert len(read(info / "atomic_chunks.traj", ":")) >= 5


def test_the_main_example_learns_the_cluster(trained):
    """What the README promises, with room for another machine's rounding."""
    mean, largest = map(float, re.search(r"mean ([\d.]+), max ([\d.]+) eV/Å", trained[1]).groups())
    assert mean < 0.01
    assert largest < 0.1


@pytest.mark.parametrize("name", ["relax.py", "md.py"])
def test_examples_that_use_it(trained, name):
    output = run_example(name, trained[0])
    assert "what was learned" in output or "EMT's largest force" in output


@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_of(page, trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    monkeypatch.syspath_prepend(ROOT / "examples")
    from pt260 import calc_text
    from structures import pt260

    names = {"calc_text": calc_text, "atoms": pt260()}
    for block in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        exec(textwrap.dedent(block), names)
    assert os.path.exists("best.al.ensemble")
