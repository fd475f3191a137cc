"""Explorers: relaxation and dynamics with the ensemble, which lead to structures that it does not know."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.optimize import LBFGS
from ase.optimize.optimize import Optimizer

from amp.nft.calculator.monitor import UncertaintyMonitor, end

Explorer = Callable[[Atoms, float], Sequence[Atoms]]
AGAIN = 1 + 1e-9  # the uncertainty of a structure that is evaluated again exceeds the first one by less than this factor


@dataclass(frozen=True, repr=False)
class Relaxation:
    """Explore by relaxing the positions.

    Attributes
    ----------
    fmax : float
        Largest force at the end, eV/Å.
    steps : int
        When to end anyway.
    maxstep : float
        Largest displacement of an atom from one frame to the next, Å; long steps jump over the band.
    optimizer : type
        An optimiser of ASE that takes `maxstep`. ``LBFGS`` is quick near a minimum, ``FIRE`` reliable far from one: on the way from a
        rattled Mg147 ``LBFGS`` takes 505 steps at the default `maxstep` and 875 at 0.1 Å, ``FIRE`` 181 there.
    """

    fmax: float = 0.05
    steps: int = 200
    maxstep: float = 0.04
    optimizer: type[Optimizer] = LBFGS

    def __call__(self, atoms: Atoms, limit: float) -> list[Atoms]:
        """Return frames of a relaxation; frames above `limit` return below it by themselves."""
        dyn: Any = self.optimizer
        return _frames(dyn(atoms, logfile=os.devnull, maxstep=self.maxstep), atoms, 1, fmax=self.fmax, steps=self.steps)

    def __repr__(self) -> str:
        parts = [f"{part.name}={getattr(self, part.name)!r}" for part in fields(self) if part.name != "optimizer"]
        if self.optimizer is not LBFGS:  # the name is compared with that of an earlier exploration, which knew no other
            parts.append(f"optimizer={self.optimizer.__name__}")
        return f"Relaxation({', '.join(parts)})"


@dataclass(frozen=True)
class Dynamics:
    """Explore by Langevin dynamics.

    Attributes
    ----------
    temperature : float
        In K.
    steps : int
    timestep : float
        In fs.
    interval : int
        Steps from one frame to the next.
    friction : float
        In 1/fs.
    seed : int
        Seed of the velocities and of the noise.
    """

    temperature: float = 300.0
    steps: int = 1000
    timestep: float = 2.0
    interval: int = 10
    friction: float = 0.01
    seed: int = 0

    def __call__(self, atoms: Atoms, limit: float) -> list[Atoms]:
        """Frames until the end, or until an uncertainty is above `limit`."""
        rng = np.random.default_rng(self.seed)
        widths = np.sqrt(units.kB * self.temperature * atoms.get_masses())[:, None]
        atoms.set_momenta(widths * rng.standard_normal((len(atoms), 3)))
        dyn = Langevin(
            atoms, self.timestep * units.fs, temperature_K=self.temperature, friction=self.friction / units.fs, rng=rng,
            fixcm=False,
        )  # fmt: skip
        dyn.attach(UncertaintyMonitor(dyn, limit, action=lambda frame, delta_max: end(dyn)), interval=1)
        return _frames(dyn, atoms, self.interval, steps=self.steps)


def _frames(dyn: Any, atoms: Atoms, interval: int, **end: Any) -> list[Atoms]:
    """Return copies of the atoms while `dyn` runs, and at its end."""
    frames: list[Atoms] = []
    dyn.attach(lambda: frames.append(atoms.copy()), interval=interval)
    dyn.run(**end)
    if dyn.nsteps % interval:  # where it ended, the very frame that was too uncertain perhaps
        frames.append(atoms.copy())
    return frames


def explorer_name(explore: Explorer) -> str:
    """Return the name of an explorer, without its address in memory, which changes each time.

    Parameters
    ----------
    explore : callable

    Returns
    -------
    str
    """
    return getattr(explore, "__qualname__", None) or re.sub(r" at 0x[0-9a-fA-F]+", "", repr(explore))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Explore without warnings about fingerprints outside their range: exploration leaves it on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* outside the range of the training set", category=UserWarning)
        yield
