"""Fixtures and markers that several tests share."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Octahedron


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
    """A fresh EMT calculator, the parent of every test."""
    return EMT()


@pytest.fixture(scope="session")
def pt260():
    """Pt260 of the paper: truncated octahedron, rattled; plain Atoms without a calculator."""
    cluster = Octahedron("Pt", 8, cutoff=3, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, np.array(cluster.positions))
    atoms.rattle(0.1, seed=42)
    return atoms
