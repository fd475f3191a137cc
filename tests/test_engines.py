"""Labels on real engines: Dask, and Slurm by way of executorlib and dask-jobqueue."""

import sys
from pathlib import Path

import pytest
from parents import parent
from test_executors import NOTICE, assert_good, images, label_all
from test_learner import run

from amp.nft.labelling import LabelFailure

pytestmark = [pytest.mark.slow, pytest.mark.engines]


@pytest.fixture
def dask():
    """A Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="uv run --group engines")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_dask(dask, tmp_path):
    wanted = images(6)
    outcomes, retries = label_all(tmp_path, wanted, parent(), dask.get_executor(pure=False))
    assert_good(outcomes, wanted)
    assert not retries


def test_dask_with_a_worker_killed_in_the_middle_of_a_label(dask, tmp_path):
    wanted = images(6)
    once = tmp_path / "once"
    spoiled = parent(what="kill", atoms=[2], once=str(once), seconds=0.2)
    outcomes, retries = label_all(tmp_path, wanted, spoiled, dask.get_executor(pure=False))
    assert_good(outcomes, wanted)
    assert all(noticed - once.stat().st_mtime < NOTICE for _, _, noticed in retries)


def test_dask_with_a_label_that_always_kills(dask, tmp_path):
    wanted = images(4)
    outcomes, _ = label_all(tmp_path, wanted, parent(what="kill", atoms=[1]), dask.get_executor(pure=False))
    assert isinstance(outcomes[1], LabelFailure)
    assert_good(outcomes, [wanted[k] for k in (0, 2, 3)])


def test_dask_with_a_label_that_hangs(dask, tmp_path, monkeypatch):
    monkeypatch.setattr("amp.nft.labelpool.GRACE", 0.5)
    wanted = images(4)
    hangs = parent(what="hang", atoms=[1])
    outcomes, _ = label_all(tmp_path, wanted, hangs, dask.get_executor(pure=False), timeout=2.0, retries=0)
    assert outcomes[1].kind == "LabelTimeout"
    assert_good(outcomes, [wanted[k] for k in (0, 2, 3)])


def executorlib_slurm():
    executorlib = pytest.importorskip("executorlib", reason="uv run --group engines")
    return executorlib.SlurmJobExecutor(max_workers=2, block_allocation=True, resource_dict={"cores": 1})


def test_slurm_by_executorlib(slurm, tmp_path):
    wanted = images(6)
    spoiled = parent(what="raise", atoms=[2], once=str(tmp_path / "once"))
    with executorlib_slurm() as executor:
        outcomes, retries = label_all(tmp_path, wanted, spoiled, executor)
    assert_good(outcomes, wanted)
    assert [atom for atom, *_ in retries] == [2]


def test_slurm_by_executorlib_with_a_worker_killed_in_the_middle_of_a_label(slurm, tmp_path):
    wanted = images(6)
    once = tmp_path / "once"
    outcomes, retries = label_all(
        tmp_path, wanted, parent(what="kill", atoms=[2], once=str(once), seconds=0.2), executorlib_slurm
    )
    assert_good(outcomes, wanted)
    assert all(noticed - once.stat().st_mtime < NOTICE for _, _, noticed in retries)


def test_slurm_by_dask_jobqueue(slurm, tmp_path, monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue", reason="uv run --group engines")
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    wanted = images(6)
    with (
        jobqueue.SLURMCluster(
            cores=1, processes=1, memory="1GB", interface="lo", python=sys.executable, walltime="00:10:00",
            job_directives_skip=["--mem="], scheduler_options={"dashboard_address": None}, queue="test",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        cluster.scale(2)
        outcomes, _ = label_all(tmp_path, wanted, parent(), client.get_executor(pure=False))
    assert_good(outcomes, wanted)


def test_the_whole_loop_on_slurm(slurm, tmp_path, monkeypatch):
    """Members train as jobs of the queue, labels are made by others; the driver only waits."""
    monkeypatch.chdir(tmp_path)
    al, _ = run(
        max_iterations=1,
        trainer="jobs",
        start_command="sbatch run.py",
        headerlines="#SBATCH --ntasks=1 --mem=500",
        executor=executorlib_slurm,
        parent_calc=parent(),
        log="log.txt",
    )
    assert [entry.trainer for entry in al.history] == ["jobs", "jobs"]
    assert al.history[1].n_chunks > 0
    assert "sbatch run.py" in Path("log.txt").read_text()
