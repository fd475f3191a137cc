"""Ranges of fingerprints: Amp's, or wide enough for a bond that is the same in all images."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from small_runs import CALC_TEXT, cells, cluster

from amp.nft.amp_io import read_amp, read_calc_text
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.records import ForceRows, TrainingTask
from amp.nft.training.batched_trainer import BatchedTrainer
from amp.nft.training.input_ranges import DISPLACEMENT, ranges_of

GS = {element: [{"type": "G2", "element": other, "eta": eta} for other in "CO" for eta in (0.05, 4.0)] for element in "CO"}
SPEC = {"name": "Cosine", "kwargs": {"Rc": 5.0}}
SAME = 1e-10  # relative
SLOPE_STEP = 1e-5  # Å, of a numerical gradient
NUMERICAL = 1e-6  # relative


def molecules():
    """Carbon monoxide turned in several ways: its bond is the same in all."""
    found = [Atoms("CO", [(0, 0, 0), (0, 0, 1.13)]) for _ in range(4)]
    for number, atoms in enumerate(found):
        atoms.rotate(37.0 * number, "xyz"[number % 3], center=(0, 0, 0))
    return found


def test_without_a_displacement_ranges_are_those_of_the_values():
    fingerprints = Fingerprints(GS, SPEC)
    rows = [fingerprints.rows(Atoms("CO", [(0, 0, 0), (0, 0, d)])) for d in (1.1, 1.3)]
    x, kind = np.concatenate([some.x for some in rows]), np.concatenate([some.kind for some in rows])
    for number, element in enumerate(fingerprints.elements):
        values = x[kind == number]
        np.testing.assert_array_equal(ranges_of(fingerprints, rows)[element], np.column_stack([values.min(axis=0), values.max(axis=0)]))


def test_a_bond_that_never_varies_has_the_range_of_its_displacement():
    """Half a range is the displacement times the derivative in the length of the bond, here by differences."""
    fingerprints = Fingerprints(GS, SPEC)
    images = molecules()
    low, high = ranges_of(fingerprints, [fingerprints.rows(atoms) for atoms in images], DISPLACEMENT)["C"].T
    lengths = 1.13 + SLOPE_STEP * np.array([-1, 1])
    below, above = (fingerprints.values(Atoms("CO", [(0, 0, 0), (0, 0, d)])).x[0] for d in lengths)
    slopes = np.abs(above - below) / (2 * SLOPE_STEP)
    assert slopes.max() > 0.1  # 1/Å
    np.testing.assert_allclose((high - low) / 2, DISPLACEMENT * slopes, rtol=NUMERICAL, atol=SAME)
    plain = ranges_of(fingerprints, [fingerprints.rows(atoms) for atoms in images])["C"]
    assert np.ptp(plain, axis=1).max() < SAME


def test_ranges_that_are_wide_enough_stay():
    fingerprints = Fingerprints(GS, SPEC)
    rows = [fingerprints.rows(Atoms("CO", [(0, 0, 0), (0, 0, d)])) for d in (0.9, 1.9)]
    for element, plain in ranges_of(fingerprints, rows).items():
        np.testing.assert_array_equal(ranges_of(fingerprints, rows, 1e-3)[element], plain)


@pytest.mark.parametrize("chunks", [True, False])
def test_only_members_that_stop_out_of_bag_on_chunks_have_wider_ranges(chunks):
    """The paper's method and data sets keep Amp's scaling."""
    images = [*cells(), cluster()]
    images[-1].calc = EMT()
    images[-1].get_forces()
    rows = [None] * 4 + [ForceRows.central(0) if chunks else None]
    weights = np.array([[1, 0, 2, 1, 1], [2, 0, 1, 1, 0], [0, 2, 0, 2, 1]])
    task = TrainingTask(images=images, rows=rows, weights_mi=weights, start=None, seed=1, iteration=0)
    ranges = {}
    for until in ("criteria", "out-of-bag"):
        trainer = BatchedTrainer(read_calc_text(CALC_TEXT), log=lambda message: None)
        model = read_amp(trainer.train(replace(task, until=until)).texts[0])
        ranges[until] = np.concatenate(list(model.fprange.values()))
    wider = np.ptp(ranges["out-of-bag"], axis=1) / np.ptp(ranges["criteria"], axis=1)
    assert (wider >= 1.0).all() and (wider.max() > 1.0) == chunks
