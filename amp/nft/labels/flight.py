"""One requested label on its way through an executor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from amp.nft.labels.gate import Label, LabelFailure, check
from amp.nft.labels.single_point import WORKER, LabelTask
from amp.nft.system.liveness import read_process
from amp.nft.system.processes import Process, end, machine, marked


@dataclass
class Request:
    """Requested label; `suspect` if a worker that may have been making it exited."""

    atom: int
    image: Atoms
    attempts: int = 0
    suspect: bool = False


@dataclass
class Flight:
    """A label that an executor has been given."""

    request: Request
    task: LabelTask
    began: float | None = None
    overrun: bool = False

    @property
    def directory(self) -> Path:
        """Directory of its worker."""
        return Path(self.task.directory)

    def look(self) -> Process | None:
        """Return the worker that makes the label.

        Returns
        -------
        Process or None
            None before it starts.
        """
        worker = read_process(self.directory / WORKER)
        if worker is not None and self.began is None:
            self.began = time.monotonic()
        return worker

    def checked(self, data: Any) -> Label | LabelFailure:
        """Return the outcome in a worker's return value.

        Parameters
        ----------
        data : object
            Return value.

        Returns
        -------
        Label or LabelFailure
            A failure if the value does not belong to this task.
        """
        if not (isinstance(data, dict) and data.get("name") == self.task.name):
            return LabelFailure("WrongResult", f"the executor returned {str(data)[:80]!r} for {self.task.name}")
        return check(self.request.image, data)

    def end_programs(self) -> None:
        """End the programs of a label that nobody waits for any more, where they run on this machine."""
        worker = self.look()
        if worker is not None and worker.machine == machine():
            end(partial(marked, self.task.name))


def overrun(timeout: float | None) -> LabelFailure:
    """Return the failure of a label that takes too long.

    Parameters
    ----------
    timeout : float
        Limit in s.

    Returns
    -------
    LabelFailure
    """
    return LabelFailure("LabelTimeout", f"the label took longer than label_timeout = {timeout:g} s")
