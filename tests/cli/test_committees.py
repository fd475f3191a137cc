"""Commands with the committee of a run whose members another program trained; the program here fits pair potentials."""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write
from command_line import SMALL, amp_nft
from small_runs import cells, cluster

from amp.nft.calculator import load
from amp.nft.cli import main
from amp.nft.errors import UnsupportedModel
from amp.nft.interfaces import write_runner
from amp.nft.interfaces.lammps import networks
from amp.nft.run.history import read_run

TRAINER = Path(__file__).parents[1] / "pair_trainer.py"
KEYS = f"""[committee]
members = 2
parallel = 2
train = "{sys.executable} {TRAINER}"
calculator = "pairs.load"
model = "pairs.json"
argument = "path"
args = {{cutoff = 5.0}}
[select]"""
INPUT = re.sub(r"\[ensemble\].*\[select\]", lambda found: KEYS, SMALL, flags=re.DOTALL)
BEST = "best.al.committee"
ROUNDED = 1e-6  # eV/Å: eight decimals of positions and forces in a file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a directory in which the program has run; the calculator is in a module next to the input file."""
    directory = tmp_path_factory.mktemp("run")
    write(directory / "initial.traj", cells())
    write(directory / "target.traj", cluster())
    shutil.copyfile(TRAINER, directory / "pairs.py")
    (directory / "nft.toml").write_text(INPUT)
    assert amp_nft("check", cwd=directory)[0].endswith("nft.toml is correct.\n")
    output, _ = amp_nft("run", code=3, cwd=directory)
    assert f"Best ensemble: {BEST}" in output
    return directory


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Return the directory of the run; the test works in an empty one."""
    monkeypatch.chdir(tmp_path)
    return finished


def predicted(place, atoms, monkeypatch):
    monkeypatch.syspath_prepend(place)
    committee = load(place / BEST)
    return committee.get_property("forces", atoms), committee.results["forces_uncertainty"]


def test_the_content_of_a_committee(place):
    found = json.loads(amp_nft("info", "--json", BEST, cwd=place)[0])
    assert (found["members"], found["elements"], found["calculator"]) == (2, ["Pt"], "pairs.load")
    assert found["trainer"] == f"{sys.executable} {TRAINER}" and len(found["models"]) == 2
    assert found["error95_factor"] == found["card"]["error95_factor"] == read_run(place).best.error95_factor
    assert found["card"]["labels"] == {"images": 4, "chunks": read_run(place).best.n_chunks, "test": 0}
    assert found["card"]["errors"]["training_force_rmse"] > 0 and found["card"]["trainer"]["samples"] == "bootstrap"
    assert "members 2 elements Pt calculator pairs.load" in " ".join(amp_nft("info", place / BEST)[0].split())


def test_a_changed_model_is_an_error_of_info(place, tmp_path):
    shutil.copytree(place / BEST, tmp_path / BEST)
    next((tmp_path / BEST).glob("member-*/pairs.json")).write_text("[]")
    assert "was changed since its training" in amp_nft("info", BEST, code=2)[1]


def test_errors_on_labelled_images(place, monkeypatch):
    image = cluster()
    image.calc = EMT()
    image.get_forces()
    write("truth.extxyz", image)
    output, _ = amp_nft("evaluate", "truth.extxyz", "--ensemble", place / BEST, "-o", "p.extxyz")
    forces, delta = predicted(place, image, monkeypatch)
    found = read("p.extxyz")
    np.testing.assert_allclose(found.arrays["nft_forces"], forces, atol=ROUNDED)
    np.testing.assert_allclose(found.arrays["nft_forces_uncertainty"], delta, atol=ROUNDED)
    rmse = float(re.search(r"forces +all +39 +\S+ +(\S+)", output)[1])
    assert rmse == pytest.approx(np.sqrt(np.mean((forces - image.get_forces()) ** 2)), rel=1e-3)


def test_a_relaxation_finds_the_committee_of_the_run(place, tmp_path, monkeypatch):
    options = ("--steps", "2", "-o", tmp_path / "relaxed.extxyz", "--trajectory", tmp_path / "path.extxyz")
    output, _ = amp_nft("relax", "target.traj", *options, code=3, cwd=place)
    largest = json.loads(amp_nft("info", "--json", place / BEST)[0])["card"]["errors"]["uncertainty_max"]
    assert "Not relaxed: 2 steps" in output and f"threshold of {1.5 * largest:.3g}" in output
    first = read("path.extxyz", 0)
    forces, delta = predicted(place, first, monkeypatch)
    np.testing.assert_allclose(first.arrays["nft_forces"], forces, atol=ROUNDED)
    np.testing.assert_allclose(first.arrays["nft_delta"], delta, atol=ROUNDED)
    assert read("relaxed.extxyz").info["nft_delta_max"] <= 1.5 * largest


def test_the_report_and_the_figures(place, capsys):
    assert main(["report", str(place), "-o", "page.html"]) == main(["plot", str(place / "al-training"), "-o", "figures"]) == 0
    page, output = Path("page.html").read_text(encoding="utf-8"), capsys.readouterr().out
    assert f"{BEST}/committee.json" in page and "best.al.ensemble" not in page
    assert "page.html is written" in output and "figures: " in output and str(place) not in sys.path


def test_a_report_without_the_calculator_of_the_committee(place, tmp_path):
    """The page shows what the run has recorded; a command that must predict names the calculator that is missing."""
    shutil.copytree(place, tmp_path / "run")
    truth = cluster()
    truth.calc = EMT()
    truth.get_forces()
    write(tmp_path / "truth.traj", truth)
    (tmp_path / "run" / "pairs.py").unlink()
    whole, errors = amp_nft("report", "run", "--output", "whole.html", cwd=tmp_path)
    page = (tmp_path / "whole.html").read_text(encoding="utf-8")
    missing = "calculator pairs.load cannot be imported (ModuleNotFoundError: No module named 'pairs')"
    assert f"Predictions are missing here: {missing}" in html.unescape(page) and "UNKNOWN" in whole and missing in errors
    _, errors = amp_nft("plot", "run", "--output", "figures", cwd=tmp_path)
    assert list((tmp_path / "figures").glob("*.svg")) and missing in errors
    assert missing in amp_nft("report", "run", "--truth", "truth.traj", code=2, cwd=tmp_path)[1]
    assert missing in amp_nft("evaluate", "truth.traj", "--ensemble", f"run/{BEST}", code=2, cwd=tmp_path)[1]
    found = json.loads(amp_nft("info", "--json", f"run/{BEST}", cwd=tmp_path)[0])
    assert found["calculator"] == "pairs.load"


@pytest.mark.filterwarnings("default:Predictions are missing here")
@pytest.mark.parametrize(
    ("command", "code"), [(["report", "run"], 0), (["plot", "run"], 0), (["evaluate", "initial.traj", "--ensemble", f"run/{BEST}"], 2)]
)
def test_modules_are_imported_from_the_directory_of_the_run_alone(place, command, code, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "pairs", raising=False)
    shutil.copytree(place, "run")
    shutil.copyfile("run/initial.traj", "initial.traj")
    shutil.move("run/pairs.py", "pairs.py")
    assert main(command) == code and "No module named 'pairs'" in capsys.readouterr().err


def test_labels_are_exported_and_models_are_not(place):
    assert "structures in train" in amp_nft("export", place, "-o", "data", "--to", "extxyz")[0]
    for source, text in (
        (place / BEST, "is a committee, models of another program: the format of RuNNer describes networks of Amp"),
        (place / "al-training", "is a run with models of another program, and the format of RuNNer describes networks of Amp"),
    ):
        assert text in amp_nft("export", source, "-o", "new", "--to", "runner", code=2)[1]
    assert "has models, and no labels" in amp_nft("export", place / BEST, "-o", "new", code=2)[1]
    assert not Path("new").exists()


def test_lammps_refuses_a_committee_before_any_work(place, capsys):
    rule = "is a committee, models of another program: only networks of Amp run in LAMMPS"
    for arguments in (["none.in"], ["none.in", "--relearn", str(place / "nft.toml")]):
        assert main(["lammps", str(place / BEST), *arguments]) == 2
        output, errors = capsys.readouterr()
        assert not output and rule in errors and "Use the pair style of that program" in errors
    with pytest.raises(UnsupportedModel, match=rule):
        networks(place / BEST)
    with pytest.raises(UnsupportedModel, match="the format of RuNNer describes networks of Amp"):
        write_runner(place / BEST, "members")
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["info", "none.committee"], "give the directory of a committee that a run has left"),
        (["evaluate", "initial.traj"], "--ensemble: there is no file 'best.al.ensemble'"),
        (["relax", "target.traj", "--ensemble", "none.committee"], "--ensemble: there is no file 'none.committee'"),
        (["relax", "target.traj", "--baseline", "b.toml", "--ensemble", BEST], "whose models were trained without: remove it"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(place, tmp_path, capsys, arguments, text):
    for name in ("initial.traj", "target.traj"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    if BEST in arguments:
        shutil.copytree(place / BEST, BEST)
    Path("b.toml").write_text('[baseline]\ncalculator = "ase.calculators.emt.EMT"\n')
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert not output and text in errors and errors.count("\n") == 1
