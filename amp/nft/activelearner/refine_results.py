"""Results of a refinement: its rounds, and the frames that they explored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from amp.nft.activelearner.stopping import Iteration, StopReason
from amp.nft.run.verdict import Verdict


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

    def __str__(self) -> str:
        how = "stopped" if self.beyond else "ran through"
        relation = "above" if self.beyond else "within"
        return (
            f"{self.explorer.split('(')[0]} from target {self.target} {how} at frame {self.number}, uncertainty {self.delta:.3g} eV/Å "
            f"{relation} {self.limit:.3g}, {len(self.atoms)} atoms labelled"
        )


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

    def __str__(self) -> str:
        lines = [f"{self.label}: {self.history[-1].n_chunks} chunks, largest uncertainty on all targets {self.delta:.3g} eV/Å."]
        lines += [f"  {frame}." for frame in self.frames]
        if self.verdict is not None:
            where = f"the target and {len(self.frames)} frames" if self.frames else "the target alone"
            tested = f"tested on random atoms of {where}" if self.verdict.n_test else "not tested"
            lines.append(f"  {self.verdict} ({tested}).")
        return "\n".join(lines)
