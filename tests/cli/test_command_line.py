"""The program ``amp-nft`` as a user runs it: commands, exit codes, and files that it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from pathlib import Path
from typing import get_args

import forked
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write
from command_line import ENTRY, PROGRAM, SMALL, amp_nft
from small_runs import cells, cluster

from amp.nft.cli import main
from amp.nft.cli.input_file import InputFile

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a directory in which the program has run, and its output."""
    directory = tmp_path_factory.mktemp("run")
    write(directory / "initial.traj", cells())
    write(directory / "target.traj", cluster())
    (directory / "nft.toml").write_text(SMALL)
    return directory, amp_nft("run", "nft.toml", code=3, cwd=directory)[0]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a directory with input, in which the test works."""
    write(tmp_path / "initial.traj", cells())
    write(tmp_path / "target.traj", cluster())
    (tmp_path / "nft.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_that_does_not_converge_has_exit_code_3(finished):
    directory, output = finished
    assert "Not converged: all of the max_iterations = 1 retrainings are done" in output
    assert (directory / "best.al.ensemble").exists()
    assert "finished, with 4 images" in amp_nft("status", cwd=directory)[0]


def test_the_same_command_resumes_and_set_changes_a_criterion(finished):
    directory, _ = finished
    output, _ = amp_nft("run", "--set", "stop.delta=50", "--set", "stop.max_iterations=2", cwd=directory)  # exit code 0
    assert "Resuming the run in" in output
    assert "Converged: " in output


def test_a_run_with_other_settings_in_its_directory_has_exit_code_1(finished):
    directory, _ = finished
    errors = amp_nft("run", "--set", "chunks.cutoff=6.0", code=1, cwd=directory)[1]
    assert errors.startswith("amp-nft run: ")
    assert "cutoff" in errors


def test_the_journal_has_the_input_file_and_its_hash(finished):
    directory, _ = finished
    starts = [json.loads(line) for line in (directory / "al-training/saved-info/journal.jsonl").read_text().splitlines()]
    notes = next(event["notes"] for event in starts if event["event"] == "start")
    assert notes["text"] == SMALL
    assert notes["file"] == "nft.toml"
    assert re.fullmatch("[0-9a-f]{64}", notes["sha256"])
    assert notes["set"] == []


def test_results_lie_next_to_the_input_file(finished, tmp_path):
    directory, _ = finished
    output, _ = amp_nft("run", os.path.relpath(directory / "nft.toml", tmp_path), code=3, cwd=tmp_path)
    assert "Resuming the run in" in output
    assert not list(tmp_path.iterdir())


def test_a_limit_of_a_start_has_exit_code_3_and_the_next_start_continues(place):
    output, _ = amp_nft("run", "--set", "stop.max_iterations=3", "--until", "labels=2", code=3)
    assert "2 labels are made, the limit of this start (labels = 2). Start again with a higher one to continue." in output
    assert "3 labelled chunks" not in output
    assert "all of the max_iterations = 1 retrainings are done" in amp_nft("run", code=3)[0]


def test_the_status_as_json(finished):
    found = json.loads(amp_nft("status", "--json", str(finished[0] / "al-training"))[0])
    assert found["phase"] == "finished"
    assert found["max_iterations"] in (1, 2)
    assert len(found["delta_max"]) >= 2
    assert found["labels"] == {"requested": 0, "done": 0, "failed": 0, "running": 0}


def test_the_metrics_have_a_line_for_each_iteration(finished):
    directory, _ = finished
    found = np.genfromtxt(directory / "al-training" / "metrics.csv", delimiter=",", names=True)
    status = json.loads(amp_nft("status", "--json", cwd=directory)[0])
    np.testing.assert_allclose(found["delta_max"], status["delta_max"], rtol=1e-5)
    assert found["iteration"].tolist() == list(range(len(found)))
    assert found["labels"][0] == 0
    assert found["labels"][1] == 3
    assert (found["members"] == 3).all()
    assert (found["train_s"] > 0).all()
    assert found["label_s"][0] > 0
    assert np.isnan(found["oob_force_rmse"]).all()


def test_the_content_of_an_ensemble(finished):
    output, _ = amp_nft("info", "best.al.ensemble", cwd=finished[0])
    assert re.search(r"members +3 *\n", output)
    found = json.loads(amp_nft("info", "--json", "best.al.ensemble", cwd=finished[0])[0])
    assert "calculator ase.calculators.emt.EMT" in " ".join(output.split())
    assert found["card"]["labels"]["images"] > 0
    assert (found["elements"], found["cutoff"], found["hidden_layers"]) == (["Pt"], 4.5, {"Pt": [3]})


@pytest.mark.slow
def test_steps_one_by_one(finished, tmp_path):
    directory, _ = finished
    table, _ = amp_nft(
        "convergence", "--radii", "4", "5", "--atoms", "3", "--plot", "radius.png", "--input", directory / "nft.toml", cwd=tmp_path
    )
    assert "Use termination 'sphere'" in table or "No " in table
    assert (tmp_path / "radius.png").stat().st_size > 5000
    label = ("label", directory / "target.traj", "-o", "labelled.extxyz", "--input", directory / "nft.toml")
    assert "1 labelled structures are in labelled.extxyz" in amp_nft(*label, cwd=tmp_path)[0]
    truth = cluster()
    truth.calc = EMT()
    np.testing.assert_allclose(read(tmp_path / "labelled.extxyz").get_forces(), truth.get_forces(), atol=1e-7)
    assert "is not overwritten" in amp_nft(*label, code=2, cwd=tmp_path)[1]
    fit = ("fit", directory / "initial.traj", "--members", "3", "--cutoff", "4.5", "--hiddenlayers", "3")
    assert "fit.ensemble is written: 3 members" in amp_nft(*fit, "--directory", "small", cwd=tmp_path)[0]
    output, _ = amp_nft("evaluate", "labelled.extxyz", "--ensemble", "small/fit.ensemble", "-o", "p.extxyz", "--csv", "t.csv", cwd=tmp_path)
    assert re.search(r"forces +Pt +39 ", output)
    assert "nft_forces" in read(tmp_path / "p.extxyz").arrays
    assert (tmp_path / "t.csv").read_text().startswith("quantity,element,n,mae,rmse,max\nenergy,all,1,")


def test_labels_and_members_for_other_programs(finished, tmp_path):
    directory, _ = finished
    output, _ = amp_nft("export", directory, "-o", "data", "--to", "extxyz", "deepmd", "--valid", "0.8", cwd=tmp_path)
    assert re.fullmatch(r"data: \d structures in train, \d structures in valid\. README\.md has the details\.\n", output)
    frames = read(tmp_path / "data" / "train.extxyz", ":") + read(tmp_path / "data" / "valid.extxyz", ":")
    assert sum(frame.info["config_type"] == "nft_chunk" for frame in frames) >= 3
    assert (tmp_path / "data" / "deepmd.json").exists()
    assert "is not overwritten" in amp_nft("export", directory, "-o", "data", code=2, cwd=tmp_path)[1]
    best = directory / "best.al.ensemble"
    for source, place in ((best, "file"), (directory / "al-training", "run")):
        assert "3 members, member-000 to member-002" in amp_nft("export", source, "-o", place, "--to", "runner", cwd=tmp_path)[0]
    files = [sorted(path.relative_to(tmp_path / place) for path in (tmp_path / place).rglob("*.*")) for place in ("file", "run")]
    assert files[0] == files[1] and len(files[0]) == 9
    assert all((tmp_path / "file" / name).read_bytes() == (tmp_path / "run" / name).read_bytes() for name in files[0])
    assert "needs --to runner" in amp_nft("export", best, "-o", "new", code=2, cwd=tmp_path)[1]
    assert "a directory of its own" in amp_nft("export", best, "-o", "new", "--to", "runner", "extxyz", code=2, cwd=tmp_path)[1]
    assert not (tmp_path / "new").exists()


def test_the_report_is_written(finished, tmp_path):
    truth = cluster()
    truth.arrays["REF_forces"] = EMT().get_property("forces", truth)
    write(tmp_path / "truth.extxyz", truth)
    true = ("--truth", str(tmp_path / "truth.extxyz"), "--forces-key", "REF_forces")
    output, _ = amp_nft("report", str(finished[0]), "-o", str(tmp_path / "page.html"), *true)
    assert "page.html is written" in output
    assert "true error" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_check_shows_sizes_and_cost_and_writes_nothing(place):
    before = sorted(place.rglob("*"))
    output, _ = amp_nft("check", "--label", "1")
    assert "target: 13 atoms, Pt13, free" in output
    assert "images: 4, of 2 to 4 atoms" in output
    assert re.search(r"chunks: \d+ to \d+ atoms, mean", output)
    assert re.search(r"label of atom \d+: ", output)
    assert re.search(r"cost: .* for 3 labels, the most to the largest number of iterations", output)
    assert output.endswith("nft.toml is correct.\n")
    assert amp_nft("run", "--dry-run")[0] == "nft.toml is correct; nothing was started.\n"
    assert sorted(place.rglob("*")) == before


def test_check_finds_other_units(place):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.units import Bohr, Hartree

    images = read("initial.traj", ":")
    for atoms in images:
        energy, forces = atoms.get_potential_energy() / Hartree, atoms.get_forces() / (Hartree / Bohr)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    write("initial.traj", images)
    assert "as in Hartree/Bohr: convert energies to eV" in amp_nft("check", code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "none.toml"], 2, "There is no file 'none.toml'"),
        (["run", "--set", "ensemble.forces_rmse=1"], 2, "did you mean force_rmse?"),
        (["run", "--set", "parent.calculator=ase.calculators.emt.ETM"], 2, "parent.calculator ase.calculators.emt.ETM cannot be imported"),
        (["run", "--set", "parent.calculator=EMT"], 2, "parent.calculator is 'EMT': give module.Class."),
        (["run", "--set", "system.target=none.xyz"], 2, "system.target: there is no file 'none.xyz'"),
        (["run", "--until", "labels"], 2, "--until 'labels': give a limit and a number, as labels=100"),
        (["run", "--until", "label=3"], 2, "until has 'label', which is not known; did you mean labels?"),
        (["run", "--set", "system.energy_key=E"], 2, "energy_key is 'E', which is not in its info"),
        (["check", "--label", "0"], 2, "'0' is not an integer from 1 on"),
        (["no-command"], 2, "invalid choice: 'no-command'"),
        (["export", ".", "-o", "out", "--to", "MACE"], 2, "'MACE' is a program, which reads extxyz: give --to extxyz"),
        (["stats"], 2, "invalid choice: 'stats'; did you mean status?"),
        (["run", "--dryrun"], 2, "unrecognized arguments: --dryrun; did you mean --dry-run?"),
        ([], 2, "start the run of an input file, or resume it"),
        (["status", "."], 1, "give the training directory of a run"),
        (["info", "none.ensemble"], 2, "There is no file 'none.ensemble'"),
        (["info", "nft.toml"], 2, "not an ensemble file"),
    ],
)
def test_what_does_not_work_is_one_line_and_an_exit_code(place, capsys, arguments, code, text):
    try:
        assert main(arguments) == code
    except SystemExit as end:  # of argparse
        assert end.code == code
    output, errors = capsys.readouterr()
    assert not output
    assert text in errors
    assert Path.cwd() == place
    assert not Path("al-training").exists()


def test_labels_that_all_fail_have_exit_code_4(place):
    Path("parent.py").write_text(
        "from small_runs import Fragile\n\ndef make(directory, fails):\n    Fragile.fails = fails\n    return Fragile()\n"
    )
    Path("nft.toml").write_text(
        SMALL.replace('calculator = "ase.calculators.emt.EMT"', 'factory = "parent.py:make"\nargs = {fails = "all"}')
    )
    _, errors = amp_nft("run", code=4, env={**os.environ, "PYTHONPATH": str(TESTS)})
    assert "SCF did not converge" in errors


def test_labels_in_a_pool_of_processes_by_a_function_in_a_file(place):
    Path("parent.py").write_text(
        "from ase.calculators.emt import EMT\n\ndef make(directory):\n    open(f'{directory}/was-here', 'w').close()\n    return EMT()\n"
    )
    pool = '[labels]\nwhere = "pool"\njobs = 2\n'
    Path("nft.toml").write_text(SMALL.replace('calculator = "ase.calculators.emt.EMT"', 'factory = "parent.py:make"') + pool)
    output, _ = amp_nft("run", code=3)
    assert "Iteration 1: 3 chunks" in output or "Iteration 1: 2 chunks" in output
    assert "parent make" in amp_nft("status")[0]


@pytest.mark.parametrize(
    ("command", "number", "code"), [("run", signal.SIGINT, 130), ("run", signal.SIGTERM, 143), ("refine", signal.SIGINT, 130)]
)
def test_a_signal_ends_the_run_with_one_line(place, command, number, code):
    Path("nft.toml").write_text(SMALL.replace("ase.calculators.emt.EMT", "slow.Slow"))
    Path("slow.py").write_text(
        "import time\nfrom ase.calculators.emt import EMT\n\n\nclass Slow(EMT):\n    def calculate(self, *args, **kwargs):\n"
        "        open('begun', 'w').close()\n        time.sleep(60)\n"
    )
    process = forked.Script(ENTRY, command, stdout=forked.PIPE, stderr=forked.PIPE)
    while not Path("begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert output.splitlines()[-1] == f"Stopped by {number.name}. Finished work is saved: rerun the same script or command to resume."
    assert not errors
    assert "interrupted" in Path("al-training/saved-info/journal.jsonl").read_text()


def test_labels_that_are_made_before_ctrl_c_are_written(place):
    Path("nft.toml").write_text(SMALL.replace("ase.calculators.emt.EMT", "slow.Slow"))
    Path("slow.py").write_text(
        "import os, time\nfrom ase.calculators.emt import EMT\n\n\nclass Slow(EMT):\n    def calculate(self, *args, **kwargs):\n"
        f"        if os.path.exists({str(place / 'first')!r}):\n"
        f"            open({str(place / 'begun')!r}, 'w').close()\n            time.sleep(60)\n"
        f"        open({str(place / 'first')!r}, 'w').close()\n        super().calculate(*args, **kwargs)\n"
    )
    process = forked.Script(ENTRY, "label", "initial.traj", "-o", "labels.extxyz", stdout=forked.PIPE, stderr=forked.PIPE)
    while not Path("begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "amp-nft: stopped by Ctrl-C.\n"
    assert output.splitlines()[-1] == "1 labelled structures are in labels.extxyz."
    assert len(read("labels.extxyz", ":")) == 1


def test_the_template_runs_and_is_not_overwritten(tmp_path):
    output, _ = amp_nft("init", "--parent", "emt", "new", cwd=tmp_path)
    assert "is written: edit it" in output
    assert json.loads((tmp_path / "new" / "nft.schema.json").read_text())["title"] == "InputFile"
    assert json.loads(amp_nft("schema")[0]) == json.loads((tmp_path / "new" / "nft.schema.json").read_text())
    write(tmp_path / "new" / "initial.traj", cells())
    write(tmp_path / "new" / "target.traj", cluster())
    assert "is correct" in amp_nft("check", "new/nft.toml", cwd=tmp_path)[0]
    (tmp_path / "new" / "nft.toml").write_text("mine")
    assert "is not overwritten" in amp_nft("init", "new", code=1, cwd=tmp_path)[1]
    assert (tmp_path / "new" / "nft.toml").read_text() == "mine"


def test_init_takes_the_name_of_the_target(tmp_path):
    write(tmp_path / "mine.xyz", cluster())
    amp_nft("init", "--parent", "tblite", "--target", "mine.xyz", "new", cwd=tmp_path)
    system = tomllib.loads((tmp_path / "new" / "nft.toml").read_text())["system"]
    assert system == {"target": "../mine.xyz"}
    assert "there is no such file" in amp_nft("init", "--target", "none.xyz", "other", code=2, cwd=tmp_path)[1]
    assert not (tmp_path / "other").exists()


def test_the_module_is_the_same_program():
    of_both = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([PROGRAM], [sys.executable, "-m", "amp.nft"])
    ]
    assert {*of_both} == {amp_nft("--version")[0]}
    assert re.match(r"amp-nft \d+\.\d+\.\d+.* \(amp-atomistics 1\.0\.1, ase ", of_both[0])


PAGE = (TESTS.parent / "docs" / "command_line.rst").read_text(encoding="utf-8")


def blocks(language):
    """Return the blocks of a language on the page about the command line."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_order(tmp_path):
    subprocess.run([sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, check=True)
    commands = [line.split()[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ amp-nft")]
    assert len(commands) == 5
    for command in commands:
        amp_nft(*command, code=3 if command[0] == "run" else 0, cwd=tmp_path)
    assert (tmp_path / "report.html").exists()
    codes = {"relax": 3, "run": 3}
    for line in blocks("console")[1].strip().splitlines():
        command = line.removeprefix("$ amp-nft ").split()
        amp_nft(*command, code=codes.get(command[0], 0), cwd=tmp_path)
    left = ("path.extxyz", "relaxed.extxyz", "figures/uncertainty.png", "curve.png", "imported.extxyz", "predicted.extxyz")
    assert all((tmp_path / name).exists() for name in left)


def test_the_page_has_each_key_and_its_example_is_correct():
    InputFile.model_validate(tomllib.loads(blocks("toml")[0]))
    tables = {name: field.annotation for name, field in InputFile.model_fields.items() if name != "version"}
    tables["committee"], *_ = get_args(tables["committee"])  # it or None
    alone = {"correction", "images_parent", "baseline"}  # their keys are those of parent
    keys = alone | {f"{name}.{key}" for name, table in tables.items() if name not in alone for key in table.model_fields}
    assert set(re.findall(rf"^   \* - ``(\w+\.\w+|{'|'.join(alone)})``$", PAGE, re.MULTILINE)) == keys


BASELINE = """
[baseline]
calculator = "ase.calculators.lj.LennardJones"
args = {sigma = 2.5, epsilon = 0.2, rc = 4.5}
"""


def test_a_run_a_fit_and_an_evaluation_with_a_baseline(place):
    Path("nft.toml").write_text(SMALL + BASELINE)
    assert "nft.toml is correct" in amp_nft("check")[0]
    amp_nft("run", code=3)
    assert "LennardJones(epsilon=0.2, rc=4.5" in amp_nft("info", "best.al.ensemble")[0].replace("\n", "")
    assert json.loads(amp_nft("info", "best.al.ensemble", "--json")[0])["baseline"].startswith("LennardJones(")
    assert "adds to the baseline it was trained with" in amp_nft("evaluate", "initial.traj", code=2)[1]
    Path("only.toml").write_text(BASELINE)
    table = amp_nft("evaluate", "initial.traj", "--baseline", "only.toml")[0]
    assert table.startswith("  ") and "forces   Pt" in table
    amp_nft("relax", "target.traj", "-o", "relaxed.traj", "--steps", "2", "--threshold", "9", "--baseline", "only.toml", code=3)
    assert read("relaxed.traj").get_forces().any()
    Path("none.toml").write_text("[parent]\n")
    assert "none.toml has no table [baseline]" in amp_nft("evaluate", "initial.traj", "--baseline", "none.toml", code=2)[1]
    fit = ("fit", "initial.traj", "--members", "2", "--cutoff", "4.5", "--hiddenlayers", "3", "--baseline")
    amp_nft(*fit, "only.toml")
    assert "forces   Pt" in amp_nft("evaluate", "initial.traj", "--ensemble", "fit/fit.ensemble", "--baseline", "nft.toml")[0]
    assert "fit with other baseline" in amp_nft(*fit[:-1], code=1)[1]
    assert "is a run with a baseline" in amp_nft("export", "al-training", "-o", "runner", "--to", "runner", code=2)[1]
    Path("wrong.toml").write_text(BASELINE.replace("ase.calculators.lj.LennardJones", "ase.calculators.lj.None_"))
    assert "None_ cannot be imported" in amp_nft(*fit, "wrong.toml", code=2)[1]
