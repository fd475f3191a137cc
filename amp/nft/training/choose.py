"""Train an ensemble: draw the members' samples, choose the trainer, predict with the result."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from amp.nft import amp_io
from amp.nft.amp_io import CalculatorSpec
from amp.nft.amp_io.bootstrap_texts import train_line as default_train_line
from amp.nft.errors import UnsupportedModel
from amp.nft.records import JobOptions, Purpose, Trainer, random_stream
from amp.nft.training.amp_jobs import AmpJobs, check_start_command, leave_training_directory
from amp.nft.training.batched_trainer import BatchedTrainer
from amp.nft.training.command import Command
from amp.nft.training.command_trainer import CommandTrainer

NO_FORCES = (
    "calc_text sets no force criterion (force_rmse or force_maxresid), and Amp then trains on energies alone: chunks, "
    "of which only a force is trained, will teach nothing. Set one, for example calc.model.lossfunction = "
    "LossFunction(force_coefficient=0.04, convergence={'energy_rmse': 0.001, 'force_rmse': 0.005})."
)
TRAINERS = ("auto", "batched", "jobs")
_PLAIN_COMMAND = re.compile(r"\s*(\S*/)?python[\d.]*\s+run\.py\s*&?\s*")


# -- samples ---------------------------------------------------------------------------------------------------


def sample_weights(seed: int, members: int, n_images: int, added: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the multiplicity of each image in each member's bootstrap sample.

    Parameters
    ----------
    seed : int
        Seed of the run. Each iteration and member draws from a separate random stream, so the samples of any
        iteration follow from `added` alone.
    members : int
        Size of the ensemble.
    n_images : int
        Images of the first training.
    added : sequence of sequences of int
        For each retraining the images that were added before it, counted from 0 with the first images in front; one
        that is there already is drawn again like a new one.

    Returns
    -------
    ndarray of int, shape (members, images)

    Notes
    -----
    First a plain bootstrap; then, for each retraining, the accelerated scheme that Amp uses: A. A. Peterson,
    R. Christensen, A. Khorshidi, Phys. Chem. Chem. Phys. 19, 10978 (2017), supplementary information.
    """
    total = max([n_images, *(max(new) + 1 for new in added if len(new))])
    weights_mi = np.zeros((members, total), dtype=np.int64)
    for member, weights in enumerate(weights_mi):
        rng = np.random.default_rng(random_stream(seed, Purpose.BOOTSTRAP, 0, member))
        weights += _draw(rng, np.arange(n_images), n_images, total)
        present = n_images
        for iteration, new in enumerate(added, start=1):
            rng = np.random.default_rng(random_stream(seed, Purpose.BOOTSTRAP, iteration, member))
            weights[:] = _accelerated(rng, weights, np.arange(present), np.unique(new).astype(int))
            present = max([present, *(image + 1 for image in new)])
    return weights_mi


