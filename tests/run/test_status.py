"""Status of a run: next to the log of a terminal, in a notebook, and from its files alone."""

import math
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from forked import Script
from journals import ARRAY, begin, evaluated, label, trained
from small_runs import cluster, run

from amp.nft.labels.single_point import WORKER
from amp.nft.records import MemberStep
from amp.nft.run import Progress, read_status
from amp.nft.run.status import duration, time_left
from amp.nft.run.store import RunStore, RunStoreError
from amp.nft.system.liveness import Heartbeat
from amp.nft.training.amp_jobs.progress import last_job_step

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys, warnings
sys.path.insert(0, {tests!r})
from small_runs import CALC_TEXT, N, EMT, NFT, cells, cluster
{before}
al = NFT(stop_delta=1e-6, max_iterations=1, threshold=-0.8, {settings})
al.run(images=cells(), target_image=cluster(), n=N, calc_text=CALC_TEXT, cutoff=5.0, start_command="python run.py", parent_calc=EMT())
"""
SLOWLY = (  # so that the display has something to show; the same parent to the next run
    "import time; EMT0 = EMT; EMT = type('EMT', (EMT,), {'__module__': EMT.__module__, "
    "'calculate': lambda *a, **k: (time.sleep(0.1), EMT0.calculate(*a, **k), None)[2]})"
)
CURSOR = re.compile(r"\x1b\[\?25[lh]")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def code(settings="", before=""):
    return SCRIPT.format(tests=str(TESTS), settings=settings, before=before)


def in_terminal(code):
    """Return the output of a script in a terminal of its own."""
    driver, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = Script(code, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    written = b""
    while True:
        try:
            written += os.read(driver, 65536)
        except OSError:  # the other side is closed
            break
    assert process.wait() == 0, written.decode()
    os.close(driver)
    return written.decode()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_terminal_shows_the_run_beside_whole_log_lines():
    written = in_terminal(code(before=SLOWLY))
    text = CONTROL.sub("", written)
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]  # what stands there in the end
    assert any(re.fullmatch(r"Iteration 1: \d+ chunks, uncertainty max [\d.]+, mean [\d.]+ eV/Å\.", line) for line in lines)
    assert "labels" in text and f"target of {len(cluster())} atoms, 3 members, parent EMT" in text
    assert CURSOR.findall(written)[-1] == "\x1b[?25h"
    for last in ("Best ensemble: best.al.ensemble", "Verdict: UNKNOWN: not converged by its criterion; not tested"):
        assert any(line.startswith(last) for line in lines)
    assert not Path("al-training/saved-info/progress.json").exists()
    shown = Path("best.al.ensemble").read_bytes()
    Path("al-training").rename("shown-training")
    plain = in_terminal(code("progress=False"))
    assert "\x1b" not in plain and Path("best.al.ensemble").read_bytes() == shown


def test_without_a_terminal_nothing_is_shown():
    done = forked.run(code(), check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert "of at most" not in done.stdout + done.stderr


def test_a_notebook_shows_the_run_and_its_log():
    nbformat = pytest.importorskip("nbformat", reason="uv run --group screens")
    client = pytest.importorskip("nbclient", reason="uv run --group screens")
    cell = code(before=SLOWLY)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    updates = []

    class Client(client.NotebookClient):
        def process_message(self, message, cell, index):
            if message["msg_type"] == "update_display_data":
                updates.append(message["content"]["data"]["text/html"])
            return super().process_message(message, cell, index)

    Client(notebook, kernel_name="python3", timeout=120).execute()
    outputs = notebook.cells[0].outputs
    log = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "Best ensemble: best.al.ensemble" in log
    assert any(f"target of {len(cluster())} atoms" in update for update in updates)
    assert updates[-1] == ""


def test_what_is_done_follows_from_the_files():
    with RunStore("al-training/saved-info") as store:
        begin(store)
        assert (read_status(".").phase, read_status(".").iteration) == ("training", 0)
        trained(store, 0)
        assert read_status("al-training").phase == "evaluating"
        store.append("evaluated", iteration=0, file=ARRAY, delta_max=3.0, delta_mean=1.5)
        assert read_status("al-training").phase == "labelling"
        store.append("chosen", iteration=0, atoms=[3, 4, 5])
        label(store, 3)
        store.append("label-failed", atom=4, kind="RuntimeError", message="SCF did not converge")
        at_work = Path("al-training/labels/5-ab")
        at_work.mkdir(parents=True)
        Heartbeat(at_work / WORKER).beat()
        Path("al-training/labels/3x-copy").mkdir()
        Heartbeat(Path("al-training/labels/3x-copy") / WORKER).beat()
        now = read_status("al-training/saved-info")
        assert (now.phase, now.asked, now.done, now.failed, now.running) == ("labelling", 3, 1, 1, 1)
        assert now.failure == "atom 4: RuntimeError: SCF did not converge"
        store.append("added", iteration=0, chosen=[3, 4, 5], atoms=[3, 5, 6], failed=[4])
        now = read_status(".")
        assert (now.phase, now.iteration, now.n_chunks, now.deltas) == ("training", 1, 3, [3.0])
        store.append("stopped", reason="x", message="Not converged.", converged=False)
        assert (read_status(".").phase, read_status(".").message) == ("finished", "Not converged.")
        assert read_status(".").alive is False


def test_a_clock_that_is_set_back_gives_no_negative_times(monkeypatch):
    with RunStore("al-training/saved-info") as store:
        begin(store)
        for iteration in range(3):
            evaluated(store, iteration, 1.0 / (iteration + 1))
            store.append("chosen", iteration=iteration, atoms=[iteration])
            store.append("added", iteration=iteration, chosen=[iteration], atoms=[iteration])
            now = time.time()
            monkeypatch.setattr("time.time", lambda now=now: now - 3600.0)
        status = read_status(".")
    assert status.elapsed == 0.0 and all(seconds >= 0.0 for seconds in status.state.durations)


def test_a_torn_last_line_is_not_read_and_nothing_is_changed():
    with RunStore("al-training/saved-info") as store:
        begin(store)
    journal = Path("al-training/saved-info/journal.jsonl")
    with open(journal, "a") as file:
        file.write('{"event": "trai')
    before = journal.read_bytes()
    assert read_status(".").phase == "training"
    assert journal.read_bytes() == before


def test_status_of_a_killed_driver_and_of_one_on_another_machine_by_its_heartbeat():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with RunStore("dead-training/saved-info") as store:
        begin(store, pid=dead.pid)
    assert read_status("dead-training").alive is False
    assert "ended with no message" in read_status("dead-training").driver
    with RunStore("far-training/saved-info") as store:
        begin(store, machine="node07 pid:[1]")
    assert read_status("far-training").alive is None
    beat = Path("far-training/saved-info/progress.json")
    for age, alive in ((5.0, True), (600.0, False)):
        member = {"member": 1, "state": "training", "steps": 12, "loss": 0.5, "distance": 1.0}
        Heartbeat(beat).beat(iteration=0, members=[member])
        os.utime(beat, (time.time() - age,) * 2)
        now = read_status("far-training")
        assert now.alive is alive and "node07" in now.driver
        assert now.members == [MemberStep(1, "training", 12, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("where", "message"), [("nothing", "does not exist"), ("empty", "contains no run"), (".", "contains 2 runs: give one of a-training, b")]
)
def test_what_is_no_run_is_said_to_be_none(where, message):
    Path("empty").mkdir()
    for name in "ab":
        RunStore(f"{name}-training/saved-info").close()
    with pytest.raises(RunStoreError, match=message):
        read_status(where)


def test_the_command_line_shows_one_screen_and_says_what_is_wrong():
    with RunStore("al-training/saved-info") as store:
        begin(store)
        evaluated(store, 0, 3.0)
    code = "import sys; from amp.nft.cli import main; sys.exit(main())"
    done = forked.run(code, "status", "al-training", check=True)
    assert "target of 50 atoms, 2 members" in done.stdout and "stop below 0.01" in done.stdout
    assert len(done.stdout.splitlines()) < 24
    done = forked.run(code, "status", "nothing")
    assert done.returncode == 1 and "nothing does not exist: give the training directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_estimate_is_exact_where_the_uncertainty_falls_by_a_constant_factor():
    settings = {"stop_delta": 0.01, "max_iterations": 20}
    deltas = [50.0, *(2.0 * 0.5**k for k in range(4))]
    needed = math.ceil(math.log(0.01 / deltas[-1]) / math.log(0.5))
    left = time_left(deltas, settings, [10.0, 10.0, 10.0], spent=4.0)
    assert (left.iterations, left.seconds) == (needed, pytest.approx(10.0 * needed - 4.0))
    assert time_left(deltas, settings | {"max_iterations": 6}, [10.0]).iterations == 2
    assert time_left([50.0, 0.2, 0.3, 0.4], settings, [10.0]) is None
    assert time_left(deltas[:3], settings, [10.0]) is None
    assert [duration(seconds) for seconds in (0.75, 12.3, 190, 3725)] == ["0.8 s", "12 s", "3 min 10 s", "1 h 2 min"]


def test_members_say_how_they_stand_and_end():
    steps = []

    def listen(self, iteration, step):
        steps.append((iteration, step))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", listen)
        al, _ = run(max_iterations=0)
    for report in al.history[0].reports:
        mine = [step for iteration, step in steps if step.member == report.member and iteration == 0]
        assert [step.steps for step in mine[:-1]] == sorted(step.steps for step in mine[:-1])
        assert {step.state for step in mine[:-1]} == {"training"}
        assert mine[-1].state == ("met" if report.converged else "missed")
        assert (mine[-1].steps, mine[-1].loss) == (report.steps, report.loss)
        assert (mine[-1].distance == 0.0) == report.converged


def test_a_job_is_followed_by_its_note_or_by_amps_log(tmp_path):
    assert last_job_step(2, tmp_path) == MemberStep(2, "training")
    table = " Step                Time   Loss (SSD)   EnergyRMSE     MaxResid    ForceRMSE     MaxResid\n"
    row = "{:5d} 2026-01-01T00:00:00   {:.4e} 1.0000e-02 - 2.0000e-02 - 3.0000e-02 - 4.0000e-02 -\n"
    log = table + "".join(row.format(step, 1.0 / (step + 1)) for step in range(200))
    (tmp_path / "amp-log.txt").write_text(log)
    found = last_job_step(2, tmp_path)
    assert (found.steps, found.loss) == (199, pytest.approx(0.005)) and np.isnan(found.distance)
    Heartbeat(tmp_path / "nft-step.json").beat(steps=7, loss=0.25, distance=1.5)
    assert last_job_step(2, tmp_path) == MemberStep(2, "training", 7, 0.25, 1.5)
