"""Trainer: one Amp job per member, each watched until it is done or has failed too often."""

from __future__ import annotations

import json
import math
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from amp.nft.amp_io import check_text
from amp.nft.errors import AmpFileError, JobError
from amp.nft.records import Ensemble, JobOptions, MemberReport, MemberStep, Purpose, TrainingTask, Watch, random_stream, unwatched
from amp.nft.training.amp_jobs import job_state
from amp.nft.training.amp_jobs.attempt import QUEUEING, Attempt, Limits, end_all
from amp.nft.training.amp_jobs.directory import (
    LOG,
    REPORT,
    TRAINED,
    UNTRAINED,
    TrainingDirectory,
    script_text,
    tail_of_output,
)
from amp.nft.training.amp_jobs.loss_table import LastStep, read_last_step
from amp.nft.training.amp_jobs.progress import standing

HAND_OVER = 0.2  # s that a start command which only hands its job over usually takes
PAUSE = 2.0  # s between two looks at how far the jobs are
REMINDER = 600.0  # s between two lines in the log while nothing happens


@dataclass(frozen=True)
class Result:
    """What an attempt that came to its end left."""

    text: str
    converged: bool
    last: LastStep | None
    report: MemberReport | None = None

    @property
    def loss(self) -> float:
        """Final loss; infinite where it is not known."""
        return math.inf if self.last is None or math.isnan(self.last.loss) else self.last.loss


@dataclass
class Member:
    """A member in training; `energy_factor` as in `read_last_step`."""

    index: int
    energy_factor: float
    starts: int = 0
    deaths: int = 0
    attempt: Attempt | None = None
    results: list[Result] = field(default_factory=list)
    chosen: Result | None = None


class AmpJobs:
    """Train an ensemble by Amp's own jobs, one per member, through a start command.

    Parameters
    ----------
    options : JobOptions
    obstacle : str or None
        Why jobs must train with Amp's own code; None: they fit with the kernels where the task has targets.
    log : callable
        Takes a message.
    retries : int
        How often a member's job may die before this gives up.
    restarts : int
        How often a member that does not meet its criteria starts again from new random weights; then its best
        attempt is kept.
    poll : float
        Time between two looks, in s.
    queueing : float
        How long a job may wait in a queue, in s.
    """

    name = "jobs"

    def __init__(
        self,
        options: JobOptions,
        obstacle: str | None = None,
        log: Callable[[str], None] = print,
        *,
        retries: int = 2,
        restarts: int = 2,
        poll: float = 0.25,
        queueing: float = QUEUEING,
    ) -> None:
        self.options, self.obstacle = options, obstacle
        self.kernels = False
        self.files = TrainingDirectory(Path(options.directory))
        self.limits = Limits(expired=options.expired, queueing=queueing)
        self.log = log
        self.retries, self.restarts, self.poll = retries, restarts, poll
        self._script("", self.files.member(0), seed=0, fresh=False)  # raises now if the texts make no script

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> Ensemble:
        """Train every member of `task`, from a clean directory.

        Parameters
        ----------
        task : TrainingTask
        watch : callable
            Is told every few seconds how each member stands.

        Returns
        -------
        Ensemble

        Raises
        ------
        JobError
            A job died more than `retries` times; the message names the member, the reason and the directory.
        AmpFileError
            A text to start from is damaged, or would run code.
        """
        self.files.end_strays(self.log)
        self.files.lay_out(task, self.options.calc_text)
        obstacle = self.obstacle or (None if task.targets else "no target was given")
        self.kernels = obstacle is None
        if self.kernels:
            self.files.hand_over(task)
        why = obstacle or "Gaussian fingerprints, a neural network and Amp's train line"
        self.log(f"Each member's job trains with {'amp.nft' if self.kernels else 'Amp'}: {why}.")
        members = [Member(m, _energy_factor(task, m)) for m in range(task.n_members)]
        try:
            self._supervise(task, members, watch)
        finally:
            end_all(member.attempt for member in members if member.attempt is not None)
        return Ensemble(
            texts=[member.chosen.text for member in members if member.chosen],
            reports=[_report(member) for member in members],
        )

    def _supervise(self, task: TrainingTask, members: list[Member], watch: Watch) -> None:
        """Start what is to be started and look after what runs, until every member has its result."""
        reminded, told, notes = time.monotonic(), 0.0, set[str]()
        while unfinished := [member for member in members if member.chosen is None]:
            self._start_waiting(task, unfinished)
            for member in unfinished:
                if member.attempt is not None:
                    self._look_after(member, notes)
                if member.chosen is not None:
                    watch(self._step(member))
            if time.monotonic() - told > PAUSE:
                told = time.monotonic()
                for member in unfinished:
                    watch(self._step(member))
            if time.monotonic() - reminded > REMINDER:
                reminded = time.monotonic()
                self.log(_standing(unfinished))
            time.sleep(self.poll)

    def _step(self, member: Member) -> MemberStep:
        """Where a member stands."""
        if member.chosen is not None:
            report = _report(member)
            return MemberStep(member.index, "met" if report.converged else "missed", report.steps, report.loss)
        if member.attempt is None:
            return MemberStep(member.index, "waiting")
        if not member.attempt.has_begun:
            return MemberStep(member.index, "queued")
        return standing(member.index, self.files.member(member.index))

    def _start_waiting(self, task: TrainingTask, members: list[Member]) -> None:
        """Start members one after the other, each when the start command of the one before has returned."""
        for member in members:
            if any(other.attempt is not None and other.attempt.in_foreground for other in members):
                return
            if member.attempt is None:
                self._start(task, member)

    def _start(self, task: TrainingTask, member: Member) -> None:
        fresh = bool(member.results)
        start = None if task.start is None or fresh else task.start[member.index]
        directory = self.files.clear_member(member.index, start)
        token = uuid.uuid4().hex
        seed = _seed(task.seed, task.iteration, member.index, len(member.results))
        (directory / "run.py").write_text(self._script(token, directory, seed=seed, fresh=fresh))
        member.starts += 1
        self.log(f"Member {member.index}: {self.options.start_command}" + _ordinal(member.starts))
        member.attempt = Attempt(directory, self.options.start_command, token, self.limits)
        member.attempt.wait_for_shell(HAND_OVER)

    def _script(self, token: str, directory: Path, *, seed: int, fresh: bool) -> str:
        return script_text(self.options, token=token, directory=directory, seed=seed, fresh=fresh, kernels=self.kernels)

    def _look_after(self, member: Member, notes: set[str]) -> None:
        """See how a member's job stands, and act on it."""
        assert member.attempt is not None
        verdict = member.attempt.verdict()
        if verdict is None:
            return
        end_all([member.attempt])
        self._pass_on_notes(member, notes)
        if verdict.converged is None:
            self._bury(member, verdict.reason)
        else:
            self._take_result(member, verdict.converged)
        member.attempt = None

    def _take_result(self, member: Member, converged: bool) -> None:
        """Keep what the attempt left; a member short of its criteria may start again."""
        directory = self.files.member(member.index)
        try:
            text = (directory / (TRAINED if converged else UNTRAINED)).read_text()
            check_text(text)
        except (OSError, AmpFileError) as error:
            self._bury(member, f"its result cannot be read: {error}")
            return
        last = read_last_step(directory / LOG, 1.0 if self.kernels else member.energy_factor)
        member.results.append(Result(text, converged, last, _own_report(directory)))
        misses = last.misses() if last else "no table of losses in its log"
        restarts = 0 if self.kernels else self.restarts  # a fit with the kernels restarts by itself
        if converged or len(member.results) > restarts:
            member.chosen = member.results[-1] if converged else min(member.results, key=lambda r: r.loss)
            (directory / TRAINED).write_text(member.chosen.text)
            self.log(f"Member {member.index}: done. {_report(member).message}".rstrip())
        else:
            self.log(
                f"Member {member.index}: not converged, loss {member.results[-1].loss:.4g}, {misses}. "
                "Starting again from new random weights."
            )

    def _bury(self, member: Member, reason: str) -> None:
        """Report a death, and give up after too many."""
        directory = self.files.member(member.index)
        tail = "".join(f"\n    | {line}" for line in tail_of_output(directory))
        self.log(f"Member {member.index}: its job died: {reason}. The end of its output:{tail or ' (none)'}")
        member.deaths += 1
        if member.deaths > self.retries:
            raise JobError(
                f"the job of member {member.index} died {member.deaths} times, at last thus: {reason}. Its "
                f"files are in {directory}, {job_state.OUTPUT} and {LOG} among them. Mend calc_text, headerlines,"
                f" train_line or start_command ({self.options.start_command!r}; this process runs {sys.executable}) and start the "
                f"run again: it goes on where it stopped. The end of the output:{tail or ' (none)'}"
            )

    def _pass_on_notes(self, member: Member, notes: set[str]) -> None:
        """Say once what the jobs have to say."""
        path = self.files.member(member.index) / job_state.NOTES
        for note in path.read_text().splitlines() if path.exists() else ():
            if note not in notes:
                notes.add(note)
                self.log(note)


