"""Commands that use an ensemble or collect labels: ``relax``, ``refine``, ``plot``, ``import``; terms of a fit's model card."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write
from command_line import SMALL, amp_nft
from small_runs import cells, cluster

from amp.nft.cli import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a directory in which the program has run."""
    directory = tmp_path_factory.mktemp("run")
    write(directory / "initial.traj", cells())
    write(directory / "target.traj", cluster())
    (directory / "nft.toml").write_text(SMALL)
    amp_nft("run", code=3, cwd=directory)
    return directory


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """Return an empty directory, in which the test works, and that of the run."""
    monkeypatch.chdir(tmp_path)
    return finished


def test_a_relaxation_writes_its_frames_with_the_results_of_the_ensemble(place):
    start = ("relax", place / "target.traj", "--ensemble", place / "best.al.ensemble", "--threshold", "1000", "--steps", "4")
    output, _ = amp_nft(*start, "--trajectory", "path.extxyz", code=3)
    assert "Not relaxed: 4 steps" in output
    assert output.count("\nstep") == 4  # and the first one
    frames, last = read("path.extxyz", ":"), read("relaxed.extxyz")
    assert len(frames) == 5
    np.testing.assert_allclose(frames[0].positions, read(place / "target.traj").positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].positions, last.positions, atol=1e-7)
    assert {"nft_forces", "nft_delta", "nft_extrapolating"} <= set(last.arrays)
    assert {"nft_energy", "nft_delta_max", "nft_ensemble", "nft_units"} <= set(last.info)
    assert "relaxed.extxyz exists, and is not overwritten" in amp_nft(*start, code=2)[1]


def test_a_relaxation_ends_with_code_5_where_the_uncertainty_passes_the_threshold(place):
    arguments = ("relax", place / "target.traj@0", "--ensemble", place / "best.al.ensemble")
    output, _ = amp_nft(*arguments, "--threshold", "1e-3", code=5)
    assert "Halted: 0 steps" in output
    card = json.loads(amp_nft("info", "--json", place / "best.al.ensemble")[0])["card"]
    output, _ = amp_nft(*arguments, "-o", "other.extxyz", "--fmax", "100")
    assert f"within the threshold of {1.5 * card['errors']['uncertainty_max']:.3g}." in output


