"""State of a run, which `amp.nft.run.replay` makes from its journal, for the loop, the status and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from amp.nft.records import MemberReport
from amp.nft.run.journal import Event
from amp.nft.run.schema import EVALUATING, LABELLING, TRAINING, Position
from amp.nft.system.processes import Process

T = TypeVar("T")


@dataclass(frozen=True)
class Start:
    """One start of a driver.

    Attributes
    ----------
    time : float
        In s since 1970, as all times here.
    process : Process or None
    trainer, parent : str
    criteria : dict
        Training criteria of the members, as far as they are known.
    targets : tuple of str
        Content of each target.
    settings : dict
        Settings that may change at the next start.
    event : dict
        The event as it was written, with versions and fields that only one writer knows.
    """

    time: float
    process: Process | None
    trainer: str
    parent: str
    criteria: dict[str, Any]
    targets: tuple[str, ...]
    settings: dict[str, Any]
    event: Event = field(repr=False)


@dataclass(frozen=True)
class Trained:
    """The ensemble of an iteration: content, reports on its members, trainer, chunks in its training set, seconds."""

    file: str
    reports: tuple[MemberReport, ...]
    trainer: str
    chunks: int
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """The uncertainty of an iteration's ensemble: content with a value per atom; largest and mean value, eV/Å; out-of-bag factor."""

    file: str
    delta_max: float
    delta_mean: float
    time: float
    error95_factor: float | None = None


@dataclass(frozen=True)
class Added:
    """Atoms that were chosen after an iteration, and those whose chunks entered the next training."""

    chosen: tuple[int, ...]
    atoms: tuple[int, ...]


@dataclass(frozen=True)
class StoredLabel:
    """A finished label: content, seconds, and the event as it was written."""

    file: str
    seconds: float
    event: Event = field(repr=False)


@dataclass(frozen=True)
class Failure:
    """A label that failed and is not tried again before the next start."""

    atom: int
    kind: str
    message: str
    attempts: int = 1


@dataclass(frozen=True)
class IterationState:
    """Events of one iteration.

    Attributes
    ----------
    trained : Trained or None
    evaluated : Evaluated or None
    chosen : tuple of int
        Atoms whose chunks are to be labelled, as chosen last.
    labelled : frozenset of int
        Atoms that were labelled in this iteration.
    failed : dict of int to Failure
        Atoms whose label failed in this iteration, and was not made later, in the order of their failures.
    added : Added or None
    """

    trained: Trained | None = None
    evaluated: Evaluated | None = None
    chosen: tuple[int, ...] = ()
    labelled: frozenset[int] = frozenset()
    failed: Mapping[int, Failure] = field(default_factory=dict)
    added: Added | None = None


