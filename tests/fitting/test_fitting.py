"""Fits of a data set: errors, validation, restart, and the files that others read."""

import re
import shutil

import numpy as np
import pytest
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read

from amp.nft.amp_io import read_amp
from amp.nft.calculator import EnsembleCalculator, read_card
from amp.nft.errors import InputError, RunStoreError
from amp.nft.features import large
from amp.nft.fitting import Ensemble, evaluate, fit
from amp.nft.report.comparison import compare
from amp.nft.run.store import RunRecord
from amp.nft.training.out_of_bag import LESS_FORCE
from amp.nft.uncertainty.forces import VANISHING

SAME = 1e-9
AMP = 1e-6  # eV/Å, agreement with Amp
PART = 0.35  # of the spread of the forces that is left as error
SMALL = {"hiddenlayers": (4,), "cutoff": 4.5, "n": 3, "threads": 1, "valid": 0.25}


def cells(n=16):
    images = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[0] = "Pt"
        atoms.rattle(0.12, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("fits") / "fit"


@pytest.fixture(scope="module")
def ensemble(directory):
    return fit(cells(), directory=directory, **SMALL)


def test_validation_images_are_predicted_and_not_trained(ensemble):
    assert len(ensemble.validation_indices) == 4
    validation = [cells()[i] for i in ensemble.validation_indices]
    forces = np.concatenate([image.get_forces() for image in validation])
    table = evaluate(ensemble, validation)
    assert table.errors("forces").rmse < PART * np.sqrt(np.mean(forces**2))
    assert table.errors("energy").n == 4


def test_the_table_is_the_errors_by_element(ensemble):
    images = cells(3)
    table, calculator = evaluate(ensemble, images), ensemble.calculator()
    errors = np.concatenate([calculator.get_forces(image) - image.get_forces() for image in images])
    copper = np.concatenate([image.symbols == "Cu" for image in images])
    for element, part in (("all", errors), ("Cu", errors[copper]), ("Pt", errors[~copper])):
        row = table.errors("forces", element)
        assert (row.n, row.mae, row.max) == (
            part.size,
            pytest.approx(np.abs(part).mean(), rel=SAME),
            pytest.approx(np.abs(part).max(), rel=SAME),
        )
        assert row.rmse == pytest.approx(np.sqrt((part**2).mean()), rel=SAME)
    assert re.search(r"forces +Pt +9 ", str(table))
    assert len(table.as_dicts()) == 4
    with pytest.raises(InputError, match="'Au'"):
        table.errors("forces", "Au")


def test_members_carry_reports_and_the_factor(ensemble):
    assert [report.member for report in ensemble.reports] == [0, 1, 2]
    assert all("out-of-bag minimum" in report.message and report.oob_force_rmse > 0 for report in ensemble.reports)
    assert ensemble.error95_factor > 0
    table = evaluate(ensemble, cells(4))
    assert 0 <= table.coverage <= 1 and 0 <= table.coverage95 <= 1


def test_forces_that_vanish_by_symmetry_are_within_the_uncertainty(ensemble):
    crystal = bulk("Pt", cubic=True)
    crystal.calc = EMT()
    crystal.get_potential_energy()
    table = evaluate(ensemble, [crystal])
    assert table.errors("forces", "all").max < VANISHING and table.coverage == table.coverage95 == 1
    calculator = EnsembleCalculator([read_amp(text) for text in ensemble.texts])
    forces, delta = (calculator.get_property(name, crystal) for name in ("forces", "forces_uncertainty"))
    of_report = compare(crystal.get_forces(), forces, np.zeros_like(delta), 0)
    assert of_report.errors.max() > 0 and of_report.coverage == 1 and of_report.covered.all()


def test_the_card_of_a_fit(ensemble, directory):
    card = read_card(directory / "fit.ensemble")
    assert card == ensemble.card
    n_validation = len(ensemble.validation_indices)
    assert (card["labels"]["images"], card["labels"]["validation"]) == (len(cells()) - n_validation, n_validation)
    table = evaluate(ensemble, [cells()[i] for i in ensemble.validation_indices])
    assert card["errors"]["validation_force_rmse"] == table.errors("forces").rmse
    assert card["error95_factor"] == ensemble.error95_factor and card["target"] is card["parent"] is None
    assert card["versions"]["amp-nft"]


def test_an_ensemble_survives_its_file_and_amp_reads_it(ensemble, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(repr(ensemble)) < 200  # members are long texts
    ensemble.save("a.ensemble")
    loaded = Ensemble.load("a.ensemble")
    assert loaded.validation_indices == ensemble.validation_indices
    assert [str(report) for report in loaded.reports] == [str(report) for report in ensemble.reports]
    by_amp = np.array(BootStrap(load="a.ensemble", log=Logger(None), label="amp").get_forces(cells(1)[0], output=[0.5, "e"])[-1])
    atoms = cells(1)[0]
    calculator = loaded.calculator(keep_members=True)
    calculator.calculate(atoms)
    np.testing.assert_allclose(by_amp, calculator.results["forces_ensemble"], atol=AMP)


def test_a_killed_fit_resumes_with_the_members_that_it_lacks(ensemble, directory, tmp_path):
    """One member is in the files, then the disk is gone: the rest follows, and no member differs."""
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "content").mkdir()
    for path in (directory / "content").iterdir():
        (tmp_path / "content" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:2]))
    said = []
    again = fit(cells(), directory=tmp_path, log=said.append, **SMALL)
    assert again.texts == ensemble.texts
    assert "Resuming: 1 of 3 members found." in said
    assert sum(event["event"] == "member" for event in RunRecord(tmp_path).events) == 3


