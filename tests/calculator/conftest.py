"""An ensemble of random weights, and structures for it."""

import numpy as np
import pytest
from ase.build import bulk

from amp.nft.amp_io import AmpModel
from amp.nft.calculator import EnsembleCalculator
from amp.nft.features import g2x

MEMBERS = 3
RADIUS = 4.5


def model(rng, elements):
    """Return a member with random weights; ranges as for metals at usual distances."""
    gs = g2x(elements)
    width = len(gs[elements[0]])
    return AmpModel(
        gs=gs,
        cutoff={"name": "Cosine", "kwargs": {"Rc": RADIUS}},
        hiddenlayers={e: (5, 4) for e in elements},
        activation="tanh",
        weights={e: [rng.uniform(-0.5, 0.5, s) for s in ((width + 1, 5), (6, 4), (5, 1))] for e in elements},
        scalings={e: (0.3, 2.0) for e in elements},
        fprange={e: np.column_stack([np.zeros(width), rng.uniform(5, 9, width)]) for e in elements},
    )


@pytest.fixture
def models():
    rng = np.random.default_rng(7)
    return [model(rng, ("Pt",)) for _ in range(MEMBERS)]


@pytest.fixture
def cluster(pt260):
    atoms = pt260[pt260.get_distances(0, range(len(pt260))).argsort()[:30]]
    atoms.center(vacuum=4)
    return atoms


@pytest.fixture
def crystal():
    atoms = bulk("Pt", cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.random.default_rng(2).uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    return atoms


@pytest.fixture
def watched(models, cluster):
    cluster.calc = EnsembleCalculator(models)
    return cluster
