"""Relax a structure with an ensemble while its uncertainty is watched."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import LBFGS

from amp.nft.amp_io import read_card
from amp.nft.calculator.keep import keep
from amp.nft.calculator.members import load
from amp.nft.calculator.monitor import UncertaintyMonitor, end
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import check_count, check_new, check_positive
from amp.nft.inputs.geometry import check_atoms, check_places
from amp.nft.labels.single_point import Parent

FACTOR = 1.5  # times the uncertainty on the trained target, or on the first structure: the threshold that is not given
MAXSTEP = 0.1  # Å


@dataclass(frozen=True)
class Relaxed:
    """End of a relaxation.

    Attributes
    ----------
    atoms : Atoms
        The last structure, with energy and forces, and with the arrays and ``info`` of :func:`amp.nft.calculator.keep`.
    fmax : float
        Its largest force, eV/Å.
    steps : int
    converged : bool
        True if all forces are below the limit.
    threshold : float
        Uncertainty above which it ends, eV/Å.
    deltas : tuple of float
        Largest uncertainty at each step, eV/Å, the first structure included.
    """

    atoms: Atoms = field(repr=False)
    fmax: float
    steps: int
    converged: bool
    threshold: float
    deltas: tuple[float, ...] = field(repr=False)

    @property
    def halted(self) -> bool:
        """True if it ended because the uncertainty passed the threshold."""
        return self.deltas[-1] > self.threshold

    def __str__(self) -> str:
        begin = "Halted" if self.halted else "Relaxed" if self.converged else "Not relaxed"
        relation = "above" if self.halted else "within"
        return (
            f"{begin}: {self.steps} steps, largest force {self.fmax:.3g} eV/Å, largest uncertainty {self.deltas[-1]:.3g} eV/Å, {relation} "
            f"the threshold of {self.threshold:.3g}."
        )


def relax(
    atoms: Atoms,
    ensemble: str | os.PathLike[str] | Calculator,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    threshold: float | None = None,
    cell: bool = False,
    trajectory: str | os.PathLike[str] | None = None,
    baseline: Parent | None = None,
    log: Callable[[str], object] | None = None,
) -> Relaxed:
    """Relax a structure with an ensemble, and end where the uncertainty of a force passes a threshold.

    Parameters
    ----------
    atoms : Atoms
        Is not changed; its constraints apply.
    ensemble : path, or ASE calculator
        An ``.ensemble`` file or a ``.committee``, or a calculator with ``forces_uncertainty``, such as a `Committee`.
    fmax : float
        Largest force at the end, eV/Å.
    steps : int
        Largest number of steps.
    threshold : float, optional
        Largest uncertainty that is accepted, eV/Å; 1.5 times that on the target of the ensemble if not given, as its model card has it, or
        1.5 times that on `atoms` without a card.
    cell : bool
        Relax the cell, too, to no pressure.
    trajectory : path, optional
        A new file of extended XYZ for all frames, with the arrays and ``info`` of :func:`amp.nft.calculator.keep`.
    baseline : ASE calculator, or callable, optional
        The one to which the members of a file add, if they were trained with one.
    log : callable, optional
        Is called with a line for each step.

    Returns
    -------
    Relaxed

    Raises
    ------
    InputError
        An argument or the structure cannot be used, or the ensemble was not trained on one of its elements.
    """
    check_positive(fmax=fmax, **({} if threshold is None else {"threshold": threshold}))
    check_count("steps", steps, least=0)
    check_atoms(atoms)
    check_places(atoms)
    if cell and not atoms.pbc.all():
        raise InputError(f"cell=True relaxes a cell that is periodic in all directions, and pbc is {atoms.pbc.tolist()}: use cell=False.")
    if trajectory is not None:
        check_new(trajectory)
    work = atoms.copy()
    work.calc = ensemble if isinstance(ensemble, Calculator) else load(ensemble, baseline=baseline)
    limit = _threshold(work, ensemble) if threshold is None else float(threshold)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* outside the range of the training set", category=UserWarning)  # frames say it
        moved: Any = FrechetCellFilter(work) if cell else work
        dyn = LBFGS(moved, logfile=os.devnull, maxstep=MAXSTEP)
        monitor = UncertaintyMonitor(dyn, limit, action=lambda frame, delta: end(dyn))
        dyn.attach(monitor)
        dyn.attach(_Frames(work, monitor, trajectory, log))
        converged = bool(dyn.run(fmax=fmax, steps=steps))
        last = _frame(work)
    return Relaxed(last, _largest_force(last), dyn.nsteps, converged and monitor.deltas[-1] <= limit, limit, tuple(monitor.deltas))


def _threshold(atoms: Atoms, ensemble: Any) -> float:
    """Return the threshold where none is given."""
    card = (None if isinstance(ensemble, Calculator) else read_card(ensemble)) or {}
    known = card.get("errors", {}).get("uncertainty_max")
    return FACTOR * float(known or np.max(atoms.calc.get_property("forces_uncertainty", atoms)))


class _Frames:
    """Observer that writes each frame, and logs it."""

    def __init__(self, atoms: Atoms, monitor: UncertaintyMonitor, path: Any, log: Callable[[str], object] | None) -> None:
        self.atoms, self.monitor, self.path, self.log = atoms, monitor, path, log

    def __call__(self) -> None:
        frame = _frame(self.atoms)
        if self.path is not None:
            write(Path(self.path), frame, append=True, format="extxyz")
        if self.log is not None:
            energy, force = frame.get_potential_energy(), _largest_force(frame)
            self.log(
                f"step {self.monitor.steps[-1]:4d}: energy {energy:12.4f} eV, largest force {force:8.4f} eV/Å, largest uncertainty "
                f"{self.monitor.deltas[-1]:.4f} eV/Å"
            )


def _frame(atoms: Atoms) -> Atoms:
    """Return a copy with the results of the ensemble, but not its calculator."""
    frame = atoms.copy()
    frame.calc = atoms.calc
    keep(frame)
    frame.calc = SinglePointCalculator(frame, energy=frame.info["nft_energy"], forces=frame.arrays["nft_forces"])
    return frame


def _largest_force(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())
