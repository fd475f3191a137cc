"""Where a run stands, from its journal and from what its driver and its workers leave beside it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from amp.nft.errors import RunStoreError
from amp.nft.labels.single_point import RESULT, WORKER, labelled_atom
from amp.nft.records import MemberStep
from amp.nft.run.store import RunRecord
from amp.nft.run.verdict import Verdict, verdict_of
from amp.nft.system.liveness import heartbeat_age, read_heartbeat, read_process
from amp.nft.system.processes import Process, has_ended, machine

BEAT_FILE = "progress.json"  # in saved-info, while a driver is at work
SILENCE = 60.0  # s without a sign of life after which a driver on another machine is taken to be gone
RECENT = 4  # iterations from whose uncertainties the next ones are guessed

Event = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """Retrainings and seconds that are left, if the uncertainty goes on falling as it has."""

    iterations: int
    seconds: float


@dataclass(frozen=True)
class Standing:
    """Where a run stands; times in s, uncertainties in eV/Å.

    Attributes
    ----------
    directory : Path
        The training directory.
    phase : str
        'training', 'evaluating', 'labelling', 'finished' or 'interrupted'.
    iteration : int
    settings : dict
        All of them, of the run and of its last start.
    n_chunks : int
        Chunks in the training set.
    deltas : list of float
        Largest uncertainty on the targets, of each iteration so far.
    members : list of MemberStep
        Of the training that goes on, as far as is known.
    asked, done, failed, running : int
        Labels of this iteration.
    failure : str
        Why the last label failed, if one did.
    message : str
        How the run ended, if it has.
    verdict : Verdict or None
        On the trained ensemble, if the run has finished.
    elapsed : float
        Since the last start.
    alive : bool or None
        Whether the driver runs; None: cannot be told from here.
    driver : str
        Who it is, and what speaks for or against its being alive.
    left : Estimate or None
    """

    directory: Path
    phase: str
    iteration: int
    settings: dict[str, Any]
    n_chunks: int
    deltas: list[float]
    members: list[MemberStep] = field(default_factory=list)
    asked: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    failure: str = ""
    message: str = ""
    elapsed: float = 0.0
    alive: bool | None = None
    driver: str = ""
    left: Estimate | None = None
    verdict: Verdict | None = None


def read_standing(directory: str | os.PathLike[str]) -> Standing:
    """Where a run stands, from its files alone; nothing is locked or changed.

    Parameters
    ----------
    directory : path
        ``<label>-training``, the ``saved-info`` in it, or the one directory above, if it holds one run only.

    Returns
    -------
    Standing

    Raises
    ------
    RunStoreError
        If there is no run, there are several, or its journal is damaged.
    """
    return standing_of(RunRecord(find_run(directory)))


def standing_of(record: RunRecord) -> Standing:
    """Where a run stands, from its journal and what its driver leaves beside it."""
    beat, steps = _read_beat(record.directory / BEAT_FILE)
    return standing(record, steps, beat)


def find_run(directory: str | os.PathLike[str]) -> Path:
    """The ``saved-info`` of the run that a path leads to; RunStoreError if there is none, or more than one."""
    start = Path(directory)
    here = [start, start / "saved-info"]
    below = sorted(path.parent for path in start.glob("*-training/saved-info/journal.jsonl"))
    found = [path for path in here if (path / "journal.jsonl").is_file()][:1] or below
    if not found:
        what = "holds no run" if start.exists() else "does not exist"
        raise RunStoreError(
            f"{start} {what}: give the training directory of a run, al-training for label 'al' (it has a saved-info/"
            "journal.jsonl), or the directory in which the script was started."
        )
    if len(found) > 1:
        raise RunStoreError(f"{start} holds {len(found)} runs: say which of {', '.join(path.parent.name for path in found)}.")
    return found[0]


def standing(record: RunRecord, steps: dict[int, tuple[int, MemberStep]], beat: float | None = None) -> Standing:
    """Where a run stands.

    Parameters
    ----------
    record : RunRecord
    steps : dict
        For each member the iteration and its last step.
    beat : float, optional
        When its driver last showed that it is alive, in s since 1970.

    Returns
    -------
    Standing
    """
    events = list(record.events)  # another thread may add some
    start = next((k for k in range(len(events) - 1, -1, -1) if events[k]["event"] == "start"), 0)
    this = events[start] if events else {}
    run: Event = next((event for event in reversed(events) if event["event"] == "run"), {})
    settings = {**this, **run.get("settings", {}), **this.get("settings", {})}
    deltas = [_delta_max(record, event) for event in _last_of_each(events, "evaluated")]
    added = _last_of_each(events, "added")
    end = next((event for event in events[start:] if event["event"] in ("stopped", "interrupted")), None)
    iteration, phase = _phase(events, len(deltas), end)
    alive, driver = _driver(this, end, beat)
    now = _last_sign(events, beat) if alive is False else time.time()
    return Standing(
        directory=record.directory.parent,
        phase=phase,
        iteration=iteration,
        settings=settings,
        n_chunks=len({atom for event in added for atom in event["atoms"]}),
        deltas=deltas,
        members=[step for _, (of, step) in sorted(steps.items()) if of == iteration and phase == "training"],
        **(_labels(events, iteration, record.directory.parent / "labels") if phase == "labelling" else {}),
        message=_ending(end),
        elapsed=now - this.get("time", now),
        alive=alive,
        driver=driver,
        verdict=verdict_of(record) if phase == "finished" else None,
        left=None if alive is False else time_left(deltas, settings, _durations(events), now - _last_time(events, "evaluated", now)),
    )


def time_left(deltas: Sequence[float], settings: dict[str, Any], durations: Sequence[float], spent: float = 0.0) -> Estimate | None:
    """A guess at what is left.

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


