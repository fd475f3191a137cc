"""The loop with a trainer of another program: GAP, by gap_fit and the script of the page about committees."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from small_runs import cells, cluster

from amp.nft.activelearner import NFT
from amp.nft.calculator import Committee, load
from amp.nft.errors import JobError
from amp.nft.run.history import read_run
from amp.nft.training import Command

PAGE = Path(__file__).parents[2] / "docs" / "committees.rst"
N = 3
STEP = 1e-3  # Å
GRADIENT = 2e-3  # eV/Å: error of a central difference with this step, and of the digits in the model's file
pytestmark = pytest.mark.slow


def script():
    """Return the script of the page, without angles, and with a failure on request."""
    pytest.importorskip("quippy")
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
