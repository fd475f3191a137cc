"""Limits of one start of a run: it stops there, and the next start continues."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amp.nft.activelearner.method import Method
from amp.nft.activelearner.stopping import History, StopReason
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import check_count, check_positive, did_you_mean
from amp.nft.run.state import RunState

LIMITS = ("labels", "iterations", "hours")


def check_limits(until: Mapping[str, float] | None) -> None:
    """Check the limits of a start.

    Parameters
    ----------
    until : dict of str to number, or None

    Raises
    ------
    InputError
        A limit is not known, or out of range.
    """
    if until is not None and not isinstance(until, Mapping):
        raise InputError(f"until is {until!r}: it must be a dictionary, such as {{'labels': 100}}.")
    for name, value in (until or {}).items():
        if name not in LIMITS:
            raise InputError(f"until has {name!r}, which is not known; {did_you_mean(str(name), LIMITS)}")
        if name == "hours":
            check_positive(**{"until['hours']": value})
        else:
            whole: Any = int(value) if isinstance(value, float) and value.is_integer() else value
            check_count(f"until[{name!r}]", whole, least=0)


@dataclass(frozen=True)
class Limits:
    """Limits of one start.

    Attributes
    ----------
    until : dict of str to number
        ``labels``: of the whole run, those of its test included; ``iterations``: retrainings of the whole run; ``hours`` of this start.
    state : callable
        Returns the state of the run.
    method : Method
        With the number of labels that the test needs.
    begin : float
        Time of this start, of a clock that is never set.
    """

    until: Mapping[str, float]
    state: Callable[[], RunState]
    method: Method
    begin: float

    @classmethod
    def from_now(cls, until: Mapping[str, float] | None, state: Callable[[], RunState], method: Method) -> Limits:
        """Return limits of a start at this moment.

        Parameters
        ----------
        until : dict of str to number, or None
        state : callable
        method : Method

        Returns
        -------
        Limits
        """
        return cls(until or {}, state, method, time.monotonic())

    @property
    def left(self) -> int | None:
        """Number of labels that training may still use; None without a limit."""
        if "labels" not in self.until:
            return None
        state = self.state()
        test = sum(atom in state.labels for atom in state.test), len(state.larger)
        kept = max(self.method.test_labels - test[0], 0) + max(self.method.larger_labels - test[1], 0)
        return max(int(self.until["labels"]) - len(state.labels) - len(state.larger) - kept, 0)

    @property
    def hours(self) -> float:
        """Time since the beginning of this start, h."""
        return (time.monotonic() - self.begin) / 3600

    def over(self) -> bool:
        """Return True if the hours of this start are over.

        Returns
        -------
        bool
        """
        return self.hours >= self.until.get("hours", np.inf)

    def __call__(self, history: History) -> StopReason | None:
        """Return the reason to stop where a limit is reached: a stop rule."""
        if self.left == 0:
            state, tests = self.state(), self.method.test_labels + self.method.larger_labels
            what = f"{len(state.labels) + len(state.larger)} labels are made{' or kept for the test' if tests else ''}"
        elif history and history[-1].iteration >= self.until.get("iterations", np.inf):
            what = f"{history[-1].iteration} retrainings are done"
        elif self.over():
            return self.cut_short()
        else:
            return None
        return StopReason("until", f"Not converged: {what}, {self._given}. Start again with a higher one to continue.")

    @property
    def _given(self) -> str:
        return f"the limit of this start ({', '.join(f'{name} = {value:g}' for name, value in self.until.items())})"

    def cut_short(self, reason: StopReason | None = None) -> StopReason:
        """Return the reason to stop where the hours of this start are over.

        Parameters
        ----------
        reason : StopReason, optional
            The reason of the end of the training, where this has ended and its test has not.

        Returns
        -------
        StopReason
        """
        if reason is not None and reason.name == "until":
            return reason
        what = "Not converged:" if reason is None else f"{reason.message} Its test is not finished:"
        message = f"{what} this start has run {self.hours:.2g} h, {self._given}. Start again to continue."  # hours begin again
        return StopReason("until", message, converged=reason is not None and reason.converged)

    def cut(self, atoms: Sequence[int], delta: np.ndarray) -> list[int]:
        """Return the atoms of a batch for which labels are left, the most uncertain ones.

        Parameters
        ----------
        atoms : sequence of int
        delta : ndarray, shape (atoms of all targets,)
            Uncertainty, eV/Å.

        Returns
        -------
        list of int
            In the same order; those that have labels stay.
        """
        if self.left is None:
            return list(atoms)
        new = [atom for atom in atoms if atom not in self.state().labels]
        dropped = set(sorted(new, key=lambda atom: -delta[atom])[self.left :])
        return [atom for atom in atoms if atom not in dropped]