def _last_of_each(events: Sequence[Event], name: str) -> list[Event]:
    """The last event of that name of each iteration."""
    found = {event["iteration"]: event for event in events if event["event"] == name}
    return [found[iteration] for iteration in sorted(found)]


def _delta_max(record: RunRecord, event: Event) -> float:
    """The largest uncertainty; journals of version 0.1.0 do not have it."""
    if "delta_max" not in event:
        event["delta_max"] = float(record.array(event["file"]).max())
    return event["delta_max"]


def _phase(events: Sequence[Event], evaluated: int, end: Event | None) -> tuple[int, str]:
    """The iteration that is being worked on, and what is done in it."""
    iterations = {name: {event["iteration"] for event in events if event["event"] == name} for name in ("trained", "added")}
    if end is not None:
        return max(evaluated - 1, 0), "finished" if end["event"] == "stopped" else "interrupted"
    if evaluated and evaluated - 1 not in iterations["added"]:
        return evaluated - 1, "labelling"
    return evaluated, "evaluating" if evaluated in iterations["trained"] else "training"


def _labels(events: Sequence[Event], iteration: int, directory: Path) -> dict[str, Any]:
    """How many labels of an iteration are asked for, done, failed and being made."""
    begun = next((k for k, event in enumerate(events) if event["event"] == "chosen" and event["iteration"] == iteration), None)
    if begun is None:
        return {}
    chosen = set(events[begun]["atoms"])
    before = {event["atom"] for event in events[:begun] if event["event"] == "label"}
    now = {event["atom"] for event in events[begun:] if event["event"] == "label"}
    failures = {event["atom"]: event for event in events[begun:] if event["event"] == "label-failed"}
    failed = failures.keys() - now
    last = next(reversed(failures.values()), None)
    return {
        "asked": len(chosen),
        "done": len((chosen & before) | now),
        "failed": len(failed),
        "running": len(_at_work(directory) - now - failed),
        "failure": f"atom {last['atom']}: {last['kind']}: {last['message']}" if last and failed else "",
    }


def _at_work(directory: Path) -> set[int]:
    """Atoms on whose labels a worker seems to be."""
    atoms = set()
    for path in directory.glob(f"[0-9]*-*/{WORKER}"):
        if (atom := labelled_atom(path.parent)) is None or (path.parent / RESULT).exists():
            continue
        worker = read_process(path)
        if worker is not None and not has_ended(worker):
            atoms.add(atom)
    return atoms


def _durations(events: Sequence[Event]) -> list[float]:
    """Seconds from one evaluation to the next, without the pauses between two drivers."""
    times: list[float | None] = []
    for event in events:
        if event["event"] == "start":
            times.append(None)
        elif event["event"] == "evaluated" and "time" in event:
            times.append(event["time"])
    return [b - a for a, b in pairwise(times) if a is not None and b is not None]


def _last_sign(events: Sequence[Event], beat: float | None) -> float:
    """When a driver that is gone was last at work, in s since 1970."""
    return max(events[-1].get("time", 0.0), beat or 0.0)


def _last_time(events: Sequence[Event], name: str, default: float) -> float:
    return next((event.get("time", default) for event in reversed(events) if event["event"] == name), default)


def _driver(start: Event, end: Event | None, beat: float | None) -> tuple[bool | None, str]:
    """Whether the driver is alive, and what tells so."""
    if "process" not in start:
        return (None, "not known: the run has not been started") if not start else (None, "not known")
    process = Process(**start["process"])
    who = f"process {process.pid} on {process.machine.split()[0]}"
    if end is not None:
        return False, f"{who}, which has ended"
    if process.machine == machine():
        died = has_ended(process)
        return not died, f"{who}, " + ("which is gone without a word: killed, or crashed" if died else "which runs")
    if beat is None:
        return None, f"{who}, of which there is no sign of life"
    age = max(time.time() - beat, 0.0)
    return age < SILENCE, f"{who}, last sign of life {duration(age)} ago"


def _ending(end: Event | None) -> str:
    """How the run ended, in words."""
    if end is None:
        return ""
    return end["message"] if end["event"] == "stopped" else f"Stopped by {end['signal']}; run the same script again to go on."


def _read_beat(path: Path) -> tuple[float | None, dict[int, tuple[int, MemberStep]]]:
    """What a driver leaves while it is at work."""
    age, found = heartbeat_age(path), read_heartbeat(path)
    if age is None or found is None:
        return None, {}
    try:
        data = found[1]
        return time.time() - age, {s["member"]: (data["iteration"], MemberStep(**s)) for s in data["members"]}
    except (TypeError, KeyError):
        return time.time() - age, {}


def duration(seconds: float) -> str:
    """A time in words: 0.8 s, 12 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
