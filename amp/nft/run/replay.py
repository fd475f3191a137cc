"""The replay of a journal into the state of a run.

`apply` alone defines the meaning of an event; `amp.nft.run.schema` defines its fields and its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import reduce
from typing import Any

from amp.nft.records import MemberReport
from amp.nft.run.journal import Event
from amp.nft.run.schema import LABELLING, check
from amp.nft.run.state import Added, Ending, Evaluated, Exploration, Failure, IterationState, RunState, Start, StoredLabel, Trained
from amp.nft.run.store import RunRecord
from amp.nft.system.processes import Process


def replay(events: Iterable[Event]) -> RunState:
    """Return the state of a run after its events.

    Parameters
    ----------
    events : iterable of dict

    Returns
    -------
    RunState

    Raises
    ------
    ValueError
        The schema does not allow the events.
    """
    return reduce(apply, events, RunState())


class LiveState:
    """State of a record that grows: each event is applied once.

    Parameters
    ----------
    record : RunRecord
    """

    def __init__(self, record: RunRecord) -> None:
        self._events = record.events
        self._applied = 0
        self._state = RunState()

    def __call__(self) -> RunState:
        """Return the state after all events so far."""
        new = self._events[self._applied :]
        self._state, self._applied = reduce(apply, new, self._state), self._applied + len(new)
        return self._state


# -- events ----------------------------------------------------------------------------------------------------


def apply(state: RunState, event: Event) -> RunState:
    """Return the state after one more event.

    Parameters
    ----------
    state : RunState
    event : dict
        Events of unknown names change nothing.

    Returns
    -------
    RunState

    Raises
    ------
    ValueError
        If the event breaks the schema.
    """
    after = replace(state, position=check(event, state.position), last_time=event["time"])
    change = _CHANGES.get(event["event"])
    return after if change is None else change(after, event)


def _run(state: RunState, event: Event) -> RunState:
    state = replace(state, images=event.get("images", ""))
    if event["settings"] == state.settings:
        return state
    return replace(state, settings=event["settings"], begun=None, cheap={}, larger_cheap={}, cheap_targets={}, gate=None)


def _start(state: RunState, event: Event) -> RunState:
    process = _fields(Process, event["process"]) if "process" in event else None
    start = Start(
        event["time"], process, event["trainer"], event["parent"], event.get("criteria") or {}, tuple(event.get("targets", ())),
        event["settings"], event,
    )  # fmt: skip
    return replace(state, starts=(*state.starts, start), ending=None)


def _begun(state: RunState, event: Event) -> RunState:
    return replace(state, begun=tuple(event["atoms"]))


def _trained(state: RunState, event: Event) -> RunState:
    reports = tuple(report_of(report) for report in event["reports"])
    trained = Trained(event["file"], reports, event["trainer"], event["chunks"], event["seconds"])
    return replace(state, iterations=(*state.iterations, IterationState(trained)))


def _evaluated(state: RunState, event: Event) -> RunState:
    evaluated = Evaluated(event["file"], event["delta_max"], event["delta_mean"], event["time"], event.get("error95_factor"))
    before = [one.evaluated.time for one in state.iterations if one.evaluated is not None][-1:]
    this_driver = [at for at in before if state.starts and at >= state.starts[-1].time]
    durations = [event["time"] - at for at in this_driver if event["time"] >= at]
    return replace(_change(state, evaluated=evaluated), verdict=None, durations=(*state.durations, *durations))


def _chosen(state: RunState, event: Event) -> RunState:
    return _change(state, chosen=tuple(event["atoms"]))


def _label(state: RunState, event: Event) -> RunState:
    atom = event["atom"]
    labels = {**state.labels, atom: StoredLabel(event["file"], event["seconds"], event)}
    state = replace(state, labels=labels, failures=_without(state.failures, atom))
    if state.position.phase != LABELLING:  # a label of before that is made again
        return state
    last = state.iterations[-1]
    return _change(state, labelled=last.labelled | {atom}, failed=_without(last.failed, atom))


def _larger_label(state: RunState, event: Event) -> RunState:
    return replace(state, larger={**state.larger, event["atom"]: StoredLabel(event["file"], event["seconds"], event)})


def _cheap_label(state: RunState, event: Event) -> RunState:
    return replace(state, cheap={**state.cheap, event["atom"]: StoredLabel(event["file"], event["seconds"], event)})


def _larger_cheap_label(state: RunState, event: Event) -> RunState:
    return replace(state, larger_cheap={**state.larger_cheap, event["atom"]: StoredLabel(event["file"], event["seconds"], event)})


def _cheap_target(state: RunState, event: Event) -> RunState:
    return replace(state, cheap_targets={**state.cheap_targets, event["target"]: event["file"]})


def _gate(state: RunState, event: Event) -> RunState:
    return replace(state, gate=event)


def _test_chosen(state: RunState, event: Event) -> RunState:
    return replace(state, test=tuple(event["atoms"]))


def _label_retried(state: RunState, event: Event) -> RunState:
    atom = event["atom"]
    return replace(state, retries={**state.retries, atom: state.retries.get(atom, 0) + 1})


def _label_failed(state: RunState, event: Event) -> RunState:
    state, atom = _label_retried(state, event), event["atom"]
    failure = Failure(atom, event["kind"], event["message"], state.retries[atom])
    state = replace(state, failures={**state.failures, atom: failure})
    if state.position.phase != LABELLING:
        return state
    return _change(state, failed={**_without(state.iterations[-1].failed, atom), atom: failure})


def _added(state: RunState, event: Event) -> RunState:
    return _change(state, added=Added(tuple(event["chosen"]), tuple(event["atoms"])))


def _stopped(state: RunState, event: Event) -> RunState:
    return _end(state, Ending(event["time"], event["message"], True, event["converged"], event["reason"]))


def _interrupted(state: RunState, event: Event) -> RunState:
    return _end(state, Ending(event["time"], f"Stopped by {event['signal']}; run the same script again to resume.", False))


def _verdict(state: RunState, event: Event) -> RunState:
    return replace(state, verdict=event)


def _explored(state: RunState, event: Event) -> RunState:
    return replace(state, exploration=Exploration(tuple(event["counts"]), tuple(event["chunks"])))


def _chunk_label(state: RunState, event: Event) -> RunState:
    assert state.exploration is not None  # by the schema
    labels = {**state.exploration.labels, event["chunk"]: event["file"]}
    return replace(state, exploration=replace(state.exploration, labels=labels))


def _labelled(state: RunState, event: Event) -> RunState:
    assert state.exploration is not None
    return replace(state, exploration=replace(state.exploration, labelled=tuple(event["files"])))


_CHANGES = {
    "run": _run, "start": _start, "begun": _begun, "trained": _trained, "evaluated": _evaluated, "chosen": _chosen, "label": _label,
    "larger-label": _larger_label, "test-chosen": _test_chosen, "cheap-target": _cheap_target, "cheap-label": _cheap_label,
    "larger-cheap-label": _larger_cheap_label, "gate": _gate,
    "label-retried": _label_retried, "label-failed": _label_failed, "added": _added, "stopped": _stopped,
    "interrupted": _interrupted, "verdict": _verdict, "explored": _explored, "chunk-label": _chunk_label, "labelled": _labelled,
}  # fmt: skip


def _end(state: RunState, ending: Ending) -> RunState:
    """Set the ending, unless there is one: a signal after the end of the run ends only the process."""
    return replace(state, ending=state.ending or ending)


def _change(state: RunState, **changes: Any) -> RunState:
    """Change the last iteration."""
    return replace(state, iterations=(*state.iterations[:-1], replace(state.iterations[-1], **changes)))


def _without(mapping: Mapping[int, Failure], key: int) -> dict[int, Failure]:
    return {other: value for other, value in mapping.items() if other != key}


def report_of(report: dict[str, Any]) -> MemberReport:
    """Return the report on a member from the journal.

    Parameters
    ----------
    report : dict
        Its null is an unknown number.

    Returns
    -------
    MemberReport
        With nan for unknown numbers.
    """
    return _fields(MemberReport, {name: math.nan if value is None else value for name, value in report.items()})


def _fields(of: Any, values: dict[str, Any]) -> Any:
    """Return an instance of a dataclass from those values that are its fields."""
    return of(**{f.name: values[f.name] for f in fields(of) if f.name in values})
