"""Learning from dynamics that an uncertainty halts: choose environments, label, train, and record each round in a journal."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.activelearner.batches import NEARER
from amp.nft.activelearner.inheritance import Inheritance
from amp.nft.activelearner.learner import NFT
from amp.nft.activelearner.refine_chunks import digest_of_members
from amp.nft.activelearner.relearn_files import checkpoint_of, is_whole, truncate_dump, written_during_run
from amp.nft.activelearner.relearn_frames import Judged, RelearnBounds, judged
from amp.nft.activelearner.resume import compare_settings
from amp.nft.amp_io import AmpModel, read_ensemble
from amp.nft.errors import InputError, RunStoreError
from amp.nft.inputs.structures import Images, read_images, read_targets
from amp.nft.records import Checkpoint, Halt
from amp.nft.run.journal import Event
from amp.nft.run.replay import replay
from amp.nft.run.store import FORMAT, RunRecord, RunStore, explains_full_disks
from amp.nft.system.processes import this_process

WORTH = 0.5  # of the limit: environments below this uncertainty get no label


@dataclass(frozen=True)
class HaltRound:
    """One halt of the dynamics, and the result of its labels.

    Attributes
    ----------
    step : int
        Step of the halt.
    delta : float
        Largest uncertainty of the halted frame, eV/Å.
    after : float
        The same after the training, eV/Å; nan without one.
    frames : int
        Frames whose environments were chosen.
    nonsense : int
        Frames that got no label, since they are beyond a bound.
    labels : int
        New labels that were trained.
    ensemble : Path or None
        The ensemble that it trained.
    """

    step: int
    delta: float
    after: float
    frames: int
    nonsense: int
    labels: int
    ensemble: Path | None


@dataclass(frozen=True)
class Lesson:
    """The run that is continued: learner, structures, label, ensemble, bounds, and further arguments of `NFT.run`."""

    learner: NFT
    images: Images | None
    target_image: Images
    label: str
    ensemble: Path
    bounds: RelearnBounds
    settings: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Directory of the journal and of restart files."""
        return Path(f"{self.label}-training") / "relearn"

    @property
    def to_begin_again(self) -> str:
        """Remedy of a user who repeats the dynamics from its first step, in words."""
        return f"move {self.directory} and {self.label}-relearned-*-training away to begin again"

    def train(self, label: str, targets: list[Atoms], **changes: Any) -> None:
        """Run the learner under a label, or resume its run.

        Parameters
        ----------
        label : str
        targets : list of Atoms
        **changes : Any
            Attributes of the learner; `settings` replaces arguments of its run.
        """
        again = copy.copy(self.learner)
        settings = {**self.settings, **changes.pop("settings", {})}
        for name, value in changes.items():
            setattr(again, name, value)
        again.run(self.images, targets, label=label, **settings)