@pytest.mark.slow
def test_a_refinement_of_the_input_file(place, tmp_path):
    for name in ("initial.traj", "target.traj", "nft.toml"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    output, _ = amp_nft("refine", "--rounds", "1", "--labels", "3", "--explore", "relax", "--steps", "20", code=3)
    assert "al-refined-1: " in output
    assert (tmp_path / "best.al-refined-1.ensemble").exists()
    again, _ = amp_nft("refine", "--rounds", "1", "--labels", "3", "--explore", "relax", "--steps", "20", code=3)
    assert again.splitlines()[-2:] == output.splitlines()[-2:]


def test_figures_of_a_run_and_the_curve_of_its_metrics(place):
    output, _ = amp_nft("plot", place)
    names = output.removeprefix("figures: ").removesuffix(", each as PNG and SVG.\n").split(", ")
    assert {"uncertainty", "target"} <= set(names)
    assert {path.name for path in Path("figures").iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    table = place / "al-training" / "metrics.csv"
    assert amp_nft("plot", table)[0] == "metrics.png is written.\n"
    assert amp_nft("plot", table, table, "-o", "two.svg")[0] == "two.svg is written.\n"
    assert Path("metrics.png").read_bytes().startswith(b"\x89PNG")
    assert "al-training: largest uncertainty" in Path("two.svg").read_text() or "<svg" in Path("two.svg").read_text()


def test_imported_labels_are_images_of_a_run(place):
    output, _ = amp_nft("import", place, "-o", "imported.extxyz")
    assert "imported.extxyz: 7 labelled structures, 3 of them chunks with one trained force each." in output
    assert "Parent: EMT " in output
    images = read("imported.extxyz", ":")
    assert [image.info.get("nft_central_atom") for image in images] == 4 * [None] + 3 * [0]
    assert {image.info["nft_source"] for image in images} == {f"{place.name}/al-training"}
    labelled = images[-1].copy()
    labelled.calc = EMT()
    np.testing.assert_allclose(images[-1].get_forces(), labelled.get_forces(), atol=1e-7)
    write("target.traj", cluster())
    Path("nft.toml").write_text(SMALL)
    output, _ = amp_nft("run", "--set", 'system.images=["imported.extxyz"]', "--until", "iterations=0", code=3)
    assert "training on 7 images and 0 chunks" in output
    started = json.loads(Path("al-training/saved-info/journal.jsonl").read_text().splitlines()[0])
    assert started["settings"]["init_nft_ids"] == [[4, 0], [5, 0], [6, 0]]
    assert "is not overwritten" in amp_nft("import", place, "-o", "imported.extxyz", code=2)[1]


def test_labels_of_a_file_with_other_names(place):
    images = cells()
    for image in images:
        image.info["REF_energy"], image.arrays["REF_forces"] = image.get_potential_energy(), image.get_forces()
        image.calc = None
    write("others.extxyz", images)
    assert "Give energy_key='REF_energy' and forces_key='REF_forces'" in amp_nft("import", "others.extxyz", "-o", "a.extxyz", code=2)[1]
    keys = ("--energy-key", "REF_energy", "--forces-key", "REF_forces")
    output, _ = amp_nft("import", "others.extxyz@:2", "others.extxyz@3", *keys, "-o", "a.extxyz")
    assert "a.extxyz: 3 labelled structures, 0 of them" in output
    assert [image.info["nft_source"] for image in read("a.extxyz", ":")] == 2 * ["others.extxyz@:2"] + ["others.extxyz@3"]
    amp_nft("import", "a.extxyz", "-o", "b.extxyz")  # the first origin stays
    assert [image.info["nft_source"] for image in read("b.extxyz", ":")] == 2 * ["others.extxyz@:2"] + ["others.extxyz@3"]


def test_a_geometry_of_two_sources_is_imported_once(place):
    write("rounded.extxyz", read(place / "initial.traj", ":"))  # eight decimals
    assert "a.extxyz: 7 labelled structures" in amp_nft("import", place, "rounded.extxyz", "rounded.extxyz", "-o", "a.extxyz")[0]


def test_a_fit_has_the_terms_of_its_card(place):
    fit = ("fit", place / "initial.traj", "--members", "2", "--cutoff", "4.5", "--hiddenlayers", "2", "--valid", "0")
    amp_nft(*fit, "--licence", "CC-BY-4.0", "--citation", "doi:10/x", "--date", "today", "--parent", "EMT of ASE")
    card = json.loads(amp_nft("info", "--json", "fit/fit.ensemble")[0])["card"]
    assert (card["licence"], card["citation"], card["date"], card["parent"]) == ("CC-BY-4.0", "doi:10/x", "today", "EMT of ASE")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["relax", "none.xyz"], 2, "STRUCTURE: there is no file 'none.xyz'"),
        (["relax", "initial.traj"], 2, "initial.traj has 4 structures: choose one, as initial.traj@-1."),
        (["relax", "initial.traj@9"], 2, "'initial.traj@9' has no structure at this index"),
        (["relax", "target.traj", "--ensemble", "none.ensemble"], 2, "--ensemble: there is no file 'none.ensemble'"),
        (["relax", "target.traj", "--ensemble", "nft.toml"], 2, "not an ensemble file"),
        (["relax", "target.traj", "--cell", "--ensemble", "best.al.ensemble"], 2, "use cell=False"),
        (["relax", "target.traj", "--fmax", "0"], 2, "'0' is not a number above 0"),
        (["relax", "target.traj", "-o", "none/a.extxyz"], 2, "there is no directory 'none': make it"),
        (["label", "target.traj", "-o", "none/a.extxyz"], 2, "there is no directory 'none': make it"),
        (["evaluate", "initial.traj", "--csv", "none/a.csv"], 2, "there is no directory 'none': make it"),
        (["evaluate", "initial.traj", "--csv", "elsewhere"], 2, "elsewhere is a directory: give the name of a file"),
        (["report", "-o", "."], 2, ". is a directory: give the name of a file"),
        (["report", "-o", "none/a.html"], 2, "there is no directory 'none': make it"),
        (["plot", "none.csv", "-o", "none/a.png"], 2, "there is no directory 'none': make it"),
        (["convergence", "--plot", "none/a.png"], 2, "there is no directory 'none': make it"),
        (["refine", "none.toml"], 2, "There is no file 'none.toml'"),
        (["refine", "--steps", "5"], 2, "--steps and --temperature are for the explorers of --explore"),
        (["refine", "--explore", "walk"], 2, "invalid choice: 'walk'"),
        (["refine", "--limit", "0.5"], 2, "limit is for refinements whose frames become targets"),
        (["plot", "elsewhere"], 1, "give the training directory of a run"),
        (["plot", "none.csv"], 2, "none.csv"),
        (["plot", "nft.toml.csv"], 2, "nft.toml.csv has no column labels"),
        (["plot", ".", "al-training/metrics.csv"], 2, "give one run, or one or several metrics.csv"),
        (["import", "none.xyz", "-o", "a.extxyz"], 2, "images: there is no file 'none.xyz'"),
        (["import", "elsewhere", "-o", "a.extxyz"], 1, "give the training directory of a run"),
        (["import", "target.traj", "-o", "a.extxyz"], 2, "has no energy or no forces"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(place, tmp_path, capsys, arguments, code, text):
    for name in ("initial.traj", "target.traj", "nft.toml", "best.al.ensemble"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    Path("nft.toml.csv").write_bytes(Path("nft.toml").read_bytes())
    Path("elsewhere").mkdir()
    try:
        assert main(arguments) == code
    except SystemExit as end:  # of argparse
        assert end.code == code
    output, errors = capsys.readouterr()
    assert not output
    assert text in errors
    assert not Path("a.extxyz").exists()