@dataclass(frozen=True)
class Ending:
    """The end of a run or of its driver: time, message, True if the run is finished, True if it converged, name of the reason."""

    time: float
    message: str
    finished: bool
    converged: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Exploration:
    """Exploration of a refinement: counts of frames, content of the selected chunks, their labels, content of all at the end."""

    counts: tuple[int, ...]
    chunks: tuple[str, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    labelled: tuple[str, ...] | None = None


@dataclass(frozen=True)
class RunState:
    """State of a run.

    Attributes
    ----------
    position : Position
        Phase and iteration, and True if the last driver has ended.
    settings : dict
        Settings that stay the same while the run lasts.
    images : str
        Content with the training images that the run began with; empty if not known.
    starts : tuple of Start
    begun : tuple of int or None
        Atoms whose chunks are in the first training set; None before they are labelled, and where images are.
    iterations : tuple of IterationState
    labels : dict of int to StoredLabel
        By the atom of the chunk.
    test : tuple of int
        Atoms whose labels test the ensemble, and are never trained.
    larger : dict of int to StoredLabel
        Labels of test atoms in larger chunks.
    cheap, larger_cheap : dict of int to StoredLabel
        Labels of these chunks by the cheap calculator of a correction.
    cheap_targets : dict of int to str
        Content with its forces in each target.
    gate : dict or None
        Judgement of the correction, as plain data.
    failures : dict of int to Failure
        Labels that failed and were not made later, by atom.
    retries : dict of int to int
        Failed attempts of each atom.
    ending : Ending or None
        End of the last driver.
    exploration : Exploration or None
    verdict : dict or None
        Recorded verdict on the last ensemble, as plain data.
    last_time : float
        Time of the last event.
    durations : tuple of float
        Seconds from one evaluation to the next of the same driver; a clock that is set back leaves one out.
    """

    position: Position = field(default_factory=Position)
    settings: dict[str, Any] = field(default_factory=dict)
    images: str = ""
    starts: tuple[Start, ...] = ()
    begun: tuple[int, ...] | None = None
    iterations: tuple[IterationState, ...] = ()
    labels: Mapping[int, StoredLabel] = field(default_factory=dict)
    test: tuple[int, ...] = ()
    larger: Mapping[int, StoredLabel] = field(default_factory=dict)
    cheap: Mapping[int, StoredLabel] = field(default_factory=dict)
    larger_cheap: Mapping[int, StoredLabel] = field(default_factory=dict)
    cheap_targets: Mapping[int, str] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None
    failures: Mapping[int, Failure] = field(default_factory=dict)
    retries: Mapping[int, int] = field(default_factory=dict)
    ending: Ending | None = None
    exploration: Exploration | None = None
    verdict: Mapping[str, Any] | None = None
    last_time: float = 0.0
    durations: tuple[float, ...] = ()

    def at(self, iteration: int) -> IterationState:
        """Return one iteration.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        IterationState
            Empty if it has no events.
        """
        return self.iterations[iteration] if iteration < len(self.iterations) else IterationState()

    def labels_of(self, event: str) -> Mapping[int, StoredLabel]:
        """Return the labels of chunks that events of one name gave.

        Parameters
        ----------
        event : str
            'label', 'larger-label', 'cheap-label' or 'larger-cheap-label'.

        Returns
        -------
        dict of int to StoredLabel
            By the number of the central atom.
        """
        parts = {"label": self.labels, "larger-label": self.larger, "cheap-label": self.cheap, "larger-cheap-label": self.larger_cheap}
        return parts[event]

    def trained(self, iteration: int) -> Trained:
        """Return the ensemble of an iteration that is trained.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        Trained
        """
        return _present(self.at(iteration).trained)

    def evaluated(self, iteration: int) -> Evaluated:
        """Return the uncertainty of an iteration that is evaluated.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        Evaluated
        """
        return _present(self.at(iteration).evaluated)

    def added(self, iteration: int) -> Added:
        """Return the chunks that were added after an iteration.

        Parameters
        ----------
        iteration : int

        Returns
        -------
        Added
        """
        return _present(self.at(iteration).added)

    @property
    def phase(self) -> str:
        """The phase: 'training', 'evaluating', 'labelling' (with the selection), 'finished' or 'interrupted'."""
        if self.ending is not None:
            return "finished" if self.ending.finished else "interrupted"
        if self.position.phase in (EVALUATING, TRAINING):
            return self.position.phase
        return LABELLING if self.iterations else TRAINING

    @property
    def deltas(self) -> list[float]:
        """Largest uncertainty on the targets of each evaluated iteration, eV/Å."""
        return [one.evaluated.delta_max for one in self.iterations if one.evaluated is not None]

    @property
    def added_atoms(self) -> list[int]:
        """Central atoms of the chunks in the training set, in the order in which they were added."""
        return list(dict.fromkeys(atom for one in self.iterations if one.added is not None for atom in one.added.atoms))

    @property
    def untrained(self) -> int | None:
        """Number of atoms of the targets whose chunks are not in the training set; None if it is not known."""
        n_atoms = sum(self.settings.get("target_atoms", ()))
        return n_atoms - len({*(self.begun or ()), *self.added_atoms}) if n_atoms else None

    @property
    def all_settings(self) -> dict[str, Any]:
        """Settings of the run and of its last start."""
        if not self.starts:
            return dict(self.settings)
        last = self.starts[-1]
        about = {name: value for name, value in last.event.items() if name not in ("event", "time", "settings", "targets")}
        return {**about, "criteria": last.criteria, **self.settings, **last.settings}


def _present(part: T | None) -> T:
    assert part is not None  # the caller has looked, or the order of events ensures it
    return part