@pytest.fixture(scope="module")
def on_all(tmp_path_factory):
    directory = tmp_path_factory.mktemp("on-all") / "fit"
    return fit(cells(), directory=directory, energy_stage="all", **SMALL), directory


def test_a_stage_on_all_images_learns_from_those_that_a_member_lacks(ensemble, on_all):
    """Each member's weighted errors of all trained images fall, and the band stays as wide as before."""
    after, _ = on_all
    images = [image for i, image in enumerate(cells()) if i not in ensemble.validation_indices]
    losses, widths = [], []
    for one in (ensemble, after):
        calculator = one.calculator(keep_members=True)
        loss, band = np.zeros(SMALL["n"]), []
        for image in images:
            calculator.calculate(image)
            found = calculator.results
            energy = (found["energy_comm"] - image.get_potential_energy()) / len(image)
            force = found["forces_comm"] - image.get_forces()
            loss += energy**2 + LESS_FORCE * 0.04 * (force**2).mean(axis=(1, 2))
            band.append(found["forces_error95"])
        losses.append(loss)
        widths.append(np.sqrt(np.mean(np.concatenate(band) ** 2)))
    assert (losses[1] < losses[0]).all()
    assert widths[1] == pytest.approx(widths[0], rel=SAME)
    assert all(re.search(r"; then \d+ steps on all images$", report.message) for report in after.reports)


def test_a_stage_on_all_images_is_resumed(on_all, tmp_path):
    """Two members are finished, one of them on all images: the files of a kill in between."""
    after, directory = on_all
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copytree(directory / "content", tmp_path / "content")
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:5]))
    assert fit(cells(), directory=tmp_path, energy_stage="all", **SMALL).texts == after.texts
    events = [(event["event"], event["member"]) for event in RunRecord(tmp_path).events if "member" in event]
    assert events == [(name, member) for name in ("member", "all-images") for member in range(3)]


def test_threads_change_nothing(ensemble, tmp_path):
    assert fit(cells(), directory=tmp_path, **SMALL | {"threads": 2}).texts == ensemble.texts


def test_other_settings_in_the_same_directory_are_refused(ensemble, directory):
    with pytest.raises(RunStoreError, match="other seed"):
        fit(cells(), directory=directory, seed=1, **SMALL)
    with pytest.raises(RunStoreError, match="other images"):
        fit(cells(15), directory=directory, **SMALL)


def test_figure_and_extended_xyz(ensemble, tmp_path):
    evaluate(ensemble, cells(2), figure=tmp_path / "parity.png", extxyz=tmp_path / "predicted.xyz")
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    image = read(tmp_path / "predicted.xyz", index=1)
    calculator = ensemble.calculator()
    np.testing.assert_allclose(image.arrays["nft_forces"], calculator.get_forces(cells(2)[1]), atol=AMP)
    np.testing.assert_allclose(image.arrays["nft_forces_uncertainty"], calculator.results["forces_uncertainty"], atol=AMP)
    np.testing.assert_allclose(image.get_forces(), cells(2)[1].get_forces(), atol=AMP)


