"""Status of a run: its state, its driver's heartbeat, and the progress of members and labels."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amp.nft.errors import RunStoreError
from amp.nft.labels.single_point import RESULT, WORKER, labelled_atom
from amp.nft.records import MemberStep
from amp.nft.run.replay import replay
from amp.nft.run.schema import LABELLING, TRAINING
from amp.nft.run.state import IterationState, RunState
from amp.nft.run.store import RunRecord
from amp.nft.run.verdict import Verdict, verdict_of
from amp.nft.system.liveness import heartbeat_age, read_heartbeat, read_process
from amp.nft.system.processes import has_ended, machine

BEAT_FILE = "progress.json"  # in saved-info, while a driver is at work
SILENCE = 60.0  # s without a heartbeat after which a driver on another machine counts as gone
MANY = 100  # directories of labels above which a display, which asks four times a second, does not read them each time,
REST = 50.0  # but after so many times as long as that took
_looks: dict[Path, tuple[float, set[int]]] = {}  # by directory: when to look again, and the atoms
RECENT = 4  # iterations from whose uncertainties the next ones are estimated


@dataclass(frozen=True)
class Estimate:
    """Retrainings and seconds that are left, if the uncertainty continues to fall as before."""

    iterations: int
    seconds: float


@dataclass(frozen=True)
class Status:
    """Status of a run; times in s, uncertainties in eV/Å.

    Attributes
    ----------
    directory : Path
        The training directory.
    state : RunState
        The replay of its journal.
    members : list of MemberStep
        Progress of the present training, as far as it is known.
    running : int
        Labels on which a worker is at work.
    elapsed : float
        Time since the last start, until the last heartbeat if the driver is gone.
    alive : bool or None
        True if the driver runs; None if that cannot be known from here.
    driver : str
        The driver, and the reason for `alive`.
    left : Estimate or None
    """

    directory: Path
    state: RunState
    members: list[MemberStep] = field(default_factory=list)
    running: int = 0
    elapsed: float = 0.0
    alive: bool | None = None
    driver: str = ""
    left: Estimate | None = None

    @property
    def phase(self) -> str:
        """The phase: 'training', 'evaluating', 'labelling', 'finished' or 'interrupted'."""
        return self.state.phase

    @property
    def iteration(self) -> int:
        """Present iteration, or the last evaluated one of a run that has ended."""
        return max(len(self.deltas) - 1, 0) if self.state.ending else self.state.position.iteration

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the run and of its last start."""
        return self.state.all_settings

    @property
    def n_chunks(self) -> int:
        """Chunks in the training set."""
        return len(dict.fromkeys([*(self.state.begun or ()), *self.state.added_atoms]))

    @property
    def deltas(self) -> list[float]:
        """Largest uncertainty on the targets of each iteration so far."""
        return self.state.deltas

    @property
    def asked(self) -> int:
        """Labels of this iteration that were requested."""
        return len(set(self._labelling.chosen))

    @property
    def done(self) -> int:
        """Finished labels of this iteration."""
        now = self._labelling
        return len({atom for atom in now.chosen if atom in self.state.labels} | now.labelled)

    @property
    def failed(self) -> int:
        """Labels of this iteration that failed."""
        return len(self._labelling.failed)

    @property
    def failure(self) -> str:
        """Reason why the last failed label of this iteration failed."""
        failures = list(self._labelling.failed.values())
        return f"atom {failures[-1].atom}: {failures[-1].kind}: {failures[-1].message}" if failures else ""

    @property
    def message(self) -> str:
        """Message of the end of the run, if it has ended."""
        return "" if self.state.ending is None else self.state.ending.message

    @property
    def verdict(self) -> Verdict | None:
        """Verdict on the trained ensemble, if the run has finished."""
        return verdict_of(self.state)

    @property
    def _labelling(self) -> IterationState:
        return self.state.at(self.iteration) if self.phase == LABELLING else IterationState()


def read_status(directory: str | os.PathLike[str]) -> Status:
    """Read the status of a run from its files; nothing is locked or changed.

    Parameters
    ----------
    directory : path
        ``<label>-training``, the ``saved-info`` in it, or the directory above, if it contains one run.

    Returns
    -------
    Status

    Raises
    ------
    RunStoreError
        If there is no run, there are several, or its journal is damaged.
    """
    return status_of(RunRecord(find_run(directory)))


def status_of(record: RunRecord) -> Status:
    """Return the status of a run, which another process may lock.

    Parameters
    ----------
    record : RunRecord

    Returns
    -------
    Status
    """
    beat, steps = _read_beat(record.directory / BEAT_FILE)
    return status(record.directory, replay(record.events), steps, beat)


def find_run(directory: str | os.PathLike[str]) -> Path:
    """Return the ``saved-info`` directory of the run that a path leads to.

    Parameters
    ----------
    directory : str or path
        Training directory of a run, its ``saved-info``, or the directory of the script.

    Returns
    -------
    Path

    Raises
    ------
    RunStoreError
        There is no run, or more than one.
    """
    start = Path(directory)
    here = [start, start / "saved-info"]
    below = sorted(path.parent for path in start.glob("*-training/saved-info/journal.jsonl"))
    found = [path for path in here if (path / "journal.jsonl").is_file()][:1] or below
    if not found:
        what = "contains no run" if start.exists() else "does not exist"
        raise RunStoreError(
            f"{start} {what}: give the training directory of a run, al-training for label 'al' (it has a saved-info/"
            "journal.jsonl), or the directory in which the script was started."
        )
    if len(found) > 1:
        raise RunStoreError(f"{start} contains {len(found)} runs: give one of {', '.join(path.parent.name for path in found)}.")
    return found[0]


