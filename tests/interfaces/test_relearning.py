"""Dynamics that halts, learns and continues, as a user starts it: on one and two processes, killed and started again."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write
from ase.io.lammpsdata import write_lammps_data
from small_runs import cells, pt55

from amp.nft.amp_io import read_ensemble
from amp.nft.amp_io.baseline_data import stored_baseline
from amp.nft.cli.main import main
from amp.nft.run.store import RunRecord

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.engines, pytest.mark.slow]
INPUT = """
version = 1
system = {target = "target.traj", images = "images.traj@:"}
parent = {factory = "counted.py:make"}
chunks = {cutoff = 6.0}
ensemble = {members = 4, cutoff = 5.0, hiddenlayers = [4], energy_rmse = 0.002, force_rmse = 0.01, force_maxresid = 0.05}
select = {fraction = 0.1}
stop = {delta = 0.01, max_iterations = 1}
relearn = {rounds = 10, k = 4, delta = 20.0}
"""
COUNTED = """
import os, time
from pathlib import Path
from ase.calculators.emt import EMT

def make(directory):
    with open("labels.txt", "a") as file:
        file.write(f"{directory}\\n")
    if Path("broken").exists():
        raise RuntimeError("SCF did not converge")
    time.sleep(float(os.environ.get("NFT_TEST_SLEEP", 0)))
    return EMT()
"""
DECK = """\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        f f f
read_data       target.data
labelmap        atom 1 Pt
pair_style      zero ${nft_cutoff}
pair_coeff      * *
fix             nft_d all property/atom d_delta i_extrapolating
fix             nft all external pf/callback 1 1
fix_modify      nft energy yes virial yes
variable        dmax equal f_nft[1]
dump            unsure all custom 5 uncertain.dump id type element x y z d_delta
dump_modify     unsure sort id element Pt
fix             halt all halt 5 v_dmax > 0.6 error soft
thermo          5
thermo_style    custom step temp pe f_nft[1]
velocity        all create 1200 1 loop geom
timestep        0.004
fix             md all nve
run             20
run             40
print           "end at $(step)"
"""
COMMAND = ["amp-nft", "lammps", "best.al.ensemble", "in.lammps", "-log", "log.lammps"]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Return a directory with a finished run, its input, a deck, and data."""
    pytest.importorskip("lammps")
    directory = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        target = pt55()
        write("target.traj", target)
        write("images.traj", cells())
        target.center(vacuum=15.0)
        write_lammps_data("target.data", target, specorder=["Pt"], masses=True)
        Path("nft.toml").write_text(INPUT)
        Path("counted.py").write_text(COUNTED)
        Path("in.lammps").write_text(DECK)
        assert main(["run", "nft.toml"]) == 3
        Path("labels.txt").unlink()
    return directory


