"""Results of a refinement: its rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from amp.nft.activelearner.stopping import Iteration, StopReason
from amp.nft.run.rounds import Frame
from amp.nft.run.verdict import Verdict


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
    frames : tuple of Frame
        Last frames of all explorations so far that are targets of its training; none where chunks alone are collected.
    verdict : Verdict or None
        Of its training: by labels of random atoms on the target and these frames, where it was tested.
    outcome : str
        How far the uncertainty on the new structures fell, and whether it is below ``stop_delta``; empty for round 0.
    end : str
        Why the refinement ended; empty for all but the last round.
    """

    label: str
    ensemble: Path
    delta: float
    exploration: tuple[int, int, int]
    chunks: int
    history: list[Iteration]
    stop_reason: StopReason
    frames: tuple[Frame, ...] = ()
    verdict: Verdict | None = field(default=None, compare=False)  # nan differs from itself
    outcome: str = ""
    end: str = ""

    def __str__(self) -> str:
        lines = [f"{self.label}: {self.history[-1].n_chunks} chunks, largest uncertainty on all targets {self.delta:.3g} eV/Å."]
        if self.exploration[0]:
            frames, uncertain, atoms = self.exploration
            how = f"{uncertain} beyond the limit" if self.frames else f"{uncertain} uncertain enough, with {atoms} atoms to choose from"
            lines.append(f"  Explored {_counted(frames, 'frame')}, {how}; {_counted(self.chunks, 'chunk')} labelled.")
        lines += [f"  {frame}." for frame in self.frames]
        lines += [f"  {text}" for text in (self.outcome, self.end) if text]
        if self.verdict is not None:
            where = f"the target and {len(self.frames)} frames" if self.frames else "the target alone"
            tested = f"tested on random atoms of {where}" if self.verdict.n_test else "not tested"
            lines.append(f"  {self.verdict} ({tested}).")
        return "\n".join(lines)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
