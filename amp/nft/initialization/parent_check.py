"""Checks of the first images: the parent must give their labels, and their cells must be large enough for it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from amp.nft.errors import LabellingError, ParentMismatch
from amp.nft.labels.executors import Executors
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, LabelFailure, Parent, parent_name, single_point
from amp.nft.records import LabelOptions

SAME_FORCES = 0.02  # eV/Å per component
SAME_ENERGY = 0.005  # eV/atom
SIZABLE_FORCE = 0.05  # eV/Å; an image without forces cannot show other units or another parent
PROPORTIONAL = 0.02  # residual, of the stored forces, below which the parent's are a multiple of them

_UNITS = {  # stored force by the parent's, if the stored one has other units
    "eV/Bohr": 0.529177, "Hartree/Bohr": 1 / 51.42207, "Rydberg/Bohr": 1 / 25.71104, "Hartree/Å": 1 / 27.211386,
    "kcal/mol/Å": 23.06055, "kJ/mol/Å": 96.48533, "eV/Å with the opposite sign (a gradient)": -1.0,
}  # fmt: skip


@dataclass(frozen=True)
class ParentComparison:
    """One first image, as stored and as the parent labels it; print it for both, the likely causes and the remedy.

    Attributes
    ----------
    image : int
        Its index.
    formula : str
    stored, parent : Label
        Energy (eV), forces (eV/Å) and, for the parent, seconds.
    periodic : bool
    parent_name : str
    """

    image: int
    formula: str
    stored: Label
    parent: Label
    periodic: bool
    parent_name: str

    @property
    def energy_difference(self) -> float:
        """Energy of the parent minus the stored one, eV/atom."""
        return (self.parent.energy - self.stored.energy) / len(self.stored.forces)

    @property
    def force_difference(self) -> float:
        """Largest difference of a force component, eV/Å."""
        return float(np.abs(self.parent.forces - self.stored.forces).max())

    @property
    def forces_agree(self) -> bool:
        """True if all force components agree within 0.02 eV/Å, or 2 % of the largest stored one."""
        return self.force_difference <= max(SAME_FORCES, PROPORTIONAL * float(np.abs(self.stored.forces).max()))

    @property
    def energies_agree(self) -> bool:
        """True if the energies agree within 5 meV/atom."""
        return abs(self.energy_difference) <= SAME_ENERGY

    @property
    def agrees(self) -> bool:
        """True if forces and energies agree."""
        return self.forces_agree and self.energies_agree

    def causes(self) -> str:
        """Return the likely causes of a difference, and the remedy.

        Returns
        -------
        str
            Empty if nothing differs.
        """
        if self.agrees:
            return ""
        if self.forces_agree:
            return (
                "Forces agree and energies do not: the stored energies have another zero (total or per-atom references), or other "
                "units. Label the images with this parent, or shift their energies."
            )
        if (unit := self._unit()) is not None:
            return f"The stored forces are proportional to the parent's, as in {unit}: convert energies to eV and forces to eV/Å."
        points = "k-points or cut-off energy, " if self.periodic else "basis set or cut-off energy, "
        return (
            f"Likely causes: another parent, functional or method, {points}spin, electronic temperature, or a calculator that did not "
            f"converge. Label all images with {self.parent_name} as it is given here, or give the parent that labelled them."
        )

    def raise_if_different(self) -> None:
        """Raise ParentMismatch if forces or energies differ."""
        if not self.agrees:
            raise ParentMismatch(str(self))

    def _unit(self) -> str | None:
        """Return the unit in which the stored forces would equal the parent's."""
        here, there = self.stored.forces.ravel(), self.parent.forces.ravel()
        if not there.any():
            return None
        factor = float(here @ there / (there @ there))
        if np.linalg.norm(here - factor * there) > PROPORTIONAL * np.linalg.norm(here):
            return None
        return next((unit for unit, value in _UNITS.items() if abs(factor / value - 1) < PROPORTIONAL), None)

    def __str__(self) -> str:
        n = len(self.stored.forces)
        largest = [float(np.abs(label.forces).max()) for label in (self.stored, self.parent)]
        head = (
            f"images[{self.image}] ({self.formula}): stored energy {self.stored.energy / n:.4f} eV/atom, {self.parent_name} gives "
            f"{self.parent.energy / n:.4f}; largest stored force component {largest[0]:.3f} eV/Å, {self.parent_name} gives "
            f"{largest[1]:.3f}; force components differ by up to {self.force_difference:.3f} eV/Å."
        )
        return f"{head} {self.causes()}".rstrip()


def compare_with_parent(
    images: Sequence[Atoms], parent: Parent, directory: str | os.PathLike[str] | None = None, executor: Executors | None = None
) -> ParentComparison:
    """Label one first image again, before anything is trained, and compare it with its stored label.

    Parameters
    ----------
    images : sequence of Atoms
        With energies and forces.
    parent : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator.
    directory : path, optional
        Where the parent's files go; a temporary one if not given.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Makes the label; this process if not given.

    Returns
    -------
    ParentComparison
        Of the free image with the fewest atoms, or the cell with the fewest if none is free. Images without forces are used only
        if all are.

    Raises
    ------
    LabellingError
        If the parent cannot label it.
    """
    chosen = min(range(len(images)), key=lambda i: (_at_rest(images[i]), bool(images[i].pbc.any()), len(images[i])))
    image = images[chosen]
    with _place(directory) as place:
        label = _made(parent, image, place / "images", executor)
    if not isinstance(label, Label):
        raise LabellingError(
            f"{parent_name(parent)} cannot label images[{chosen}] ({image.get_chemical_formula()}): {label}. Make it label this image."
        )
    return ParentComparison(chosen, image.get_chemical_formula(), _stored(image), label, bool(image.pbc.any()), parent_name(parent))