class Teacher:
    """The side of the first process: it keeps the journal, and makes an ensemble of each halt.

    Parameters
    ----------
    lesson : Lesson
    store : RunStore
        Journal of the halts.
    targets : list of Atoms
        Of the run that is continued.
    """

    def __init__(self, lesson: Lesson, store: RunStore, targets: list[Atoms]) -> None:
        self._lesson, self._store, self._targets = lesson, store, targets
        self._log = lesson.learner.log
        self.reason = ""  # of an end before the last step

    # -- the journal ---------------------------------------------------------------------------------------

    def _events(self, name: str) -> list[Event]:
        return [event for event in self._store.events if event["event"] == name]

    @property
    def ensemble(self) -> Path:
        """The last ensemble."""
        done = self._events("relearned")
        return _best(done[-1]["label"]) if done else self._lesson.ensemble

    @property
    def to_begin_again(self) -> str:
        """Remedy of a user who repeats the dynamics from its first step, in words."""
        return self._lesson.to_begin_again

    @property
    def finished_at(self) -> int | None:
        """Last step of finished dynamics."""
        ends = [event for event in self._events("stopped") if event["converged"]]
        return int(ends[-1]["step"]) if ends else None

    def rounds(self) -> tuple[HaltRound, ...]:
        """Return all halts so far.

        Returns
        -------
        tuple of HaltRound
        """
        done = {event["round"]: event for event in self._events("relearned")}
        return tuple(
            HaltRound(
                halt["step"], halt["delta"], done[n]["delta"] if n in done else np.nan, len(halt["frames"]), len(halt["nonsense"]),
                done[n]["labels"] if n in done else 0, _best(done[n]["label"]) if n in done else None,
            )
            for halt in self._events("halted") for n in [halt["round"]]
        )  # fmt: skip

    def begin(self) -> tuple[list[AmpModel] | None, Checkpoint | None]:
        """Begin, or resume: finish the learning that was interrupted.

        Returns
        -------
        list of AmpModel or None
            The members; None if a bound does not let the dynamics continue.
        Checkpoint or None
            Halt at which it continues.
        """
        halts = self._events("halted")
        checkpoint = checkpoint_of(halts[-1]) if halts else None
        later = written_during_run(self._lesson.directory, checkpoint)
        if later is None and checkpoint is not None and not is_whole(Path(checkpoint.restart)):
            raise RunStoreError(
                f"{checkpoint.restart}, from which the dynamics would continue, is missing or incomplete: restore it, or "
                f"{self.to_begin_again}."
            )
        if halts and len(halts) > len(self._events("relearned")) and not self._learn_last():
            return None, None
        if later is not None:
            checkpoint = later
            where = f"from {Path(later.restart).name}, written {'after its last halt' if halts else 'before its first halt'}"
        elif checkpoint is not None:
            where = f"at its last halt, step {halts[-1]['step']} of {checkpoint.last}"
            truncate_dump(checkpoint)
        if checkpoint is not None:
            self._log(
                f"The dynamics resumes {where}, with {self.ensemble.name}. Files that the deck writes are written again, and dumps are "
                "appended."
            )
        self._store.append("dynamics", process=asdict(this_process()), step=halts[-1]["step"] if halts else 0)
        return read_ensemble(self.ensemble), checkpoint

    def end(self, step: int) -> None:
        """Record the end of the dynamics.

        Parameters
        ----------
        step : int
        """
        rounds = self.rounds()
        message = f"The dynamics finished at step {step}: {len(rounds)} halts, {sum(one.labels for one in rounds)} labels."
        self._store.append("stopped", reason="finished", message=message, converged=True, step=step)
        self._log(f"\n{message} Last ensemble: {self.ensemble.name}.")

    # -- a halt --------------------------------------------------------------------------------------------

    def learn(self, halt: Halt) -> list[AmpModel] | None:
        """Choose environments of a halt, label and train them.

        Parameters
        ----------
        halt : Halt

        Returns
        -------
        list of AmpModel or None
            The new members; None if a bound ends the dynamics, whose reason is in `reason` then.
        """
        number, bounds = len(self._events("halted")) + 1, self._lesson.bounds
        frames = [halt.atoms, *_spread(halt.frames, bounds.frames)]
        seen = self._judged(self.ensemble, frames, halt.limit)
        good = [one for one in seen if not one.nonsense]
        left = bounds.labels - self._labels()
        picked = _choose(good, min(bounds.k, left) if left > 0 else bounds.k, self._lesson.settings["cutoff"], WORTH * halt.limit)
        used = [(one, atoms) for one, atoms in zip(good, picked, strict=True) if atoms]
        nonsense = [one.nonsense for one in seen if one.nonsense]
        self._store.append(
            "halted", round=number, step=halt.step, limit=halt.limit, delta=_finite(seen[0].largest), nonsense=nonsense,
            frames=[self._store.keep_image(one.atoms) for one, _ in used], picked=[atoms for _, atoms in used], **asdict(halt.checkpoint),
        )  # fmt: skip
        for old in self._lesson.directory.glob("*.restart"):
            if old.name != Path(halt.checkpoint.restart).name:
                old.unlink()
        self._log(
            f"\nHalt {number}: step {halt.step} of {halt.checkpoint.last}, uncertainty {seen[0].largest:.3g} eV/Å (limit {halt.limit:g}), "
            f"{len(seen)} frames, {len(nonsense)} of them nonsense, {sum(map(len, picked))} environments chosen from {len(used)}."
        )
        for reason in nonsense:
            self._log(f"  A frame gets no label: {reason}.")
        return read_ensemble(self.ensemble) if self._learn_last() else None

    def _judged(self, ensemble: Path, frames: list[Atoms], limit: float) -> list[Judged]:
        return judged(read_ensemble(ensemble), frames, self._lesson.bounds, limit, self._lesson.settings.get("baseline"))

    def _labels(self) -> int:
        return sum(event["labels"] for event in self._events("relearned"))

    def _learn_last(self) -> bool:
        """Label and train the last halt, or finish this; return False if a bound does not allow it."""
        halt, bounds = self._events("halted")[-1], self._lesson.bounds
        size = sum(map(len, halt["picked"]))
        if not size:
            return self._stop("nonsense", f"no frame of the halt at step {halt['step']} is fit for labels")
        if halt["round"] > bounds.rounds:
            return self._stop("rounds", f"halt {halt['round']} is beyond the bound of {bounds.rounds} rounds")
        if self._labels() + size > bounds.labels:
            return self._stop("labels", f"{self._labels()} labels were made, and the bound is {bounds.labels}")
        self._train(halt)
        return True

    def _stop(self, name: str, reason: str) -> bool:
        self.reason = f"{reason[0].upper()}{reason[1:]}."
        self._log(f"The dynamics does not continue: {reason}.")
        self._store.append("stopped", reason=name, message=self.reason, converged=False)
        return False

    def _train(self, halt: Event) -> None:
        begin, number = time.perf_counter(), halt["round"]
        halts = self._events("halted")[:number]
        sets = [[_as_target(self._store.image(name)) for name in event["frames"]] for event in halts]
        targets = [*self._targets, *(frame for frames in sets for frame in frames)]
        first = np.cumsum([0, *map(len, targets)])
        place = len(targets) - len(sets[-1])
        atoms = tuple(int(first[place + k] + atom) for k, atoms in enumerate(halt["picked"]) for atom in atoms)
        done = self._events("relearned")
        before = done[-1]["label"] if done else self._lesson.label
        name = f"{self._lesson.label}-relearned-{number}"
        saved = Path(f"{before}-training").absolute() / "saved-info"
        self._lesson.train(
            name, targets, load=str(self.ensemble), max_iterations=0, inheritance=Inheritance(saved, atoms), progress=False,
            settings={"check_parent": False, "images_calc": None, "gate": None, "test_labels": 0, "larger_labels": 0},
        )  # fmt: skip
        after = self._judged(_best(name), [sets[-1][0]], halt["limit"])[0].largest
        labels = len({*atoms} & {*replay(RunRecord(Path(f"{name}-training") / "saved-info").events).labels})
        seconds = time.perf_counter() - begin
        self._store.append("relearned", round=number, label=name, labels=labels, delta=_finite(after), seconds=seconds)
        self._log(
            f"Halt {number}: {labels} new labels in {seconds:.1f} s; uncertainty {halt['delta']:.3g} -> {after:.3g} eV/Å at step "
            f"{halt['step']}. The dynamics continues with {_best(name).name}."
        )
        sys.stdout.flush()


