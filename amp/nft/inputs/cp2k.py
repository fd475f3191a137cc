"""Trajectories of CP2K as images: places, forces and cells are in separate files, which ASE does not join."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.units import Bohr, Hartree

from amp.nft.errors import InputError

_PLACES = re.compile(r"(?P<project>.+)-pos-(?P<run>\d+)\.xyz")
_STEP = re.compile(r"i\s*=\s*(\d+)")
_ENERGY = re.compile(r"\bE\s*=\s*(\S+)")
_PERIODIC = re.compile(r"^\s*PERIODIC\s+(\w+)", re.MULTILINE)


def has_cp2k_forces(path: Path) -> bool:
    """Return True if a file is a trajectory ``PROJECT-pos-1.xyz`` next to ``PROJECT-frc-1.xyz``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    return _PLACES.fullmatch(path.name) is not None and _other(path, "frc-{run}.xyz").is_file()


def read_cp2k(path: Path) -> list[Atoms]:
    """Read a trajectory of CP2K with energies and forces.

    Parameters
    ----------
    path : Path
        ``PROJECT-pos-1.xyz``; forces are in ``PROJECT-frc-1.xyz``, the cell in ``PROJECT-1.cell`` or ``PROJECT-1.restart``.

    Returns
    -------
    list of Atoms
        One for each step that both files have, in Å, eV and eV/Å.

    Raises
    ------
    InputError
        The cell is not known, or the files have no step in common.
    """
    places, forces, cell = _steps(path), _steps(_other(path, "frc-{run}.xyz")), _Cell(path)
    images = []
    for step in sorted(places.keys() & forces.keys()):
        atoms, comment = places[step]
        cell.set(atoms, step)
        if (energy := _ENERGY.search(comment)) is None:
            raise InputError(f"{path.name} has no energy E = ... in the comment of step {step}: it is not a trajectory of CP2K.")
        found = forces[step][0].positions * (Hartree / Bohr)  # the three columns of a force
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy[1]) * Hartree, forces=found)
        images.append(atoms)
    if not images:
        raise InputError(f"{path.name} and its file of forces have no step in common: print both at the same steps.")
    return images


def _steps(path: Path) -> dict[int, tuple[Atoms, str]]:
    """Return the atoms and the comment of each step."""
    lines = path.read_text(encoding="utf-8").splitlines()
    frames: list[Atoms] = read(path, index=":", format="xyz")  # type: ignore[assignment]
    first, found = 0, {}
    for atoms in frames:
        comment = lines[first + 1]
        if (step := _STEP.search(comment)) is None:
            raise InputError(f"{path.name} has no step i = ... in line {first + 2}: it is not a trajectory of CP2K.")
        found[int(step[1])] = atoms, comment
        first += len(atoms) + 2
    return found


class _Cell:
    """Cells of a trajectory: of each step, or one of all."""

    def __init__(self, path: Path) -> None:
        of_steps, restart = _other(path, "{run}.cell"), _other(path, "{run}.restart")
        self._of_steps: dict[int, np.ndarray] = {}
        if of_steps.is_file():
            table = np.loadtxt(of_steps, ndmin=2)
            self._of_steps = {int(row[0]): row[2:11].reshape(3, 3) for row in table}
        self._periodic = "XYZ"
        self._cell: np.ndarray | None = None
        if restart.is_file():
            known: Atoms = read(restart, format="cp2k-restart")  # type: ignore[assignment]
            self._cell = known.cell.array
            if found := _PERIODIC.search(restart.read_text(encoding="utf-8")):
                self._periodic = found[1].upper()
        elif not self._of_steps:
            raise InputError(f"{path.name}: the cell is not known; put {of_steps.name} or {restart.name} of the same run next to it.")

    def set(self, atoms: Atoms, step: int) -> None:
        """Give atoms the cell of a step."""
        cell = self._of_steps.get(step, self._cell)
        if cell is None:
            raise InputError(f"The cell of step {step} is not known: print cells and places at the same steps.")
        atoms.set_cell(cell)
        atoms.set_pbc([self._periodic != "NONE" and axis in self._periodic for axis in "XYZ"])


def _other(path: Path, rest: str) -> Path:
    """Return the name of another file of the same run."""
    name = _PLACES.fullmatch(path.name)
    assert name is not None
    return path.with_name(f"{name['project']}-{rest.format(run=name['run'])}")
