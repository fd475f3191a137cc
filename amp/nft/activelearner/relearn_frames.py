"""Frames of halted dynamics: which of them are nonsense, and the uncertainty of their atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from amp.nft.amp_io import AmpModel
from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.calculator.explorers import quiet
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import check_count, check_positive
from amp.nft.labels.single_point import Parent

BEYOND = 10.0  # times the limit of `fix halt`


@dataclass(frozen=True)
class RelearnBounds:
    """Bounds of the learning from halts.

    Parameters
    ----------
    rounds : int
        Largest number of halts that are learned.
    k : int
        Environments that a halt adds, at most.
    labels : int
        Labels of all halts, at most.
    frames : int
        Frames of the dump that are searched at a halt, evenly spaced, next to the halted one.
    delta : float, optional
        A frame with a larger uncertainty is nonsense and gets no label, eV/Å; ten times the limit of ``fix halt`` if not given.
    force : float
        Likewise for the largest predicted force, eV/Å.
    closest : float
        Likewise for two atoms nearer than this multiple of the sum of their covalent radii.
    restart_every : int
        Steps between restart files, from which dynamics that was killed resumes; 0: it resumes at its last halt. A deck with a ``restart``
        command of its own writes only its own files.

    Raises
    ------
    InputError
        If one is out of range.
    """

    rounds: int = 10
    k: int = 10
    labels: int = 100
    frames: int = 10
    delta: float | None = None
    force: float = 50.0
    closest: float = 0.6
    restart_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("rounds", "k", "labels", "frames", "restart_every"):
            check_count(name, getattr(self, name), least=1 if name in ("k", "labels") else 0)
        check_positive(force=self.force, closest=self.closest)
        if self.delta is not None:
            check_positive(delta=self.delta)
        if self.closest >= 1:
            raise InputError(f"closest is {self.closest}: it must be below 1, since bonded atoms are about as near as their radii say.")


@dataclass(frozen=True)
class Judged:
    """A frame with the uncertainty of each atom (eV/Å); `nonsense` is the bound that it breaks, or empty."""

    atoms: Atoms
    delta: np.ndarray
    nonsense: str

    @property
    def largest(self) -> float:
        """Largest uncertainty, eV/Å."""
        return float(self.delta.max())


def judged(
    models: list[AmpModel], frames: Sequence[Atoms], bounds: RelearnBounds, limit: float, baseline: Parent | None = None
) -> list[Judged]:
    """Judge frames by an ensemble.

    Parameters
    ----------
    models : list of AmpModel
    frames : sequence of Atoms
    bounds : RelearnBounds
    limit : float
        Uncertainty above which the dynamics halts, eV/Å.
    baseline : ASE calculator, or callable, optional
        With which the members were trained.

    Returns
    -------
    list of Judged
    """
    calc = EnsembleCalculator(models, baseline=baseline)
    found = []
    with quiet():
        for frame in frames:
            if pairs := _close_pairs(frame, bounds.closest):
                found.append(Judged(frame, np.full(len(frame), np.inf), pairs))
                continue
            delta = np.asarray(calc.get_property("forces_uncertainty", frame))
            force = float(np.linalg.norm(calc.get_property("forces", frame), axis=1).max())
            found.append(Judged(frame, delta, _beyond(delta, force, bounds, limit)))
    return found


def _beyond(delta: np.ndarray, force: float, bounds: RelearnBounds, limit: float) -> str:
    """Return the bound that a frame breaks, in words."""
    most = BEYOND * limit if bounds.delta is None else bounds.delta
    if not delta.max() <= most:
        return f"its uncertainty is {delta.max():.3g} eV/Å, above {most:g}"
    if not force <= bounds.force:
        return f"its largest force is {force:.3g} eV/Å, above {bounds.force:g}"
    return ""


def _close_pairs(frame: Atoms, closest: float) -> str:
    """Return the nearest pair of atoms within the bound, in words."""
    radii = closest * covalent_radii[frame.numbers]
    first, second, distance = neighbor_list("ijd", frame, radii)
    if not len(distance):
        return ""
    place = int(np.argmin(distance))
    a, b = int(first[place]), int(second[place])
    return (
        f"atoms {a} ({frame.symbols[a]}) and {b} ({frame.symbols[b]}) are {distance[place]:.2f} Å apart, below {radii[a] + radii[b]:.2f}, "
        f"{closest:g} times the sum of their covalent radii"
    )