@contextlib.contextmanager
def teaching(lesson: Lesson, deck: str, arguments: Sequence[str]) -> Iterator[Teacher]:
    """Check that an ensemble is that of a finished run, and yield the teacher of its dynamics.

    Parameters
    ----------
    lesson : Lesson
    deck : str
        Text of the deck.
    arguments : sequence of str
        Of LAMMPS.

    Yields
    ------
    Teacher

    Raises
    ------
    InputError
        The run is not finished, or has another ensemble.
    RunStoreError
        The run, or the dynamics, began with other settings, or the journal is missing beside restart files.
    """
    targets = read_targets(read_images(lesson.target_image, "target_image"))
    model = read_ensemble(lesson.ensemble)[0]
    if missing := sorted({symbol for target in targets for symbol in target.symbols} - set(model.elements)):
        raise InputError(
            f"{lesson.ensemble} was trained on {', '.join(model.elements)}, and the target has {', '.join(missing)}: give the ensemble and "
            "the input of one run."
        )
    _check_finished(lesson)
    settings = {"label": lesson.label, "ensemble": digest_of_members(lesson.ensemble), "deck": deck, "arguments": list(arguments)}
    begun = (lesson.directory / "journal.jsonl").exists()
    if not begun and (left := sorted(lesson.directory.glob("*.restart"))):
        raise RunStoreError(
            f"{lesson.directory} has {left[0].name} and no journal.jsonl, which says where the dynamics was: restore the journal, or "
            f"{lesson.to_begin_again}."
        )
    if not begun:
        lesson.train(lesson.label, targets, progress=False)  # refuses other settings; a finished run is not continued
        if digest_of_members(lesson.ensemble) != settings["ensemble"]:
            raise InputError(f"{lesson.ensemble} has changed, since the settings continue its run: start again with the new one.")
    with explains_full_disks(), RunStore(lesson.directory) as store:
        if not store.events:
            store.append("run", format=FORMAT, settings=settings)
        compare_settings(replay(store.events).settings, settings, lesson.directory)
        yield Teacher(lesson, store, targets)


