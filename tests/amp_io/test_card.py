"""Model cards in the texts of members: written, read, removed, ignored by Amp."""

import json
from pathlib import Path

import numpy as np
import pytest
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model.neuralnetwork import NeuralNetwork
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase.calculators.emt import EMT
from small_runs import N, cells, cluster, results, run

from amp.nft.amp_io import read_amp, read_texts, with_card, with_data, without_card, write_amp, write_ensemble
from amp.nft.amp_io.card import checked_terms
from amp.nft.calculator import EnsembleCalculator, read_card
from amp.nft.errors import InputError, NFTError
from amp.nft.run.verdict import Verdict

TERMS = {"licence": "CC-BY-4.0", "citation": "doi:10.1063/5.0079314"}


class Costly(EMT):
    """A parent with a setting."""

    default_parameters = {**EMT.default_parameters, "encut": 400.0, "txt": "out.txt"}  # noqa: RUF012 - ASE's own interface


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def carded_run(**changes):
    return run(**{"max_iterations": 1, "parent_calc": Costly(), "card": TERMS, "test_labels": 3} | changes)


def test_the_card_of_a_run_says_where_the_ensemble_comes_from():
    al, _ = carded_run()
    card, best = read_card("best.al.ensemble"), min(al.history, key=lambda entry: entry.delta_max)
    assert (card["elements"], card["licence"], card["citation"], card["date"]) == (["Pt"], *TERMS.values(), None)
    assert card["cutoffs"] == {"fingerprints": {"cutoff": 4.5, "function": "Cosine"}, "chunks": 5.0}
    (parent,) = card["parent"]
    assert parent["identity"]["calculator"].endswith("Costly")
    assert parent["identity"]["parameters"] == {"asap_cutoff": False, "encut": 400.0}
    (target,) = card["target"]
    assert (target["formula"], target["atoms"], len(target["digest"])) == (cluster().get_chemical_formula(), len(cluster()), 16)
    assert card["labels"] == {"images": len(cells()), "chunks": best.n_chunks, "test": 3}
    assert card["errors"]["uncertainty_max"] == best.delta_max
    assert card["errors"]["training_force_rmse"] == pytest.approx(np.mean([report.force_rmse for report in best.reports]))
    assert card["verdict"]["state"] == al.verdict.state and card["verdict"]["mean_bound"] == al.verdict.mean_bound
    assert Verdict(**card["verdict"] | {"label_error": np.nan}).sentence == al.verdict.sentence
    assert card["method"]["name"] == "paper" and card["method"]["iteration"] == best.iteration
    assert {"amp-nft", "amp-atomistics", "numpy", "ase"} <= set(card["versions"])


def test_the_card_of_a_resumed_run_is_the_same_byte_by_byte():
    carded_run()
    whole = results()
    carded_run()
    assert results() == whole
    Path("best.al.ensemble").unlink()
    carded_run()
    assert results() == whole
    carded_run(label="again")
    assert Path("best.again.ensemble").read_bytes() == whole["best.al.ensemble"]
    carded_run(card={"licence": "MIT"})
    assert read_card("best.al.ensemble")["licence"] == "MIT"


def test_plain_amp_loads_an_ensemble_with_cards_and_predicts_the_same():
    carded_run(max_iterations=0)
    mine = cluster()
    mine.calc = EnsembleCalculator("best.al.ensemble", keep_members=True)
    forces = BootStrap(load="best.al.ensemble", log=Logger(None), label="amp").get_forces(cluster(), output=[0.5, "e"])[-1]
    assert len(forces) == N
    mine.get_forces()
    np.testing.assert_allclose(forces, mine.calc.results["forces_ensemble"], atol=1e-7)
    Path("one.amp").write_text(read_texts("best.al.ensemble")[0])
    alone = Amp.load("one.amp", cores=1, logging=False)
    np.testing.assert_allclose(alone.get_forces(cluster()), forces[0], atol=1e-10)
    assert read_card("one.amp") == read_card("best.al.ensemble")


def test_a_card_changes_no_member_and_no_digest():
    carded_run(max_iterations=0)
    texts = read_texts("best.al.ensemble")
    bare = [without_card(text) for text in texts]
    assert bare == read_texts("al.0.ensemble") and read_card("al.0.ensemble") is None
    assert EnsembleCalculator("best.al.ensemble").digest == EnsembleCalculator("al.0.ensemble").digest
    assert with_card(with_card(bare, {"a": 1}), read_card("best.al.ensemble")) == texts
    write_ensemble("mixed.ensemble", [texts[0], *bare[1:]])
    assert read_card("mixed.ensemble") is None
    other = with_data(bare[0], out_of_bag={"factor": 1.5})
    assert read_amp(without_card(with_card([other], {"a": 1})[0])).error95_factor == 1.5
    assert with_card(["Model()"], {"a": 1}) == ["Model()"] and without_card("Model()") == "Model()"


def test_a_training_that_starts_from_a_carded_ensemble_gives_the_same_members():
    carded_run(max_iterations=0)
    write_ensemble("bare.ensemble", [without_card(text) for text in read_texts("best.al.ensemble")])
    for name, load in (("b", "best.al.ensemble"), ("c", "bare.ensemble")):
        run(label=name, load=load, max_iterations=0)
    assert Path("b.ensemble").read_bytes() == Path("c.ensemble").read_bytes()


def test_any_text_survives():
    text = write_amp(read_amp(amp_text()))
    card = {"citation": "\"quoted\" 'text' with Å,\nlines and \\", "nested": {"a": [1, None, True, 1e-300]}}
    write_ensemble("a.ensemble", with_card([text], card))
    assert read_card("a.ensemble") == card
    write_ensemble("old.ensemble", [text])
    assert read_card("old.ensemble") is None


def amp_text():
    """Text of an untrained member by Amp itself."""
    calc = Amp(Gaussian(elements=["Pt"], Gs={"Pt": [{"type": "G2", "element": "Pt", "eta": 1.0, "offset": 0.0}]}), NeuralNetwork((2,)))
    calc.model.parameters.update(
        {
            "hiddenlayers": {"Pt": (2,)},
            "weights": {"Pt": {1: [[0.1, 0.2], [0.3, 0.4]], 2: [[0.5], [0.6], [0.7]]}},
            "scalings": {"Pt": {"intercept": 0.0, "slope": 1.0}},
            "fprange": {"Pt": [[0.0, 1.0]]},
            "mode": "atom-centered",
        }
    )
    calc.save("untrained.amp", overwrite=True)
    return Path("untrained.amp").read_text()


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"license": "MIT"}, "a field 'license': use 'licence'"),
        ({"licence": 3}, r"card\['licence'\] is 3"),
        ({"citation": " "}, "must be a text, or None"),
        ("MIT", "it must be a dictionary"),
    ],
)
def test_terms_that_cannot_be(card, message):
    with pytest.raises(InputError, match=message):
        run(card=card)
    assert not list(Path().iterdir())


def test_a_card_of_a_damaged_file():
    assert checked_terms(None) == {"licence": None, "citation": None, "date": None}
    Path("cut.ensemble").write_text(json.dumps(["dict(descriptor="]))
    with pytest.raises(NFTError):
        read_card("cut.ensemble")
    with pytest.raises(FileNotFoundError):
        read_card("none.ensemble")
