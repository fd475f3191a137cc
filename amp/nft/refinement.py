"""Learn on from structures that the ensemble itself leads to: relax or move the target, label what becomes uncertain, train again."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.optimize import LBFGS

from amp.nft.activelearner import NFT
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.activelearner.resume import compare_settings
from amp.nft.activelearner.stopping import Iteration, StopReason, best_of
from amp.nft.activelearner.stored_labels import read_labels
from amp.nft.amp_io import read_ensemble
from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.calculator.monitor import UncertaintyMonitor, end
from amp.nft.chunks import carve_chunks
from amp.nft.errors import LabellingError
from amp.nft.inputs.arguments import check_count
from amp.nft.inputs.structures import Images, get_hash, read_images, read_targets, read_training_images
from amp.nft.labels.executors import Executors
from amp.nft.labels.identity import identify
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, Parent, labelled
from amp.nft.records import LabelOptions
from amp.nft.run.replay import replay
from amp.nft.run.state import Exploration
from amp.nft.run.store import FORMAT, RunStore
from amp.nft.selection import choose_chunks

Explorer = Callable[[Atoms, float], Sequence[Atoms]]
BAND = (1.0, 1.5)


@dataclass(frozen=True)
class Relaxation:
    """Explore by relaxing the positions.

    Attributes
    ----------
    fmax : float
        Largest force at the end, eV/Å.
    steps : int
        When to end anyway.
    maxstep : float
        How far an atom may move from one frame to the next, Å; long steps jump over the band.
    """

    fmax: float = 0.05
    steps: int = 200
    maxstep: float = 0.04

    def __call__(self, atoms: Atoms, limit: float) -> list[Atoms]:
        """Frames on the way down; they come back below `limit` by themselves where they go above it."""
        return _frames(LBFGS(atoms, logfile=os.devnull, maxstep=self.maxstep), atoms, 1, fmax=self.fmax, steps=self.steps)


@dataclass(frozen=True)
class Dynamics:
    """Explore by Langevin dynamics.

    Attributes
    ----------
    temperature : float
        In K.
    steps : int
    timestep : float
        In fs.
    interval : int
        Steps from one frame to the next.
    friction : float
        In 1/fs.
    seed : int
        Seed of the velocities and of the noise.
    """

    temperature: float = 300.0
    steps: int = 1000
    timestep: float = 2.0
    interval: int = 10
    friction: float = 0.01
    seed: int = 0

    def __call__(self, atoms: Atoms, limit: float) -> list[Atoms]:
        """Frames until the end, or until an uncertainty is above `limit`."""
        rng = np.random.default_rng(self.seed)
        widths = np.sqrt(units.kB * self.temperature * atoms.get_masses())[:, None]
        atoms.set_momenta(widths * rng.standard_normal((len(atoms), 3)))
        dyn = Langevin(
            atoms, self.timestep * units.fs, temperature_K=self.temperature, friction=self.friction / units.fs, rng=rng,
            fixcm=False,
        )  # fmt: skip
        dyn.attach(UncertaintyMonitor(dyn, limit, action=lambda frame, delta_max: end(dyn)), interval=1)
        return _frames(dyn, atoms, self.interval, steps=self.steps)


def _frames(dyn: Any, atoms: Atoms, interval: int, **end: Any) -> list[Atoms]:
    """Return copies of the atoms while `dyn` runs, and at its end."""
    frames: list[Atoms] = []
    dyn.attach(lambda: frames.append(atoms.copy()), interval=interval)
    dyn.run(**end)
    if dyn.nsteps % interval:  # where it ended, the very frame that was too uncertain perhaps
        frames.append(atoms.copy())
    return frames


@dataclass(frozen=True)
class Round:
    """Result of one round of a refinement.

    Attributes
    ----------
    label : str
        Name of its results; round 0 is the run that is refined.
    ensemble : Path
        The ensemble of the lowest uncertainty.
    delta : float
        Its largest uncertainty on the targets, eV/Å.
    exploration : tuple of int
        How many frames were explored, how many of them were uncertain enough and not too uncertain, and how many atoms in those
        were; zeros for round 0.
    chunks : int
        Chunks that were chosen among the latter and labelled.
    history : list of Iteration
    stop_reason : StopReason
        Why its training stopped.
    """

    label: str
    ensemble: Path
    delta: float
    exploration: tuple[int, int, int]
    chunks: int
    history: list[Iteration]
    stop_reason: StopReason


def refine(
    learner: NFT,
    images: Images,
    target_image: Images,
    *,
    rounds: int = 2,
    k: int = 10,
    explore: Explorer | None = None,
    band: tuple[float, float] = BAND,
    label: str = "al",
    parent_calc: Parent,
    cutoff: float = 6.5,
    executor: Executors | None = None,
    label_timeout: float | None = None,
    label_retries: int = 1,
    **settings: Any,
) -> list[Round]:
    """Learn a target, then what its relaxation or dynamics with the ensemble leads to.

    After the run itself (which resumes, or is finished already) each round explores from the targets with the best ensemble of the
    round before, takes the frames whose largest uncertainty lies between `band` times that on the targets (the first above, where
    the path jumps over the band), carves chunks around their atoms above the lower end of the band, labels the `k` most
    different of these, and trains again on all images and chunks, from the weights that there are. Run the same script
    again to go on after a crash.

    Parameters
    ----------
    learner : NFT
        Its stop criteria, threshold and seed hold in each round.
    images, target_image : as there
        As for :meth:`amp.nft.activelearner.NFT.run`. Constraints of the target hold while it explores.
    rounds : int
        How often to explore. It ends before where no frame is uncertain enough.
    k : int
        Chunks that are added in each round, at most.
    explore : callable
        ``explore(atoms, limit)`` is given a target with the ensemble as its calculator, and the upper end of the band in
        eV/Å; it returns frames. `Relaxation()` if not given; `Dynamics(...)` is the other one here.
    band : (float, float)
        Which frames are taken, in multiples of the largest uncertainty on the targets.
    label : str
        Name of the first run's results; those of round 1 are called ``<label>-refined-1``, and so on.
    parent_calc, cutoff, executor, label_timeout, label_retries, **settings : as there
        As for :meth:`amp.nft.activelearner.NFT.run`.

    Returns
    -------
    list of Round
        The first run and each round.

    Raises
    ------
    ValueError
        If `rounds`, `k` or `band` is out of range, before any work starts.
    LabellingError
        If none of the chunks of a round can be labelled.
    RunStoreError
        If there are results of other settings.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022), supplementary material: two rounds, ten chunks each.
    """
    check_count("rounds", rounds, least=0)
    check_count("k", k, least=1)
    if not (len(band) == 2 and 0 < band[0] < band[1]):
        raise ValueError(f"band is {band!r}: give two multiples of the uncertainty, the smaller one first, such as (1.0, 1.5).")
    search = _Search(Relaxation() if explore is None else explore, tuple(band), k, cutoff)
    settings |= {
        "parent_calc": parent_calc, "cutoff": cutoff, "executor": executor, "label_timeout": label_timeout,
        "label_retries": label_retries,
    }  # fmt: skip
    options = LabelOptions(parent_calc, executor, label_timeout, label_retries, settings.get("accept_parent", False))
    centres = list(settings.pop("init_nft_ids", None) or [])
    starts = read_images(target_image, "target_image")
    training, targets = read_training_images(images), read_targets(starts)
    done = [_train(learner, training, targets, centres, label, learner.load, settings)]
    for number in range(1, rounds + 1):
        before, name = done[-1], f"{label}-refined-{number}"
        with RunStore(Path(f"{name}-training") / "exploration") as store:
            found = search.carry_out(store, before, starts, learner.log)
            chunks = _labels(store, found, learner.log, options)
        if not chunks:
            learner.log(f"Refinement ends after {number - 1} rounds: no frame reaches the lower end of the band.")
            break
        new = _chunks_of(before.label) + chunks
        training, centres = training + new, centres + [(get_hash(chunk), 0) for chunk in new]
        after = _train(learner, training, targets, centres, name, str(before.ensemble), settings)
        done.append(replace(after, exploration=(found.counts[0], found.counts[1], found.counts[2]), chunks=len(chunks)))
    return done


def _train(
    learner: NFT, images: list[Atoms], targets: list[Atoms], centres: list[tuple[str, int]], label: str, load: str | None,
    settings: dict[str, Any],
) -> Round:  # fmt: skip
    """Run the protocol, or take it up, with the learner's criteria from other weights."""
    again = copy.copy(learner)
    again.load = load
    again.run(images, targets, label=label, init_nft_ids=centres, **settings)
    best = Path(label).with_name(f"best.{Path(label).name}.ensemble")
    assert again.stop_reason is not None  # a run that returns has one
    return Round(label, best, best_of(again.history).delta_max, (0, 0, 0), 0, again.history, again.stop_reason)