def _accelerated(rng: np.random.Generator, weights: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Lengthen a sample by the number of new images, each place with the same chance of a new one."""
    if not len(new):
        return weights
    chance = len(new) / (weights.sum() + len(new))
    kept = rng.binomial(weights, 1 - chance)
    extra_new = rng.binomial(len(new), chance)
    drawn_new = _draw(rng, new, weights.sum() - kept.sum() + extra_new, len(weights))
    drawn_old = _draw(rng, old, len(new) - extra_new, len(weights))
    return kept + drawn_new + drawn_old


def _draw(rng: np.random.Generator, images: np.ndarray, times: int, total: int) -> np.ndarray:
    return np.bincount(rng.choice(images, size=times), minlength=total)


# -- trainers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A trainer, the reason for it, the calculator that it trains, if amp.nft can read it, and settings of its own for the journal."""

    trainer: Trainer
    why: str
    spec: CalculatorSpec | None
    command: Command | None = None

    @property
    def radius(self) -> float | None:
        """Cutoff radius of the fingerprints, or of another program's model, Å."""
        if self.spec is None:
            return None if self.command is None else self.command.cutoff
        return float(self.spec.cutoff["kwargs"]["Rc"])

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a run cannot change once it has trained."""
        return {} if self.command is None else {"committee": self.command.identity}


def choose_trainer(wanted: str | Command, options: JobOptions, *, threads: int | None, log: Callable[[str], None]) -> Choice:
    """Choose the trainer: all members in this process if that gives the requested result, else Amp's jobs.

    Parameters
    ----------
    wanted : str or Command
        'auto', 'batched', 'jobs', or the command of another program.
    options : JobOptions
    threads : int or None
        Of the batched trainer; None for all processors.
    log : callable
        Takes a message.

    Returns
    -------
    Choice

    Raises
    ------
    ValueError
        If `wanted` is not a trainer's name, `calc_text` defines no ``calc``, the start command is not found, or
        the batched trainer is requested and cannot train this calculator.
    """
    if isinstance(wanted, Command):
        return Choice(CommandTrainer(wanted, options.directory, log), f"requested: {wanted.command}", None, wanted)
    if wanted not in TRAINERS:
        raise ValueError(f"trainer is {wanted!r}: it must be one of {', '.join(map(repr, TRAINERS))}, or a Command.")
    check_start_command(options.start_command)
    spec, obstacle = _read_spec(options)
    if spec is None and wanted == "batched":
        raise ValueError(f"trainer='batched' cannot train this calculator: {obstacle} Use trainer='jobs'.")
    if spec is not None and spec.force_coefficient is None:
        warnings.warn(NO_FORCES, UserWarning, stacklevel=3)
        log(NO_FORCES)
    only_jobs = obstacle or _job_command(options.start_command)
    if spec is not None and (wanted == "batched" or (wanted == "auto" and only_jobs is None)):
        why = "requested" if wanted == "batched" else "Gaussian fingerprints, a neural network and plain local training"
        leave = partial(leave_training_directory, options=options, criteria=spec.convergence)
        return Choice(BatchedTrainer(spec, threads=threads, log=log, leave=leave), why, spec)
    return Choice(AmpJobs(options, obstacle, log), "requested" if wanted == "jobs" else str(only_jobs), spec)


def _read_spec(options: JobOptions) -> tuple[CalculatorSpec | None, str | None]:
    """Return the calculator that the texts build, and why the kernels cannot train as they say, if so."""
    try:
        spec = amp_io.read_calc_text(options.calc_text, options.headerlines, options.directory)
    except UnsupportedModel as error:
        return None, str(error)
    own = options.train_line.strip() != default_train_line
    return spec, f"the train line {options.train_line!r} is the user's own" if own else None


def _job_command(start_command: str) -> str | None:
    """Return why a start command needs jobs, or None."""
    return None if _PLAIN_COMMAND.fullmatch(start_command) else f"the start command {start_command!r} requires jobs"


def read_start(load: str | None, n: int, spec: CalculatorSpec | None) -> list[str] | None:
    """Return the members of an ensemble file as the start of a training.

    Parameters
    ----------
    load : str or None
        Name of the file; None for random weights.
    n : int
        Number of members.
    spec : CalculatorSpec or None
        Calculator of the run; None if only Amp knows it.

    Returns
    -------
    list of str or None
        The members' ``.amp`` texts.

    Raises
    ------
    ValueError
        If the file has another number of members, or members of another calculator.
    """
    if load is None:
        return None
    texts = [amp_io.without_card(text) for text in amp_io.read_texts(load)]
    if len(texts) != n:
        raise ValueError(f"{load!r} contains {len(texts)} members, but n is {n}: use n={len(texts)}, or another file.")
    if spec is None:
        return texts
    for model in map(amp_io.read_amp, texts):
        wanted = spec.resolved(model.elements)
        for name in ("cutoff", "gs", "hiddenlayers", "activation"):
            if (found := getattr(model, name)) != (asked := getattr(wanted, name)):
                raise ValueError(f"{load!r} was trained with {name} {found}, but calc_text makes {asked}: make them the same.")
    return texts
