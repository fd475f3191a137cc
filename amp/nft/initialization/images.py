"""Labelled bulk cells from space groups: relax the cell, double it, rattle the atoms."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import FiniteDifferenceCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import StrainFilter
from ase.io import write
from ase.optimize import BFGS

from amp.nft.amp_io.log import Logger, RunLog
from amp.nft.features import symbols_of
from amp.nft.initialization.crystals import alloy, crystal_system, host_crystal
from amp.nft.inputs.geometry import nearest_distances
from amp.nft.inputs.structures import enforce_magnetic_moments
from amp.nft.labels.executors import Executors
from amp.nft.labels.pool import LabelPool, check_label_options
from amp.nft.labels.single_point import Label, Parent, labelled, make_calculator
from amp.nft.records import LabelOptions

GROUPS = (10, 79, 225)  # Amp's default: one monoclinic, one tetragonal, one cubic
NEAR_CELL = 0.3  # eV of the whole cell: frames of a relaxation this near its end are images
NEAR_ATOM = 0.4  # eV per atom: a rattled cell may lie this far above the crystal that it came from
FMAX, STEPS = 0.05, 200  # of the relaxation of a cell: stress times volume (eV), and when to give it up
TRIES = 100  # rattlings per image that is wanted
SHRINK = 0.8  # of a crystal's own shortest distance, where minsep is above that
STRAIN = 1e-3  # of the finite differences that stand in for a stress: large enough for a self-consistent parent


def initial_images(
    elements: str | Sequence[str],
    sgs: int | Iterable[int] = GROUPS,
    a0: float = 4.0,
    minsep: float = 1.6,
    posamp: float = 0.15,
    parent_calc: Parent | None = None,
    *,
    n_rattled: int = 10,
    seed: int = 0,
    executor: Executors | None = None,
    directory: str | os.PathLike[str] = "initial-labels",
    log: Callable[[str], object] = lambda message: None,
) -> list[Atoms]:
    """Label small bulk cells for the first training.

    For each space group a crystal of each element is made, and one of all elements together where there are several.
    Its cell is relaxed until it is free of stress; frames of the relaxation that end within 0.3 eV of it are images. The
    relaxed cell is then doubled in each direction, its elements shuffled where there are several, its atoms rattled, and
    kept if no two are too close and the energy is no more than 0.4 eV per atom above that of the crystal.

    Parameters
    ----------
    elements : list of str, or str
        Chemical symbols, ``['Cu', 'Au']``, or a formula that holds them, ``'CuAu'``. Any number of them.
    sgs : iterable of int, or int
        Numbers of space groups, 1 to 230. The site at the origin is occupied (at 1/3, 2/3, 3/4 in trigonal and hexagonal
        groups), so that 225 gives fcc, 229 bcc, 221 simple cubic, 227 diamond and 194 hcp.
    a0 : float
        First guess of the lattice constant, Å. Edges and angles that the crystal system leaves free are drawn around it.
    minsep : float
        Least distance of two atoms in a rattled cell, Å. For a crystal that is denser by itself, 0.8 of its own
        shortest distance is taken, and the log says so.
    posamp : float
        Standard deviation of the displacements along each axis, Å.
    parent_calc : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator. EMT() if not given. Where it has no stress, cells are
        relaxed by finite differences of the energy.
    n_rattled : int
        Rattled cells that are labelled for each crystal.
    seed : int
        Seed of all that is random.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Labels the rattled cells, as in :meth:`amp.nft.activelearner.NFT.run`.
    directory : path
        Where the parent's own files go; nothing is left there for a parent that writes none.
    log : callable
        Takes a message.

    Returns
    -------
    list of Atoms
        With energies (eV) and forces (eV/Å).

    Raises
    ------
    ValueError
        For an element or space group that does not exist, or a number out of range, before any work starts; if rattling
        does not lead to any cell with `minsep`.
    TypeError
        If the parent is none.
    RuntimeError
        If none of a crystal's cells can be labelled.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022); in the spirit of random structure searching,
    C. J. Pickard, R. J. Needs, J. Phys.: Condens. Matter 23, 053201 (2011).
    """
    parent = EMT() if parent_calc is None else parent_calc
    sgs = [sgs] if isinstance(sgs, int | np.integer) else list(sgs)
    symbols = _checked(elements, sgs, n_rattled, seed, a0=a0, minsep=minsep, posamp=posamp)
    check_label_options(LabelOptions(parent, executor))
    crystals = [
        _Crystal(f"space group {group}, {atoms.get_chemical_formula()}", len(set(atoms.symbols)) > 1, atoms)
        for number, group in enumerate(sgs)
        for atoms in _crystals(symbols, group, a0, np.random.default_rng([seed, number]))
    ]
    images: list[Atoms] = []
    for number, one in enumerate(crystals):
        place = Path(directory) / str(number)
        frames = _relaxation(one, parent, place / "cell", log)
        rattled = _rattled(one, frames[-1], minsep, posamp, n_rattled, np.random.default_rng([seed, number, 1]), log)
        images += frames + _labelled(one, rattled, frames[-1], parent, executor, place, log)
        _remove_if_empty(place)
    _remove_if_empty(Path(directory))
    return images


class Initialization:
    """Make the first training images and save them, as Amp's class of this name does; see `initial_images`.

    The work is done when the object is made.

    Parameters
    ----------
    elements, sgs, a0, minsep, posamp, parent_calc : as there
        As for `initial_images`.
    log : str, path or amp.utilities.Logger, optional
        Where to log; standard output if not given.
    trajfile : str or path, optional
        The file to write, in any format of ASE; ``initial.traj`` if not given.
    seed : int
        Seed of all that is random.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Labels the rattled cells.

    Attributes
    ----------
    images : list of Atoms
        What was saved.
    """

    def __init__(
        self,
        elements: str | Sequence[str],
        sgs: int | Iterable[int] | None = None,
        a0: float = 4.0,
        minsep: float = 1.6,
        posamp: float = 0.15,
        parent_calc: Parent | None = None,
        log: str | os.PathLike[str] | Logger | None = None,
        trajfile: str | os.PathLike[str] | None = None,
        *,
        seed: int = 0,
        executor: Executors | None = None,
    ) -> None:
        self._log = RunLog(log)
        self._make = partial(
            initial_images, elements, GROUPS if sgs is None else sgs, a0, minsep, posamp, parent_calc,
            seed=seed, executor=executor, log=self._log,
        )  # fmt: skip
        self.images: list[Atoms] = []
        self.create(trajfile)

    def create(self, filename: str | os.PathLike[str] | None = None) -> int:
        """Make the images and save them.

        Parameters
        ----------
        filename : str or path, optional
            The file to write; ``initial.traj`` if not given.

        Returns
        -------
        int
            How many there are.
        """
        path = Path(filename or "initial.traj")
        self.images = self._make(directory=path.with_name(f"{path.stem}-labels"))
        write(path, self.images)
        self._log(f"{len(self.images)} images saved in {path}.")
        return len(self.images)


@dataclass(frozen=True)
class _Crystal:
    """A crystal as it is made: what it is, whether it is of several elements, its atoms."""

    name: str
    mixed: bool
    atoms: Atoms


def _checked(elements: str | Sequence[str], sgs: list[int], n_rattled: int, seed: int, **lengths: float) -> list[str]:
    """Chemical symbols, each once; ValueError for what cannot be."""
    symbols = symbols_of(elements)
    if not sgs:
        raise ValueError("sgs is empty: give at least one space group, 225 for fcc.")
    for group in sgs:
        crystal_system(group)
    for name, value in lengths.items():
        if not value > 0:
            raise ValueError(f"{name} is {value!r} Å: it must be above 0.")
    for name, value in (("n_rattled", n_rattled), ("seed", seed)):
        if not (isinstance(value, int | np.integer) and value >= 0):
            raise ValueError(f"{name} is {value!r}: it must be an integer, at least 0.")
    return symbols


def _crystals(symbols: list[str], group: int, a0: float, rng: np.random.Generator) -> list[Atoms]:
    """A crystal of each element, and one of all of them."""
    host = host_crystal(symbols[0], group, a0, rng)
    crystals = []
    for symbol in symbols:
        pure = host.copy()
        pure.symbols = symbol
        crystals.append(pure)
    if len(symbols) > 1:
        crystals.append(alloy(host, symbols, rng))
    return [enforce_magnetic_moments(atoms) for atoms in crystals]


def _relaxation(crystal: _Crystal, parent: Parent, directory: Path, log: Callable[[str], object]) -> list[Atoms]:
    """Frames on the way to a cell without stress, labelled; the last one is the relaxed cell."""
    atoms = crystal.atoms.copy()
    atoms.calc = make_calculator(parent, directory)
    _ensure_stress(atoms)
    frames: list[Atoms] = []
    relaxation = BFGS(StrainFilter(atoms), logfile=os.devnull)  # type: ignore[arg-type]
    relaxation.attach(lambda: frames.append(_snapshot(atoms)))
    if not relaxation.run(fmax=FMAX, steps=STEPS):
        log(f"{crystal.name}: still under stress after {STEPS} steps; its last cell is taken.")
    final = frames[-1].get_potential_energy()
    chosen = [frame for frame in frames if abs(frame.get_potential_energy() - final) < NEAR_CELL]
    log(
        f"{crystal.name}: cell relaxed in {len(frames) - 1} steps to {final / len(atoms):.3f} eV/atom, shortest distance "
        f"{shortest_distance(frames[-1]):.2f} Å; {len(chosen)} of {len(frames)} frames taken."
    )
    return chosen


def _ensure_stress(atoms: Atoms) -> None:
    """Let finite differences stand in for a stress that the parent does not have."""
    try:
        atoms.get_stress()
    except PropertyNotImplementedError:
        atoms.calc = FiniteDifferenceCalculator(atoms.calc, eps_disp=None, eps_strain=STRAIN, force_consistent=False)


def _snapshot(atoms: Atoms) -> Atoms:
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return frame


def _rattled(
    crystal: _Crystal, relaxed: Atoms, minsep: float, posamp: float, number: int, rng: np.random.Generator,
    log: Callable[[str], object],
) -> list[Atoms]:  # fmt: skip
    """Doubled cells with their atoms displaced, none closer than `minsep`."""
    doubled = relaxed.repeat(2)
    own = shortest_distance(doubled)
    if own < minsep:
        log(f"{crystal.name}: minsep = {minsep} Å is above its shortest distance; {SHRINK * own:.2f} Å is taken for it.")
        minsep = SHRINK * own
    found: list[Atoms] = []
    for _ in range(TRIES * number):
        if len(found) == number:
            break
        cell = doubled.copy()
        if crystal.mixed:
            cell.symbols = rng.permutation(cell.symbols)
            enforce_magnetic_moments(cell)
        cell.positions += rng.normal(scale=posamp, size=cell.positions.shape)
        if shortest_distance(cell) >= minsep:
            found.append(cell)
    if number and not found:
        raise ValueError(
            f"{crystal.name}: none of {TRIES * number} cells rattled by posamp = {posamp} Å keeps all atoms minsep = "
            f"{minsep:.2f} Å apart (its shortest distance is {own:.2f} Å): lower posamp or minsep."
        )
    if len(found) < number:
        log(f"{crystal.name}: only {len(found)} of {TRIES * number} rattled cells keep all atoms {minsep:.2f} Å apart.")
    return found


def _labelled(
    crystal: _Crystal, cells: list[Atoms], relaxed: Atoms, parent: Parent, executor: Executors | None, directory: Path,
    log: Callable[[str], object],
) -> list[Atoms]:  # fmt: skip
    """Those of the rattled cells that can be labelled and are not too high in energy, in their order."""
    outcomes = {}
    with LabelPool(LabelOptions(parent, executor), directory) as pool:
        for number, cell in enumerate(cells):
            pool.request(number, cell)
        for number, outcome in pool.done():
            outcomes[number] = outcome
            pool.tidy(number)
    images = [labelled(cells[i], label) for i, label in sorted(outcomes.items()) if isinstance(label, Label)]
    failures = [outcome for _, outcome in sorted(outcomes.items()) if not isinstance(outcome, Label)]
    for failure in failures:
        log(f"{crystal.name}: a rattled cell could not be labelled: {failure}")
    if cells and not images:
        raise RuntimeError(f"{crystal.name}: none of {len(cells)} rattled cells could be labelled: {failures[0]}.")
    ceiling = relaxed.get_potential_energy() / len(relaxed) + NEAR_ATOM
    chosen = [image for image in images if image.get_potential_energy() / len(image) <= ceiling]
    log(f"{crystal.name}: {len(chosen)} of {len(cells)} rattled cells of {len(relaxed) * 8} atoms taken.")
    return chosen


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # the parent's files are in it, or there is none
        directory.rmdir()


def shortest_distance(atoms: Atoms) -> float:
    """Distance of the two atoms that are nearest to each other, periodic images included, Å."""
    # an atom's own image is nearer than this, however it is rounded
    return float(nearest_distances(atoms, 1.001 * max(atoms.cell.lengths())).min())
