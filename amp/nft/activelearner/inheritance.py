"""Labels that a run copies from another one, whose targets are its first targets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.labels.identity import Identity
from amp.nft.run.replay import replay
from amp.nft.run.state import RunState
from amp.nft.run.store import RunRecord, RunStore

OF_LABELS = ("label", "cheap-label")  # events that are taken over
_OWN = ("event", "time", "crc", "file")


@dataclass(frozen=True)
class Inheritance:
    """The ``saved-info`` of a run whose labels begin the training set, and further atoms that do."""

    directory: Path
    atoms: tuple[int, ...] = ()


def inherited_atoms(state: RunState) -> list[int]:
    """Return the atoms of a run whose labels another takes over: those of its training set and of its test.

    Parameters
    ----------
    state : RunState

    Returns
    -------
    list of int
        In the order in which they were added.
    """
    trained = dict.fromkeys([*(state.begun or ()), *state.added_atoms, *state.test])
    return [atom for atom in trained if atom in state.labels]


def inherit(store: RunStore, state: RunState, inheritance: Inheritance, identity: Identity, accept_parent: bool) -> list[int]:
    """Copy labels into a run that has just begun, with those of a correction and its judgement; labels that it already has are kept.

    Parameters
    ----------
    store : RunStore
    state : RunState
        Of this run.
    inheritance : Inheritance
    identity : dict
        Of the parent.
    accept_parent : bool
        Accept labels of another parent.

    Returns
    -------
    list of int
        Their atoms.

    Raises
    ------
    RunStoreError
        If they are by another parent.
    """
    record = RunRecord(inheritance.directory)
    ParentRecord(record.events, identity, accept_parent, inheritance.directory.parent)
    before = replay(record.events)
    atoms = inherited_atoms(before)
    for number, name in before.cheap_targets.items():
        if number not in state.cheap_targets:
            store.append("cheap-target", target=number, file=_copied(store, record, name))
    for event in OF_LABELS:
        for atom in atoms:
            label = before.labels_of(event).get(atom)
            if label is not None and atom not in state.labels_of(event):
                fields = {key: value for key, value in label.event.items() if key not in _OWN}
                store.append(event, file=_copied(store, record, label.file), **fields)
    if before.gate is not None and state.gate is None:
        store.append("gate", **{key: value for key, value in before.gate.items() if key not in _OWN})
    return atoms


def _copied(store: RunStore, record: RunRecord, name: str) -> str:
    """Copy content, and return its name."""
    return store.keep(record.content(name), Path(name).suffix)
