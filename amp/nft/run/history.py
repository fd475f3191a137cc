"""What a run's files tell: its iterations, targets, chunks and failures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.records import MemberReport
from amp.nft.run import Standing
from amp.nft.run.state import find_run, standing_of
from amp.nft.run.store import RunRecord
from amp.nft.run.verdict import Verdict, recorded_verdict


@dataclass(frozen=True)
class Step:
    """One finished iteration.

    Attributes
    ----------
    iteration : int
    n_chunks : int
        Chunks that its ensemble was trained on.
    delta : ndarray, shape (atoms of all targets,)
        Uncertainty, eV/Å.
    reports : list of MemberReport
    seconds : float
        Of its training.
    file : str
        Where in the content its members are.
    """

    iteration: int
    n_chunks: int
    delta: np.ndarray
    reports: list[MemberReport]
    seconds: float
    file: str


@dataclass(frozen=True)
class Failure:
    """A label that could not be had."""

    atom: int
    kind: str
    message: str
    attempts: int


@dataclass(frozen=True)
class Run:
    """All that the files of a run tell.

    Attributes
    ----------
    record : RunRecord
    standing : Standing
    targets : list of Atoms
        Empty where the journal does not say.
    steps : list of Step
        Finished iterations, in order.
    added : list of list of int
        Atoms whose chunks were added after each iteration.
    label_files : dict of int to str
        Of each labelled atom the file of its chunk.
    label_seconds : float
        Spent on labels, all together.
    failures : list of Failure
        Labels that were given up and not had later.
    starts : int
        How often a driver took the run up.
    verdict : Verdict or None
        On the last ensemble by random labels, where it was tested.
    """

    record: RunRecord
    standing: Standing
    targets: list[Atoms]
    steps: list[Step]
    added: list[list[int]]
    label_files: dict[int, str]
    label_seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    starts: int = 0
    verdict: Verdict | None = None

    @property
    def name(self) -> str:
        """Name of the training directory."""
        return self.record.directory.parent.resolve().name

    @property
    def label(self) -> str:
        """Name of the results: al for al-training."""
        return self.name.removesuffix("-training")

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the run and of its last start."""
        return self.standing.settings

    @property
    def best(self) -> Step:
        """The iteration of the lowest largest uncertainty."""
        return min(self.steps, key=lambda step: step.delta.max())

    @property
    def new_atoms(self) -> list[list[int]]:
        """For each iteration the atoms whose chunks came into the training set after it, and were not there before."""
        seen: set[int] = set()
        result = []
        for atoms in self.added:
            result.append([atom for atom in atoms if atom not in seen])
            seen.update(atoms)
        return result

    def members(self, step: Step) -> list[str]:
        """The members of an iteration.

        Parameters
        ----------
        step : Step

        Returns
        -------
        list of str
            ``.amp`` texts.
        """
        return json.loads(self.record.content(step.file))

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Values on the atoms of all targets, by target.

        Parameters
        ----------
        values : ndarray, shape (atoms of all targets,)

        Returns
        -------
        list of ndarray
        """
        sizes = [len(target) for target in self.targets]
        return np.split(values, np.cumsum(sizes)[:-1]) if sizes else [values]


def read_run(directory: str | os.PathLike[str]) -> Run:
    """Read a run, finished or not, held by a process or not.

    Parameters
    ----------
    directory : path
        ``<label>-training``, or the one directory above, if it holds one run only.

    Returns
    -------
    Run

    Raises
    ------
    RunStoreError
        If there is no run, or its files are damaged.
    """
    record = RunRecord(find_run(directory))
    labels = record.find_all("label")
    start = record.find("start") or {}
    return Run(
        record=record,
        standing=standing_of(record),
        targets=_targets(record, start.get("targets", [])),
        steps=_steps(record),
        added=[event["atoms"] for event in _by_iteration(record, "added")],
        label_files={event["atom"]: event["file"] for event in labels},
        label_seconds=sum(event["seconds"] for event in labels),
        failures=_failures(record),
        starts=len(record.find_all("start")),
        verdict=recorded_verdict(record),
    )


def _by_iteration(record: RunRecord, name: str) -> list[dict[str, Any]]:
    found = {event["iteration"]: event for event in record.find_all(name)}
    return [found[iteration] for iteration in sorted(found)]


def _steps(record: RunRecord) -> list[Step]:
    trained = {event["iteration"]: event for event in _by_iteration(record, "trained")}
    steps = []
    for event in _by_iteration(record, "evaluated"):
        of = trained[event["iteration"]]
        reports = [MemberReport(**report) for report in of["reports"]]
        delta = record.array(event["file"])
        steps.append(Step(event["iteration"], of["chunks"], delta, reports, of["seconds"], of["file"]))
    return steps


def _targets(record: RunRecord, names: Sequence[str]) -> list[Atoms]:
    """The targets; none for a journal of version 0.1.0, which does not name them."""
    return [record.image(name) for name in names]


def _failures(record: RunRecord) -> list[Failure]:
    """Labels that failed for good, the last reason of each, unless they were had later."""
    had = {event["atom"] for event in record.find_all("label")}
    failed = {event["atom"]: event for event in record.find_all("label-failed") if event["atom"] not in had}
    retried = [event["atom"] for event in record.find_all("label-retried")]
    given_up = [event["atom"] for event in record.find_all("label-failed")]
    return [
        Failure(atom, event["kind"], event["message"], retried.count(atom) + given_up.count(atom)) for atom, event in sorted(failed.items())
    ]
