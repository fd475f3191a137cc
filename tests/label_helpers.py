"""Images to label, and checks of what comes of them, for the tests of several executors."""

import time

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, single_point
from amp.nft.records import LabelOptions

NOTICE = 5.0  # s in which a dead worker is noticed


def images(n):
    cells = []
    for k in range(n):
        atoms = bulk("Pt", cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.info["target_atom"] = k
        cells.append(atoms)
    return cells


def label_all(path, wanted, a_parent, executor, *, log=lambda message: None, **settings):
    """Outcomes by atom; and of each retry the atom, the failure and the time."""
    outcomes, retries = {}, []
    with LabelPool(
        LabelOptions(a_parent, executor, **settings),
        path / "labels",
        on_retry=lambda *what: retries.append((*what, time.time())),
        log=log,
    ) as pool:
        for image in wanted:
            pool.request(image.info["target_atom"], image)
        for atom, outcome in pool.done():
            assert atom not in outcomes
            outcomes[atom] = outcome
            if isinstance(outcome, Label):
                pool.tidy(atom)
    return outcomes, retries


def assert_good(outcomes, wanted):
    for image in wanted:
        outcome = outcomes[image.info["target_atom"]]
        expected = single_point(EMT(), image, ".")
        assert isinstance(outcome, Label), outcome
        assert outcome.energy == expected.energy
        np.testing.assert_array_equal(outcome.forces, expected.forces)
