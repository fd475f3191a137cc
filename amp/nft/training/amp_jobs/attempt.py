"""One attempt to train one member: start its job, watch it, and report its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from amp.nft.system import processes
from amp.nft.system.liveness import Unchanged, Watched, version
from amp.nft.training.amp_jobs import directory as files
from amp.nft.training.amp_jobs import job_state

CLOSING = 30.0  # s that a start command may continue after its job has reported its end
STARTING = 300.0  # s that a job in the background may take to begin
QUEUEING = 7 * 24 * 3600.0  # s that a job may wait in a queue


@dataclass(frozen=True)
class Limits:
    """Limits of the waits for a job, in s.

    Attributes
    ----------
    expired : float
        Time without a change of Amp's log.
    silence : float
        Time without a heartbeat, on another machine.
    queueing : float
        Time from the start command's return to the job's beginning.
    """

    expired: float
    silence: float = 180.0
    queueing: float = QUEUEING


@dataclass(frozen=True)
class Verdict:
    """End of a job: it met its criteria, missed them, or failed for a reason."""

    converged: bool | None
    reason: str = ""


class Attempt:
    """One start of a member's job.

    Parameters
    ----------
    directory : Path
        The member's directory, with ``run.py`` in it.
    command : str
        Start command, for the shell.
    token : str
        Identifies this attempt; ``run.py`` contains it too.
    limits : Limits
    """

    def __init__(self, directory: Path, command: str, token: str, limits: Limits) -> None:
        self.directory, self.command, self.token, self.limits = directory, command, token, limits
        (directory / job_state.TOKEN).write_text(token)
        with open(directory / job_state.OUTPUT, "wb") as output:
            self._shell = subprocess.Popen(
                command,
                shell=True,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, processes.MARK: token},
                start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's to handle
            )
        self._started, self._ended, self._log = Unchanged(), Unchanged(), Unchanged()
        self._watched: Watched | None = None

    @property
    def in_foreground(self) -> bool:
        """True while the start command runs: that of a serial run does until its job ends."""
        return self._shell.poll() is None

    @property
    def has_begun(self) -> bool:
        """True once the job itself has written its state."""
        return self._state() is not None

    def verdict(self) -> Verdict | None:
        """Return the outcome of the job.

        Returns
        -------
        Verdict or None
            None while it continues.
        """
        failure = self._failure()
        converged = files.read_converged(self.directory)  # after the check for a failure: it may just have ended well
        if converged is None:
            return None if failure is None else Verdict(None, failure)
        closing = self.in_foreground or self._runs_here()
        return None if closing and self._ended.seconds(True) < CLOSING else Verdict(converged)

    def withdraw(self) -> None:
        """Remove the token: a job on another machine notices, and exits."""
        (self.directory / job_state.TOKEN).unlink(missing_ok=True)

    def started(self) -> list[psutil.Process]:
        """Return the processes on this machine that the start command started and that still exist.

        Returns
        -------
        list of psutil.Process
        """
        job = self._state()
        return processes.started_for(None if job is None else job.process, self.token)

    def wait_for_shell(self, seconds: float) -> None:
        """Wait for a start command that only submits the job.

        Parameters
        ----------
        seconds : float
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(seconds)

    def _state(self) -> job_state.JobState | None:
        """Return the job's state, unless an earlier attempt wrote it."""
        found = job_state.read_state(self.directory)
        return found if found is not None and found.token == self.token else None

    def _runs_here(self) -> bool:
        """Return True if the job's process runs on this machine."""
        job = self._state()
        return job is not None and bool(processes.tree(job.process))

    def _failure(self) -> str | None:
        """Return the reason why the job counts as failed, or None."""
        status = self._shell.poll()
        if recorded := self._recorded_failure():
            return recorded
        if status:
            return f"the start command {self.command!r} {_meaning(status)}"
        job = self._state()
        if job is None:
            return self._false_start(status)
        if self._watched is None:
            self._watched = Watched(job.process, self.directory / job_state.STATE, self.limits.silence)
        if lost := self._watched.lost():
            return lost
        if self._log.seconds((job, version(self.directory / files.LOG))) > self.limits.expired:
            return f"{files.LOG} did not change for {self.limits.expired:g} s (raise `expired` for slow steps)"
        return None

    def _recorded_failure(self) -> str:
        """Return the last line of the failure that the job itself recorded, if it did."""
        with contextlib.suppress(OSError):
            text = (self.directory / job_state.FAILURE).read_text(errors="replace")
            return text.strip().rpartition("\n")[2]
        return ""

    def _false_start(self, status: int | None) -> str | None:
        """Return the reason why the job will not begin, or None."""
        if status is None:
            return None
        in_background = self.command.rstrip().endswith("&")
        if in_background and not processes.group_runs(self._shell.pid):
            return "the job ended before it began"
        bound = min(STARTING, self.limits.queueing) if in_background else self.limits.queueing
        if self._started.seconds(None) > bound:
            return f"the job has not begun within {bound:g} s of its start command"
        return None


def end_all(attempts: Iterable[Attempt]) -> None:
    """End all processes that attempts started, together, in at most twice `processes.GRACE`.

    Parameters
    ----------
    attempts : iterable of Attempt
    """
    attempts = list(attempts)
    for attempt in attempts:
        attempt.withdraw()
    if attempts:
        processes.end(lambda: (process for attempt in attempts for process in attempt.started()))
    for attempt in attempts:
        attempt.wait_for_shell(processes.GRACE)


def _meaning(status: int) -> str:
    """Return a shell's exit status in words."""
    number = -status if status < 0 else status - 128
    if number in {known.value for known in signal.Signals}:
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {status}"
