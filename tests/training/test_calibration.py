"""The trainer stores the out-of-bag calibration with the members; Amp ignores it, and the calculator uses it."""

import numpy as np
import pytest
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase.calculators.emt import EMT
from small_runs import CALC_TEXT, cells, cluster

from amp.nft.amp_io import read_amp, read_calc_text, with_data, write_amp, write_ensemble
from amp.nft.amp_io.card import with_card
from amp.nft.calculator import Committee, EnsembleCalculator
from amp.nft.chunks import carve_chunks
from amp.nft.records import ForceRows, TrainingTask
from amp.nft.training.batched_trainer import BatchedTrainer
from amp.nft.training.calibration import least_factor
from amp.nft.uncertainty import calibrate_out_of_bag

SAME = 1e-9  # relative
AMP = 1e-6  # eV/Å, agreement with Amp


def labelled_chunks():
    chunks = carve_chunks(cluster(), range(13), 5.0)
    for chunk in chunks:
        chunk.calc = EMT()
        chunk.get_forces()
    return chunks


@pytest.fixture(scope="module")
def task():
    """First images, and chunks of which the central force is trained."""
    images = [*cells(), *labelled_chunks()]
    rows = [None] * 4 + [ForceRows.central(0)] * (len(images) - 4)
    rng = np.random.default_rng(2)
    weights = np.array([np.bincount(rng.integers(len(images), size=len(images)), minlength=len(images)) for _ in range(5)])
    return TrainingTask(images=images, rows=rows, weights_mi=weights, start=None, seed=1, iteration=0)


@pytest.fixture(scope="module")
def texts(task):
    return train(task)


def train(task):
    return BatchedTrainer(read_calc_text(CALC_TEXT), log=lambda message: None).train(task).texts


def test_central_forces_of_chunks_calibrate(task, texts):
    models = [read_amp(text) for text in texts]
    calculator = EnsembleCalculator(models, keep_members=True)
    chunks = task.images[4:]
    predicted = np.array([calculator.get_property("forces_ensemble", chunk)[:, 0] for chunk in chunks]).transpose(1, 0, 2)
    known = np.array([chunk.get_forces()[0] for chunk in chunks])
    expected = calibrate_out_of_bag(predicted, known, task.weights_mi[:, 4:])
    assert {model.error95_factor for model in models} == {models[0].error95_factor}
    assert models[0].error95_factor == pytest.approx(expected.factor, rel=SAME)
    assert models[0].nft["out_of_bag"]["n"] == expected.n


def test_the_factor_is_at_least_1_where_several_chunks_train_one_target():
    chunks = labelled_chunks()
    assert least_factor(chunks) == 0.0
    assert least_factor([*chunks, chunks[3].copy()]) == 1.0


def test_all_forces_of_a_data_set_calibrate():
    task = TrainingTask(
        images=cells(), rows=[None] * 4, weights_mi=np.array([[1, 0, 2, 1], [2, 0, 1, 1], [0, 2, 0, 2]]), start=None, seed=1, iteration=0
    )
    found = read_amp(train(task)[0]).nft["out_of_bag"]
    assert found["n"] == len(task.images[1])  # the only image that two members lack


def test_first_images_of_a_run_do_not_calibrate_its_target():
    weights = np.array([[1, 0, 2, 1], [2, 0, 1, 1], [0, 2, 0, 2]])
    task = TrainingTask(images=cells(), rows=[None] * 4, weights_mi=weights, start=None, seed=1, iteration=0, targets=[cluster()])
    assert read_amp(train(task)[0]).error95_factor is None


def test_the_calculator_gives_the_band_beside_the_raw_uncertainty(texts):
    atoms = cluster()
    atoms.calc = EnsembleCalculator([read_amp(text) for text in texts])
    atoms.get_forces()
    factor = read_amp(texts[0]).error95_factor
    np.testing.assert_allclose(atoms.calc.results["forces_error95"], factor * atoms.calc.results["forces_uncertainty"], rtol=SAME)
    plain = EnsembleCalculator([read_amp(with_data(text, out_of_bag={})) for text in texts])
    plain.calculate(atoms)
    assert "forces_error95" not in plain.results
    np.testing.assert_array_equal(plain.results["forces_uncertainty"], atoms.calc.results["forces_uncertainty"])


def test_a_card_with_a_floor_widens_the_band(texts):
    """Also that of a committee; the members stay the same, and so does their digest."""
    atoms, plain = cluster(), EnsembleCalculator([read_amp(text) for text in texts])
    band = plain.get_property("forces_error95", atoms)
    floor = float(np.median(band))
    wider = EnsembleCalculator([read_amp(text) for text in with_card(texts, {"error95_floor": floor})])
    np.testing.assert_array_equal(wider.get_property("forces_error95", atoms), np.maximum(band, floor))
    np.testing.assert_array_equal(wider.results["forces_uncertainty"], plain.results["forces_uncertainty"])
    assert wider.digest == plain.digest and plain.error95_floor is None
    each = [EnsembleCalculator([read_amp(text)]) for text in texts]
    committee = Committee(each, error95_factor=plain.error95_factor, error95_floor=floor)
    np.testing.assert_allclose(committee.get_property("forces_error95", atoms), np.maximum(band, floor), rtol=SAME)


def test_amp_loads_the_members_and_ignores_the_factor(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ensemble("a.ensemble", texts)
    assert "out_of_bag" in texts[0]
    by_amp = BootStrap(load="a.ensemble", log=Logger(None), label="amp").get_forces(cluster(), output=[0.5, "e"])[-1]
    atoms = cluster()
    atoms.calc = EnsembleCalculator("a.ensemble", keep_members=True)
    atoms.get_forces()
    np.testing.assert_allclose(np.array(by_amp), atoms.calc.results["forces_ensemble"], atol=AMP)


def test_data_are_kept_when_a_text_is_read_and_written(texts):
    assert write_amp(read_amp(texts[0])) == texts[0]
    changed = with_data(texts[0], note="mine")
    assert read_amp(changed).nft == {**read_amp(texts[0]).nft, "note": "mine"}
    assert with_data(changed, note="other") == with_data(texts[0], note="other")
