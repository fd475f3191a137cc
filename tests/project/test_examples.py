"""The examples run as they stand, and so do the code blocks of the documentation, in an example's directory."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase.io import read

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", re.MULTILINE)
DOCS = sorted((ROOT / "docs").glob("*.rst"))
FOR_A_CLUSTER = {"labels.rst", "cluster.rst", "lammps.rst"}  # test_engines.py, test_parents.py and test_lammps.py run what is in these


def run_example(name, cwd):
    """Output of an example, started where a user would start it."""
    done = subprocess.run([sys.executable, ROOT / "examples" / name], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def blocks_of(page):
    """Return the Python blocks of a page, in order."""
    return [textwrap.dedent(block) for block in BLOCK.findall(page.read_text(encoding="utf-8"))]


PAGES = [page for page in DOCS if blocks_of(page) and page.name not in FOR_A_CLUSTER]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the directory in which the main example ran, and what it printed."""
    directory = tmp_path_factory.mktemp("pt260")
    return directory, run_example("pt260.py", directory)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_main_example_learns_the_cluster(trained):
    """The errors in the README, with a margin for the rounding of other machines."""
    mean, largest = map(float, re.search(r"mean ([\d.]+), max ([\d.]+) eV/Å", trained[1]).groups())
    assert mean < 0.01
    assert largest < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relax.py", "md.py"])
def test_examples_that_use_it(trained, name):
    output = run_example(name, trained[0])
    assert "what was learned" in output or "EMT's largest force" in output


@pytest.mark.slow
@pytest.mark.parents
def test_an_example_of_a_system_with_a_real_parent(tmp_path):
    """The quickest of the four; its page includes text and picture."""
    pytest.importorskip("tblite")
    output = run_example("systems/metal_cluster.py", tmp_path)
    assert output.endswith((tmp_path / "metal_cluster" / "metal_cluster.txt").read_text(encoding="utf-8")[-200:])
    (mean,) = re.findall(r"Best ensemble: error ([\d.]+) in the mean", output)
    assert float(mean) < 0.06  # eV/Å, of a mean force of 0.57
    assert (tmp_path / "metal_cluster" / "metal_cluster.png").read_bytes().startswith(b"\x89PNG")


def test_pages_on_systems_include_what_their_example_writes():
    for script in sorted((ROOT / "examples" / "systems").glob("*.py")):
        if script.stem != "parts":
            page = (ROOT / "docs" / f"{script.stem}.rst").read_text(encoding="utf-8")
            assert f"python examples/systems/{script.name}" in page
            assert {f"images/{script.stem}.png", f"images/{script.stem}.txt"} <= set(re.findall(r"images/[\w.]+", page))


@pytest.mark.slow
def test_the_picture_is_drawn(trained):
    run_example("picture.py", trained[0])
    assert (trained[0] / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_of(page, trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)  # where the main example ran; a page may change what is there
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    from pt260 import calc_text
    from structures import pt260

    names = {"calc_text": calc_text, "atoms": pt260()}
    for block in blocks_of(page):
        exec(block, names)
    assert os.path.exists("best.al.ensemble")


@pytest.mark.slow
def test_the_commands_of_the_page_on_exports(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    commands = re.findall(r"^   \$ (amp-nft export .*)$", (ROOT / "docs" / "export.rst").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        program, *arguments = command.split()
        subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=tmp_path, check=True)
    assert (tmp_path / "data" / "valid.extxyz").exists()
    assert len(list((tmp_path / "potentials").iterdir())) == 10


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_code_blocks_are_python(page):
    for block in blocks_of(page):
        compile(block, page.name, "exec")


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    (script,) = (ROOT / "docs" / "tutorials").glob("*.py")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env={**os.environ, "MPLBACKEND": "Agg"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "EMT's largest force there" in done.stdout
