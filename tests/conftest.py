"""Fixtures and markers that several tests share."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

HERE = Path(__file__).parent


def pytest_addoption(parser):
    """Bound the time of a whole session without hiding what it left out."""
    parser.addoption("--until", type=float, metavar="S", help="skip, and say so, tests that have not begun S seconds after the start")


def pytest_configure(config):
    """Start the clock of ``--until``."""
    seconds = config.getoption("until")
    config.deadline = None if seconds is None else time.monotonic() + seconds


def pytest_runtest_setup(item):
    """Skip what comes too late; ``-rs`` names it."""
    if item.config.deadline is not None and time.monotonic() > item.config.deadline:
        pytest.skip(f"out of time: {item.nodeid} had not begun {item.config.getoption('until'):.0f} s after the start")


def pytest_collection_modifyitems(items):
    """Skip what is marked `fortran` where Amp has no Fortran modules."""
    try:
        from amp import fmodules  # noqa: F401
    except ImportError:
        skip = pytest.mark.skip(reason="Amp has no Fortran modules here")
        for item in items:
            if item.get_closest_marker("fortran"):
                item.add_marker(skip)


@pytest.fixture
def emt():
    """Return a fresh EMT calculator, the parent of every test."""
    return EMT()


@pytest.fixture(scope="session")
def pt260():
    """Pt260 of the paper: truncated octahedron, rattled; plain Atoms without a calculator."""
    cluster = Octahedron("Pt", 8, cutoff=3, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, np.array(cluster.positions))
    atoms.rattle(0.1, seed=42)
    return atoms


@pytest.fixture(scope="session")
def slurm():
    """Return a Slurm of one node, started for these tests."""
    if shutil.which("slurmctld") is None or os.getuid():
        pytest.skip("Slurm can be started by root where it is installed: tests/slurm/slurm.sh install")
    directory = tempfile.mkdtemp(prefix="slurm-")  # pytest's own is closed to others, which munge does not like
    script = HERE / "slurm" / "slurm.sh"
    start = subprocess.run([script, "start", directory], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if start.returncode:
        pytest.skip(f"Slurm does not start here: {start.stderr}")
    before = dict(os.environ)
    os.environ["SLURM_CONF"] = os.path.join(directory, "slurm.conf")
    # what Slurm starts finds this Python, and the parents of these tests
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), before["PATH"]])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE / "labels"), *filter(None, [before.get("PYTHONPATH")])])
    yield
    os.environ.clear()
    os.environ.update(before)
    subprocess.run([script, "stop", directory], check=True)
    shutil.rmtree(directory, ignore_errors=True)
