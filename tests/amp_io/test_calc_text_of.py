"""Calculators and settings as texts: the text makes the same calculator."""

from pathlib import Path

import pytest
from amp import Amp
from amp.descriptor.cutoffs import Polynomial
from amp.descriptor.gaussian import Gaussian
from amp.descriptor.zernike import Zernike
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from small_runs import CALC_TEXT, N, run

from amp.nft.amp_io import calc_text_of, read_calc_text, read_texts, spec_of
from amp.nft.amp_io.calc_text_of import DEFAULTS, FEATURES
from amp.nft.cli.input_file import Members
from amp.nft.cli.settings import calc_text
from amp.nft.errors import InputError
from amp.nft.features import g2x, paper20

SETTINGS = {"cutoff": 4.5, "hiddenlayers": (3,), "energy_rmse": 0.005, "force_rmse": 0.02, "force_maxresid": 0.2, "maxiter": 60}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def calculator(**loss):
    calc = Amp(Gaussian(cutoff=4.5, Gs=g2x(["Pt"])), NeuralNetwork(hiddenlayers=(3,)), dblabel="amp-db")
    calc.model.lossfunction = LossFunction(force_coefficient=0.04, maxiter=60, **loss)
    return calc


def test_a_text_stays_as_it_is():
    assert calc_text_of(CALC_TEXT, ["Pt"]) is CALC_TEXT


@pytest.mark.parametrize(
    "calc",
    [
        lambda: calculator(convergence={"energy_rmse": 0.005, "force_rmse": 0.02, "force_maxresid": 0.2}),
        lambda: calculator(convergence={"energy_rmse": 0.005}),
        lambda: Amp(Gaussian(), NeuralNetwork(hiddenlayers={"Cu": (4, 3), "Pt": (2,)}, activation="sigmoid")),
        lambda: Amp(Gaussian(cutoff=Polynomial(5.0, gamma=2), Gs=paper20(["Cu", "Pt"]), elements=["Cu", "Pt"]), NeuralNetwork()),
    ],
)
def test_the_text_of_a_calculator_makes_the_same_one(calc):
    assert read_calc_text(calc_text_of(calc(), [])) == spec_of(calc())


def test_settings_have_the_defaults_of_the_input_file():
    fields = {name: Members.model_fields[name].default for name in DEFAULTS}
    assert {**fields, "hiddenlayers": tuple(fields["hiddenlayers"])} == DEFAULTS
    assert calc_text_of({}, ["Cu", "Pt"]) == calc_text(Members(), ["Cu", "Pt"])
    assert set(FEATURES) == set(Members.model_fields["features"].annotation.__args__)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"forces_rmse": 0.1}, InputError, "calc_text has a setting 'forces_rmse', which is not known; did you mean force_rmse?"),
        ({"features": "g3"}, InputError, r"calc_text\['features'\] is 'g3': it must be one of 'g2x', .*'large5', 'paper20'"),
        ({"cutoff": -1.0}, InputError, r"calc_text\['cutoff'\] is -1.0: it must be above 0"),
        ({"force_rmse": 0}, InputError, r"calc_text\['force_rmse'\] is 0: it must be above 0"),
        ({"hiddenlayers": (5, 0)}, InputError, r"calc_text\['hiddenlayers'\] is 0: it must be an integer, at least 1"),
        (5, TypeError, "calc_text is 5: it must be a str, a dictionary of settings, or an Amp calculator"),
    ],
)
def test_other_settings_are_refused(given, error, text):
    with pytest.raises(error, match=text):
        calc_text_of(given, ["Pt"])


def test_a_calculator_that_has_no_text_is_refused():
    with pytest.raises(
        InputError, match=r"whose text is not known: the descriptor is amp.descriptor.zernike.Zernike.*; give the Python text"
    ):
        calc_text_of(Amp(Zernike(), NeuralNetwork()), ["Pt"])


def test_a_trained_calculator_is_refused():
    run(max_iterations=0)
    Path("member.amp").write_text(read_texts("best.al.ensemble")[0])
    with pytest.raises(InputError, match=r"start from an ensemble by NFT\(load=...\)"):
        calc_text_of(Amp.load("member.amp"), ["Pt"])


def test_a_run_takes_a_calculator_and_settings():
    of_text, _ = run(max_iterations=0, label="text")
    criteria = {name: SETTINGS[name] for name in ("energy_rmse", "force_rmse", "force_maxresid")}
    of_object, _ = run(max_iterations=0, label="object", calc_text=calculator(convergence=criteria))
    of_settings, _ = run(max_iterations=0, label="settings", calc_text=SETTINGS)
    again, _ = run(max_iterations=0, label="settings", calc_text=SETTINGS)  # resumes
    assert of_text.history == of_object.history == of_settings.history == again.history
    assert len(of_text.history[0].reports) == N
