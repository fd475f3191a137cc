"""One attempt to train one member: start the job, and see whether it still runs and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from amp.nft.training.amp_jobs import directory as files
from amp.nft.training.amp_jobs import job_state

CLOSING = 30.0  # s that a start command may go on after its job has said how it ended
STARTING = 300.0  # s that a job in the background may take to begin
QUEUEING = 7 * 24 * 3600.0  # s that a job may wait in a queue


@dataclass(frozen=True)
class Limits:
    """How long a job may be silent, in s.

    Attributes
    ----------
    expired : float
        Without a change of Amp's log.
    silence : float
        Without a sign of life, on another machine.
    queueing : float
        Between the start command's return and the job's beginning.
    """

    expired: float
    silence: float = 180.0
    queueing: float = QUEUEING


@dataclass(frozen=True)
class Verdict:
    """How a job ended: it said whether its criteria are met, or it died of a reason."""

    converged: bool | None
    reason: str = ""


class Attempt:
    """A job that was started.

    Parameters
    ----------
    directory : Path
        The member's directory, with ``run.py`` in it.
    command : str
        Start command, for the shell.
    token : str
        Names this attempt; ``run.py`` carries it too.
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
                start_new_session=True,  # a group of its own, which can be ended as a whole
            )
        self._started = _Stillness()
        self._ended = _Stillness()
        self._log, self._heartbeat = _Stillness(), _Stillness()

    @property
    def in_foreground(self) -> bool:
        """Whether the start command is still busy: a serial run's is until its job ends."""
        return self._shell.poll() is None

    @property
    def has_begun(self) -> bool:
        """Whether the job itself has shown up."""
        return self._state() is not None

    def verdict(self) -> Verdict | None:
        """How the job ended, or None if it goes on."""
        death = self._death()
        converged = files.read_converged(self.directory)  # after the look for a death: it may just have ended well
        if converged is None:
            return death
        closing = self.in_foreground or self._process_here() is not None
        return None if closing and self._ended.since(True) < CLOSING else Verdict(converged)

    def end(self) -> None:
        """End the job if it runs; one on another machine sees that its token is gone and ends itself."""
        (self.directory / job_state.TOKEN).unlink(missing_ok=True)
        if (job := self._process_here()) is not None:
            job_state.end_process(job)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.in_foreground:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._shell.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._shell.wait(job_state.GRACE)

    def wait_for_shell(self, seconds: float) -> None:
        """Give a start command that only hands the job over the time to return."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(seconds)

    def _state(self) -> job_state.JobState | None:
        """What the job told about itself, unless an earlier attempt told it."""
        found = job_state.read_state(self.directory)
        return found if found is not None and found.token == self.token else None

    def _process_here(self) -> job_state.JobState | None:
        """The job's process, if it is on this machine and runs."""
        job = self._state()
        return job if job is not None and job.machine == job_state.machine() and job_state.is_alive(job) else None

    def _death(self) -> Verdict | None:
        """The reason why the job is over, if it is."""
        status = self._shell.poll()
        failure = self.directory / job_state.FAILURE
        if failure.exists() and (recorded := failure.read_text(errors="replace").strip()):
            return Verdict(None, recorded.rpartition("\n")[2])
        if status:
            return Verdict(None, f"the start command {self.command!r} {_meaning(status)}")
        job = self._state()
        if job is None:
            return self._false_start(status)
        if job.machine == job_state.machine():
            if not job_state.is_alive(job):
                return Verdict(
                    None,
                    f"its process {job.pid} is gone without a word (killed, or out of memory?)",
                )
        elif self._heartbeat.since((job, _changed(self.directory / job_state.HEARTBEAT))) > self.limits.silence:
            return Verdict(None, f"no sign of life from {job.machine} for {self.limits.silence:g} s")
        if self._log.since((job, _changed(self.directory / files.LOG))) > self.limits.expired:
            return Verdict(
                None,
                f"{files.LOG} did not change for {self.limits.expired:g} s (raise `expired` for slow steps)",
            )
        return None

    def _false_start(self, status: int | None) -> Verdict | None:
        """The reason why the job will not begin, if there is one."""
        if status is None:
            return None
        in_background = self.command.rstrip().endswith("&")
        if in_background and not job_state.group_is_alive(self._shell.pid):
            return Verdict(None, "the job ended before it began")
        bound = min(STARTING, self.limits.queueing) if in_background else self.limits.queueing
        if self._started.since(None) > bound:
            return Verdict(None, f"the job has not begun within {bound:g} s of its start command")
        return None


class _Stillness:
    """For how long something has looked the same, by this machine's clock."""

    def __init__(self) -> None:
        self._look: object = None
        self._since = time.monotonic()

    def since(self, look: object) -> float:
        """Seconds since `look` was first seen."""
        if look != self._look:
            self._look, self._since = look, time.monotonic()
        return time.monotonic() - self._since


def _changed(path: Path) -> tuple[float, int] | None:
    """What tells one version of a file from the next."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime, found.st_size


def _meaning(status: int) -> str:
    """A shell's exit status in words."""
    number = -status if status < 0 else status - 128
    if number in {known.value for known in signal.Signals}:
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {status}"
