"""Watch the uncertainty during a relaxation or a simulation, and stop it above a limit."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.mep.neb import NEBOptimizer
from ase.optimize.basin import BasinHopping
from ase.optimize.sciopt import Converged, OptimizerConvergenceError, SciPyGradientlessOptimizer, SciPyOptimizer

from amp.nft.calculator.keep import keep
from amp.nft.errors import NFTError

WITHOUT_LAST_STEP = (SciPyOptimizer, SciPyGradientlessOptimizer, NEBOptimizer, BasinHopping)
Action = Literal["stop", "warn"] | Callable[[Atoms, float], None]


class UncertaintyMonitor:
    """Observer of an ASE optimiser or molecular dynamics object.

    Parameters
    ----------
    dyn : ase.optimize.optimize.BaseDynamics
        The optimiser or dynamics that is watched; its atoms, also behind a cell filter, or the inner images of its nudged
        elastic band, must have a calculator with ``forces_uncertainty``
        in its results, such as `EnsembleCalculator` and `Committee` of this package.
    threshold : float
        Largest per-atom force uncertainty that is accepted, eV/Å.
    action : 'stop', 'warn', or callable
        Action above it: the driver ends after this step, with a warning (see `UncertaintyStop` for drivers that only an
        error stops); a warning alone; or ``action(frame, delta_max)`` with a
        copy of the atoms that carries energy and forces.
    trajectory : path, optional
        Frames above the threshold are appended to this file, to learn from them, as extended XYZ with the arrays and ``info``
        of `keep`. A name that ends in ``.traj`` makes it an ASE trajectory, which drops these.

    Attributes
    ----------
    deltas : list of float
        Largest uncertainty (eV/Å) at each call, the first one included.
    steps : list of int
        The step of each call.
    exceeded : bool
        True if any was above the threshold.

    Raises
    ------
    ValueError
        If `threshold` is not positive, `action` is none of these, or (at a step) the uncertainty is not a number,
        as with a single member.
    TypeError
        If (at a step) the calculator gives no uncertainty.
    UncertaintyStop
        To stop a driver that cannot be stopped otherwise.

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
        """True if any recorded uncertainty was above the threshold."""
        return bool(self.deltas) and max(self.deltas) > self.threshold

    def __call__(self) -> None:
        """Record the uncertainty of this step and act on it."""
        images = _watched(self.dyn)
        deltas = [_largest_uncertainty(image) for image in images]
        delta = max(deltas)
        if np.isnan(deltas).any():  # no comparison with a threshold would ever be true
            raise ValueError("The force uncertainty is not a number: a calculator of one member has none; use two or more.")
        self.deltas.append(delta)
        self.steps.append(self.dyn.nsteps)
        if delta > self.threshold:
            frame = _frame(images[int(np.argmax(deltas))])
            if self.trajectory is not None:
                path = Path(self.trajectory)
                write(path, frame, append=True, format="traj" if path.suffix == ".traj" else "extxyz")
            self._act(frame, delta)

    def _act(self, frame: Atoms, delta: float) -> None:
        if callable(self.action):
            self.action(frame, delta)
            return
        last = ", the last" if self.action == "stop" else ""
        message = f"Step {self.dyn.nsteps}{last}: the largest force uncertainty is {delta:.3f} eV/Å, above {self.threshold}."
        warnings.warn(message, UserWarning, stacklevel=2)
        if self.action == "stop":
            end(self.dyn, message)


class UncertaintyStop(NFTError, Converged, OptimizerConvergenceError):
    """The uncertainty is above the threshold: raised to stop drivers that know no number of steps.

    ASE's SciPy optimisers, ``ODE12r`` and ``NEBOptimizer(method='ode')`` catch it; it leaves the ``run`` of others.
    """


def end(dyn: Any, message: str = "stopped") -> None:
    """End dynamics or a relaxation after this step.

    Parameters
    ----------
    dyn : ase.optimize.optimize.BaseDynamics
    message : str
        Of the error that stops a driver that knows no number of steps.

    Raises
    ------
    UncertaintyStop
        To stop such a driver: SciPy's optimisers, ``ODE12r``, ``NEBOptimizer``, ``BasinHopping``, and
        any that continues after its last step.
    """
    overrun = getattr(dyn, "_ended_at", None) == dyn.max_steps < dyn.nsteps
    if isinstance(dyn, WITHOUT_LAST_STEP) or overrun:
        raise UncertaintyStop(message)
    dyn.max_steps = dyn._ended_at = dyn.nsteps  # ASE compares the two before each step


def _largest_uncertainty(atoms: Atoms) -> float:
    """Return the largest uncertainty of the force on any atom, eV/Å; TypeError for a calculator without it."""
    try:
        return float(np.max(atoms.calc.get_property("forces_uncertainty", atoms)))
    except (PropertyNotImplementedError, AttributeError) as error:
        raise TypeError(
            f"The calculator is {type(atoms.calc).__name__}, which gives no forces_uncertainty: an UncertaintyMonitor watches "
            "atoms with an EnsembleCalculator or a Committee."
        ) from error


def _watched(dyn: Any) -> list[Atoms]:
    """Return the atoms themselves, without filters; of a nudged elastic band all images but its ends, which do not move."""
    atoms = dyn.atoms
    while not isinstance(atoms, Atoms):
        if hasattr(atoms, "images"):
            return list(atoms.images[1:-1])
        atoms = atoms.atoms
    return [atoms]


def _frame(atoms: Atoms) -> Atoms:
    """Return a copy with the ensemble's energy, forces (without those of constraints) and uncertainties, but not its calculator."""
    frame = atoms.copy()
    frame.calc = atoms.calc
    keep(frame)
    frame.calc = SinglePointCalculator(frame, energy=frame.info["nft_energy"], forces=frame.arrays["nft_forces"])
    return frame
