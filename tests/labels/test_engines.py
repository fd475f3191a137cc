"""Labels on real engines: Dask, and Slurm by way of executorlib and dask-jobqueue."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from label_helpers import NOTICE, assert_good, images, label_all
from parents import parent
from small_runs import run
from waiting import wait_for

from amp.nft.errors import ExecutorError
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import LabelFailure, labelled_atom
from amp.nft.records import LabelOptions

pytestmark = [pytest.mark.slow, pytest.mark.engines]


@pytest.fixture
def dask():
    """Return a Dask cluster of two processes on this machine."""
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
    monkeypatch.setattr("amp.nft.labels.pool.GRACE", 0.5)
    wanted = images(4)
    hangs = parent(what="hang", atoms=[1])
    outcomes, _ = label_all(tmp_path, wanted, hangs, dask.get_executor(pure=False), timeout=2.0, retries=0)
    assert outcomes[1].kind == "LabelTimeout"
    assert_good(outcomes, [wanted[k] for k in (0, 2, 3)])


@pytest.fixture
def mortal_scheduler(tmp_path, monkeypatch):
    """Return a client of a scheduler and two workers that are separate programs, and the function that kills the scheduler."""
    distributed = pytest.importorskip("distributed", reason="uv run --group engines")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    note, programs = tmp_path / "scheduler.json", []

    def start(role, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--scheduler-file", note, *arguments]
        programs.append(subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL))

    start("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    wait_for(note.exists)
    start("worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
    with distributed.Client(scheduler_file=str(note), timeout=10) as client:
        client.wait_for_workers(2)
        yield client, programs[0].kill
    for program in programs:
        program.terminate()
        program.wait()


def in_the_middle_of_a_label(path, act):
    """Act once two labels are in the making."""

    def wait_and_act():
        wait_for(lambda: len(list((path / "labels").glob("*/worker.json"))) == 2)
        act()

    threading.Thread(target=wait_and_act, daemon=True).start()


def test_dask_whose_scheduler_is_killed_is_an_error_and_costs_no_label(mortal_scheduler, tmp_path):
    client, kill = mortal_scheduler
    wanted, slow = images(4), parent(seconds=2.0)
    in_the_middle_of_a_label(tmp_path, kill)
    retries = []
    with (
        pytest.raises(ExecutorError, match="its scheduler has ended, or the connection is lost; finished labels are kept"),
        LabelPool(
            LabelOptions(slow, client.get_executor(pure=False)), tmp_path / "labels", on_retry=lambda *what: retries.append(what)
        ) as pool,
    ):
        for image in wanted:
            pool.request(image.info["target_atom"], image)
        list(pool.done())
    assert not retries
    outcomes, _ = label_all(tmp_path, wanted, slow, None)
    assert_good(outcomes, wanted)


def test_dask_whose_scheduler_is_killed_is_replaced_by_a_function(mortal_scheduler, dask, tmp_path):
    client, kill = mortal_scheduler
    clients, lines = [dask, client], []
    in_the_middle_of_a_label(tmp_path, kill)
    wanted = images(4)
    outcomes, retries = label_all(tmp_path, wanted, parent(seconds=2.0), lambda: clients.pop().get_executor(pure=False), log=lines.append)
    assert_good(outcomes, wanted)
    assert not retries and lines == ["The executor cancelled all labels; they are requested again."]


def executorlib_slurm():
    executorlib = pytest.importorskip("executorlib", reason="uv run --group engines")
    return executorlib.SlurmJobExecutor(max_workers=2, block_allocation=True, resource_dict={"cores": 1, "slurm_cmd_args": ["--time=10"]})


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
    outcomes, retries = label_all(tmp_path, wanted, parent(what="kill", atoms=[2], once=str(once), seconds=0.2), executorlib_slurm)
    assert_good(outcomes, wanted)
    assert all(noticed - once.stat().st_mtime < NOTICE for _, _, noticed in retries)


@contextlib.contextmanager
def jobqueue_slurm(tasks):
    """Jobs of so many tasks, as the documentation has them, on the loopback."""
    jobqueue = pytest.importorskip("dask_jobqueue", reason="uv run --group engines")
    distributed = pytest.importorskip("distributed")
    with (
        jobqueue.SLURMCluster(
            cores=1, processes=1, memory="1GB", walltime="00:10:00", job_extra_directives=[f"--ntasks={tasks}"],
            interface="lo", python=sys.executable, job_directives_skip=["--mem="], queue="test",
            scheduler_options={"dashboard_address": None},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        cluster.adapt(maximum_jobs=2 // tasks)
        yield client.get_executor(pure=False)


def test_slurm_by_dask_jobqueue(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = images(6)
    with jobqueue_slurm(1) as executor:
        outcomes, _ = label_all(tmp_path, wanted, parent(), executor)
    assert_good(outcomes, wanted)


DRIVER = """
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from test_engines import executorlib_slurm, jobqueue_slurm, where_labels_are_made
from small_runs import run

if __name__ == "__main__":
    Path("driver.txt").write_text(os.environ["JOB"])
    with {engine} as executor:
        run(max_iterations=1, executor=executor, parent_calc=partial(where_labels_are_made, seconds={seconds}), log="log.txt")