def _own_report(directory: Path) -> MemberReport | None:
    """The report that a fit with our kernels left."""
    path = directory / REPORT
    return MemberReport(**json.loads(path.read_text())) if path.exists() else None


def _energy_factor(task: TrainingTask, member: int) -> float:
    """Amp's energy RMSE divides by all images of a sample, ours by those with energies."""
    drawn = task.weights_mi[member] > 0
    with_energies = drawn & np.array([chosen is None for chosen in task.rows])
    return math.sqrt(drawn.sum() / with_energies.sum()) if with_energies.any() else 1.0


def _seed(seed: int, *indices: int) -> int:
    """Return the seed of a member's initial weights as Amp accepts it: below 2**31."""
    return int(random_stream(seed, Purpose.WEIGHTS, *indices).generate_state(1)[0] >> 1)


def _ordinal(start: int) -> str:
    return "" if start == 1 else f" (start {start})"


def _standing(members: list[Member]) -> str:
    """Where the members stand that are not done."""
    waiting = [m.index for m in members if m.attempt is None]
    queued = [m.index for m in members if m.attempt is not None and not m.attempt.has_begun]
    running = [m.index for m in members if m.attempt is not None and m.attempt.has_begun]
    named = (("running", running), ("queued", queued), ("waiting to be started", waiting))
    return "Members " + "; ".join(f"{name}: {', '.join(map(str, who))}" for name, who in named if who) + "."


def _report(member: Member) -> MemberReport:
    """How a member's training ended."""
    chosen = member.chosen
    assert chosen is not None
    last = chosen.last
    if chosen.report is not None:
        attempts = member.starts - 1 + chosen.report.attempts
        return replace(chosen.report, member=member.index, attempts=attempts)
    if last is None:
        nothing = dict.fromkeys(("loss", "energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid"), math.nan)
        message = f"{LOG} holds no table of losses."
        return MemberReport(member.index, chosen.converged, 0, member.starts, **nothing, message=message)
    missed = last.misses()
    how = "Stopped at its bound of steps" if chosen.converged else f"Not converged in {len(member.results)} attempts"
    message = f"{how}: {missed}." if missed else ""
    return MemberReport(member.index, not missed, last.steps, member.starts, last.loss, **last.values, message=message)
