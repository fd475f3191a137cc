"""Stop rules: callables that take the history and return a reason to stop, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amp.nft.records import MemberReport
from amp.nft.uncertainty.forces import VANISHING


@dataclass(frozen=True)
class Iteration:
    """Result of one iteration of the loop.

    Attributes
    ----------
    iteration : int
        0 for the ensemble trained on bulk cells alone.
    n_chunks : int
        Chunks in the training set of this iteration's ensemble.
    delta_max, delta_mean : float
        Largest and mean per-atom uncertainty on the target, eV/Å.
    reports : tuple of MemberReport
        End of each member's training.
    trainer : str
        Name of the trainer.
    structures : tuple of float
        Largest uncertainty on each target, eV/Å.
    """

    iteration: int
    n_chunks: int
    delta_max: float
    delta_mean: float
    reports: tuple[MemberReport, ...] = field(default=(), repr=False)
    trainer: str = ""
    structures: tuple[float, ...] = ()


@dataclass(frozen=True)
class StopReason:
    """Reason why the loop stopped: a short name, a sentence, and True if the target is learned."""

    name: str
    message: str
    converged: bool = False

    def __str__(self) -> str:
        return self.message


History = Sequence[Iteration]
StopRule = Callable[[History], StopReason | None]


def best_of(history: History) -> Iteration:
    """Return the iteration with the lowest structure uncertainty, the earliest of equals.

    Parameters
    ----------
    history : sequence of Iteration
        At least one.

    Returns
    -------
    Iteration
    """
    return min(history, key=lambda entry: entry.delta_max)


def certain_enough(stop_delta: float) -> StopRule:
    """Stop when the largest uncertainty on the target is small enough.

    Parameters
    ----------
    stop_delta : float
        eV/Å; below it the target counts as learned.

    Returns
    -------
    StopRule
    """

    def rule(history: History) -> StopReason | None:
        delta = history[-1].delta_max
        if delta < VANISHING:
            message = (
                f"Not converged: all members predict the same forces to {delta:.0e} eV/Å, which independent fits never do. "
                "Does every force on the target vanish by symmetry? Rattle it."
            )
            return StopReason("vanishing", message)
        if delta < stop_delta:
            message = f"Converged: the largest uncertainty, {delta:.4f} eV/Å, is below stop_delta = {stop_delta}."
            return StopReason("stop_delta", message, converged=True)
        return None

    return rule


def enough_iterations(max_iterations: int) -> StopRule:
    """Stop after a given number of retrainings.

    Parameters
    ----------
    max_iterations : int
        0 trains on the first images alone.

    Returns
    -------
    StopRule
    """

    def rule(history: History) -> StopReason | None:
        if history[-1].iteration < max_iterations:
            return None
        best = best_of(history)
        message = (
            f"Not converged: all of the max_iterations = {max_iterations} retrainings are done; the largest "
            f"uncertainty was lowest, {best.delta_max:.4f} eV/Å, at iteration {best.iteration}."
        )
        return StopReason("max_iterations", message)

    return rule


def no_improvement(steps_not_improved: int) -> StopRule:
    """Stop when the uncertainty has not improved for a given number of iterations.

    Parameters
    ----------
    steps_not_improved : int
        Number of iterations.

    Returns
    -------
    StopRule
    """

    def rule(history: History) -> StopReason | None:
        best = best_of(history)
        if history[-1].iteration < best.iteration + steps_not_improved:
            return None
        message = (
            f"Not converged: the largest uncertainty has not improved for steps_not_improved = "
            f"{steps_not_improved} iterations; it was lowest, {best.delta_max:.4f} eV/Å, at iteration {best.iteration}."
        )
        return StopReason("steps_not_improved", message)

    return rule


def first_reason(rules: Sequence[StopRule], history: History) -> StopReason | None:
    """Return the reason of the first rule that says stop.

    Parameters
    ----------
    rules : sequence of StopRule
        In the order of their evaluation.
    history : sequence of Iteration
        At least one.

    Returns
    -------
    StopReason or None
    """
    return next((reason for rule in rules if (reason := rule(history)) is not None), None)


def nothing_above(threshold: float | None, delta_max: float) -> StopReason:
    """Return the reason to stop where no atom is uncertain enough to be labelled.

    Parameters
    ----------
    threshold : float or None
        As for `amp.nft.activelearner.NFT`.
    delta_max : float
        Largest uncertainty on the target, eV/Å.

    Returns
    -------
    StopReason
    """
    message = (
        f"Not converged: the largest uncertainty, {delta_max:.4f} eV/Å, is not above threshold = {threshold}, so "
        "there is nothing to label. Lower threshold, or raise stop_delta."
    )
    return StopReason("threshold", message)
