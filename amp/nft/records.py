"""Records that pass between the loop, its trainers, the labels and the report."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from ase import Atoms


class Purpose(IntEnum):
    """Uses of random numbers; each draws from streams that no other use shares. Numbers are never reused."""

    BOOTSTRAP = 1
    WEIGHTS = 2
    SELECTION = 3
    TEST = 4
    VALIDATION = 5


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
class LabelOptions:
    """Settings of labels.

    Attributes
    ----------
    parent : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator for each label.
    executor : concurrent.futures.Executor, callable that returns one, or None
        None makes labels in this process.
    timeout : float or None
        Seconds after which a label has failed.
    retries : int
        Further attempts at a label that failed.
    accept_parent : bool
        Accept labels of other parents in the same run.
    """

    parent: Any
    executor: Any = None
    timeout: float | None = None
    retries: int = 1
    accept_parent: bool = False


@dataclass(frozen=True)
class JobOptions:
    """Settings of Amp's own jobs: the texts of their script, the start command and the directory.

    Attributes
    ----------
    calc_text, headerlines, train_line, start_command : str
        As in Amp's ``BootStrap.train``.
    directory : Path
        ``<label>-training``.
    expired : float
        A job whose log has not changed for this many seconds is started again.
    """

    calc_text: str
    headerlines: str
    train_line: str
    start_command: str
    directory: Path
    expired: float = 3600.0


def as_plain(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for JSON, in which a number that is not finite is null.

    Parameters
    ----------
    record : dataclass

    Returns
    -------
    dict
    """
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in asdict(record).items()}


@dataclass(frozen=True)
class ForceRows:
    """Forces of an image that are trained, each with its weight.

    Attributes
    ----------
    atoms : tuple of int
        Indices of the atoms in the image.
    weights : tuple of float
        Factor on the squared error of each force in the loss.
    energy : float
        Factor on the squared error of the energy; 0: it is not trained.
    """

    atoms: tuple[int, ...]
    weights: tuple[float, ...]
    energy: float = 0.0

    @classmethod
    def central(cls, atom: int) -> ForceRows:
        """Return the force on one atom, with weight 1: the training signal of a chunk in the published method."""
        return cls((atom,), (1.0,))

    @property
    def centre(self) -> int | None:
        """The atom, where its force is trained with weight 1 and nothing else; else None."""
        return self.atoms[0] if (self.weights, self.energy) == ((1.0,), 0.0) else None


RUN_RESTART = "run-{run}-{first}-{last}-{side}.restart"  # of restart files that a run writes in turn; their sides are a and b
_RUN_RESTART = re.compile(r"run-(\d+)-(\d+)-(\d+)-[ab]\.restart")


@dataclass(frozen=True)
class Checkpoint:
    """State of LAMMPS at a halt, or during a run, from which a later process can continue.

    Attributes
    ----------
    restart : str
        Restart file of LAMMPS.
    run : int
        Number of the ``run`` that wrote it, among all that were executed, from 1 on.
    first, last : int
        Its first and last step.
    dump : str
        Text file with uncertain frames; empty if the deck writes none.
    size : int
        Its size at the halt, bytes.
    """

    restart: str
    run: int
    first: int
    last: int
    dump: str = ""
    size: int = 0

    @classmethod
    def of_run(cls, path: str | os.PathLike[str], size: int = 0) -> Checkpoint | None:
        """Return the state in a restart file that a run has written before its end; None if the name is that of another file.

        Parameters
        ----------
        path : path
        size : int
            Of the dump at the last halt, bytes.

        Returns
        -------
        Checkpoint or None
        """
        found = _RUN_RESTART.fullmatch(Path(path).name)
        if found is None:
            return None
        run, first, last = map(int, found.groups())
        return cls(os.fspath(path), run, first, last, size=size)

    @property
    def is_of_run(self) -> bool:
        """True if a run has written it before its end, False if a halt has."""
        return _RUN_RESTART.fullmatch(Path(self.restart).name) is not None


