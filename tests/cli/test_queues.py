"""Labels of ``amp-nft run`` in the jobs of a real Slurm, and on the workers of a real Dask cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import write
from command_line import SMALL, amp_nft
from small_runs import cells, cluster
from waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.engines]

PARENT = """
import os
from ase.calculators.emt import EMT

def make(directory):
    with open(os.path.join(directory, "where.txt"), "w") as file:
        file.write(f"{os.environ.get('SLURM_JOB_ID', '')} {os.environ.get('SITE', '')} {os.getpid()}")
    return EMT()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a directory with input, in which the test works; its parent writes where it runs."""
    pytest.importorskip("dask_jobqueue", reason="uv run --group engines")
    monkeypatch.chdir(tmp_path)
    write("initial.traj", cells())
    write("target.traj", cluster())
    Path("parent.py").write_text(PARENT)
    return tmp_path


def put(labels):
    Path("nft.toml").write_text(SMALL.replace('calculator = "ase.calculators.emt.EMT"', 'factory = "parent.py:make"') + labels)


def places():
    """Return job, site and process of each label."""
    return [file.read_text().split(" ") for file in Path("al-training/labels").glob("*/where.txt")]


def test_each_label_is_made_in_a_job_of_slurm(slurm, place, monkeypatch):
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__INTERFACE", "lo")  # of this Slurm
    put("""[labels]
where = "slurm"
jobs = 2
sbatch = ["--ntasks=1", "--time=00:10:00", "--mem=500M", "--partition=test"]
setup = "export SITE=here"
""")
    output, errors = amp_nft("run", code=3)
    assert "Iteration 1: 3 chunks" in output, output + errors
    found = places()
    assert len(found) >= 3
    assert all(job.isdigit() and site == "here" for job, site, _ in found), found
    queue = ["squeue", "--noheader"]
    wait_for(lambda: not subprocess.run(queue, capture_output=True, text=True, check=True).stdout)  # no job stays behind


def test_labels_are_made_by_the_workers_of_a_dask_scheduler(place):
    note = place / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SITE": "dask"}
    common = ["--scheduler-file", str(note), "--host", "127.0.0.1"]
    programs = []
    try:
        for role, others in (
            ("scheduler", ["--port", "0", "--dashboard-address", "127.0.0.1:0"]),
            ("worker", ["--nworkers", "2", "--nthreads", "1", "--no-dashboard"]),
        ):
            command = [sys.executable, "-m", f"distributed.cli.dask_{role}", *common, *others]
            programs.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment))
            wait_for(note.exists)
        put(f'[labels]\nwhere = "dask"\nscheduler = "{json.loads(note.read_text())["address"]}"\n')
        output, errors = amp_nft("run", code=3)
        assert "Iteration 1: 3 chunks" in output, output + errors
        assert places() and all(site == "dask" for _, site, _ in places())
    finally:
        for program in programs:
            program.terminate()
            program.wait()


def test_a_scheduler_that_does_not_answer_is_an_error_of_the_input(place, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    put('[labels]\nwhere = "dask"\nscheduler = "tcp://127.0.0.1:1"\n')
    errors = amp_nft("run", code=2)[1]
    assert "labels.scheduler is 'tcp://127.0.0.1:1': no Dask scheduler answers there" in errors
    assert not Path("al-training").exists()