@dataclass(frozen=True)
class CellCheck:
    """One periodic image against its cell doubled along the shortest axis; print it for the numbers and the remedy.

    Attributes
    ----------
    name : str
    axis : int
        The axis that was doubled.
    energy_difference : float
        Energy per atom of the doubled cell minus that of the cell, eV.
    force_difference : float
        Largest difference of a force component, eV/Å.
    """

    name: str
    axis: int
    energy_difference: float
    force_difference: float

    @property
    def agrees(self) -> bool:
        """True if energies agree within 5 meV/atom, and force components within 0.02 eV/Å."""
        return abs(self.energy_difference) <= SAME_ENERGY and self.force_difference <= SAME_FORCES

    def raise_if_different(self) -> None:
        """Raise ParentMismatch if energy or forces differ."""
        if not self.agrees:
            raise ParentMismatch(str(self))

    def __str__(self) -> str:
        head = (
            f"{self.name}: doubled along axis {self.axis}, its energy differs by {1000 * self.energy_difference:.1f} meV/atom and its "
            f"forces by up to {self.force_difference:.3f} eV/Å"
        )
        if self.agrees:
            return f"{head}: large enough."
        return (
            f"{head}; at most {1000 * SAME_ENERGY:.0f} meV/atom and {SAME_FORCES} eV/Å are allowed. The cell is too small for the parent's "
            "k-points: use more k-points, larger cells, or free clusters (initial_images(..., clusters=(13, 38))) as first images."
        )


def check_cell_size(
    image: Atoms, parent: Parent, directory: str | os.PathLike[str] | None = None, name: str = "The cell", executor: Executors | None = None
) -> CellCheck:
    """Double a labelled periodic image along its shortest periodic axis, once, and compare energy per atom and forces.

    Parameters
    ----------
    image : Atoms
        Periodic, with energy and forces of this parent.
    parent : ASE calculator, or callable
    directory : path, optional
        Where the parent's files go; a temporary one if not given.
    name : str
        Name of the image in messages.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Makes the label; this process if not given.

    Returns
    -------
    CellCheck

    Raises
    ------
    LabellingError
        If the parent cannot label the doubled cell.
    """
    axis = int(np.argmin(np.where(image.pbc, np.round(image.cell.lengths(), 6), np.inf)))
    doubled = image.copy().repeat([2 if k == axis else 1 for k in range(3)])
    with _place(directory) as place:
        label = _made(parent, doubled, place / "doubled", executor)
    if not isinstance(label, Label):
        raise LabellingError(f"{parent_name(parent)} cannot label {name} doubled along axis {axis}: {label}.")
    stored = _stored(image)
    energy = label.energy / len(doubled) - stored.energy / len(image)
    return CellCheck(name, axis, energy, float(np.abs(label.forces - np.tile(stored.forces, (2, 1))).max()))


def check_cell_sizes(
    images: Sequence[Atoms], parent: Parent, directory: str | os.PathLike[str] | None = None, executor: Executors | None = None
) -> list[CellCheck]:
    """Check the periodic images with the shortest axis, one for each set of elements; see `check_cell_size`.

    Parameters
    ----------
    images : sequence of Atoms
        With energies and forces of this parent.
    parent : ASE calculator, or callable
    directory : path, optional
        Where the parent's files go; a temporary one if not given.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Makes the labels; this process if not given.

    Returns
    -------
    list of CellCheck
        Empty if no image is periodic.
    """
    shortest: dict[frozenset[str], tuple[float, int]] = {}
    for i, image in enumerate(images):
        if image.pbc.any():
            length = float(image.cell.lengths()[image.pbc].min())
            elements = frozenset(image.symbols)
            shortest[elements] = min(shortest.get(elements, (np.inf, -1)), (length, i))
    found = [i for _, i in shortest.values()]
    names = [f"images[{i}] ({images[i].get_chemical_formula()})" for i in found]
    return [check_cell_size(images[i], parent, directory, name, executor) for i, name in zip(found, names, strict=True)]


def _made(parent: Parent, image: Atoms, place: Path, executor: Executors | None) -> Label | LabelFailure:
    """Return the parent's label of an image, made where the run's labels are made."""
    if executor is None:
        return single_point(parent, image, place)
    with LabelPool(LabelOptions(parent, executor, retries=0), place) as pool:
        pool.request(0, image)
        ((_, outcome),) = pool.done()
        if isinstance(outcome, Label):
            pool.tidy(0)
    return outcome


def _stored(image: Atoms) -> Label:
    return Label(float(image.get_potential_energy(apply_constraint=False)), image.get_forces(apply_constraint=False), 0.0)


def _at_rest(image: Atoms) -> bool:
    return bool(np.abs(image.get_forces(apply_constraint=False)).max() < SIZABLE_FORCE)


@contextmanager
def _place(directory: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield the directory, or a temporary one."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)