@pytest.fixture(autouse=True)
def _in_a_copy(first_run, tmp_path, monkeypatch):
    shutil.copytree(first_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def start(n, *more, sleep=0.0):
    environment = {**os.environ, "NFT_TEST_SLEEP": str(sleep)}
    command = [BIN / "mpirun", "-n", str(n), BIN / COMMAND[0], *COMMAND[1:], *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def done(n, *more, code=0):
    process = start(n, *more)
    output, errors = process.communicate(timeout=500)
    assert process.returncode == code, output[-3000:] + errors[-3000:]
    return output, errors


def relearn(n, code=0):
    return done(n, "--relearn", "nft.toml", code=code)


def halts():
    return [event for event in RunRecord("al-training/relearn").events if event["event"] == "halted"]


def label_files():
    return sorted(
        (path.name, event["atom"])
        for path in Path().glob("al-relearned-*-training")
        for event in RunRecord(path / "saved-info").events
        if event["event"] == "label"
    )


def made():
    return len(Path("labels.txt").read_text().splitlines())


def test_two_processes_halt_where_one_does_and_end_at_the_last_step():
    output, _ = relearn(1)
    assert "end at 60" in output and "The dynamics finished at step 60" in output
    one = halts()
    assert len(one) > 1
    assert made() == sum(len(atoms) for halt in one for atoms in halt["picked"])
    assert all(halt["last"] == (20 if halt["run"] == 1 else 60) for halt in one)
    assert "has finished before, at step 60" in relearn(2)[0]
    for path in [Path("al-training/relearn"), *Path().glob("al-relearned-*-training")]:
        shutil.rmtree(path)
    output, _ = relearn(2)
    assert output.count("Halt 1: step") == output.count("end at 60") == 1
    two = halts()
    assert (two[0]["step"], two[0]["picked"]) == (one[0]["step"], one[0]["picked"])
    assert two[0]["delta"] == pytest.approx(one[0]["delta"], rel=1e-6)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from ase.calculators.emt import EMT
from amp.nft.activelearner import NFT
from small_runs import CALC_TEXT

al = NFT(stop_delta=0.01, max_iterations=1, threshold=-0.9)
settings = {{"label": "py", "n": 4, "calc_text": CALC_TEXT, "start_command": "python run.py", "parent_calc": EMT(), "cutoff": 6.0}}
al.run("images.traj", "target.traj", **settings)
"""


def test_the_python_of_the_page_does_the_same():
    root = Path(__file__).parents[2]
    page = (root / "docs" / "lammps.rst").read_text(encoding="utf-8")
    _, block, _ = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", page)
    Path("script.py").write_text(SCRIPT.format(tests=str(root / "tests")) + textwrap.dedent(block))
    output = subprocess.run([BIN / "mpirun", "-n", "1", sys.executable, "script.py"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^True", output, re.MULTILINE) and re.search(r"^step \d+: \d+ labels, uncertainty", output, re.MULTILINE)
    assert Path("best.py-relearned-1.ensemble").exists()


def test_a_halt_without_relearning_has_its_exit_code():
    output, errors = done(2, code=5)
    assert "end at" in output and "end at 60" not in output
    assert "an uncertainty halted the dynamics before its last step" in errors


@pytest.mark.parametrize("bound", ["rounds = 1", "labels = 4", "delta = 0.001"])
def test_a_bound_ends_the_dynamics_and_its_change_continues_it(bound):
    name = bound.split()[0]
    given = {"rounds": "rounds = 10", "labels": "k = 4", "delta": "delta = 20.0"}[name]
    text = INPUT.replace(given, f"k = 4, {bound}" if name == "labels" else bound)
    Path("nft.toml").write_text(text)
    errors = relearn(2, code=5)[1]
    assert "raise the bound in [relearn] of nft.toml" in errors
    assert ("is fit for labels" in errors) == (name == "delta")
    assert (made() if Path("labels.txt").exists() else 0) == (0 if name == "delta" else 4)
    if name != "delta":
        Path("nft.toml").write_text(INPUT)
        assert "end at 60" in relearn(1)[0]


@pytest.mark.parametrize(
    ("stage", "number"), [("halted", signal.SIGKILL), ("label", signal.SIGKILL), ("trained", signal.SIGKILL), ("relearned", signal.SIGKILL),
                          ("label", signal.SIGTERM), ("label", signal.SIGINT)]
)  # fmt: skip
def test_a_kill_at_each_stage_and_a_new_start_repeat_no_label(stage, number):
    process = start(2, "--relearn", "nft.toml", sleep=0.5 if stage in ("label", "halted") else 0.0)
    place = Path("al-training/relearn" if stage in ("halted", "relearned") else "al-relearned-1-training/saved-info", "journal.jsonl")
    limit = time.monotonic() + 300
    while not (place.exists() and f'"event": "{stage}"' in place.read_text()):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    first = json.loads(Path("al-training/relearn/journal.jsonl").read_text().splitlines()[1])["process"]["pid"]
    if number == signal.SIGKILL:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
    else:
        os.kill(first, number)
    _, errors = process.communicate(timeout=100)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, errors
    running = 1 if stage == "label" or (stage == "halted" and Path("labels.txt").exists()) else 0
    before = made() if Path("labels.txt").exists() else 0
    assert "end at 60" in relearn(2)[0]
    picked = sum(len(atoms) for halt in halts() for atoms in halt["picked"])
    assert picked <= made() <= picked + running
    assert before <= made() and len(label_files()) == len(set(label_files()))


def test_an_error_of_the_first_process_ends_all():
    Path("broken").touch()
    _, errors = relearn(2, code=4)
    assert errors.count("rank 0: LabellingError") == 1 and "SCF did not converge" in errors


@pytest.mark.parametrize(
    ("name", "before", "after", "text"),
    [
        ("in.lammps", "fix             halt", "# ", "the deck has no `fix halt` whose variable contains f_nft[1]"),
        ("in.lammps", "error soft", "error hard", "--relearn needs `fix halt all halt 10 v_dmax > 0.7 error soft`"),
        ("in.lammps", "all external", "all extern", "the deck has no `fix nft all external pf/callback 1 1`"),
        ("nft.toml", "cutoff = 5.0", "cutoff = 4.0", "ensemble.cutoff is 4.0 Å, and that of best.al.ensemble is 5.0 Å"),
        ("nft.toml", "members = 4", "members = 5", "n: was 4, is 5"),
        ("nft.toml", "rounds = 10", "round = 10", "relearn.round is not a known key; did you mean rounds?"),
        ("nft.toml", "version = 1", "version = 1\nrun = {label = 'b'}", "b-training has no finished run"),
        ("nft.toml", 'images = "images.traj@:"', 'images = "none.traj"', "none.traj"),
    ],
)
@pytest.mark.parametrize("n", [1, 2])
def test_errors_before_any_work(name, before, after, text, n):
    found = Path(name).read_text()
    assert before in found
    Path(name).write_text(found.replace(before, after))
    output, errors = relearn(n, code=1 if "was 4" in text else 2)
    assert text in errors and errors.count("amp-nft lammps: ") == 1
    assert "LAMMPS (" not in output and not Path("al-training/relearn").exists()


def test_the_dump_goes_on_after_a_kill():
    process = start(1, "--relearn", "nft.toml", sleep=0.3)
    place = Path("al-training/relearn/journal.jsonl")
    while not (place.exists() and '"event": "halted"' in place.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=100)
    relearn(2)
    lines = Path("uncertain.dump").read_text().splitlines()
    steps = np.array([int(lines[k + 1]) for k, line in enumerate(lines) if line == "ITEM: TIMESTEP"])
    assert (np.diff(steps) >= 0).all() and steps[-1] == 60
    assert (np.diff(steps) == 0).sum() == 1  # the frame of the halt, which LAMMPS writes as the first of the resumed run


LONG = DECK.replace("v_dmax > 0.6", "v_dmax > 1e6").replace("custom 5 ", "custom 50 ").replace("run             20\n", "")
JUMP = 4.0  # Å in 0.2 ps
EARLY = "fix             early all halt 5 v_dmax > 1e6 error soft\n"


@pytest.mark.parametrize(
    ("first", "kill_at", "step"), [("", "run-1-0-500-b", 200), (EARLY, "run-1-0-500-b", 200), ("", "run-2-500-1500-b", 700)]
)
def test_a_kill_before_the_first_halt_continues_from_the_last_restart_file(first, kill_at, step):
    """The first run has a halt or none; either is continued, and no command before it is repeated. Dumps are whole, flushed or not."""
    text = LONG.replace("fix             halt", f"{first}include first.lammps\nfix             halt").replace(
        "sort id", "flush no time yes sort id"
    )
    Path("first.lammps").write_text("dump all all xyz 20 all.xyz\ndump_modify all element Pt flush no\nrun 500")
    Path("in.lammps").write_text(text.replace("run             40", "velocity all scale 900\nrun 1000"))
    Path("nft.toml").write_text(INPUT.replace("k = 4", "k = 4, restart_every = 100"))
    process = start(2, "--relearn", "nft.toml")
    wait(process, f"{kill_at}.restart")
    kill_all(process)
    output, _ = relearn(1)
    assert re.search(r"The dynamics resumes from run-\d-\d+-\d+-[ab].restart, written before its first halt", output)
    assert min(map(int, re.findall(r"^ +(\d+) +[\d.]+ +\S+ +\S+ *$", output, re.MULTILINE))) >= step - 100
    for path, every, pattern in (("uncertain.dump", 50, r"TIMESTEP\n(\d+)"), ("all.xyz", 20, r"Timestep: (\d+)")):
        steps = np.array(re.findall(pattern, Path(path).read_text()), dtype=int)
        assert set(steps) == set(range(0, 1501, every)) and (np.diff(steps) >= 0).all() and (np.diff(steps) == 0).sum() <= 2
    frames = read("uncertain.dump", ":", format="lammps-dump-text")
    for one, other in itertools.pairwise(frames):  # a trajectory without jumps
        assert np.abs(one.positions - other.positions).max() < JUMP
    assert len(read("all.xyz", ":")) == len(steps)


def wait(process, restart, than=b""):
    """Wait for a restart file with other content than before."""
    path, limit = Path("al-training/relearn", restart), time.monotonic() + 100
    while not path.exists() or not path.stat().st_size or path.read_bytes() == than:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)


def test_two_kills_during_two_restart_files_leave_the_one_before():
    Path("in.lammps").write_text(LONG.replace("run             40", "run 2000"))
    Path("nft.toml").write_text(INPUT.replace("k = 4", "k = 4, restart_every = 100"))
    process = start(1, "--relearn", "nft.toml")
    wait(process, "run-1-0-2000-b.restart")
    kill_all(process)
    older, newer = sorted(Path("al-training/relearn").glob("*.restart"), key=lambda path: path.stat().st_mtime_ns)
    kept, cut = older.read_bytes(), newer.read_bytes()[:1000]
    newer.write_bytes(cut)
    process = start(1, "--relearn", "nft.toml")
    wait(process, newer.name, cut)
    os.killpg(process.pid, signal.SIGSTOP)
    assert older.read_bytes() == kept
    kill_all(process)
    newer.write_bytes(cut)
    older.write_bytes(kept)
    output, _ = relearn(1)
    assert f"The dynamics resumes from {older.name}, written before its first halt" in output and "finished at step 2000" in output


def kill_all(process):
    """Kill mpirun and the first process of LAMMPS, which has a session of its own."""
    first = json.loads(Path("al-training/relearn/journal.jsonl").read_text().splitlines()[1])["process"]["pid"]
    os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(first, signal.SIGKILL)
    process.communicate(timeout=100)


def test_the_last_restart_file_after_a_halt_is_where_it_continues():
    Path("in.lammps").write_text(
        DECK.replace("run             40", "unfix halt\nvelocity all scale 50\nfix calm all langevin 50 50 0.02 1\nrun 1500")
    )
    Path("nft.toml").write_text(INPUT.replace("k = 4", "k = 4, restart_every = 100"))
    process = start(1, "--relearn", "nft.toml")
    limit = time.monotonic() + 200
    while not Path("al-training/relearn/run-2-20-1520-b.restart").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)
    kill_all(process)
    before, rounds = made(), len(halts())
    output, _ = relearn(2)
    assert re.search(r"The dynamics resumes from run-2-20-1520-[ab].restart, written after its last halt", output)
    assert "end at 1520" in output and (made(), len(halts())) == (before, rounds)


def test_labels_in_a_pool():
    Path("nft.toml").write_text(INPUT + 'labels = {where = "pool", jobs = 2}\n')
    output, _ = relearn(2)
    assert "end at 60" in output
    assert made() == sum(len(atoms) for halt in halts() for atoms in halt["picked"])


def test_a_baseline_is_learned_on_with_its_pair_style():
    """Each relearned ensemble adds to the baseline; without the table of the input file, or with other numbers, there is no work."""
    shutil.rmtree("al-training")
    table = '\n[baseline]\ncalculator = "ase.calculators.lj.LennardJones"\nargs = {sigma = 2.5, epsilon = 0.1, rc = 6.0}\n'
    Path("nft.toml").write_text(INPUT + table)
    assert main(["run", "nft.toml"]) == 3
    Path("labels.txt").unlink()
    pair = "pair_style hybrid/overlay zero ${nft_cutoff} lj/cut 6.0\npair_modify shift yes\npair_coeff * * zero\n"
    pair += "pair_coeff * * lj/cut 0.1 2.5\n"
    plain = "pair_style      zero ${nft_cutoff}\npair_coeff      * *\n"
    assert plain in DECK
    deck = DECK.replace(plain, pair)
    for text, given, message in (
        (deck.replace("lj/cut 0.1", "lj/cut 0.2"), INPUT + table, "the pair style of the deck is not the baseline LennardJones("),
        (deck, INPUT, "baseline"),
    ):
        Path("in.lammps").write_text(text)
        Path("nft.toml").write_text(given)
        errors = done(1, "--relearn", "nft.toml", "--baseline-pair", "lj/cut", code=1 if given == INPUT else 2)[1]
        assert message in errors and not Path("labels.txt").exists()
        shutil.rmtree("al-training/relearn", ignore_errors=True)
    Path("nft.toml").write_text(INPUT + table)
    output, _ = done(2, "--relearn", "nft.toml", "--baseline-pair", "lj/cut")
    assert "end at 60" in output and "Pair style and baseline agree on" in output
    found = halts()
    assert found and made() == sum(len(atoms) for halt in found for atoms in halt["picked"])
    assert stored_baseline(read_ensemble("best.al-relearned-1.ensemble"))["identity"]["parameters"]["epsilon"] == 0.1
    relearned = [event for event in RunRecord("al-training/relearn").events if event["event"] == "relearned"]
    assert relearned[0]["delta"] < found[0]["delta"]
