"""Rounds of a refinement, read from the files of its runs: frames that were explored, labels, and the reasons to stop."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from amp.nft.errors import RunStoreError
from amp.nft.run.journal import JOURNAL
from amp.nft.run.replay import replay
from amp.nft.run.state import Exploration, RunState
from amp.nft.run.store import RunRecord

FRAME = "exploration"  # key of a frame's description in its image
REFINED = re.compile(r"(?P<first>.+)-refined-(?P<number>[1-9]\d*)")


@dataclass(frozen=True)
class Frame:
    """Last frame of one exploration, which becomes a target of the next training.

    Attributes
    ----------
    explorer : str
        Name of the explorer that led to it.
    target : int
        Number of the target where the exploration began.
    number : int
        Its place among the frames of the exploration.
    delta, limit : float
        Its largest uncertainty, and the one beyond which an exploration ends, eV/Å.
    atoms : tuple of int
        Atoms whose environments were labelled.
    """

    explorer: str
    target: int
    number: int
    delta: float
    limit: float
    atoms: tuple[int, ...] = ()

    @property
    def beyond(self) -> bool:
        """True if the exploration ended because the uncertainty passed the limit."""
        return self.delta > self.limit

    @property
    def name(self) -> str:
        """Explorer, start and place: 'Relaxation from target 0, frame 12'."""
        return f"{self.explorer.split('(')[0]} from target {self.target}, frame {self.number}"

    def __str__(self) -> str:
        how = "stopped" if self.beyond else "ran through"
        relation = "above" if self.beyond else "within"
        return (
            f"{self.explorer.split('(')[0]} from target {self.target} {how} at frame {self.number}, uncertainty {self.delta:.3g} eV/Å "
            f"{relation} {self.limit:.3g}, {len(self.atoms)} atoms labelled"
        )


def described(image: Atoms) -> Frame:
    """Return the description of a frame that an exploration found.

    Parameters
    ----------
    image : Atoms

    Returns
    -------
    Frame
    """
    about = image.info[FRAME]
    return Frame(**{**about, "atoms": tuple(about["atoms"])})


def outcome(deltas: Sequence[float], n_frames: int, stop_delta: float | None) -> str:
    """Return the outcome of a round whose frames are targets, in words.

    Parameters
    ----------
    deltas : sequence of float
        Largest uncertainty on each target, eV/Å: the frames last.
    n_frames : int
        Frames among them.
    stop_delta : float or None
        eV/Å; below it a structure counts as learned.

    Returns
    -------
    str
    """
    target, frames = max(deltas[: len(deltas) - n_frames], default=0.0), max(deltas[len(deltas) - n_frames :], default=0.0)
    text = f"trained once; largest uncertainty {target:.3g} eV/Å on the target, {frames:.3g} eV/Å on {n_frames} frames"
    if stop_delta is None:
        return text[0].upper() + text[1:] + "."
    done = max(target, frames) < stop_delta
    relation = "both below" if done else "not both below"
    return f"{'Converged' if done else 'Not converged'}: {text}: {relation} stop_delta = {stop_delta:g}."


@dataclass(frozen=True)
class RoundRecord:
    """Files of one round of a refinement.

    Attributes
    ----------
    label : str
        Name of its results.
    number : int
        0 for the run that is refined.
    record : RunRecord
        Of its training.
    state : RunState
    exploration : Exploration or None
        None for round 0.
    explored : RunRecord or None
        With the content that `exploration` names.
    frames : tuple of Frame
        Frames that became targets of this training, without those of earlier rounds; none where chunks alone are collected.
    n_frames : int
        Frames among the targets, with those of earlier rounds.
    """

    label: str
    number: int
    record: RunRecord
    state: RunState
    exploration: Exploration | None = None
    explored: RunRecord | None = None
    frames: tuple[Frame, ...] = ()
    n_frames: int = 0

    @property
    def work(self) -> str:
        """Frames, chunks and labels of the round in words; empty for round 0."""
        found = self.exploration
        if found is None:
            return ""
        frames, uncertain, candidates = found.counts[:3]
        if self.frames or not found.chunks:
            labelled = sum(len(frame.atoms) for frame in self.frames)
        else:
            labelled = len(found.labels if found.labelled is None else found.labelled)
        if self.frames:
            kept = f"the last of {len(self.frames)} explorations kept as targets, {uncertain} of them beyond the limit"
        else:
            kept = f"{uncertain} of them uncertain enough, with {candidates} candidate chunks"
        return f"{frames} frames explored, {kept}; {labelled} {'label' if labelled == 1 else 'labels'}"

    @property
    def deltas(self) -> tuple[float, ...]:
        """Largest uncertainty of the best ensemble on each target, eV/Å; empty before it is known."""
        done = [one.evaluated for one in self.state.iterations if one.evaluated is not None]
        if not done:
            return ()
        values = self.record.array(min(done, key=lambda one: one.delta_max).file)
        sizes = self.state.settings.get("target_atoms") or [len(values)]
        return tuple(float(part.max()) for part in np.split(values, np.cumsum(sizes)[:-1]) if len(part))

    @property
    def uncertainty(self) -> str:
        """Largest uncertainty on the targets of round 0, and on all frames that became targets, in words; empty before it is known."""
        deltas = self.deltas
        n = len(deltas) - self.n_frames
        if n < 1:
            return ""
        text = f"{max(deltas[:n]):.3g} on the target" + ("" if n == 1 else "s")
        return text + (f", {max(deltas[n:]):.3g} on {self.n_frames} frames" if self.n_frames else "")

    @property
    def outcome(self) -> str:
        """End of the training in words."""
        if self.state.ending is None:
            return "It has not ended."
        if not self.n_frames or not self.state.ending.finished:
            return self.state.ending.message
        return outcome(self.deltas, self.n_frames, self.state.all_settings.get("stop_delta"))

    def best_members(self) -> list[str]:
        """Return the members of the best ensemble as ``.amp`` texts; none before one is evaluated.

        Returns
        -------
        list of str
        """
        done = [(one.evaluated.delta_max, one.trained.file) for one in self.state.iterations if one.evaluated and one.trained]
        return self.record.texts(min(done)[1]) if done else []


def read_rounds(directory: Path) -> list[RoundRecord]:
    """Return the rounds of the refinement that a run belongs to.

    Parameters
    ----------
    directory : Path
        Training directory of the refined run or of one of its rounds.

    Returns
    -------
    list of RoundRecord
        Round 0 first; empty if the run was not refined. Files that cannot be read are skipped.
    """
    place, name = directory.resolve().parent, directory.resolve().name.removesuffix("-training")
    match = REFINED.fullmatch(name)
    first = match["first"] if match else name
    found = [match for path in place.glob("*-refined-*-training") if (match := REFINED.fullmatch(path.name.removesuffix("-training")))]
    numbers = sorted(int(one["number"]) for one in found if one["first"] == first)
    if not numbers:
        return []
    rounds: list[RoundRecord] = []
    for number in [0, *numbers]:
        with contextlib.suppress(RunStoreError):
            before = rounds[-1].n_frames if rounds else 0
            rounds.append(_read(place, f"{first}-refined-{number}" if number else first, number, before))
    return rounds


def _read(place: Path, label: str, number: int, before: int) -> RoundRecord:
    directory = place / f"{label}-training"
    record = RunRecord(directory / "saved-info")
    one = RoundRecord(label, number, record, replay(record.events))
    if not (directory / "exploration" / JOURNAL).is_file():
        return one
    explored = RunRecord(directory / "exploration")
    found = replay(explored.events).exploration
    images = [explored.image(name) for name in found.chunks] if found is not None else []
    frames = tuple(described(image) for image in images if FRAME in image.info)
    return RoundRecord(label, number, record, one.state, found, explored, frames, before + len(frames))
