"""Labelled structures around one crystal: the relaxation of its cell, and rattled copies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.calculators.fd import FiniteDifferenceCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import StrainFilter
from ase.optimize import BFGS

from amp.nft.errors import LabellingError
from amp.nft.inputs.geometry import nearest_distances
from amp.nft.inputs.structures import enforce_magnetic_moments
from amp.nft.labels.gate import Label, check
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Parent, labelled, make_calculator, remove_if_empty, report
from amp.nft.records import LabelOptions
from amp.nft.system.isolation import isolated

Log = Callable[[str], object]

NEAR_CELL = 0.3  # eV of the whole cell: frames of a relaxation this near its end are images
NEAR_ATOM = 0.4  # eV per atom: a rattled structure may be this far above the relaxed one
FMAX, STEPS = 0.05, 200  # of the relaxation of a cell: stress times volume (eV), and when to give it up
CLUSTER_FMAX, CLUSTER_STEPS = 0.3, 15  # of the relaxation of a cluster: eV/Å; it only has to get near
STRAIN = 0.03  # largest change of the size of a rattled cluster
TRIES = 100  # rattlings per image that is requested
SHRINK = 0.8  # of a crystal's own shortest distance, where minsep is above that
STRAIN_STEP = 1e-3  # of the finite differences that replace a missing stress: large enough for a self-consistent parent


@dataclass(frozen=True)
class Crystal:
    """A crystal: its name, True if it has several elements, its atoms."""

    name: str
    mixed: bool
    atoms: Atoms


@dataclass(frozen=True)
class Rattling:
    """Number of rattled structures, their least distance of two atoms and the standard deviation of displacements, Å."""

    number: int
    minsep: float
    posamp: float


def relaxed_cell(crystal: Crystal, parent: Parent, directory: Path, log: Log) -> list[Atoms]:
    """Relax a cell until it has no stress.

    Parameters
    ----------
    crystal : Crystal
    parent : calculator or callable
    directory : Path
        Directory in which the parent works.
    log : callable
        Takes a message.

    Returns
    -------
    list of Atoms
        Labelled frames of the relaxation; the last one is the relaxed cell.
    """
    atoms = crystal.atoms.copy()
    frames: list[Atoms] = []
    with _parent_at_work(crystal.name, atoms, parent, directory):
        _ensure_stress(atoms)
        relaxation = BFGS(StrainFilter(atoms), logfile=os.devnull)  # type: ignore[arg-type]
        relaxation.attach(lambda: frames.append(_snapshot(atoms)))
        finished = relaxation.run(fmax=FMAX, steps=STEPS)
    if not finished:
        log(f"{crystal.name}: still under stress after {STEPS} steps; its last cell is taken.")
    final = frames[-1].get_potential_energy()
    chosen = [frame for frame in frames if abs(frame.get_potential_energy() - final) < NEAR_CELL]
    log(
        f"{crystal.name}: cell relaxed in {len(frames) - 1} steps to {final / len(atoms):.3f} eV/atom, shortest distance "
        f"{shortest_distance(frames[-1]):.2f} Å; {len(chosen)} of {len(frames)} frames taken."
    )
    return chosen


def relaxed_cluster(crystal: Crystal, size: int, parent: Parent, directory: Path, rng: np.random.Generator, log: Log) -> Atoms:
    """Cut the atoms of a crystal nearest to a random point, and relax them for a few steps as a free cluster.

    Parameters
    ----------
    crystal : Crystal
    size : int
        Number of atoms.
    parent : calculator or callable
    directory : Path
        Directory in which the parent works.
    rng : numpy.random.Generator
    log : callable
        Takes a message.

    Returns
    -------
    Atoms
        Labelled.
    """
    atoms = cut_cluster(crystal.atoms, size, rng)
    if crystal.mixed:
        atoms.symbols = rng.permutation(atoms.symbols)
        enforce_magnetic_moments(atoms)
    with _parent_at_work(crystal.name, atoms, parent, directory):
        BFGS(atoms, logfile=os.devnull).run(fmax=CLUSTER_FMAX, steps=CLUSTER_STEPS)
        cluster = _snapshot(atoms)
    log(f"{crystal.name}: free cluster of {size} atoms relaxed to {cluster.get_potential_energy() / size:.3f} eV/atom.")
    return cluster


def cut_cluster(atoms: Atoms, size: int, rng: np.random.Generator) -> Atoms:
    """Return the given number of a crystal's atoms around a random point of its cell, as a free cluster.

    Parameters
    ----------
    atoms : Atoms
        A periodic cell.
    size : int
    rng : numpy.random.Generator

    Returns
    -------
    Atoms
        Without a cell.
    """
    planes = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)  # distances of opposite faces
    radius = 2 * (size * atoms.get_volume() / len(atoms)) ** (1 / 3) + atoms.cell.lengths().max()
    repeats = 2 * np.ceil(radius / planes).astype(int) + 1
    block = atoms.repeat(repeats.tolist())
    point = (rng.uniform(size=3) + repeats // 2) @ atoms.cell.array
    nearest = np.argsort(np.linalg.norm(block.positions - point, axis=1), kind="stable")[:size]
    cluster = block[nearest]
    cluster.set_cell(None)
    cluster.pbc = False
    return cluster


def rattled(crystal: Crystal, base: Atoms, wanted: Rattling, rng: np.random.Generator, log: Log) -> list[Atoms]:
    """Return copies with their atoms displaced, no two atoms closer than `minsep`; free ones are also strained.

    Parameters
    ----------
    crystal : Crystal
    base : Atoms
        Doubled cell, or free cluster.
    wanted : Rattling
    rng : numpy.random.Generator
    log : callable

    Returns
    -------
    list of Atoms

    Raises
    ------
    ValueError
        If no copy keeps the distance.
    """
    minsep, own = wanted.minsep, shortest_distance(base)
    if own < minsep:
        log(f"{crystal.name}: minsep = {minsep} Å is above its shortest distance; {SHRINK * own:.2f} Å is taken for it.")
        minsep = SHRINK * own
    found: list[Atoms] = []
    for _ in range(TRIES * wanted.number):
        if len(found) == wanted.number:
            break
        copy = _displaced(base, crystal.mixed, wanted.posamp, rng)
        if shortest_distance(copy) >= minsep:
            found.append(copy)
    if wanted.number and not found:
        raise ValueError(
            f"{crystal.name}: none of {TRIES * wanted.number} cells rattled by posamp = {wanted.posamp} Å keeps all atoms minsep = "
            f"{minsep:.2f} Å apart (its shortest distance is {own:.2f} Å): lower posamp or minsep."
        )
    if len(found) < wanted.number:
        log(f"{crystal.name}: only {len(found)} of {TRIES * wanted.number} rattled cells keep all atoms {minsep:.2f} Å apart.")
    return found


def labelled_copies(
    crystal: Crystal, copies: list[Atoms], relaxed: Atoms, options: LabelOptions, directory: Path, log: Log
) -> list[Atoms]:  # fmt: skip
    """Label rattled copies, and choose those that are not too high in energy above the relaxed structure.

    Parameters
    ----------
    crystal : Crystal
    copies : list of Atoms
    relaxed : Atoms
        Labelled.
    options : LabelOptions
    directory : Path
        Directory in which the parent works.
    log : callable
        Takes a message.

    Returns
    -------
    list of Atoms
        In the order of the copies.

    Raises
    ------
    LabellingError
        No copy could be labelled.
    """
    outcomes = {}
    with LabelPool(options, directory) as pool:
        for number, copy in enumerate(copies):
            pool.request(number, copy)
        for number, outcome in pool.done():
            outcomes[number] = outcome
            pool.tidy(number)
    images = [labelled(copies[i], label) for i, label in sorted(outcomes.items()) if isinstance(label, Label)]
    failures = [outcome for _, outcome in sorted(outcomes.items()) if not isinstance(outcome, Label)]
    for failure in failures:
        log(f"{crystal.name}: a rattled cell could not be labelled: {failure}")
    if copies and not images:
        raise LabellingError(f"{crystal.name}: none of {len(copies)} rattled cells could be labelled: {failures[0]}.")
    ceiling = relaxed.get_potential_energy() / len(relaxed) + NEAR_ATOM
    chosen = [image for image in images if image.get_potential_energy() / len(image) <= ceiling]
    size = len(copies[0]) if copies else 0
    log(f"{crystal.name}: {len(chosen)} of {len(copies)} rattled {'cells' if relaxed.pbc.any() else 'clusters'} of {size} atoms taken.")
    return chosen


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance between two atoms, periodic images included.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    float
        In Å; inf for one free atom.
    """
    # An atom's own image is nearer than this, however it is rounded.
    span = max(atoms.cell.lengths()) if atoms.pbc.any() else float(np.linalg.norm(np.ptp(atoms.positions, axis=0))) + 1.0
    return float(nearest_distances(atoms, 1.001 * span).min())


