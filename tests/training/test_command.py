"""Committees that a user's command trains: the loop, kills, failures, results, and what cannot be."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read
from small_runs import N, cells, cluster, run

from amp.nft.activelearner import NFT
from amp.nft.calculator import Committee, UncertaintyMonitor, load
from amp.nft.errors import AmpFileError, InputError, JobError, RunStoreError
from amp.nft.interfaces import write_labels
from amp.nft.refinement import Dynamics, Relaxation, refine, relearn
from amp.nft.report import report
from amp.nft.report.checks import check
from amp.nft.run.history import read_run
from amp.nft.training import Command

HERE = Path(__file__).parents[1]
PAIRS = HERE / "pair_trainer.py"
TRAIN = f"{shlex.quote(sys.executable)} {shlex.quote(str(PAIRS))}"
SETTINGS = {"argument": "path", "model": "pairs.json", "options": {"cutoff": 5.0}}
DRIVER = f"""
import sys
sys.path[:0] = [{str(HERE)!r}]
from small_runs import run
from amp.nft.training import Command

run(trainer=Command({TRAIN!r}, {f"{PAIRS}:load"!r}, **{SETTINGS!r}), max_iterations=2)
"""


def command(**changes):
    return Command(**({"command": TRAIN, "calculator": f"{PAIRS}:load"} | SETTINGS | changes))


def starts():
    return Path("starts.txt").read_text().splitlines()


def results():
    """Results of a run under their usual names."""
    found = {str(path): path.read_bytes() for path in Path("al-training/saved-info").glob("*.npy")}
    return found | {str(path): path.read_bytes() for path in Path().glob("*.committee/**/*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the directory of a run whose members a command trained."""
    directory = tmp_path_factory.mktemp("run")
    with contextlib.chdir(directory):
        run(trainer=command(), max_iterations=2)
    return directory


def test_the_run_ends_as_any_other(finished):
    found = read_run(finished)
    assert found.steps[0].n_chunks == 0 and found.steps[-1].n_chunks >= 3
    assert found.settings["committee"]["command"] == TRAIN and found.settings["trainer"] == "command"
    assert found.steps[-1].delta.max() < 50 and all(report.converged for step in found.steps for report in step.reports)
    committee = load(finished / "best.al.committee", keep_members=True)
    assert isinstance(committee, Committee) and len(committee.calculators) == N
    delta = committee.get_property("forces_uncertainty", cluster())
    np.testing.assert_allclose(delta, found.best.delta, rtol=1e-9)
    members = [load_pairs(finished, found.best.iteration, k).get_property("forces", cluster()) for k in range(N)]
    np.testing.assert_allclose(committee.results["forces_comm"], members, atol=1e-12)
    assert np.ptp(members, axis=0).max() > 1e-3


def load_pairs(finished, iteration, member):
    from pair_trainer import load as loaded

    return loaded(finished / "al-training" / "models" / str(iteration) / str(member) / "model" / "pairs.json")


def test_a_member_gets_its_bootstrap_sample_with_weights(finished):
    found = read_run(finished)
    last = finished / "al-training" / "models" / str(found.steps[-1].iteration)
    sizes = set()
    for member in range(N):
        train, valid = (read(last / str(member) / f"{name}.extxyz", ":") for name in ("train", "valid"))
        assert len(train) >= len(cells()) + found.steps[-1].n_chunks
        keys = [{frame.positions.tobytes() for frame in some} for some in (train, valid)]
        assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == len(cells()) + found.steps[-1].n_chunks
        sizes.add(frozenset(keys[0]))
        for frame in train:
            chunk = frame.info["config_type"] == "nft_chunk"
            assert frame.arrays["force_mask"].sum() == (len(frame) - 1 if chunk else 0)
            assert frame.info["config_energy_weight"] == (not chunk)
            assert frame.arrays["force_atom_sigma"][~frame.arrays["force_mask"]] == pytest.approx(0.01)
    assert len(sizes) == N


def test_weighted_forces_reach_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(trainer=command(sigma=0.02), max_iterations=1, forces="weighted")
    chunk = next(f for f in read("al-training/models/1/0/train.extxyz", ":") if f.info["config_type"] == "nft_chunk")
    used = ~chunk.arrays["force_mask"]
    assert used.sum() > 1 and used[0]
    sigma, weights = chunk.arrays["force_atom_sigma"][used], chunk.arrays["REF_forces_atomic_weights"][used]
    assert (sigma >= 0.02 - 1e-8).all() and np.ptp(sigma) > 0.02
    assert (np.diff(sigma[np.argsort(-weights)]) >= -1e-7).all()