def status(directory: Path, state: RunState, steps: dict[int, tuple[int, MemberStep]], beat: float | None = None) -> Status:
    """Return the status of a run.

    Parameters
    ----------
    directory : Path
        That of its journal.
    state : RunState
    steps : dict
        For each member the iteration and its last step.
    beat : float, optional
        Time of the last heartbeat of its driver, in s since 1970.

    Returns
    -------
    Status
    """
    alive, driver = _driver(state, beat)
    now = max(state.last_time, beat or 0.0) if alive is False else time.time()
    training, labelling = state.phase == TRAINING, state.phase == LABELLING
    return Status(
        directory=directory.parent,
        state=state,
        members=[step for _, (of, step) in sorted(steps.items()) if of == state.position.iteration and training],
        running=len(_at_work(directory.parent / "labels") - _finished(state)) if labelling else 0,
        elapsed=max(now - state.starts[-1].time, 0.0) if state.starts else 0.0,  # a clock may be set back
        alive=alive,
        driver=driver,
        left=None if alive is False else time_left(state.deltas, state.all_settings, state.durations, _since_last(state, now)),
    )


def time_left(deltas: Sequence[float], settings: dict[str, Any], durations: Sequence[float], spent: float = 0.0) -> Estimate | None:
    """Estimate the time left.

    Parameters
    ----------
    deltas : sequence of float
        Largest uncertainty of each iteration.
    settings : dict
        With ``stop_delta`` and ``max_iterations``.
    durations : sequence of float
        Seconds of the iterations of this driver.
    spent : float
        Seconds since the last one ended.

    Returns
    -------
    Estimate or None
        From the straight line through the logarithms of the last uncertainties; None while there are too few, or where
        they do not fall.
    """
    stop, most = settings.get("stop_delta"), settings.get("max_iterations")
    recent = np.log(np.maximum(deltas[1:][-RECENT:], 1e-300))  # the first is of bulk cells alone, and far off
    if stop is None or most is None or not durations or len(recent) < 3 or deltas[-1] <= stop:
        return None
    slope = np.polyfit(np.arange(len(recent)), recent, 1)[0]
    if slope >= 0:
        return None
    needed = min(math.ceil((math.log(stop) - recent[-1]) / slope), most - (len(deltas) - 1))
    return Estimate(needed, max(needed * float(np.median(durations[-3:])) - spent, 0.0)) if needed > 0 else None


# -- pieces ----------------------------------------------------------------------------------------------------


def _since_last(state: RunState, now: float) -> float:
    """Return the seconds since the last evaluation."""
    times = [one.evaluated.time for one in state.iterations if one.evaluated is not None]
    return max(now - times[-1], 0.0) if times else 0.0


def _finished(state: RunState) -> set[int]:
    """Return the atoms whose label was made or failed in this iteration."""
    last = state.at(state.position.iteration)
    return {*last.labelled, *last.failed}


def _at_work(directory: Path) -> set[int]:
    """Return the atoms whose labels a worker makes; with `MANY` directories, as they were a while ago."""
    begin = time.monotonic()
    again, atoms = _looks.get(directory, (0.0, set()))
    if begin < again:
        return atoms
    places = list(directory.glob("[0-9]*-*"))
    atoms = _find_at_work(places)
    if len(places) > MANY:
        _looks[directory] = (begin + REST * (time.monotonic() - begin), atoms)
    return atoms


def _find_at_work(places: list[Path]) -> set[int]:
    """Return the atoms whose labels a worker seems to make."""
    atoms = set()
    for place in places:
        if (atom := labelled_atom(place)) is None or (place / RESULT).exists():
            continue
        worker = read_process(place / WORKER)
        if worker is not None and not has_ended(worker):
            atoms.add(atom)
    return atoms


def _driver(state: RunState, beat: float | None) -> tuple[bool | None, str]:
    """Return True, False or None (not known) for a driver that is alive, and the reason."""
    if not state.starts:
        return None, "not known: the run has not been started"
    process = state.starts[-1].process
    if process is None:
        return None, "not known"
    who = f"process {process.pid} on {process.machine.split()[0]}"
    if state.ending is not None:
        return False, f"{who}, which has ended"
    if process.machine == machine():
        died = has_ended(process)
        return not died, f"{who}, " + ("which ended with no message: killed, or crashed" if died else "which runs")
    if beat is None:
        return None, f"{who}, with no heartbeat"
    age = max(time.time() - beat, 0.0)
    return age < SILENCE, f"{who}, last heartbeat {duration(age)} ago"


def _read_beat(path: Path) -> tuple[float | None, dict[int, tuple[int, MemberStep]]]:
    """Return the time of the last heartbeat of a driver, and the progress of its members."""
    age, found = heartbeat_age(path), read_heartbeat(path)
    if age is None or found is None:
        return None, {}
    try:
        data = found[1]
        return time.time() - age, {s["member"]: (data["iteration"], _step(s)) for s in data["members"]}
    except (TypeError, KeyError, AttributeError):
        return time.time() - age, {}


def _step(step: dict[str, Any]) -> MemberStep:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in step.items()}
    return MemberStep(**known)


def duration(seconds: float) -> str:
    """Return a time in words: 0.8 s, 12 s, 3 min 10 s, 2 h 5 min.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
