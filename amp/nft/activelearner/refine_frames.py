"""Refinement whose frames become targets: all forces of their chunks are trained, corrected ones too, and atoms on them test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from amp.nft.activelearner.batches import spread_atoms
from amp.nft.activelearner.inheritance import Inheritance
from amp.nft.activelearner.learner import NFT
from amp.nft.activelearner.refine_results import Round
from amp.nft.activelearner.resume import compare_settings
from amp.nft.activelearner.stopping import best_of
from amp.nft.calculator.explorers import AGAIN, Explorer, explorer_name, quiet
from amp.nft.calculator.members import best_path, digest_of_members, load
from amp.nft.inputs.structures import Images, read_images, read_targets
from amp.nft.labels.single_point import Parent
from amp.nft.run.replay import replay
from amp.nft.run.rounds import FRAME, Frame, described, outcome
from amp.nft.run.store import FORMAT, RunStore


@dataclass(frozen=True)
class FrameSearch:
    """Explorations of a round: explorers, labels, radius (Å), and the limit: a multiple of the uncertainty on the target, or eV/Å."""

    explorers: Sequence[Explorer]
    k: int
    cutoff: float
    factor: float
    limit: float | None
    baseline: Parent | None = None

    def carry_out(self, store: RunStore, before: Round, delta: float, starts: list[Atoms], log: Callable[[str], object]) -> list[Atoms]:
        """Return the last frames of all explorations, from the store if they are there.

        Parameters
        ----------
        store : RunStore
        before : Round
            Its ensemble explores.
        delta : float
            Largest uncertainty on the targets after the first run, eV/Å.
        starts : list of Atoms
        log : callable
            Takes a message.

        Returns
        -------
        list of Atoms
            With a description in ``info``; see `described`.
        """
        limit = self.factor * delta if self.limit is None else self.limit
        settings = {
            "explore": [explorer_name(explore) for explore in self.explorers], "k": self.k, "cutoff": self.cutoff, "limit": limit,
            "ensemble": digest_of_members(before.ensemble),
        }  # fmt: skip
        if not store.events:
            store.append("run", format=FORMAT, settings=settings)
        compare_settings(replay(store.events).settings, settings, store.directory)
        if (found := replay(store.events).exploration) is None:
            frames = self._explore(partial(load, before.ensemble, baseline=self.baseline), starts, limit * AGAIN)
            names = [store.keep_image(frame) for frame in frames]
            some = [described(frame) for frame in frames]
            counts = (sum(one.number + 1 for one in some), sum(one.beyond for one in some), sum(len(one.atoms) for one in some))
            store.append("explored", counts=counts, chunks=names)
            found = replay(store.events).exploration
            log(f"\nExplored with {before.ensemble}: " + "; ".join(map(str, some)) + ".")
        assert found is not None
        return [store.image(name) for name in found.chunks]

    def _explore(self, members: Callable[[], Calculator], starts: list[Atoms], limit: float) -> list[Atoms]:
        with quiet():
            last = [frame for number, start in enumerate(starts) for frame in _different(self._paths(members, number, start, limit))]
        if any(frame.beyond for _, _, frame in last):
            shares = np.cumsum([frame.delta for _, _, frame in last])  # a path within the limit to its end needs fewer labels
            sizes = np.diff(np.r_[0.0, self.k * shares / shares[-1]].round().astype(int))
            last = [
                (atoms, delta, replace(frame, atoms=tuple(spread_atoms([atoms], delta, int(size), self.cutoff))))
                for (atoms, delta, frame), size in zip(last, sizes, strict=True)
            ]
        for atoms, _, frame in last:
            atoms.info[FRAME] = {**frame.__dict__, "atoms": list(frame.atoms)}
        return [atoms for atoms, _, _ in last]

    def _paths(
        self, members: Callable[[], Calculator], number: int, start: Atoms, limit: float
    ) -> Iterator[tuple[Atoms, np.ndarray, Frame]]:
        """Yield the last frame of each explorer with its uncertainty; it begins where the last one within the limit ended."""
        calc, begin = members(), start
        for explore in self.explorers:
            atoms = begin.copy()
            atoms.calc = members()
            frames = list(explore(atoms, limit))
            deltas = [calc.get_property("forces_uncertainty", frame) for frame in frames]
            place = next((place for place, delta in enumerate(deltas) if delta.max() > limit), len(frames) - 1)
            atoms = start.copy()
            atoms.set_cell(frames[place].cell)
            atoms.set_positions(frames[place].positions, apply_constraint=False)
            delta = deltas[place]
            frame = Frame(explorer_name(explore), number, place, float(delta.max()), limit)
            begin = begin if frame.beyond else atoms
            yield atoms, delta, frame


def _different(paths: Iterator[tuple[Atoms, np.ndarray, Frame]]) -> list[tuple[Atoms, np.ndarray, Frame]]:
    """Return the paths without those that end where another one did: at their start, if that is beyond the limit already."""
    kept: list[tuple[Atoms, np.ndarray, Frame]] = []
    for path in paths:
        if not any(np.array_equal(path[0].positions, other.positions) and np.array_equal(path[0].cell, other.cell) for other, _, _ in kept):
            kept.append(path)
    return kept


def refine_by_frames(
    learner: NFT, images: Images | None, target_image: Images, search: FrameSearch, rounds: int, label: str, settings: dict[str, Any],
    tests: tuple[int, int],
) -> list[Round]:  # fmt: skip
    """Refine, with the last frames of explorations as further targets; see :func:`amp.nft.refinement.refine`.

    Parameters
    ----------
    learner : NFT
    images : Atoms, path, list of these, or None
    target_image : Atoms, path, or list of these
    search : FrameSearch
    rounds : int
    label : str
    settings : dict
        Further arguments of `NFT.run`.
    tests : tuple of int
        `test_labels` and `larger_labels` of the last round.

    Returns
    -------
    list of Round
    """
    starts = read_images(target_image, "target_image")
    targets = read_targets(starts)
    done = [_train(learner, images, targets, label, settings, None, ())]
    frames: list[Frame] = []
    for number in range(1, rounds + 1):
        before, name = done[-1], f"{label}-refined-{number}"
        with RunStore(Path(f"{name}-training") / "exploration") as store:
            found = search.carry_out(store, before, done[0].delta, starts, learner.log)
        new = [described(frame) for frame in found]
        first = np.cumsum([sum(map(len, targets)), *map(len, found)])
        atoms = tuple(int(first[place] + atom) for place, frame in enumerate(new) for atom in frame.atoms)
        targets, frames = targets + [_plain(frame) for frame in found], frames + new
        last = number == rounds or not atoms
        changes = {"check_parent": False, "images_calc": None, "gate": None, "test_labels": tests[0] if last else 0,
                   "larger_labels": tests[1] if last else 0}  # fmt: skip
        inheritance = Inheritance(Path(f"{before.label}-training").absolute() / "saved-info", atoms)
        after = _train(learner, images, targets, name, settings | changes, inheritance, frames)
        counts = (sum(one.number + 1 for one in new), sum(one.beyond for one in new), len(atoms))
        learned = outcome(best_of(after.history).structures, len(frames), learner.stop_delta)
        end = ""
        if not atoms:
            end = f"Refinement ends after {number} of {rounds} rounds: no exploration passes the limit."
        elif last:
            end = f"Refinement ends: all of the rounds = {rounds} are done, and {counts[1]} of {len(new)} explorations pass the limit."
        done.append(replace(after, exploration=counts, chunks=len(atoms), outcome=learned, end=end))
        learner.log(f"\n{done[-1]}")
        if last:
            break
    return done


def _plain(frame: Atoms) -> Atoms:
    """Return a frame without the description."""
    copied = frame.copy()
    del copied.info[FRAME]
    return copied


def _train(
    learner: NFT, images: Images | None, targets: list[Atoms], label: str, settings: dict[str, Any], inheritance: Inheritance | None,
    frames: Sequence[Frame],
) -> Round:  # fmt: skip
    """Run the loop, or resume it; with inherited labels it trains once."""
    again = copy.copy(learner)
    again.inheritance = inheritance
    if inheritance is not None:
        again.max_iterations = 0
    again.run(images, targets, label=label, **settings)
    best = best_path(label)
    assert again.stop_reason is not None  # a run that returns has one
    return Round(
        label, best, best_of(again.history).delta_max, (0, 0, 0), 0, again.history, again.stop_reason, tuple(frames), again.verdict
    )