def _chunks_of(label: str) -> list[Atoms]:
    """Labelled chunks of a run."""
    path = Path(f"{label}-training") / "saved-info" / "atomic_chunks.traj"
    return read(path, ":") if path.exists() else []  # type: ignore[return-value]


@dataclass(frozen=True)
class _Search:
    """Search of a round for chunks."""

    explore: Explorer
    band: tuple[float, ...]
    k: int
    cutoff: float

    def carry_out(self, store: RunStore, before: Round, starts: list[Atoms], log: Callable[[str], object]) -> Exploration:
        """Return the exploration with the selected chunks, from the store if it is there."""
        settings = {"explore": _name(self.explore), "band": list(self.band), "k": self.k, "cutoff": self.cutoff,
                    "ensemble": hashlib.sha256(before.ensemble.read_bytes()).hexdigest()[:16]}  # fmt: skip
        if not store.events:
            store.append("run", format=FORMAT, settings=settings)
        compare_settings(replay(store.events).settings, settings, store.directory)
        return replay(store.events).exploration or self._explore(store, before, starts, log)

    def _explore(self, store: RunStore, before: Round, starts: list[Atoms], log: Callable[[str], object]) -> Exploration:
        models = read_ensemble(before.ensemble)
        calc = EnsembleCalculator(models)
        low, high = (factor * before.delta for factor in self.band)
        frames, uncertain, beyond, candidates = 0, 0, 0, []
        with _quiet():
            for start in starts:
                atoms = start.copy()
                atoms.calc = EnsembleCalculator(models)
                seen = [(frame, calc.get_property("forces_uncertainty", frame)) for frame in self.explore(atoms, high)]
                inside = [(frame, delta) for frame, delta in seen if low < delta.max() <= high]
                above = [(frame, delta) for frame, delta in seen if delta.max() > high]
                frames, uncertain, beyond = frames + len(seen), uncertain + len(inside), beyond + len(above)
                for frame, delta in inside or above[:1]:  # a path may jump over the band
                    candidates += carve_chunks(frame, np.flatnonzero(delta > low), self.cutoff)
        k = min(self.k, len(candidates))
        chosen = choose_chunks(candidates, k, models[0].gs, cutoff=models[0].cutoff) if k else []
        log(f"\nExplored {frames} frames with {before.ensemble}: {uncertain} of them have a largest uncertainty between "
            f"{low:.4f} and {high:.4f} eV/Å, {beyond} a larger one; {k} of {len(candidates)} chunks chosen.")  # fmt: skip
        names, counts = [store.keep_image(candidates[i]) for i in chosen], (frames, uncertain, len(candidates))
        store.append("explored", counts=counts, chunks=names)
        return Exploration(counts, tuple(names))


