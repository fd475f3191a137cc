"""Labels: single points of the parent calculator, as plain data, each checked before it is believed."""

from __future__ import annotations

import copy
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator

Parent = BaseCalculator | Callable[[str], BaseCalculator]

ABSURD_FORCE = 1e4  # eV/Å; no chunk of a real structure comes near it
_CALCULATOR_METHODS = ("get_potential_energy", "get_forces")


@dataclass(frozen=True)
class Label:
    """Energy (eV) and forces (atoms, 3; eV/Å) of one image, and the seconds that they took."""

    energy: float
    forces: np.ndarray
    seconds: float


@dataclass(frozen=True)
class LabelFailure:
    """Why a label could not be had: the kind of error, its message, its traceback."""

    kind: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check_parent(parent: Parent | None) -> None:
    """Raise TypeError unless `parent` is an ASE calculator or a callable that returns one."""
    if isinstance(parent, type):
        raise TypeError(f"parent_calc is the class {parent.__name__}: give an instance, {parent.__name__}().")
    if not (_is_calculator(parent) or callable(parent)):
        raise TypeError(
            f"parent_calc is {parent!r}: give an ASE calculator such as EMT(), or a function "
            "f(directory) that returns a fresh one."
        )


def parent_name(parent: Parent) -> str:
    """Name of the parent for logs and reports."""
    named = parent if not _is_calculator(parent) else type(parent)
    return getattr(named, "__qualname__", None) or type(named).__qualname__


def single_point(parent: Parent, image: Atoms, directory: str | os.PathLike[str]) -> Label | LabelFailure:
    """Label one image.

    Parameters
    ----------
    parent : ASE calculator, or callable
        A calculator is copied where it can be, so that the caller's stays as it was. A callable gets
        `directory`, which is then made, and returns a fresh calculator.
    image : Atoms
        Not changed.
    directory : path
        This label's own directory.

    Returns
    -------
    Label or LabelFailure
        Exceptions of the parent, a label that did not converge, forces that are not finite, of the wrong shape
        or absurdly large all become a LabelFailure: this function does not raise.
    """
    start = time.perf_counter()
    try:
        atoms = image.copy()
        atoms.calc = _calculator(parent, directory)
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    except Exception as error:  # whatever a parent raises concerns this label alone
        return LabelFailure(type(error).__name__, str(error), traceback.format_exc())
    if (fault := _fault(energy, forces, len(image), atoms.calc)) is not None:
        return LabelFailure("BadLabel", fault)
    return Label(energy, forces, time.perf_counter() - start)


def labelled(image: Atoms, label: Label) -> Atoms:
    """A copy of `image` that carries its label."""
    atoms = image.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces)
    return atoms


def _is_calculator(thing: object) -> bool:
    return not isinstance(thing, type) and all(hasattr(thing, method) for method in _CALCULATOR_METHODS)


def _calculator(parent: Parent, directory: str | os.PathLike[str]) -> BaseCalculator:
    if not _is_calculator(parent):
        Path(directory).mkdir(parents=True, exist_ok=True)
        return parent(str(directory))
    try:
        return copy.deepcopy(parent)
    except Exception:  # some calculators hold what cannot be copied (files, sockets, libraries)
        return parent


def _fault(energy: float, forces: np.ndarray, n_atoms: int, calculator: BaseCalculator) -> str | None:
    """What is wrong with a label, or None."""
    if forces.shape != (n_atoms, 3):
        return f"forces of shape {forces.shape} for {n_atoms} atoms"
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        return f"energy or forces are not finite (energy {energy} eV)"
    if (largest := np.abs(forces).max(initial=0.0)) > ABSURD_FORCE:
        return f"a force component of {largest:.3g} eV/Å is beyond {ABSURD_FORCE:.0e} eV/Å"
    if _says_unconverged(calculator):
        return "the parent calculator says that it did not converge"
    return None


def _says_unconverged(calculator: BaseCalculator) -> bool:
    """Ask those calculators that can tell; ASE has no common way."""
    flag = getattr(calculator, "converged", None)
    if callable(flag):
        try:
            flag = flag()
        except Exception:  # not that kind of `converged`
            return False
    return flag is False
