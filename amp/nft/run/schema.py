"""Schema of a journal: the events, their fields with types and ranges, and the order in which events occur.

``docs/formats.rst`` shows `EVENTS` as a table; a test compares the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from amp.nft.records import MemberReport
from amp.nft.system.processes import Process

FORMAT = 2
CONTENT_NAME = re.compile(r"[0-9a-f]{32}\.[a-z]{1,16}")
_LARGEST = 2**53  # integers that every JSON reader keeps exactly


@dataclass(frozen=True)
class Kind:
    """Type and range of a field: words for documentation and errors, and the test."""

    text: str
    test: Callable[[Any], bool]
    optional: bool = False


def integer(least: int = 0, most: int = _LARGEST) -> Kind:
    """Return the kind of integers within a range.

    Parameters
    ----------
    least, most : int

    Returns
    -------
    Kind
    """
    return Kind(
        f"integer from {least} on" if most == _LARGEST else f"integer from {least} to {most}", lambda x: _is_integer(x, least, most)
    )


def number(least: float = -math.inf, above: bool = False) -> Kind:
    """Return the kind of finite numbers with a lower limit.

    Parameters
    ----------
    least : float
    above : bool
        Exclude the limit itself.

    Returns
    -------
    Kind
    """
    limit = "" if math.isinf(least) else f" above {least:g}" if above else f" from {least:g} on"
    return Kind(f"number{limit}", lambda x: _is_number(x) and (x > least if above else x >= least))


def nullable(kind: Kind) -> Kind:
    """Return the kind that also accepts null.

    Parameters
    ----------
    kind : Kind

    Returns
    -------
    Kind
    """
    return Kind(f"{kind.text}, or null", lambda x: x is None or kind.test(x))


def optional(kind: Kind) -> Kind:
    """Return the kind of a field that may be absent.

    Parameters
    ----------
    kind : Kind

    Returns
    -------
    Kind
    """
    return Kind(f"{kind.text}, optional", kind.test, optional=True)


def list_of(kind: Kind, words: str, least: int = 0) -> Kind:
    """Return the kind of lists with items of one kind.

    Parameters
    ----------
    kind : Kind
        Of each item.
    words : str
        Description for errors.
    least : int
        Smallest number of items.

    Returns
    -------
    Kind
    """
    return Kind(words, lambda x: isinstance(x, list) and len(x) >= least and all(map(kind.test, x)))


def has(members: Mapping[str, Kind], words: str) -> Kind:
    """Return the kind of objects with given members; other members are ignored.

    Parameters
    ----------
    members : dict of str to Kind
    words : str
        Description for errors.

    Returns
    -------
    Kind
    """
    return Kind(words, lambda x: isinstance(x, dict) and all(_is_member(x, name, kind) for name, kind in members.items()))


def _is_member(found: dict[str, Any], name: str, kind: Kind) -> bool:
    return kind.test(found[name]) if name in found else kind.optional


def _is_integer(x: Any, least: int, most: int) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and least <= x <= most


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300  # no infinity, no nan


def _dataclass(of: type, words: str, real: Kind) -> Kind:
    """Return the kind of objects with the fields of a dataclass of text, integers, real numbers and truth values."""
    kinds = {"str": TEXT, "int": integer(most=2**31 - 1), "float": real, "bool": TRUTH}
    members = {f.name: replace(kinds[str(f.type)], optional=f.default is not MISSING) for f in fields(of)}
    return has(members, words)


TEXT = Kind("text", lambda x: isinstance(x, str))
TRUTH = Kind("true or false", lambda x: isinstance(x, bool))
OBJECT = Kind("object", lambda x: isinstance(x, dict))
FILE = Kind("name of content", lambda x: isinstance(x, str) and CONTENT_NAME.fullmatch(x) is not None)
ATOMS = list_of(integer(), "atoms", least=1)
SECONDS = number(0)
PROCESS = _dataclass(Process, "object", number())
REPORT = _dataclass(MemberReport, "object", nullable(number()))  # null: not known
REPORTS = list_of(REPORT, "list with one object per member: its residuals, steps, attempts, converged, message")
SETTINGS = has(
    {
        "n": optional(integer(1)), "n_images": optional(integer(0)), "target_atoms": optional(list_of(integer(1), "", least=1)),
        "cutoff": optional(number(0, above=True)), "seed": optional(integer(0)),
        "calc_text": optional(TEXT), "train_line": optional(TEXT),
        "images": optional(list_of(TEXT, "")), "targets": optional(list_of(TEXT, "")),
    },
    "object: settings that stay the same while the run lasts",
)  # fmt: skip
CHANGEABLE = has(
    {
        "stop_delta": optional(number(0, above=True)), "max_iterations": optional(integer(0)),
        "steps_not_improved": optional(integer(1)), "threshold": optional(nullable(number())),
    },
    "object: settings that may change at the next start",
)  # fmt: skip
CRITERIA = nullable(
    Kind("object: criteria of the members", lambda x: isinstance(x, dict) and all(v is None or _is_number(v) for v in x.values()))
)
IDENTITY = Kind("object: identity of the parent", OBJECT.test)
PARENT = {
    "parent": optional(Kind("digest of the identity of the parent", TEXT.test)),
    "calculator": optional(Kind("digest of the identity of the calculator that it returned", TEXT.test)),
    "identity": optional(Kind("a new identity of the parent", OBJECT.test)),
    "made": optional(Kind("a new identity of the calculator", OBJECT.test)),
}  # of a label

NEW, BEGUN, TRAINING, EVALUATING, SELECTING, LABELLING = "new", "begun", "training", "evaluating", "selecting", "labelling"
EXPLORING, EXPLORED = "exploring", "explored"
MOVING, HALTED = "moving", "halted"
STARTED = (TRAINING, EVALUATING, SELECTING, LABELLING)
ANY = (BEGUN, *STARTED, EXPLORING, EXPLORED, MOVING, HALTED)
BOUND = nullable(number(0))
STATES = ("GOOD", "LABEL-LIMITED", "FIT-LIMITED", "NOT YET", "UNKNOWN", "FAILED")  # of a verdict
AFTER_END = ("run", "start", "verdict", "stopped", "interrupted", "dynamics", "relearned")
ENDINGS = ("stopped", "interrupted")


@dataclass(frozen=True)
class EventKind:
    """One row of the schema.

    Attributes
    ----------
    meaning : str
    fields : dict of str to Kind
    after : tuple of str
        Phases in which the event may occur.
    phase : str
        Phase that follows; empty where the phase stays.
    """

    meaning: str
    fields: dict[str, Kind]
    after: tuple[str, ...]
    phase: str = ""


EVENTS = {
    "run": EventKind(
        "a run begins; the first line. Until something is trained, it may be replaced",
        {"format": integer(1), "settings": SETTINGS, "images": optional(FILE)}, (NEW, BEGUN, TRAINING), BEGUN,
    ),
    "start": EventKind(
        "a driver begins or resumes the run",
        {
            "process": optional(PROCESS), "versions": optional(OBJECT), "trainer": TEXT, "parent": TEXT, "criteria": optional(CRITERIA),
            "identity": optional(IDENTITY), "accept_parent": optional(TRUTH),
            "targets": optional(list_of(FILE, "content of each target", least=1)), "settings": CHANGEABLE,
        },
        (BEGUN, *STARTED), TRAINING,
    ),
    "begin-chosen": EventKind(
        "atoms whose chunks are to be labelled for the first training, where there are no other images", {"atoms": ATOMS}, (TRAINING,)
    ),
    "begun": EventKind("atoms whose chunks are in the first training set", {"atoms": ATOMS}, (TRAINING,)),
    "trained": EventKind(
        "the ensemble of an iteration",
        {"iteration": integer(), "file": FILE, "chunks": integer(), "trainer": TEXT, "seconds": SECONDS, "reports": REPORTS},
        (TRAINING,), EVALUATING,
    ),
    "evaluated": EventKind(
        "the uncertainty of each atom of the targets, eV/Å",
        {
            "iteration": integer(), "file": FILE, "delta_max": number(0), "delta_mean": number(0),
            "error95_factor": optional(nullable(number(0))),
        },
        (EVALUATING,), SELECTING,
    ),
    "chosen": EventKind(
        "atoms whose chunks are to be labelled",
        {"iteration": integer(), "atoms": ATOMS}, (SELECTING, LABELLING), LABELLING,
    ),
    "label": EventKind("a finished label", {"atom": integer(), "file": FILE, "seconds": SECONDS, **PARENT}, STARTED),
    "larger-label": EventKind(
        "a finished label of a test atom, or of an atom that judges a correction, in a larger chunk",
        {"atom": integer(), "file": FILE, "seconds": SECONDS}, (TRAINING, SELECTING),
    ),
    "cheap-target": EventKind(
        "forces of the cheap calculator of a correction in a target", {"target": integer(), "file": FILE}, (TRAINING,)
    ),
    "cheap-label": EventKind("a label of a chunk by the cheap calculator", {"atom": integer(), "file": FILE, "seconds": SECONDS}, STARTED),
    "larger-cheap-label": EventKind(
        "the same in a larger chunk", {"atom": integer(), "file": FILE, "seconds": SECONDS}, (TRAINING, SELECTING)
    ),
    "baseline-labels": EventKind(
        "labels of structures by the baseline", {"structures": list_of(TEXT, "digests of structures", least=1), "file": FILE},
        (BEGUN, *STARTED),
    ),
    "gate": EventKind(
        "judgement of a correction: mean and largest error of both forces against those in larger chunks, eV/Å",
        {
            "n_atoms": integer(1), "plain_mean": number(0), "plain_max": number(0), "corrected_mean": number(0),
            "corrected_max": number(0), "worse": number(0),
        },
        (TRAINING,),
    ),
    "test-chosen": EventKind("atoms drawn at random whose labels test the ensemble, and are never trained", {"atoms": ATOMS}, (SELECTING,)),
    "label-retried": EventKind("a label that failed and is tried again", {"atom": integer(), "kind": TEXT, "message": TEXT}, STARTED),
    "label-failed": EventKind(
        "a label that failed and is not tried again before the next start",
        {"atom": integer(), "kind": TEXT, "message": TEXT}, STARTED,
    ),
    "added": EventKind(
        "atoms whose chunks enter the next training",
        {"iteration": integer(), "chosen": ATOMS, "atoms": ATOMS, "failed": optional(list_of(integer(), "atoms"))}, (LABELLING,), TRAINING,
    ),
    "verdict": EventKind(
        "the verdict on the last ensemble by random labels; bounds and errors in eV/Å",
        {
            "state": Kind(f"one of {', '.join(STATES)}", lambda x: x in STATES), "sentence": TEXT, "mean_bound": BOUND,
            "max_bound": BOUND, "label_error": BOUND, "n_test": integer(), "error95_floor": BOUND,
        },
        STARTED,
    ),
    "stopped": EventKind("the run ends", {"reason": TEXT, "message": TEXT, "converged": TRUTH}, ANY),
    "interrupted": EventKind("a signal ended the driver", {"signal": TEXT}, ANY),
    "member": EventKind("fit of a data set only: a finished member", {"member": integer(), "file": FILE}, (BEGUN,)),
    "all-images": EventKind(
        "fit of a data set only: a member after its stage on all images", {"member": integer(), "file": FILE}, (BEGUN,)
    ),
    "explored": EventKind(
        "refinement only: frames of an exploration and the chunks that were selected from them",
        {"counts": list_of(integer(), "frames, uncertain frames, candidates", least=3), "chunks": list_of(FILE, "content")},
        (BEGUN,), EXPLORING,
    ),
    "chunk-label": EventKind(
        "refinement only: a finished label", {"chunk": integer(), "file": FILE, "seconds": SECONDS, **PARENT}, (EXPLORING,)
    ),
    "labelled": EventKind(
        "refinement only: all labels of the exploration", {"files": list_of(FILE, "content")}, (EXPLORING,), EXPLORED
    ),
    "dynamics": EventKind(
        "relearning only: LAMMPS begins, or resumes, with the step of its last halt", {"process": optional(PROCESS), "step": integer()},
        (BEGUN, MOVING), MOVING,
    ),
    "halted": EventKind(
        "relearning only: an uncertainty stopped the dynamics; frames, the atoms whose environments are to be labelled in each, reasons "
        "of frames without labels, restart file and run of LAMMPS, and the size of its dump",
        {
            "round": integer(1), "step": integer(), "limit": number(0), "delta": number(0), "nonsense": list_of(TEXT, "list of texts"),
            "frames": list_of(FILE, "content"), "picked": list_of(ATOMS, "list of atoms for each frame"), "restart": TEXT,
            "run": integer(1), "first": integer(), "last": integer(), "dump": TEXT, "size": integer(),
        },
        (MOVING,), HALTED,
    ),
    "relearned": EventKind(
        "relearning only: the ensemble of a halt, by the name of its run; its labels, and its uncertainty of the halted frame",
        {"round": integer(1), "label": TEXT, "labels": integer(), "delta": number(0), "seconds": SECONDS}, (HALTED,), MOVING,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Position:
    """Place in the order of events: phase, iteration, True if the driver has ended, atoms of the targets if known."""

    phase: str = NEW
    iteration: int = 0
    ended: bool = False
    n_atoms: float = field(default=math.inf)


def check(event: Any, position: Position) -> Position:
    """Check one event against the schema, and return the position after it.

    Parameters
    ----------
    event : object
        As read from JSON. Unknown events and fields are skipped.
    position : Position

    Returns
    -------
    Position

    Raises
    ------
    ValueError
        If a field is missing or is of another type or range, or the event cannot follow.
    """
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("not an object with an event")
    if not _is_number(event.get("time")) or event["time"] < 0:
        raise ValueError("field 'time' must be a number from 0 on")
    name = event["event"]
    if name not in EVENTS:
        if position.phase == NEW:
            raise ValueError(f"the first event is {name!r}, and must be 'run'")
        return position
    for key, kind in EVENTS[name].fields.items():
        if not _is_member(event, key, kind):
            raise ValueError(f"field {key!r} of event {name!r} " + (f"must be {kind.text}" if key in event else "is missing"))
    return _advance(event, position)


def _advance(event: dict[str, Any], position: Position) -> Position:
    """Return the position after an event whose fields are correct; ValueError if it cannot follow."""
    name, kind, ended = event["event"], EVENTS[event["event"]], position.ended
    again = name == "run" and position.iteration > 0
    if position.phase not in kind.after or again or (ended and name not in AFTER_END):
        raise ValueError(f"event {name!r} cannot follow here (the run is {position.phase if not ended else 'over'})")
    if event.get("iteration", position.iteration) != position.iteration:
        raise ValueError(f"field 'iteration' of event {name!r} must be {position.iteration}")
    atoms = [event["atom"]] if "atom" in kind.fields else [*event.get("chosen", []), *event["atoms"]] if "atoms" in kind.fields else []
    if atoms and max(atoms) >= position.n_atoms:
        raise ValueError(f"event {name!r} names atom {max(atoms)}, and the targets have {position.n_atoms} atoms")
    phase = position.phase if name == "start" and position.phase != BEGUN else kind.phase or position.phase
    n_atoms = sum(event["settings"].get("target_atoms", [])) or math.inf if name == "run" else position.n_atoms
    return Position(phase, position.iteration + (name == "added"), name in ENDINGS or (ended and name == "verdict"), n_atoms)