def _check_finished(lesson: Lesson) -> None:
    """Raise InputError unless the run is finished, and made the ensemble."""
    directory, best = Path(f"{lesson.label}-training"), _best(lesson.label)
    try:
        ending = replay(RunRecord(directory / "saved-info").events).ending
    except (RunStoreError, FileNotFoundError):
        ending = None
    if ending is None or not ending.finished:
        raise InputError(f"{directory} has no finished run, whose labels the dynamics would continue: run it first, by `amp-nft run`.")
    if not best.exists() or digest_of_members(best) != digest_of_members(lesson.ensemble):
        raise InputError(f"{lesson.ensemble} is not the ensemble of the run {lesson.label!r}: give {best}, or the input of its run.")


def _best(label: str) -> Path:
    return Path(label).with_name(f"best.{Path(label).name}.ensemble")


def _spread(frames: Sequence[Atoms], number: int) -> list[Atoms]:
    """Return that many frames, evenly spaced, the last one first."""
    places = np.unique(np.linspace(0, len(frames) - 1, min(number, len(frames))).round().astype(int))[::-1]
    return [frames[place] for place in places]


def _choose(good: Sequence[Judged], size: int, distance: float, least: float) -> list[list[int]]:
    """Choose uncertain atoms far apart, in each frame; an atom in another frame is as far as in this one."""
    chosen: list[list[int]] = [[] for _ in good]
    if not good:
        return chosen
    delta = np.array([one.delta for one in good])
    size = min(size, max(int((delta.max(axis=0) >= least).sum()), 1))
    ranked = [divmod(int(place), delta.shape[1]) for place in np.argsort(-delta, axis=None, kind="stable")]
    nearest = np.full(delta.shape[1], np.inf)  # distance of each atom to those chosen, the smallest in any frame
    while sum(map(len, chosen)) < size:
        far = next(((frame, atom) for frame, atom in ranked if nearest[atom] >= distance and delta[frame, atom] >= least), None)
        if far is None and distance < 1e-3:
            far = ranked[0] if not any(chosen) else None
            if far is None:
                break
        if far is None:
            distance *= NEARER
            continue
        frame, atom = far
        chosen[frame].append(atom)
        for one in good:
            nearest = np.minimum(nearest, one.atoms.get_distances(atom, range(len(nearest)), mic=True))
    return chosen


def _as_target(frame: Atoms) -> Atoms:
    return Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)


def _finite(value: float) -> float:
    """Return a number that JSON can hold."""
    return float(value) if np.isfinite(value) else 1e299


__all__ = ["HaltRound", "Lesson", "RelearnBounds", "Teacher", "teaching"]
