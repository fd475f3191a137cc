"""Refinement that collects chunks of frames, as the published method does: their central forces are trained."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from amp.nft.activelearner.learner import NFT
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.activelearner.refine_results import Round
from amp.nft.activelearner.resume import compare_settings
from amp.nft.activelearner.stopping import best_of
from amp.nft.activelearner.stored_labels import read_labels
from amp.nft.amp_io.committee_file import models_of
from amp.nft.calculator import Committee, EnsembleCalculator
from amp.nft.calculator.explorers import AGAIN, Explorer, explorer_name, quiet
from amp.nft.calculator.members import best_path, digest_of_members
from amp.nft.calculator.members import load as load_calculator
from amp.nft.chunks import carve_chunks
from amp.nft.chunks.termination import Termination, termination_name
from amp.nft.errors import LabellingError
from amp.nft.inputs.structures import Images, get_hash, read_images, read_targets, read_training_images
from amp.nft.labels.identity import identify
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, Parent, labelled
from amp.nft.records import LabelOptions
from amp.nft.run.replay import replay
from amp.nft.run.state import Exploration
from amp.nft.run.store import FORMAT, RunStore
from amp.nft.selection import choose_chunks
from amp.nft.training import Command


def refine_by_chunks(
    learner: NFT,
    images: Images,
    target_image: Images,
    search: Search,
    rounds: int,
    label: str,
    options: LabelOptions,
    settings: dict[str, Any],
) -> list[Round]:
    """Refine, with labelled chunks of frames as training images; see :func:`amp.nft.refinement.refine`.

    Parameters
    ----------
    learner : NFT
    images, target_image : Atoms, path, or list of these
    search : Search
    rounds : int
    label : str
    options : LabelOptions
    settings : dict
        Further arguments of `NFT.run`.

    Returns
    -------
    list of Round
    """
    centres = list(settings.pop("init_nft_ids", None) or [])
    starts = read_images(target_image, "target_image")
    training, targets = read_training_images(images), read_targets(starts)
    done = [train(learner, training, targets, centres, label, learner.load, settings)]
    for number in range(1, rounds + 1):
        before, name = done[-1], f"{label}-refined-{number}"
        with RunStore(Path(f"{name}-training") / "exploration") as store:
            found = search.carry_out(store, before, starts, learner.log)
            chunks = _labels(store, found, learner.log, options)
        if not chunks:
            done[-1] = replace(
                before, end=f"Refinement ends after {number - 1} of {rounds} rounds: no frame reaches the lower end of the band."
            )
            break
        new = _chunks_of(before.label) + chunks
        training, centres = training + new, centres + [(get_hash(chunk), 0) for chunk in new]
        after = train(learner, training, targets, centres, name, str(before.ensemble), settings)
        counts = (found.counts[0], found.counts[1], found.counts[2])
        learned = _outcome((before, after), chunks, learner.stop_delta, settings.get("baseline"))
        done.append(replace(after, exploration=counts, chunks=len(chunks), outcome=learned))
        learner.log(f"\n{done[-1]}")
    if rounds and not done[-1].end:
        done[-1] = replace(done[-1], end=f"Refinement ends: all of the rounds = {rounds} are done.")
    if rounds:
        learner.log(done[-1].end)
    return done


def _outcome(rounds: tuple[Round, Round], chunks: list[Atoms], stop_delta: float, baseline: Parent | None) -> str:
    """Say how far the uncertainty on the central atoms of the new chunks fell."""
    with quiet():
        calculators = [load_calculator(one.ensemble, baseline=baseline) for one in rounds]
        old, new = (max(calc.get_property("forces_uncertainty", chunk)[0] for chunk in chunks) for calc in calculators)
    done = new < stop_delta
    return (
        f"{'Converged' if done else 'Not converged'} on the new structures: the largest uncertainty on the centres of their {len(chunks)} "
        f"chunks went from {old:.3g} to {new:.3g} eV/Å, {'below' if done else 'not below'} stop_delta = {stop_delta:g}."
    )


def train(
    learner: NFT, images: list[Atoms], targets: list[Atoms], centres: list[tuple[str, int]], label: str, load: str | None,
    settings: dict[str, Any],
) -> Round:  # fmt: skip
    """Run the learner, or resume its run, from given weights.

    Parameters
    ----------
    learner : NFT
    images, targets : list of Atoms
    centres : list of (str, int)
        `init_nft_ids` of `NFT.run`.
    label : str
    load : str or None
        Ensemble from which the first training starts.
    settings : dict
        Further arguments of `NFT.run`.

    Returns
    -------
    Round
    """
    again = copy.copy(learner)
    if isinstance(learner.trainer, Command):
        again.trainer = learner.trainer if load is None else learner.trainer.beginning_with(models_of(load))
    else:
        again.load = load
    again.run(images, targets, label=label, init_nft_ids=centres, **settings)
    best = best_path(label)
    assert again.stop_reason is not None  # a run that returns has one
    return Round(label, best, best_of(again.history).delta_max, (0, 0, 0), 0, again.history, again.stop_reason)


def _chunks_of(label: str) -> list[Atoms]:
    """Return the labelled chunks of a run."""
    path = Path(f"{label}-training") / "saved-info" / "atomic_chunks.traj"
    return read(path, ":") if path.exists() else []  # type: ignore[return-value]


@dataclass(frozen=True)
class Search:
    """Search of a round for chunks."""

    explorers: Sequence[Explorer]
    band: tuple[float, ...]
    k: int
    cutoff: float
    termination: Termination = "sphere"
    min_atoms: int | None = None
    baseline: Parent | None = None

    def carry_out(self, store: RunStore, before: Round, starts: list[Atoms], log: Callable[[str], object]) -> Exploration:
        """Return the exploration with the selected chunks, from the store if it is there.

        Parameters
        ----------
        store : RunStore
        before : Round
            With the ensemble that explores.
        starts : list of Atoms
        log : callable
            Takes a message.

        Returns
        -------
        Exploration
        """
        names = [explorer_name(explore) for explore in self.explorers]
        settings: dict[str, Any] = {"explore": names[0] if len(names) == 1 else names, "band": list(self.band), "k": self.k,
            "cutoff": self.cutoff,
                    "ensemble": digest_of_members(before.ensemble)}  # fmt: skip
        if (self.termination, self.min_atoms) != ("sphere", None):
            settings |= {"termination": termination_name(self.termination), "min_atoms": self.min_atoms}
        if not store.events:
            store.append("run", format=FORMAT, settings=settings)
        compare_settings(replay(store.events).settings, settings, store.directory)
        return replay(store.events).exploration or self._explore(store, before, starts, log)

    def _explore(self, store: RunStore, before: Round, starts: list[Atoms], log: Callable[[str], object]) -> Exploration:
        calc = load_calculator(before.ensemble, baseline=self.baseline)
        low, high = (factor * before.delta * AGAIN for factor in self.band)
        frames, uncertain, beyond, candidates = 0, 0, 0, []
        with quiet():
            for start, explore in itertools.product(starts, self.explorers):
                atoms = start.copy()
                atoms.calc = load_calculator(before.ensemble, baseline=self.baseline)
                seen = [(frame, calc.get_property("forces_uncertainty", frame)) for frame in explore(atoms, high)]
                inside = [(frame, delta) for frame, delta in seen if low < delta.max() <= high]
                above = [(frame, delta) for frame, delta in seen if delta.max() > high]
                frames, uncertain, beyond = frames + len(seen), uncertain + len(inside), beyond + len(above)
                for frame, delta in inside or above[:1]:  # a path may jump over the band
                    candidates += carve_chunks(
                        frame, np.flatnonzero(delta > low), self.cutoff, termination=self.termination, min_atoms=self.min_atoms
                    )
        k = min(self.k, len(candidates))
        chosen = choose_chunks(candidates, k, **_fingerprints(calc)) if k else []
        log(f"\nExplored {frames} frames with {before.ensemble}: {uncertain} of them have a largest uncertainty between "
            f"{low:.4f} and {high:.4f} eV/Å, {beyond} a larger one; {k} of {len(candidates)} chunks chosen.")  # fmt: skip
        names, counts = [store.keep_image(candidates[i]) for i in chosen], (frames, uncertain, len(candidates))
        store.append("explored", counts=counts, chunks=names)
        return Exploration(counts, tuple(names))


def _fingerprints(calc: EnsembleCalculator | Committee) -> dict[str, Any]:
    """Return the fingerprints by which chunks differ: those of the members, or the defaults for models of another program."""
    return {"Gs": calc.models[0].gs, "cutoff": calc.models[0].cutoff} if isinstance(calc, EnsembleCalculator) else {}


def _labels(store: RunStore, found: Exploration, log: Callable[[str], object], options: LabelOptions) -> list[Atoms]:
    """Return labelled copies of the chosen chunks, without those that fail."""
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