def test_chosen_forces_and_weights_are_trained(tmp_path):
    """Labels of weight 0 do not matter, those of other weights do."""
    texts = {}
    for name, weight, factor in (("zero", 0.0, 1.0), ("wrong", 0.0, 7.0), ("half", 0.5, 1.0)):
        images = cells(8)
        for image in images:
            image.calc.results["forces"][0] *= factor
        forces = [np.array([weight, 1.0, 1.0, 1.0])] * 8
        texts[name] = fit(images, directory=tmp_path / name, forces=forces, **SMALL | {"n": 1}).texts
    models = {name: read_amp(of[0]).weights["Cu"] for name, of in texts.items()}
    assert all(np.array_equal(*pair) for pair in zip(models["zero"], models["wrong"], strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(models["zero"], models["half"], strict=True))


def test_criteria_end_a_fit(tmp_path):
    text = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
calc = Amp(descriptor=Gaussian(cutoff=4.5), model=NeuralNetwork(hiddenlayers=(4,)))
calc.model.lossfunction = LossFunction(convergence={'energy_rmse': 0.05, 'force_rmse': 0.5})
"""
    found = fit(cells(6), calc_text=text, fit_until="criteria", directory=tmp_path / "fit", n=2, threads=1)
    assert all(report.converged and report.force_rmse <= 0.5 for report in found.reports)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"valid": 1.0}, "valid is 1.0"),
        ({"fit_until": "bag"}, "fit_until is 'bag'"),
        ({"fit_until": "criteria"}, "calc_text"),
        ({"energy_stage": "some"}, "energy_stage is 'some'"),
        ({"energy_stage": "all", "fit_until": "criteria", "calc_text": {}}, "energy_stage is 'all', but fit_until"),
        ({"features": "g3"}, "features is 'g3'"),
        ({"forces": "some"}, "forces is 'some'"),
        ({"forces": [None]}, "forces has 1 items"),
        ({"forces": [None] * 3 + [[9]]}, r"forces\[3\]"),
        ({"forces": [None] * 3 + [[0.5, 0.5]]}, r"forces\[3\]"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_any_work(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(cells(4), directory=tmp_path / "fit", **changes)
    assert not (tmp_path / "fit").exists()


def test_the_large_set_has_thirty_functions_for_one_element():
    functions = large("Mo")["Mo"]
    assert [sum(f["type"] == kind for f in functions) for kind in ("G2", "G4")] == [14, 16]
    assert len({tuple(sorted((key, str(value)) for key, value in f.items())) for f in functions}) == 30


def make_pairs(directory):
    return LennardJones(sigma=2.3, epsilon=0.2, rc=4.5, ro=3.5, smooth=True)


def test_a_fit_learns_what_its_baseline_leaves(tmp_path):
    """Sums are predicted, the validation errors are those of the sums, and a fit resumes with its own baseline alone."""
    images, baseline = cells(), make_pairs("")
    settings = SMALL | {"directory": tmp_path / "fit"}
    found = fit(images, baseline=baseline, **settings)
    table = evaluate(found, [images[i] for i in found.validation_indices], baseline=baseline)
    forces = np.concatenate([images[i].get_forces() for i in found.validation_indices])
    assert table.errors("forces").rmse < PART * np.sqrt(np.mean(forces**2))
    assert found.card["errors"]["validation_force_rmse"] == pytest.approx(table.errors("forces").rmse, rel=1e-6)
    assert found.card["baseline"]["parameters"]["sigma"] == 2.3
    atoms = images[0].copy()
    atoms.calc = found.calculator(baseline=make_pairs)
    rest, own = atoms.get_forces(), images[0].copy()
    own.calc = baseline
    assert np.abs(rest - images[0].get_forces()).max() < 0.3 * np.abs(own.get_forces() - images[0].get_forces()).max()
    journal = (tmp_path / "fit" / "journal.jsonl").read_text()
    assert fit(images, baseline=make_pairs, **settings).texts == found.texts
    assert (tmp_path / "fit" / "journal.jsonl").read_text() == journal
    loaded = Ensemble.load(tmp_path / "fit" / "fit.ensemble")
    with pytest.raises(InputError, match="adds to the baseline it was trained with, LennardJones"):
        loaded.calculator()
    with pytest.raises(NotImplementedError):
        BootStrap(load=str(tmp_path / "fit" / "fit.ensemble"), log=Logger(None))
    with pytest.raises(RunStoreError, match="a fit with other baseline"):
        fit(images, **settings)
    with pytest.raises(InputError, match="is the parent itself"):
        fit(images, baseline=EMT(), **settings)