"""
PATIENCE = 120.0  # s; bound of the waits below


def where_labels_are_made(directory, seconds):
    """EMT that leaves a note of the job in which it runs, and of what `srun` gives it there."""
    tasks = subprocess.run(["srun", "--overlap", "printenv", "SLURM_JOB_ID"], capture_output=True, text=True, check=True)
    Path(directory, "job.txt").write_text(tasks.stdout)
    return parent(seconds=seconds)(directory)


def submit(path, engine, seconds=0.1):
    """Return the number of a job that runs the documented batch script."""
    (path / "script.py").write_text(DRIVER.format(engine=engine, seconds=seconds))
    page = (Path(__file__).parents[2] / "docs" / "labels.rst").read_text(encoding="utf-8")
    script = textwrap.dedent(page.split(".. code-block:: bash\n\n")[1].partition("\n\n")[0])
    (path / "job.sh").write_text(script.lstrip().replace("unset", "export JOB=$SLURM_JOB_ID\nunset"))
    command = ["sbatch", "--parsable", "--time=10", "--mem=500", "job.sh"]  # what this small Slurm has
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=True).stdout.strip()


def wait_until(condition, path):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        said = "".join(file.read_text() for file in path.glob("slurm-*.out"))
        assert time.monotonic() < deadline, said + subprocess.run("squeue", capture_output=True, text=True, check=False).stdout
        time.sleep(0.2)


def queue_is_empty():
    return not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def events(path):
    journal = path / "al-training" / "saved-info" / "journal.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


@pytest.mark.parametrize(("engine", "tasks"), [("nullcontext(executorlib_slurm)", 1), ("jobqueue_slurm(2)", 2)])
def test_a_driver_that_is_a_small_job_has_its_labels_made_in_others(slurm, tmp_path, engine, tasks):
    driver = submit(tmp_path, engine)
    wait_until(queue_is_empty, tmp_path)
    assert events(tmp_path)[-1]["event"] == "stopped", [file.read_text() for file in tmp_path.glob("slurm-*.out")]
    assert (tmp_path / "driver.txt").read_text() == driver
    made_in = [note.read_text().split() for note in (tmp_path / "al-training" / "labels").glob("*/job.txt")]
    assert made_in and all(len(jobs) == tasks and driver not in jobs for jobs in made_in)


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_jobs_end_with_their_driver_and_leave_their_labels(slurm, tmp_path, number):
    driver = submit(tmp_path, "nullcontext(executorlib_slurm)", seconds=8.0)
    labels = tmp_path / "al-training" / "labels"
    wait_until(lambda: len(list(labels.glob("*/job.txt"))) == 2, tmp_path)
    subprocess.run(["scancel", "--batch", f"--signal={number}", driver], check=True)
    wait_until(queue_is_empty, tmp_path)
    assert (events(tmp_path)[-1]["event"] == "interrupted") == (number == "TERM")
    assert len(list(labels.glob("*/label.json"))) == 2
    submit(tmp_path, "nullcontext(executorlib_slurm)", seconds=8.0)  # another argument would be another parent
    wait_until(queue_is_empty, tmp_path)
    done = [event["atom"] for event in events(tmp_path) if event["event"] == "label"]
    assert events(tmp_path)[-1]["event"] == "stopped" and len(done) == len(set(done)) == len(list(labels.glob("*/job.txt")))


def test_a_driver_that_slurm_requeues_continues_and_makes_no_finished_label_twice(slurm, tmp_path):
    """Slurm kills each `srun` of the driver too, and with it the labels in the making."""
    driver = submit(tmp_path, "nullcontext(executorlib_slurm)", seconds=8.0)
    labels = tmp_path / "al-training" / "labels"
    wait_until(lambda: len(list(labels.glob("*/job.txt"))) == 2, tmp_path)
    in_the_making = {note.parent.name for note in labels.glob("*/job.txt")}
    subprocess.run(["scontrol", "requeue", driver], check=True)
    wait_until(queue_is_empty, tmp_path)
    again = [labelled_atom(note.parent) for note in labels.glob("*/job.txt") if note.parent.name not in in_the_making]
    done = [event["atom"] for event in events(tmp_path) if event["event"] == "label"]
    assert [event["event"] for event in events(tmp_path)].count("start") == 2 and events(tmp_path)[-1]["event"] == "stopped"
    assert len(done) == len(set(done)) and len(again) == len(set(again)) and set(again) <= set(done)


def test_training_jobs_that_slurm_requeues_are_awaited(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = {"trainer": "jobs", "start_command": "sbatch run.py", "headerlines": "#SBATCH --ntasks=1 --mem=500", "max_iterations": 0}
    requeued = []

    def requeue():
        queue = ["squeue", "--noheader", "--states=RUNNING", "--format=%A"]
        requeued.append(wait_for(lambda: subprocess.run(queue, capture_output=True, text=True, check=True).stdout.split())[0])
        subprocess.run(["scontrol", "requeue", requeued[0]], check=True)

    threading.Thread(target=requeue, daemon=True).start()
    al, _ = run(**jobs, parent_calc=parent(), log="log.txt")
    assert requeued and [entry.trainer for entry in al.history] == ["jobs"]


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