def test_the_same_seeds_and_data_at_each_start(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(trainer=command(parallel=N), max_iterations=2)
    assert sorted(starts()) == sorted((finished / "starts.txt").read_text().splitlines())
    with contextlib.chdir(finished):
        expected = results()
    found = results()
    assert found.keys() == expected.keys()
    for name, data in found.items():
        assert data == expected[name] or name.endswith("committee.json"), name


def test_a_killed_run_repeats_only_the_training_that_was_killed(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("driver.py").write_text(DRIVER)
    Path("hang-1").touch()
    driver = subprocess.Popen([sys.executable, "driver.py"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: Path("starts.txt").exists() and len(starts()) == 2)
        until(lambda: not Path("hang-1").exists())
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    subprocess.run([sys.executable, "driver.py"], check=True, stdout=subprocess.DEVNULL)
    undisturbed = (finished / "starts.txt").read_text().splitlines()
    assert sorted(starts()) == sorted([*undisturbed, undisturbed[1]])  # member 1 of the first training, again
    with contextlib.chdir(finished):
        expected = results()
    assert results().keys() == expected.keys()
    for name, data in results().items():
        assert data == expected[name], name
    assert read_run(tmp_path).added == read_run(finished).added


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_ends_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("driver.py").write_text("import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + DRIVER)
    Path("hang-0").touch()
    driver = subprocess.Popen([sys.executable, "driver.py"], stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT)
    until(lambda: Path("starts.txt").exists() and not Path("hang-0").exists())
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=60)
    assert "KeyboardInterrupt" in output
    own = str(tmp_path)
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and _directory(pid) == own]


def _directory(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def test_a_command_that_fails_is_started_again_and_then_named_with_its_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fail-1").touch()
    al, _ = run(trainer=command(), max_iterations=0)
    assert [report.attempts for report in al.history[0].reports] == [1, 2, 1]
    for leftover in ("al-training", "starts.txt", "al.committee"):
        shutil.rmtree(leftover) if Path(leftover).is_dir() else Path(leftover).unlink()
    Path("fail-2").touch()
    with pytest.raises(JobError, match=r"trains member 2 failed: it ended with status 3.*\n.*This start is to fail"):
        run(trainer=command(retries=0), max_iterations=0)
    assert len(starts()) == N
    run(trainer=command(retries=0), max_iterations=0)
    assert len(starts()) == N + 1  # two members were trained already


def test_after_a_failure_the_members_that_train_are_awaited_and_no_other_one_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fail-1").touch()
    slow = f'if [ "$NFT_MEMBER" = 0 ]; then until grep -q "^0 1 " starts.txt; do sleep 0.1; done; sleep 0.5; fi; {TRAIN}'
    with pytest.raises(JobError, match="trains member 1 failed"):
        run(trainer=command(command=slow, parallel=2, retries=0), max_iterations=0)
    assert sorted(line[:3] for line in starts()) == ["0 0", "0 1"]
    run(trainer=command(command=slow, parallel=2, retries=0), max_iterations=0)
    assert sorted(line[:3] for line in starts()) == ["0 0", "0 1", "0 1", "0 2"]


def test_a_command_without_a_usable_model_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match="wrote no model to NFT_MODEL"):
        run(trainer=command(command="true", retries=0))
    with pytest.raises(JobError, match="its model cannot be used"):
        run(trainer=command(command='echo nonsense > "$NFT_MODEL"', retries=0))
    with pytest.raises(JobError, match="did not end within"):
        run(trainer=command(command="sleep 60", retries=0, timeout=0.3))


def test_a_changed_command_needs_a_new_run(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    before = starts()
    with pytest.raises(RunStoreError, match="committee"):
        run(trainer=command(sigma=0.5), max_iterations=2)
    run(trainer=command(), max_iterations=2)  # moved, and nothing to do
    assert starts() == before
    models = Path("al-training/models/0/1/model/pairs.json")
    models.write_text("[]")
    with pytest.raises(AmpFileError, match="was changed since its training"):
        run(trainer=command(), max_iterations=2)


def test_later_trainings_begin_with_the_last_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "given.json"
    given.write_text("[1.0, 2.0, 3.0, 4.0]")
    text = f'echo "$NFT_ITERATION $NFT_MEMBER $NFT_START" >> begun.txt; {TRAIN}'
    run(trainer=command(command=text, from_previous=True, start=[given] * N), max_iterations=1)
    begun = [line.split() for line in Path("begun.txt").read_text().splitlines()]
    assert {line[2] for line in begun if line[0] == "0"} == {str(given)}
    for _, member, start in (line for line in begun if line[0] == "1"):
        assert Path(start).samefile(f"al-training/models/0/{member}/model/pairs.json")
    assert read_run(".").status.state.evaluated(1).error95_factor is None


def test_a_committee_stops_dynamics_and_exports_its_labels(finished, tmp_path):
    from ase.optimize import BFGS

    atoms = cluster()
    atoms.calc = load(finished / "best.al.committee")
    dyn = BFGS(atoms, logfile=None)
    monitor = UncertaintyMonitor(dyn, 1e-6)
    dyn.attach(monitor)
    with pytest.warns(UserWarning, match="largest force uncertainty"):
        dyn.run(steps=3)
    assert monitor.exceeded
    counts = write_labels(finished, tmp_path / "out", ["extxyz"])
    assert counts["train"] == len(cells()) + len(read_run(finished).status.state.added_atoms)


@pytest.mark.slow
def test_frames_of_a_refinement_become_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    al = NFT(method="robust", trainer=command(parallel=2), stop_delta=1e-6, max_iterations=1, log=os.devnull)
    explore = (Relaxation(steps=10), Dynamics(steps=40, interval=5, temperature=6000.0))
    settings = {"rounds": 1, "k": 4, "explore": explore, "band": (0.5, 1.1), "n": 2, "parent_calc": EMT(), "cutoff": 6.0}
    first, second = refine(al, cells(), cluster(), test_labels=2, larger_labels=0, **settings)
    assert second.ensemble == Path("best.al-refined-1.committee") and len(second.frames) == 2 and 0 < second.chunks <= 4
    found = read_run("al-refined-1-training")
    assert len(found.targets) == 3 and found.status.state.labels.keys() > read_run("al-training").status.state.labels.keys()
    delta = [load(second.ensemble).get_property("forces_uncertainty", target).max() for target in found.targets]
    np.testing.assert_allclose(max(delta), second.delta, rtol=1e-6)
    assert len(check(found).tested) == 2 and second.verdict is not None
    begun = starts()
    assert [str(one) for one in refine(al, cells(), cluster(), test_labels=2, larger_labels=0, **settings)] == [str(first), str(second)]
    assert starts() == begun


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"command": ""}, "must start a job"),
        ({"command": "no-such-program"}, "'no-such-program' is not found"),
        ({"calculator": "no.such.Class"}, "calculator no.such.Class cannot be imported"),
        ({"calculator": "ase.calculators.emt.No"}, "cannot be imported"),
        ({"calculator": "gone.py:load"}, "there is no file gone.py"),
        ({"calculator": lambda path: None}, "put the function into a file"),
        ({"model": "a/b"}, "name of a file"),
        ({"samples": "none"}, "must be one of 'bootstrap', 'all'"),
        ({"parallel": 0}, "parallel"),
        ({"retries": -1}, "retries"),
        ({"sigma": 0.0}, "sigma"),
        ({"start": ["gone.json"]}, "does not exist"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        command(**changes)


def test_arguments_of_a_run_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="decides itself when to stop"):
        run(trainer=command(), fit_until="out-of-bag")
    with pytest.raises(ValueError, match="begin with its `start`"):
        run(trainer=command(), load="best.al.ensemble")
    with pytest.raises(ValueError, match="batch='spread'"):
        run(trainer=command(), batch="spread")
    with pytest.raises(InputError, match="trainer is a command, and relearn trains networks of Amp"):
        relearn(NFT(trainer=command(), log=os.devnull), cells(), cluster(), "in.lammps", parent_calc=EMT())
    given = tmp_path / "given.json"
    given.write_text("[]")
    with pytest.raises(ValueError, match="start has 1 models, but n is 3"):
        run(trainer=command(start=[given]))
    assert not Path("al-training").exists()


def test_the_report_compares_the_committee_with_the_labels(finished, tmp_path):
    report(finished, tmp_path / "report.html")
    found = check(read_run(finished), truth=EMT().get_forces(cluster()))
    assert found.why_not == "" and len(found.trained) >= 3 and len(found.target) == len(cluster())
    committee = load(finished / "best.al.committee")
    np.testing.assert_allclose(found.target.delta, committee.get_property("forces_uncertainty", cluster()), rtol=1e-9)
    assert "best.al.ensemble" not in (tmp_path / "report.html").read_text(encoding="utf-8")