def _displaced(base: Atoms, mixed: bool, posamp: float, rng: np.random.Generator) -> Atoms:
    copy = base.copy()
    if mixed:
        copy.symbols = rng.permutation(copy.symbols)
        enforce_magnetic_moments(copy)
    if not copy.pbc.any():
        copy.positions *= 1 + rng.uniform(-STRAIN, STRAIN)
    copy.positions += rng.normal(scale=posamp, size=copy.positions.shape)
    return copy


def _ensure_stress(atoms: Atoms) -> None:
    """Replace a stress that the parent does not have by finite differences."""
    try:
        atoms.get_stress()
    except PropertyNotImplementedError:
        atoms.calc = FiniteDifferenceCalculator(atoms.calc, eps_disp=None, eps_strain=STRAIN_STEP, force_consistent=False)


@contextlib.contextmanager
def _parent_at_work(name: str, atoms: Atoms, parent: Parent, directory: Path) -> Iterator[None]:
    """Attach the parent to a structure, isolated and gated as for a label."""
    with isolated(f"{name} {directory.name}") as scope:
        calculator = make_calculator(parent, directory)
        scope.keep_programs = calculator is parent
        atoms.calc = _Gated(calculator)
        yield
    remove_if_empty(directory)


class _Gated(BaseCalculator):
    """A parent whose results pass the gate for labels; it gets a copy of the atoms.

    Parameters
    ----------
    parent : ASE calculator
    """

    implemented_properties = ("energy", "forces", "stress")  # type: ignore[assignment]

    def __init__(self, parent: BaseCalculator) -> None:
        super().__init__()
        self._parent = parent

    def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str]) -> None:
        """Compute energy and forces, and stress if it is requested; LabellingError if the gate refuses them."""
        given = atoms.copy()
        given.calc = self._parent
        label = check(atoms, report(given))
        if not isinstance(label, Label):
            raise LabellingError(f"a structure of the relaxation of {atoms.get_chemical_formula()} has no good label: {label}")
        self.results = {"energy": label.energy, "forces": label.forces}
        if "stress" in properties:
            self.results["stress"] = given.get_stress()


def _snapshot(atoms: Atoms) -> Atoms:
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return frame
