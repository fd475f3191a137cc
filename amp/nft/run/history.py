"""History of a run, read from its files: iterations with their uncertainties, targets, chunks and failures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.errors import RunStoreError
from amp.nft.records import MemberReport
from amp.nft.run.state import Evaluated, Failure, Trained
from amp.nft.run.status import Status, find_run, status_of
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
    error95_factor : float or None
        Factor on the uncertainty that covers 95 % of the out-of-bag errors; None if it is not known.
    """

    iteration: int
    n_chunks: int
    delta: np.ndarray
    reports: list[MemberReport]
    seconds: float
    file: str
    error95_factor: float | None


@dataclass(frozen=True)
class Run:
    """The contents of the files of a run.

    Attributes
    ----------
    record : RunRecord
    status : Status
        With the state of the run.
    targets : list of Atoms
        Empty if the journal does not name them.
    steps : list of Step
        Finished iterations, in order.
    """

    record: RunRecord
    status: Status
    targets: list[Atoms]
    steps: list[Step]

    @property
    def added(self) -> list[list[int]]:
        """Atoms whose chunks were added after each iteration."""
        return [list(one.added.atoms) for one in self.status.state.iterations if one.added is not None]

    @property
    def label_files(self) -> dict[int, str]:
        """Content of the labelled chunk of each atom."""
        return {atom: label.file for atom, label in self.status.state.labels.items()}

    @property
    def label_seconds(self) -> float:
        """Seconds spent on all labels."""
        return sum(label.seconds for label in self.status.state.labels.values())

    @property
    def failures(self) -> list[Failure]:
        """Labels that failed and were not made later, by atom."""
        return [failure for _, failure in sorted(self.status.state.failures.items())]

    @property
    def verdict(self) -> Verdict | None:
        """Verdict on the last ensemble by random labels, if it was tested."""
        return recorded_verdict(self.status.state)

    @property
    def starts(self) -> int:
        """Number of times that a driver began or resumed the run."""
        return len(self.status.state.starts)

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
        return self.status.settings

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

    def target_of(self, atom: int) -> tuple[int, int]:
        """Return the target of an atom.

        Parameters
        ----------
        atom : int
            Among the atoms of all targets.

        Returns
        -------
        number : int
            Of the target.
        first : int
            Its first atom.
        """
        first = np.cumsum([0, *map(len, self.targets)])
        number = int(np.searchsorted(first, atom, side="right")) - 1
        return number, int(first[number])

    def members(self, step: Step) -> list[str]:
        """Return the members of an iteration.

        Parameters
        ----------
        step : Step

        Returns
        -------
        list of str
            ``.amp`` texts.
        """
        return self.record.texts(step.file)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """Split values on the atoms of all targets by target.

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
        ``<label>-training``, or the directory above it, if it contains one run only.

    Returns
    -------
    Run

    Raises
    ------
    RunStoreError
        If there is no run, or its files are damaged.
    """
    record = RunRecord(find_run(directory))
    status = status_of(record)
    starts = status.state.starts
    targets = [record.image(name) for name in starts[-1].targets] if starts else []
    done = [(one.trained, one.evaluated) for one in status.state.iterations if one.trained is not None and one.evaluated is not None]
    steps = [_step(record, iteration, *results, targets) for iteration, results in enumerate(done)]
    return Run(record, status, targets, steps)


def _step(record: RunRecord, iteration: int, trained: Trained, evaluated: Evaluated, targets: list[Atoms]) -> Step:
    delta = record.array(evaluated.file)
    if delta.ndim != 1 or not len(delta) or not np.isfinite(delta).all() or (targets and len(delta) != sum(map(len, targets))):
        raise RunStoreError(
            f"{evaluated.file} in {record.directory} has no uncertainty for each atom of the targets: restore the files of the run."
        )
    return Step(iteration, trained.chunks, delta, list(trained.reports), trained.seconds, trained.file, evaluated.error95_factor)
