"""What passes between the loop and its trainers: a task, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from ase import Atoms


class Purpose(IntEnum):
    """Uses of random numbers; each draws from streams that no other use shares. Numbers are never reused."""

    BOOTSTRAP = 1
    WEIGHTS = 2


def random_stream(seed: int, purpose: Purpose, *indices: int) -> np.random.SeedSequence:
    """Return the source of one independent random stream.

    Parameters
    ----------
    seed : int
        Seed of the run.
    purpose : Purpose
    *indices : int
        Iteration, member and, where a training starts several times, attempt.

    Returns
    -------
    numpy.random.SeedSequence
        For :func:`numpy.random.default_rng`. It follows from the arguments alone, so no generator state is saved.
    """
    return np.random.SeedSequence(seed, spawn_key=(purpose, *indices))


@dataclass(frozen=True)
class TrainingTask:
    """One (re)training of the whole ensemble.

    Attributes
    ----------
    images : list of Atoms
        Labelled images: bulk cells first, then chunks.
    centres : list of int or None
        For each image None (its energy and all its forces are trained) or the index of
        the one atom whose force is trained.
    weights_mi : ndarray of int, shape (members, images)
        How often each image is in each member's bootstrap sample.
    start : list of str or None
        The members' ``.amp`` texts to start from, or None for random weights.
    seed, iteration : int
        With the member's index, the seed of everything random.
    retry_m : tuple of bool, optional
        Which members may begin again with random weights where they stall; all if not given.
    """

    images: list[Atoms]
    centres: list[int | None]
    weights_mi: np.ndarray
    start: list[str] | None
    seed: int
    iteration: int
    retry_m: tuple[bool, ...] | None = None

    @property
    def n_members(self) -> int:
        """Number of members of the ensemble."""
        return len(self.weights_mi)


@dataclass(frozen=True)
class MemberReport:
    """How the training of one member ended; energies in eV/atom, forces in eV/Å."""

    member: int
    converged: bool
    steps: int
    attempts: int
    loss: float
    energy_rmse: float
    energy_maxresid: float
    force_rmse: float
    force_maxresid: float
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingOutcome:
    """The trained members as ``.amp`` texts, and a report on each."""

    texts: list[str]
    reports: list[MemberReport]


@dataclass(frozen=True)
class MemberStep:
    """Where the training of one member stands.

    Attributes
    ----------
    member : int
    state : str
        'waiting' for its job to be started, 'queued', 'training', or how it ended: 'met' or 'missed' its criteria.
    steps : int
        Of all its attempts so far.
    loss : float
        nan where it is not known, as before the first step.
    distance : float
        How far the residuals are from the criteria: the sum of the logarithms of their ratios where these exceed 1;
        nan where it is not known.
    """

    member: int
    state: str
    steps: int = 0
    loss: float = math.nan
    distance: float = math.nan


Watch = Callable[[MemberStep], object]
"""Is told how training goes, from any thread and often: it must be quick, and must not raise."""


def unwatched(step: MemberStep) -> None:
    """Take no notice."""


class Trainer(Protocol):
    """Anything that trains an ensemble."""

    name: str

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> TrainingOutcome:
        """Train every member of `task`; `watch` is told how they stand and changes nothing."""
        ...
