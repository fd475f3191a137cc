"""Break a small run in every way, run the same script again, and see what was lost: ``python benchmarks/faults.py``.

Each fault strikes again and again until the run is through. Then every file that a user may read must equal, byte for
byte, those of a run that nothing happened to; and no label or training that was finished may have been made twice.

Every run is a process of its own, forked from this one: all has been imported then, so that faults strike the run itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from data import bulk_images

from amp.nft.activelearner import NFT

RESULTS = Path(__file__).with_name("results") / "faults.json"
JOURNAL = Path("al-training", "saved-info", "journal.jsonl")
CALM = "calm"  # file in whose presence no parent misbehaves
NUMBER = "FAULTS_RUN"  # environment variable: which of the runs in a directory this is
CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=4.5, Gs=g2x(['Pt'])), model=NeuralNetwork(hiddenlayers=(3,)), dblabel='../amp-db')
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=40,
    convergence={'energy_rmse': 0.005, 'force_rmse': 0.02, 'force_maxresid': 0.2})
"""


# -- the run that is broken --------------------------------------------------------------------------------------------


class Witness(EMT):
    """EMT that writes down which labels it begins."""

    def calculate(self, atoms=None, *args, **kwargs):
        """Write, then do as EMT does."""
        if "target_atom" in atoms.info:  # else a first image, which a run compares with its stored label
            with open("begun.txt", "a") as file:
                file.write(f"{os.environ[NUMBER]} {atoms.info['target_atom']}\n")
        time.sleep(0.02)
        super().calculate(atoms, *args, **kwargs)


def parent(directory: str) -> Witness:
    """Return a fresh parent."""
    return Witness()


class Panic(BaseException):
    """An exception that `except Exception` does not catch."""


def panic() -> None:
    """Raise it."""
    raise Panic


class Spoiled(Witness):
    """A parent that misbehaves at its first attempt at each label, in a way that depends on the atom."""

    def calculate(self, atoms=None, *args, **kwargs):
        """Do as `Witness` does, then misbehave."""
        super().calculate(atoms, *args, **kwargs)
        once = Path(f"spoiled-{atoms.info.get('target_atom')}")
        if "target_atom" not in atoms.info or once.exists():
            return
        once.touch()
        ways = (
            lambda: atoms.positions.__iadd__(0.1), lambda: self.results.update(energy=complex(self.results["energy"])),
            lambda: self.results["forces"].fill(math.nan), lambda: setattr(self, "converged", [False]), panic, os.fork,
            lambda: os.chdir("/"), lambda: os.environ.clear(), lambda: PROGRAMS.append(subprocess.Popen(["sleep", "1000"])),
        )  # fmt: skip
        ways[atoms.info["target_atom"] % len(ways)]()


PROGRAMS: list[subprocess.Popen] = []


def spoiled_parent(directory: str) -> Spoiled:
    """Return a fresh parent that misbehaves."""
    return Spoiled()


def other_parent(directory: str) -> Witness:
    """Return a parent that is not the run's."""
    return Witness()


PARENTS = {"": parent, "spoiled": spoiled_parent, "other": other_parent}


def flip(images: list[Atoms], target: Atoms) -> None:
    """Another sign of one component of a force."""
    images[2].calc.results["forces"][1, 0] *= -1.0


def swap_labels(images: list[Atoms], target: Atoms) -> None:
    """Exchange the forces of two atoms: all sums are the same."""
    images[3].calc.results["forces"][[0, 1]] = images[3].calc.results["forces"][[1, 0]]


def reverse(images: list[Atoms], target: Atoms) -> None:
    """Another order of the images."""
    images.reverse()


def charge(images: list[Atoms], target: Atoms) -> None:
    """Another charge of one atom, of which the parent is told."""
    target.set_initial_charges([0.5, *[0.0] * (len(target) - 1)])


def tag(images: list[Atoms], target: Atoms) -> None:
    """Another tag of one atom."""
    target.set_tags([1, *[0] * (len(target) - 1)])


def magnetize(images: list[Atoms], target: Atoms) -> None:
    """Another magnetic moment of one atom."""
    target.set_initial_magnetic_moments([1.0, *[0.0] * (len(target) - 1)])


def move(images: list[Atoms], target: Atoms) -> None:
    """Move one atom of the target a little."""
    target.positions[5, 2] += 1e-3


CHANGES = {change.__name__: change for change in (flip, swap_labels, reverse, charge, tag, magnetize, move)}


