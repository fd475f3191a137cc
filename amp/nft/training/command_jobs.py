"""Start the commands that train the members of a committee, and watch each until it ends or has failed too often."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amp.nft.errors import JobError
from amp.nft.records import MemberStep, Watch
from amp.nft.system import files, processes
from amp.nft.training.command import Command

TOKEN, OUTPUT, DONE, MODEL = "token", "output.txt", "done.json", "model"
POLL = 0.1  # s between two checks of the commands
TAIL = 15  # lines of output in an error


class Job:
    """Training of one member.

    Parameters
    ----------
    place : Path
        Directory of its own.
    member : int
    digest : str
        Of its data and settings: a finished training with the same digest is not repeated.
    variables : dict of str to str
        Environment of the command.
    check : callable
        ``check(path)`` raises an exception unless the model there can be used.
    """

    def __init__(self, place: Path, member: int, digest: str, variables: dict[str, str], check: Callable[[Path], object]) -> None:
        self.place, self.member, self.digest, self.variables, self.check = place, member, digest, variables, check
        self.model = place / MODEL / Path(variables["NFT_MODEL"]).name
        self.attempts = 0
        self._shell: subprocess.Popen[bytes] | None = None
        self._since = 0.0

    @property
    def finished(self) -> dict[str, Any] | None:
        """Record of the finished training, if there is one of the same data and settings."""
        try:
            found = json.loads((self.place / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("digest") == self.digest and self.model.exists() else None

    @property
    def running(self) -> bool:
        """True from the start of the command until its end is judged."""
        return self._shell is not None

    def start(self, command: str) -> None:
        """Start the command, without what an earlier start left.

        Parameters
        ----------
        command : str
        """
        (self.place / DONE).unlink(missing_ok=True)
        shutil.rmtree(self.place / MODEL, ignore_errors=True)
        (self.place / MODEL).mkdir(parents=True)
        token = uuid.uuid4().hex
        files.write(self.place / TOKEN, token.encode())
        with open(self.place / OUTPUT, "wb") as output:
            self._shell = subprocess.Popen(
                command, shell=True, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, **self.variables, processes.MARK: token},
                start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's to handle
            )  # fmt: skip
        self.attempts += 1
        self._since = time.monotonic()

    def verdict(self, timeout: float | None) -> str | None:
        """Return the reason of a failure, '' for a success, or None while the command continues.

        Parameters
        ----------
        timeout : float or None
            In s.

        Returns
        -------
        str or None
        """
        assert self._shell is not None
        status = self._shell.poll()
        if status is None:
            if timeout is None or time.monotonic() - self._since < timeout:
                return None
            self.end()
            return f"it did not end within {timeout:g} s"
        seconds = time.monotonic() - self._since
        self.end()  # what it left running would change the model
        if status:
            return f"it ended with status {status}" if status > 0 else f"signal {-status} ended it"
        if not self.model.exists() or (self.model.is_dir() and not any(self.model.iterdir())):
            return f"it wrote no model to NFT_MODEL, {self.model}"
        try:
            self.check(self.model)
        except Exception as error:  # calculators raise many kinds
            return f"its model cannot be used ({type(error).__name__}: {error})"
        record = {"digest": self.digest, "attempts": self.attempts, "seconds": seconds}
        files.write(self.place / DONE, json.dumps(record).encode())
        return ""

    def end(self) -> None:
        """End all processes that the command started."""
        end_started(self.place)
        if self._shell is not None:
            self._shell.wait()
            self._shell = None

    def tail(self) -> str:
        """Return the last lines of the output, indented, for an error.

        Returns
        -------
        str
        """
        path = self.place / OUTPUT
        lines = path.read_text(errors="replace").splitlines()[-TAIL:] if path.exists() else []
        return "".join(f"\n    | {line}" for line in lines) or " (none)"


def end_started(place: Path) -> bool:
    """End the processes of a training that its driver left.

    Parameters
    ----------
    place : Path
        Its directory.

    Returns
    -------
    bool
        True if there were any.
    """
    try:
        token = (place / TOKEN).read_text()
    except OSError:
        return False
    found = bool(token and processes.marked(token))
    if found:
        processes.end(lambda: processes.marked(token))
    (place / TOKEN).unlink(missing_ok=True)
    return found


def carry_out(jobs: Sequence[Job], settings: Command, watch: Watch, log: Callable[[str], object]) -> None:
    """Train the members that are not trained, some at a time.

    Parameters
    ----------
    jobs : sequence of Job
    settings : Command
    watch : callable
        Gets the progress.
    log : callable
        Takes a message.

    Raises
    ------
    JobError
        A command failed more than ``settings.retries`` times. No other one begins after it, those that train are awaited, and finished
        trainings are kept.
    """
    failures: list[str] = []
    left = [job for job in jobs if job.finished is None]
    for job in jobs:
        watch(MemberStep(job.member, "met" if job not in left else "waiting"))
    if len(left) < len(jobs):
        log(f"{len(jobs) - len(left)} of {len(jobs)} members are trained already.")
    try:
        while left and (not failures or any(job.running for job in left)):
            for job in left[: settings.parallel]:
                if not job.running and not failures:
                    log(f"Member {job.member}: {settings.command}" + (f" (start {job.attempts + 1})" if job.attempts else ""))
                    job.start(settings.command)
                    watch(MemberStep(job.member, "training"))
                elif job.running and (reason := job.verdict(settings.timeout)) is not None:
                    if reason:
                        failures += _failure(job, reason, settings, log)
                    else:
                        watch(MemberStep(job.member, "met"))
                        left.remove(job)
                        break
            time.sleep(POLL)
    finally:
        for job in left:
            if job.running:
                job.end()
    if failures:
        raise JobError(failures[0])


def _failure(job: Job, reason: str, settings: Command, log: Callable[[str], object]) -> list[str]:
    """Log a failure; return it with the remedy if the member has failed too often."""
    text = f"the command {settings.command!r} that trains member {job.member} failed: {reason}. The end of its output:{job.tail()}"
    log(text[0].upper() + text[1:])
    if job.attempts <= settings.retries:
        return []
    return [f"{text}\nAll of it is in {job.place / OUTPUT}. Fix the command and rerun the script: finished labels and trainings are kept."]