def _name(explore: Explorer) -> str:
    """Return the name of an explorer, without its address in memory, which changes each time."""
    return getattr(explore, "__qualname__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(explore))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Explore without being told that fingerprints leave their range: that is what exploring is for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* outside the range of the training set", category=UserWarning)
        yield


def _labels(store: RunStore, found: Exploration, log: Callable[[str], object], options: LabelOptions) -> list[Atoms]:
    """Labelled copies of the chosen chunks, those left out that fail."""
    if found.labelled is not None:  # a label that failed then is not tried again: the training that followed is without it
        return [store.image(name) for name in found.labelled]
    chunks = {number: store.image(name) for number, name in enumerate(found.chunks)}
    parents = ParentRecord(store.events, identify(options.parent), options.accept_parent, store.directory)
    have = {number: found.labels[number] for number in read_labels(store, dict(found.labels), chunks, log)}
    failures = []
    with LabelPool(options, store.directory / "labels") as pool:
        for number, chunk in chunks.items():
            if number not in have:
                pool.request(number, chunk)
        for number, outcome in pool.done():
            if isinstance(outcome, Label):
                fields = parents.label_fields(outcome)
                have[number] = store.keep_image(labelled(chunks[number], outcome))
                store.append("chunk-label", chunk=number, file=have[number], seconds=outcome.seconds, **fields)
                pool.tidy(number)
            else:
                failures.append(outcome)
                log(f"A chunk could not be labelled: {outcome}")
    if failures and not have:
        raise LabellingError(
            f"None of {len(failures)} chunks could be labelled: {failures[0]}. Fix parent_calc and rerun the script: finished work is kept."
        )
    files = [have[number] for number in sorted(have)]
    store.append("labelled", files=files)
    return [store.image(name) for name in files]
