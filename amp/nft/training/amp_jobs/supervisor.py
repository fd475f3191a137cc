"""Trainer ``jobs``: start one job per member, and watch each until it ends or has failed too often."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from amp.nft.amp_io import check_text
from amp.nft.errors import AmpFileError, JobError
from amp.nft.records import Ensemble, JobOptions, Purpose, TrainingTask, Watch, random_stream, unwatched
from amp.nft.training.amp_jobs import job_state
from amp.nft.training.amp_jobs.attempt import QUEUEING, Attempt, Limits, end_all
from amp.nft.training.amp_jobs.directory import (
    LOG,
    TRAINED,
    UNTRAINED,
    TrainingDirectory,
    script_text,
    tail_of_output,
)
from amp.nft.training.amp_jobs.member import Member, members_of

SUBMISSION = 0.2  # s that a start command which only submits its job usually takes
REPORT_PERIOD = 2.0  # s between two reports of the members' steps
REMINDER = 600.0  # s between two lines in the log while nothing happens


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
        Number of failures of one member's job that are followed by another start.
    restarts : int
        Number of times that a member short of its criteria starts from new random weights; then its best attempt is kept.
    poll : float
        Time between two checks of the jobs, in s.
    queueing : float
        Time that a job may wait in a queue, in s.
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
            Receives the step of each member every few seconds.

        Returns
        -------
        Ensemble

        Raises
        ------
        JobError
            A job failed more than `retries` times; the message names the member, the reason and the directory.
        AmpFileError
            A text to start from is damaged, or would run code.
        """
        self.files.end_strays(self.log)
        self.files.lay_out(task, self.options.calc_text)
        obstacle = self.obstacle or (None if task.targets else "no target was given")
        self.kernels = obstacle is None
        if self.kernels:
            self.files.write_task(task)
        why = obstacle or "Gaussian fingerprints, a neural network and Amp's train line"
        self.log(f"Each member's job trains with {'amp.nft' if self.kernels else 'Amp'}: {why}.")
        members = members_of(task, self.files.path)
        try:
            self._supervise(task, members, watch)
        finally:
            end_all(member.attempt for member in members if member.attempt is not None)
        return Ensemble(
            texts=[member.chosen.text for member in members if member.chosen],
            reports=[member.report() for member in members],
        )

    def _supervise(self, task: TrainingTask, members: list[Member], watch: Watch) -> None:
        """Start and watch the jobs, until every member has its result."""
        reminded, reported, notes = time.monotonic(), -REPORT_PERIOD, set[str]()
        while unfinished := [member for member in members if member.chosen is None]:
            self._start_waiting(task, unfinished)
            for member in unfinished:
                if member.attempt is not None:
                    self._check(member, notes)
                if member.chosen is not None:
                    watch(member.step())
            if time.monotonic() - reported > REPORT_PERIOD:
                reported = time.monotonic()
                for member in unfinished:
                    watch(member.step())
            if time.monotonic() - reminded > REMINDER:
                reminded = time.monotonic()
                self.log(_summary(unfinished))
            time.sleep(self.poll)

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
        member.attempt.wait_for_shell(SUBMISSION)

    def _script(self, token: str, directory: Path, *, seed: int, fresh: bool) -> str:
        return script_text(self.options, token=token, directory=directory, seed=seed, fresh=fresh, kernels=self.kernels)

    def _check(self, member: Member, notes: set[str]) -> None:
        """Act on the end of a member's job, if it has ended."""
        assert member.attempt is not None
        verdict = member.attempt.verdict()
        if verdict is None:
            return
        end_all([member.attempt])
        self._pass_on_notes(member, notes)
        if verdict.converged is None:
            self._record_failure(member, verdict.reason)
        else:
            self._record_result(member, verdict.converged)
        member.attempt = None

    def _record_result(self, member: Member, converged: bool) -> None:
        """Keep the result of an attempt; a member short of its criteria may start again."""
        try:
            text = (member.directory / (TRAINED if converged else UNTRAINED)).read_text()
            check_text(text)
        except (OSError, AmpFileError) as error:
            self._record_failure(member, f"its result cannot be read: {error}")
            return
        result = member.add_result(text, converged)
        restarts = 0 if self.kernels else self.restarts  # a fit with the kernels restarts by itself
        if converged or len(member.results) > restarts:
            member.chosen = result if converged else min(member.results, key=lambda result: result.loss)
            (member.directory / TRAINED).write_text(member.chosen.text)
            self.log(f"Member {member.index}: done. {member.report().message}".rstrip())
        else:
            self.log(
                f"Member {member.index}: not converged, loss {result.loss:.4g}, {result.misses}. Starting again from new random weights."
            )

    def _record_failure(self, member: Member, reason: str) -> None:
        """Log the failure of a job; JobError after too many."""
        output = "".join(f"\n    | {line}" for line in tail_of_output(member.directory)) or " (none)"
        self.log(f"Member {member.index}: its job failed: {reason}. The end of its output:{output}")
        member.failures += 1
        if member.failures > self.retries:
            raise JobError(
                f"the job of member {member.index} failed {member.failures} times; last reason: {reason}. See its files in "
                f"{member.directory}, including {job_state.OUTPUT} and {LOG}. Fix calc_text, headerlines, train_line or "
                f"start_command ({self.options.start_command!r}; this process runs {sys.executable}) and rerun the script to "
                f"resume. The end of the output:{output}"
            )

    def _pass_on_notes(self, member: Member, notes: set[str]) -> None:
        """Log each note of the jobs once."""
        path = member.directory / job_state.NOTES
        for note in path.read_text().splitlines() if path.exists() else ():
            if note not in notes:
                notes.add(note)
                self.log(note)


def _seed(seed: int, *indices: int) -> int:
    """Return the seed of a member's initial weights as Amp accepts it: below 2**31."""
    return int(random_stream(seed, Purpose.WEIGHTS, *indices).generate_state(1)[0] >> 1)


def _ordinal(start: int) -> str:
    return "" if start == 1 else f" (start {start})"


def _summary(members: list[Member]) -> str:
    """Return one line on the members that are not done."""
    waiting = [m.index for m in members if m.attempt is None]
    queued = [m.index for m in members if m.attempt is not None and not m.attempt.has_begun]
    running = [m.index for m in members if m.attempt is not None and m.attempt.has_begun]
    named = (("running", running), ("queued", queued), ("waiting to be started", waiting))
    return "Members " + "; ".join(f"{name}: {', '.join(map(str, who))}" for name, who in named if who) + "."