def drive(workers: int, trainer: str = "batched", made_by: str = "", changed: str = "") -> None:
    """Return the user's script: a target of 38 atoms, five labels in each of two iterations."""
    octahedron = Octahedron("Pt", 4, cutoff=1, latticeconstant=3.99)
    target = Atoms(octahedron.symbols, octahedron.positions)
    target.rattle(0.1, seed=42)
    images = bulk_images(6)
    if changed:
        CHANGES[changed](images, target)
    learner = NFT(
        threshold=-0.87,
        stop_delta=1e-6,
        max_iterations=2,
        trainer=trainer,
        threads=1,
        log="log.txt",
        progress=False,
    )
    learner.run(
        images, target, n=3, calc_text=CALC_TEXT, cutoff=5.0, parent_calc=PARENTS[made_by],
        start_command=f"{sys.executable} run.py &",
        executor=partial(ProcessPoolExecutor, workers) if workers else None,
    )  # fmt: skip


# -- breaking it -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Results of one kind of fault."""

    strikes: int = 0
    runs: int = 0
    identical: int = 0
    labels_twice: int = 0
    trainings_twice: int = 0
    slowest_stop: float = 0.0
    complaints: list[str] = field(default_factory=list)


class Trial:
    """One run in a directory of its own, from the first fault until it is through."""

    def __init__(self, directory: Path, workers: int, trainer: str = "batched", made_by: str = "") -> None:
        self.directory, self.workers, self.trainer, self.made_by, self.starts = directory, workers, trainer, made_by, 0
        self.complaints: list[str] = []
        self.heard = 0  # characters of errors that have been read
        self.struck = 0  # how often something else than the driver was killed
        self.finished: list[set[int]] = []  # labels that were safe before each start

    def start(self, made_by: str = "", changed: str = "") -> BaseProcess:
        """Run the script (again)."""
        self.finished.append(self.labels())
        driver = get_context("fork").Process(target=self._script, args=(self.starts, made_by or self.made_by, changed))
        self.starts += 1
        driver.start()
        return driver

    def expect_refusal(self, why: str, what: str, **different: str) -> None:
        """Run a script that must end with an error that says why."""
        self.expect_error(self.start(**different), why, what)

    def expect_error(self, driver: BaseProcess, why: str, what: str) -> None:
        """Wait for the end of a driver, which must be an error that says why."""
        driver.join()
        said = (self.directory / "errors.txt").read_text()[self.heard :]
        self.heard += len(said)
        if driver.exitcode != 1 or why not in said:
            self.complaints.append(f"{what}: not refused, exit status {driver.exitcode}: {said[-2000:]}")

    def _script(self, number: int, made_by: str, changed: str) -> None:
        os.chdir(self.directory)
        os.environ[NUMBER] = str(number)
        errors = os.open("errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        sys.stdout = sys.stderr = open(errors, "w", buffering=1, closefd=False)  # pytest replaces those of its process
        drive(self.workers, self.trainer, made_by, changed)

    def events(self) -> list[dict]:
        """Return the events of the journal."""
        path = self.directory / JOURNAL
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that this program has damaged
                events.append(json.loads(line))
        return [event for event in events if "event" in event]

    def labels(self) -> set[int]:
        """Atoms whose labels are finished: in the journal, or left by a worker."""
        left = (self.directory / "al-training" / "labels").glob("*/label.json")
        return {e["atom"] for e in self.events() if e["event"] == "label"} | {int(p.parent.name.split("-")[0]) for p in left}

    def results(self) -> dict[str, bytes]:
        """Return all files that a user may read."""
        saved = self.directory / "al-training" / "saved-info"
        paths = [*self.directory.glob("*.ensemble"), *saved.glob("*.npy"), *saved.glob("*.traj")]
        return {path.name: path.read_bytes() for path in sorted(paths)}

    def labels_twice(self) -> int:
        """Labels that were begun again though they were finished."""
        path = self.directory / "begun.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        begun = [tuple(map(int, line.split())) for line in lines]
        return sum(atom in self.finished[run] for run, atom in begun)

    def trainings_twice(self) -> int:
        """Trainings that are in the journal more than once."""
        trained = [event["iteration"] for event in self.events() if event["event"] == "trained"]
        return len(trained) - len(set(trained))


Strike = Callable[[Trial, BaseProcess, random.Random, float], BaseProcess | None]  # the driver to go on with, if another


def kill_at_random(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver at a random time"""
    driver.join(rng.uniform(0.0, 1.0) * length)
    driver.kill()


def kill_after_event(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver right after its next event in the journal"""
    done = steps(trial)
    through = any(event["event"] == "stopped" for event in trial.events())
    own = {1: "run", 2: "start"}.get(trial.starts)  # what a driver writes at each of its starts counts once
    while driver.is_alive() and (through or not (steps(trial) > done or any(e["event"] == own for e in trial.events()))):
        time.sleep(0.001)
    driver.kill()


def steps(trial: Trial) -> int:
    """Events in the journal, but for those that a driver writes at each of its starts."""
    return sum(event["event"] not in ("run", "start") for event in trial.events())


def terminate_at_random(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """SIGTERM (walltime) to the driver at a random time"""
    driver.join(rng.uniform(0.0, 1.0) * length)
    driver.terminate()


def kill_worker(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of a worker process while it makes a label; the driver is left alone"""
    while driver.is_alive():
        notes = list((trial.directory / "al-training" / "labels").glob("*/worker.json"))
        try:
            os.kill(json.loads(rng.choice(notes).read_text())["pid"], signal.SIGKILL)
            trial.struck += 1
            break
        except (IndexError, OSError, ValueError):
            time.sleep(0.002)
    driver.join()


def kill_job(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of each training job once, some time after its beginning; the driver is left alone"""
    due: dict[tuple[int, str], float] = {}  # of each member in each training
    while driver.is_alive():
        trained = sum(event["event"] == "trained" for event in trial.events())
        for note in (trial.directory / "al-training").glob("*/nft-job.json"):
            job = json.loads(note.read_text())
            key = trained, note.parent.name
            if time.monotonic() > due.setdefault(key, time.monotonic() + rng.uniform(0.0, 1.0)):
                due[key] = math.inf
                with contextlib.suppress(ProcessLookupError):
                    os.kill(job["pid"], signal.SIGKILL)
                    trial.struck += 1
        time.sleep(0.01)


def misbehave(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """a parent that moves atoms, returns complex numbers or NaN, panics, forks, changes its process or leaves programs"""
    driver.join()
    trial.struck = len(list(trial.directory.glob("spoiled-*")))


def another_parent(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver at a random time, then a start with another parent, which must be refused"""
    kill_at_random(trial, driver, rng, length)
    driver.join()
    if not any(event["event"] == "label" for event in trial.events()):
        return
    trial.expect_refusal("accept_parent=True", "another parent", made_by="other")


def changed_input(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver at a random time, then a start with other labels, charges, tags, moments or positions, which must be refused"""
    kill_at_random(trial, driver, rng, length)
    driver.join()
    if any(event["event"] == "trained" for event in trial.events()):  # nothing is lost before
        change = rng.choice(sorted(CHANGES))
        trial.expect_refusal("other settings", change, changed=change)


def damage_journal(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver at a random time, then a byte, a line or a pair of lines of the journal is changed, which must be refused"""
    kill_at_random(trial, driver, rng, length)
    driver.join()
    path = trial.directory / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if len(lines) < 4:
        return
    k = rng.randrange(len(lines) - 2)
    how = rng.choice(["a byte changed", "a line missing", "two lines exchanged"])
    damaged = list(lines)
    if how == "a byte changed":
        line = bytearray(lines[k])
        line[rng.randrange(len(line) - 1)] ^= 1 << rng.randrange(7)
        damaged[k] = bytes(line)
    elif how == "a line missing":
        del damaged[k]
    else:
        damaged[k : k + 2] = lines[k + 1], lines[k]
    path.write_bytes(b"".join(damaged))
    trial.expect_refusal("journal.jsonl", f"line {k} of {len(lines)}, {how}")
    path.write_bytes(b"".join(lines))


def tear_last_line(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> None:
    """kill -9 of the driver right after its next event; half of the time that line is torn"""
    kill_after_event(trial, driver, rng, length)
    driver.join()
    path = trial.directory / JOURNAL
    data = path.read_bytes() if path.exists() else b""
    first = data.rstrip(b"\n").rfind(b"\n") + 1
    if first > 0 and trial.events()[-1]["event"] not in ("run", "start") and rng.random() < 0.5:
        cut = rng.randrange(first + 1, len(data) - 1)
        path.write_bytes(rng.choice([data[:cut], data[:first] + bytes(cut - first) + data[cut:]]))


def move_away(trial: Trial, driver: BaseProcess, rng: random.Random, length: float) -> BaseProcess:
    """the run's directory renamed while it works, which must be an error, and moved back"""
    deadline = time.monotonic() + rng.uniform(0.0, 1.0) * length
    there, away = trial.directory / "al-training", trial.directory / "away"
    while driver.is_alive() and (time.monotonic() < deadline or not trial.events()):
        time.sleep(0.002)
    if not driver.is_alive() or any(event["event"] == "stopped" for event in trial.events()):
        return driver
    there.rename(away)
    trial.struck += 1
    trial.expect_error(driver, "was moved or replaced", "directory moved away")
    shutil.rmtree(there, ignore_errors=True)  # the label that was being made may have left its directory there
    away.rename(there)
    return trial.start()


def strike_until_through(trial: Trial, strike: Strike, rng: random.Random, length: float, tally: Tally) -> None:
    """Start the run and break it until it is through."""
    while True:
        driver = trial.start()
        driver = strike(trial, driver, rng, length) or driver
        begin = time.monotonic()
        driver.join()
        status = driver.exitcode
        if status in (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM):
            tally.strikes += 1
            tally.slowest_stop = max(tally.slowest_stop, time.monotonic() - begin)
            continue
        tally.strikes += trial.struck
        tally.complaints += trial.complaints
        if status:
            tally.complaints.append((trial.directory / "errors.txt").read_text()[-2000:])
        return


@cache
def warm_up() -> None:
    """Have every kernel compiled, or read, in this process."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        os.environ[NUMBER] = "0"
        drive(0)
        os.chdir(here)


def strike_often(strike: Strike, strikes: int, workers: int, trainer: str = "batched", seed: int = 0) -> Tally:
    """Let a fault strike so many times or more, in as many runs as that takes."""
    warm_up()
    tally, rng = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        made_by = "spoiled" if strike is misbehave else ""
        expected, length = uninterrupted(Path(scratch), workers, trainer, made_by)
        while tally.strikes < strikes and not tally.complaints:
            trial = Trial(Path(scratch, f"trial-{tally.runs}"), workers, trainer, made_by)
            trial.directory.mkdir()
            strike_until_through(trial, strike, rng, length, tally)
            tally.runs += 1
            tally.identical += trial.results() == expected
            tally.labels_twice += trial.labels_twice()
            tally.trainings_twice += trial.trainings_twice()
            shutil.rmtree(trial.directory)
    return tally


def uninterrupted(scratch: Path, workers: int, trainer: str, made_by: str) -> tuple[dict[str, bytes], float]:
    """Return the results of an undisturbed run, and its duration in s."""
    whole = Trial(scratch / "whole", workers, trainer, made_by)
    whole.directory.mkdir()
    (whole.directory / CALM).touch()
    begin = time.monotonic()
    driver = whole.start()
    driver.join()
    length = time.monotonic() - begin
    if driver.exitcode:
        raise RuntimeError((whole.directory / "errors.txt").read_text())
    return whole.results(), length


FAULTS: list[tuple[Strike, int, str]] = [
    (kill_after_event, 0, "batched"), (kill_at_random, 0, "batched"), (kill_at_random, 2, "batched"),
    (terminate_at_random, 0, "batched"), (terminate_at_random, 2, "batched"), (kill_worker, 2, "batched"),
    (kill_job, 0, "jobs"), (kill_at_random, 0, "jobs"), (misbehave, 0, "batched"), (misbehave, 2, "batched"),
    (another_parent, 0, "batched"), (changed_input, 0, "batched"), (damage_journal, 0, "batched"),
    (tear_last_line, 0, "batched"), (move_away, 0, "batched"),
]  # fmt: skip


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strikes", type=int, default=100, help="how often each fault strikes at least")
    parser.add_argument("--only", type=int, help="the number of one fault, from 0")
    options = parser.parse_args()
    rows = []
    print(f"{'strikes':>7} {'runs':>5} {'identical':>9} {'labels twice':>12} {'trainings twice':>15}  fault")
    for strike, workers, trainer in FAULTS if options.only is None else [FAULTS[options.only]]:
        tally = strike_often(strike, options.strikes, workers, trainer)
        where = f"trainer {trainer}, " + (f"{workers} worker processes" if workers else "labels in the driver")
        row = {"fault": strike.__doc__, "where": where, **vars(tally)}
        rows.append(row)
        print(
            f"{tally.strikes:7} {tally.runs:5} {tally.identical:9} {tally.labels_twice:12} {tally.trainings_twice:15}  "
            f"{strike.__doc__}; {where}; slowest stop {tally.slowest_stop:.1f} s",
            *tally.complaints, sep="\n", flush=True,
        )  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
