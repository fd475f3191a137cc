"""Watch the uncertainty while a relaxation or a simulation runs, and stop it when it leaves what was learned."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import Filter
from ase.io import Trajectory

Action = Literal["stop", "warn"] | Callable[[Atoms, float], None]


class UncertaintyMonitor:
    """Observer of an ASE optimiser or molecular dynamics object.

    Parameters
    ----------
    dyn : ase.optimize.optimize.Dynamics
        What is watched; its atoms, also behind a cell filter, must have a calculator with ``forces_uncertainty``
        in its results, such as `amp.nft.calculator.EnsembleCalculator`.
    threshold : float
        Largest per-atom force uncertainty that is accepted, eV/Å.
    action : 'stop', 'warn', or callable
        What happens above it: the dynamics ends after this step, with a warning; a warning alone; or ``action(frame, delta_max)`` with a
        copy of the atoms that carries energy and forces.
    trajectory : path, optional
        Frames above the threshold are written here, for learning from them.

    Attributes
    ----------
    deltas : list of float
        Largest uncertainty (eV/Å) at each call, the first one included.
    steps : list of int
        The step of each call.
    exceeded : bool
        Whether any was above the threshold.

    Raises
    ------
    ValueError
        If `threshold` is not positive, `action` is none of these, or (at a step) the uncertainty is not a number,
        as with a single member.
    TypeError
        If (at a step) the calculator gives no uncertainty.

    Examples
    --------
    >>> dyn = BFGS(atoms)                                            # doctest: +SKIP
    >>> monitor = UncertaintyMonitor(dyn, threshold=0.1)             # doctest: +SKIP
    >>> dyn.attach(monitor)                                          # doctest: +SKIP
    >>> dyn.run(fmax=0.05)                                           # doctest: +SKIP
    """

    def __init__(
        self,
        dyn: Any,
        threshold: float,
        action: Action = "stop",
        trajectory: str | os.PathLike[str] | None = None,
    ) -> None:
        if not (isinstance(threshold, float | int | np.number) and threshold > 0):
            raise ValueError(f"threshold is {threshold!r} eV/Å: it must be above 0.")
        if action not in ("stop", "warn") and not callable(action):
            raise ValueError(f"action is {action!r}: it must be 'stop', 'warn' or a callable.")
        self.dyn = dyn
        self.threshold = threshold
        self.action = action
        self.trajectory = trajectory
        self.deltas: list[float] = []
        self.steps: list[int] = []

    @property
    def exceeded(self) -> bool:
        """Whether any recorded uncertainty was above the threshold."""
        return bool(self.deltas) and max(self.deltas) > self.threshold

    def __call__(self) -> None:
        """Record the uncertainty of this step and act on it."""
        atoms = _atoms_of(self.dyn)
        delta = _largest_uncertainty(atoms)
        if np.isnan(delta):  # no comparison with a threshold would ever be true
            raise ValueError("The force uncertainty is not a number: a calculator of one member has none; use two or more.")
        self.deltas.append(delta)
        self.steps.append(self.dyn.nsteps)
        if delta > self.threshold:
            frame = _frame(atoms)
            if self.trajectory is not None:
                with Trajectory(self.trajectory, "a") as file:
                    file.write(frame)
            self._act(frame, delta)

    def _act(self, frame: Atoms, delta: float) -> None:
        if callable(self.action):
            self.action(frame, delta)
            return
        if self.action == "stop":
            end(self.dyn)
        warnings.warn(
            f"Step {self.dyn.nsteps}{', the last' if self.action == 'stop' else ''}: the largest force uncertainty is {delta:.3f} eV/Å, "
            f"above {self.threshold}.",
            UserWarning,
            stacklevel=2,
        )


def end(dyn: Any) -> None:
    """Let dynamics or a relaxation end after this step.

    Parameters
    ----------
    dyn : ase.optimize.optimize.Dynamics
    """
    dyn.max_steps = dyn.nsteps  # ASE looks at this before each step


def _largest_uncertainty(atoms: Atoms) -> float:
    """Of the force on any atom, eV/Å; TypeError for a calculator that knows none."""
    try:
        return float(np.max(atoms.calc.get_property("forces_uncertainty", atoms)))
    except PropertyNotImplementedError as error:
        raise TypeError(
            f"The calculator is {type(atoms.calc).__name__}, which gives no forces_uncertainty: an UncertaintyMonitor watches "
            "atoms with an EnsembleCalculator."
        ) from error


def _atoms_of(dyn: Any) -> Atoms:
    """The atoms themselves, where the dynamics sees them through a filter."""
    atoms = dyn.atoms
    while isinstance(atoms, Filter):
        atoms = atoms.atoms
    return atoms


def _frame(atoms: Atoms) -> Atoms:
    """A copy with energy and forces, but without the calculator that made them."""
    frame = atoms.copy()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    return frame