@dataclass(frozen=True)
class Halt:
    """Dynamics of LAMMPS that stopped for an uncertainty.

    Attributes
    ----------
    step : int
    limit : float
        Uncertainty above which the deck stops, eV/Å.
    atoms : Atoms
        The frame at this step, in the order of the IDs.
    frames : list of Atoms
        Frames that the deck has dumped since the halt before.
    checkpoint : Checkpoint
    """

    step: int
    limit: float
    atoms: Atoms
    frames: list[Atoms]
    checkpoint: Checkpoint


@dataclass(frozen=True)
class TrainingTask:
    """One (re)training of the whole ensemble.

    Attributes
    ----------
    images : list of Atoms
        Labelled images: bulk cells first, then chunks.
    rows : list of ForceRows or None
        For each image the forces that are trained; None: its energy and all its forces.
    weights_mi : ndarray of int, shape (members, images)
        Multiplicity of each image in each member's bootstrap sample.
    start : list of str or None
        The members' ``.amp`` texts to start from, or None for random weights.
    seed, iteration : int
        With the member's index, the seed of everything random.
    retry_m : tuple of bool, optional
        True for members that may start again with random weights if they stall; by default all.
    targets : list of Atoms
        Structures that the ensemble is to predict; the inputs of the networks are scaled to cover them too.
    until : str
        'criteria': a member trains until it meets its criteria. 'out-of-bag': until its error on the images that its sample
        lacks is smallest.
    members : tuple of int, optional
        Indices of these members in a larger ensemble, from which their random streams follow; 0, 1, ... if not given.
    end_with_energies : bool
        An out-of-bag fit ends with a few steps in which energies count more.
    """

    images: list[Atoms]
    rows: list[ForceRows | None]
    weights_mi: np.ndarray
    start: list[str] | None
    seed: int
    iteration: int
    retry_m: tuple[bool, ...] | None = None
    targets: list[Atoms] = field(default_factory=list)
    until: Literal["criteria", "out-of-bag"] = "criteria"
    members: tuple[int, ...] | None = None
    end_with_energies: bool = False

    @property
    def n_members(self) -> int:
        """Number of members of the ensemble."""
        return len(self.weights_mi)


@dataclass(frozen=True)
class MemberReport:
    """Result of the training of one member; energies in eV/atom, forces in eV/Å.

    `converged`: it met its criteria, or found the minimum of its out-of-bag error. `oob_force_rmse`: the weighted root mean square
    of the force residuals, per component, on images that its sample lacks; nan where it is not known.
    """

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
    oob_force_rmse: float = field(default=math.nan, compare=False)  # nan differs from itself

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for the journal, in which a number that is not finite is null: JSON has none.

        Returns
        -------
        dict
        """
        return as_plain(self)


@dataclass(frozen=True)
class Ensemble:
    """Trained members as ``.amp`` texts, a report on the training of each, and the wall time of compiling kernels for it, s."""

    texts: list[str]
    reports: list[MemberReport]
    compile_seconds: float = 0.0


@dataclass(frozen=True)
class MemberStep:
    """Progress of the training of one member.

    Attributes
    ----------
    member : int
    state : str
        'waiting' for its job to be started, 'queued', 'training', or its end: 'met' or 'missed' its criteria.
    steps : int
        Of all its attempts so far.
    loss : float
        nan where it is not known, as before the first step.
    distance : float
        Distance of the residuals from the criteria: the sum of the logarithms of their ratios where these exceed 1. With an
        out-of-bag stop the logarithm of the out-of-bag error over its smallest value so far. nan where it is not known.
    """

    member: int
    state: str
    steps: int = 0
    loss: float = math.nan
    distance: float = math.nan


Watch = Callable[[MemberStep], object]
"""Callback for the progress of training. It is called often and from any thread: it must be fast and must not raise."""


def unwatched(step: MemberStep) -> None:
    """Ignore the step.

    Parameters
    ----------
    step : MemberStep
    """


class Trainer(Protocol):
    """Anything that trains an ensemble."""

    name: str

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> Ensemble:
        """Train each member of `task`.

        Parameters
        ----------
        task : TrainingTask
        watch : callable, optional
            Gets the progress; it changes nothing.

        Returns
        -------
        Ensemble
        """
        ...
