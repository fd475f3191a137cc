"""A member in training by jobs: its starts, its results, and the report of its end."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from amp.nft.records import MemberReport, MemberStep, TrainingTask
from amp.nft.training.amp_jobs.attempt import Attempt
from amp.nft.training.amp_jobs.directory import LOG, REPORT
from amp.nft.training.amp_jobs.loss_table import COLUMNS, LastStep, read_last_step
from amp.nft.training.amp_jobs.progress import last_job_step


@dataclass(frozen=True)
class Result:
    """Parameters of an attempt that ended without a failure.

    Attributes
    ----------
    text : str
        Content of the ``.amp`` file.
    converged : bool
        True if the job reported that its criteria are met.
    last : LastStep or None
        Last line of Amp's log.
    report : MemberReport or None
        Report of a fit with the kernels.
    """

    text: str
    converged: bool
    last: LastStep | None
    report: MemberReport | None = None

    @property
    def loss(self) -> float:
        """Final loss; infinite where it is not known."""
        return math.inf if self.last is None or math.isnan(self.last.loss) else self.last.loss

    @property
    def misses(self) -> str:
        """Criteria that are not met, with the values."""
        return self.last.misses() if self.last else "no table of losses in its log"


@dataclass
class Member:
    """A member in training.

    Attributes
    ----------
    index : int
    directory : Path
        Working directory of its jobs.
    energy_factor : float
        As in `read_last_step`.
    starts, failures : int
        Attempts so far, and those that failed.
    attempt : Attempt or None
        The one that runs.
    results : list of Result
        Of the attempts that ended without a failure.
    chosen : Result or None
        The result that is kept, once training has ended.
    """

    index: int
    directory: Path
    energy_factor: float
    starts: int = 0
    failures: int = 0
    attempt: Attempt | None = None
    results: list[Result] = field(default_factory=list)
    chosen: Result | None = None

    def add_result(self, text: str, converged: bool) -> Result:
        """Add the result of an attempt, with the last step in Amp's log and the kernels' report, if they trained.

        Parameters
        ----------
        text : str
            The ``.amp`` text.
        converged : bool

        Returns
        -------
        Result
        """
        path = self.directory / REPORT
        report = MemberReport(**json.loads(path.read_text())) if path.exists() else None
        last = read_last_step(self.directory / LOG, 1.0 if report else self.energy_factor)
        self.results.append(Result(text, converged, last, report))
        return self.results[-1]

    def step(self) -> MemberStep:
        """Return the present step.

        Returns
        -------
        MemberStep
        """
        if self.chosen is not None:
            report = self.report()
            return MemberStep(self.index, "met" if report.converged else "missed", report.steps, report.loss)
        if self.attempt is None:
            return MemberStep(self.index, "waiting")
        return last_job_step(self.index, self.directory) if self.attempt.has_begun else MemberStep(self.index, "queued")

    def report(self) -> MemberReport:
        """Return the report of the result that is kept.

        Returns
        -------
        MemberReport
        """
        chosen = self.chosen
        assert chosen is not None
        last = chosen.last
        if chosen.report is not None:
            return replace(chosen.report, member=self.index, attempts=self.starts - 1 + chosen.report.attempts)
        if last is None:
            unknown = dict.fromkeys(("loss", *COLUMNS), math.nan)
            message = f"{LOG} contains no table of losses."
            return MemberReport(self.index, chosen.converged, 0, self.starts, **unknown, message=message)
        missed = last.misses()
        how = "Stopped at its limit of steps" if chosen.converged else f"Not converged in {len(self.results)} attempts"
        message = f"{how}: {missed}." if missed else ""
        return MemberReport(self.index, not missed, last.steps, self.starts, last.loss, **last.values, message=message)


def members_of(task: TrainingTask, directory: Path) -> list[Member]:
    """Return the members of a task, none of them started.

    Parameters
    ----------
    task : TrainingTask
    directory : Path
        Of the training; each member has a directory in it.

    Returns
    -------
    list of Member
    """
    return [Member(index, directory / str(index), _energy_factor(task, index)) for index in range(task.n_members)]


def _energy_factor(task: TrainingTask, member: int) -> float:
    """Return the factor from Amp's energy RMSE, over all images of a sample, to that over those with energies."""
    drawn = task.weights_mi[member] > 0
    with_energies = drawn & np.array([chosen is None for chosen in task.rows])
    return math.sqrt(drawn.sum() / with_energies.sum()) if with_energies.any() else 1.0
