"""The loop with a trainer of another program: GAP, by gap_fit and the script of the page about committees."""

import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read, write
from command_line import amp_nft
from small_runs import cells, cluster

from amp.nft.activelearner import NFT
from amp.nft.calculator import Committee, load
from amp.nft.errors import JobError
from amp.nft.report.checks import learned
from amp.nft.run.history import read_run
from amp.nft.run.rounds import read_rounds
from amp.nft.training import Command

PAGE = Path(__file__).parents[2] / "docs" / "committees.rst"
N = 3
STEP = 1e-3  # Å
GRADIENT = 2e-3  # eV/Å: error of a central difference with this step, and of the digits in the model's file
pytestmark = pytest.mark.slow


def script():
    """Return the script of the page, without angles, and with a failure on request."""
    if shutil.which("gap_fit") is None:
        pytest.skip("needs gap_fit of quippy-ase")
    found = re.search(r"``train.sh`` for GAP.*?code-block:: bash\n\n(.*?)\n\n``", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text = textwrap.dedent(found[1]).replace("l_max=4", "l_max=0")
    assert "gap_fit" in text and "l_max=0" in text
    return f"""set -e
echo "$NFT_ITERATION $NFT_MEMBER" >> starts.txt
if [ "$NFT_ITERATION $NFT_MEMBER" = "$(cat fails 2> /dev/null)" ]; then echo "The disk is full."; exit 7; fi
export OMP_NUM_THREADS=1
{text}
"""


def run():
    settings = {"stop_delta": 1e-6, "max_iterations": 1, "threshold": -0.6, "log": "log.txt"}
    command = Command("bash train.sh", "quippy.potential.Potential", "gap.xml", "param_filename", parallel=2, retries=0)
    al = NFT(trainer=command, **settings)
    al.run(cells(), cluster(), n=N, cutoff=6.0, parent_calc=EMT())
    return al


def test_errors_on_the_target_decrease_and_a_failed_training_is_repeated_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.sh").write_text(script())
    Path("fails").write_text("1 2\n")
    message = r"'bash train.sh' that trains member 2 failed: it ended with status 7.*\n.*The disk is full.*\n.*rerun the script"
    with pytest.raises(JobError, match=message):
        run()
    Path("fails").unlink()
    al = run()
    starts = Path("starts.txt").read_text().splitlines()
    assert sorted(set(starts)) == [f"{iteration} {member}" for iteration in (0, 1) for member in range(N)]
    assert len(starts) == 2 * N + 1 and starts.count("1 2") == 2
    target, steps = cluster(), read_run(".").steps
    true = EMT().get_property("forces", target)
    errors, size = [], np.linalg.norm(true, axis=1).mean()
    for step in steps:
        committee = load(f"al.{step.iteration}.committee")
        errors.append(np.linalg.norm(committee.get_property("forces", target) - true, axis=1).mean())
        np.testing.assert_allclose(committee.results["forces_uncertainty"], step.delta, rtol=1e-6)
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.5 * size
    assert al.history[1].delta_max < al.history[0].delta_max
    check_committee(load("best.al.committee", keep_members=True), target)


def check_committee(committee, target):
    """Members differ, and the mean force is the gradient of the mean energy."""
    assert isinstance(committee, Committee)
    forces = committee.get_property("forces", target)
    assert committee.results["forces_comm"].shape == (N, len(target), 3) and committee.results["forces_uncertainty"].min() > 1e-3
    energies = []
    for step in (STEP, -STEP):
        moved = target.copy()
        moved.positions[3, 1] += step
        energies.append(committee.get_property("energy", moved))
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * STEP), abs=GRADIENT)


INPUT = """
[system]
target = "target.traj"
images = "initial.traj"
[parent]
calculator = "ase.calculators.emt.EMT"
[chunks]
cutoff = 6.0
[committee]
members = 2
parallel = 2
train = "bash train.sh"
calculator = "quippy.potential.Potential"
argument = "param_filename"
model = "gap.xml"
[select]
fraction = 0.4
[stop]
delta = 0.01
max_iterations = 0
"""


def test_the_program_refines_with_a_committee(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.sh").write_text(script())
    Path("nft.toml").write_text(INPUT)
    write("initial.traj", cells())
    write("target.traj", cluster())
    arguments = ("refine", "--rounds", "1", "--labels", "3", "--explore", "relax", "--steps", "5")
    output, _ = amp_nft(*arguments, code=3)
    labelled = int(re.search(r"al-refined-1: .*\n.*; (\d+) chunks? labelled", output)[1])
    before, after = (load(f"best.{name}.committee") for name in ("al", "al-refined-1"))
    chunks = read("al-refined-1-training/models/0/0/train.extxyz", ":") + read("al-refined-1-training/models/0/0/valid.extxyz", ":")
    chunks = {frame.positions.tobytes(): frame for frame in chunks if frame.info["config_type"] == "nft_chunk"}.values()
    assert len(chunks) == labelled > 0 and all(
        frame.arrays["force_mask"].tolist() == [False] + [True] * (len(frame) - 1) for frame in chunks
    )
    old, new = (
        np.mean([np.linalg.norm(calc.get_property("forces", frame)[0] - frame.arrays["REF_forces"][0]) for frame in chunks])
        for calc in (before, after)
    )
    assert new < old
    delta = [max(calc.get_property("forces_uncertainty", frame)[0] for frame in chunks) for calc in (before, after)]
    np.testing.assert_allclose(learned(read_rounds(Path("al-training")))["al-refined-1"], delta, rtol=1e-6)
    starts = Path("starts.txt").read_text()
    assert amp_nft(*arguments, code=3)[0].splitlines()[-3:] == output.splitlines()[-3:]
    assert Path("starts.txt").read_text() == starts
