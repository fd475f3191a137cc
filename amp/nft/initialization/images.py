"""Labelled first images from space groups: relaxed cells, doubled and rattled; free clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write

from amp.nft.amp_io.log import Logger, RunLog
from amp.nft.errors import InputError
from amp.nft.features import symbols_of
from amp.nft.initialization.cells import (
    Crystal,
    Log,
    Rattling,
    labelled_copies,
    rattled,
    relaxed_cell,
    relaxed_cluster,
)
from amp.nft.initialization.crystals import alloy, crystal_system, host_crystal
from amp.nft.initialization.parent_check import check_cell_size
from amp.nft.inputs.arguments import check_count
from amp.nft.inputs.structures import enforce_magnetic_moments
from amp.nft.labels.executors import Executors
from amp.nft.labels.pool import check_label_options
from amp.nft.labels.single_point import Parent, remove_if_empty
from amp.nft.records import LabelOptions
from amp.nft.system.files import held

GROUPS = (10, 79, 225)  # Amp's default: one monoclinic, one tetragonal, one cubic
CheckCells = Literal["error", "warn", False]


def initial_images(
    elements: str | Sequence[str],
    sgs: int | Iterable[int] = GROUPS,
    a0: float = 4.0,
    minsep: float = 1.6,
    posamp: float = 0.15,
    parent_calc: Parent | None = None,
    *,
    n_rattled: int = 10,
    clusters: Sequence[int] = (),
    cells: bool = True,
    check_cells: CheckCells = "error",
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

    Free clusters are cut from the crystal, relaxed for up to 15 steps, strained by up to 3 % and rattled. They need no k-points, which
    makes them the safer choice for a parent that has the Γ point only.

    Parameters
    ----------
    elements : list of str, or str
        Chemical symbols, ``['Cu', 'Au']``, or a formula with them, ``'CuAu'``. Any number of them.
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
        Rattled cells that are labelled for each crystal, and rattled clusters for each crystal and size.
    clusters : sequence of int
        Numbers of atoms of free clusters, for example ``(13, 38)``.
    cells : bool
        Make cells. Without them, clusters are cut from crystals of the lattice constant `a0`.
    check_cells : 'error', 'warn' or False
        Double each relaxed cell along its shortest axis, once, before it is rattled: energies must agree within 5 meV/atom and force
        components within 0.02 eV/Å. Otherwise the parent's k-points are too few for the cell, and its images would spoil the training.
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
        For an element or space group that does not exist, a number out of range, or a directory in which another process
        makes images, before any work starts; if rattling does not lead to any cell with `minsep`.
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
    _check_kinds(clusters, cells, check_cells)
    options = LabelOptions(parent, executor)
    check_label_options(options)
    wanted = Rattling(n_rattled, minsep, posamp)
    images: list[Atoms] = []
    directory = Path(directory).absolute()  # a label may change the working directory
    with held(directory):
        for number, crystal in enumerate(_all_crystals(symbols, sgs, a0, seed)):
            place = directory / str(number)
            if cells:
                frames = relaxed_cell(crystal, parent, place / "cell", log)
                _check_relaxed(crystal, frames[-1], parent, place, check_cells, log)
                copies = rattled(crystal, frames[-1].repeat(2), wanted, np.random.default_rng([seed, number, 1]), log)
                images += frames + labelled_copies(crystal, copies, frames[-1], options, place, log)
                crystal = replace(crystal, atoms=frames[-1])
            for size in clusters:
                rng = np.random.default_rng([seed, number, 2, size])
                base = relaxed_cluster(crystal, size, parent, place / f"cluster-{size}", rng, log)
                copies = rattled(crystal, base, wanted, rng, log)
                images += [base, *labelled_copies(crystal, copies, base, options, place / f"rattled-{size}", log)]
                remove_if_empty(place / f"rattled-{size}")
            remove_if_empty(place)
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
        Saved images.
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
            Number of images.
        """
        path = Path(filename or "initial.traj")
        self.images = self._make(directory=path.with_name(f"{path.stem}-labels"))
        write(path, self.images)
        self._log(f"{len(self.images)} images saved in {path}.")
        return len(self.images)


def _checked(elements: str | Sequence[str], sgs: list[int], n_rattled: int, seed: int, **lengths: float) -> list[str]:
    """Return chemical symbols, each once; ValueError for other text."""
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


def _check_kinds(clusters: Sequence[int], cells: bool, check_cells: CheckCells) -> None:
    """Raise InputError for sizes or kinds of images that cannot be."""
    for size in clusters:
        check_count("clusters", size, 2, ": numbers of atoms, for example (13, 38)")
    if not (cells or len(clusters)):
        raise InputError("cells is False and clusters is empty: no image would be made; give clusters=(13, 38), for example.")
    if check_cells not in ("error", "warn", False):
        raise InputError(f"check_cells is {check_cells!r}: it must be 'error', 'warn' or False.")


def _check_relaxed(crystal: Crystal, relaxed: Atoms, parent: Parent, place: Path, check_cells: CheckCells, log: Log) -> None:
    """Double the relaxed cell once, unless that is not requested; a cell too small for the parent is an error or a line of the log."""
    if not check_cells:
        return
    check = check_cell_size(relaxed, parent, place, crystal.name)
    if check_cells == "error":
        check.raise_if_different()
    log(str(check))


def _all_crystals(symbols: list[str], sgs: list[int], a0: float, seed: int) -> list[Crystal]:
    """Return for each space group a crystal of each element, and one of all."""
    return [
        Crystal(f"space group {group}, {atoms.get_chemical_formula()}", len(set(atoms.symbols)) > 1, atoms)
        for number, group in enumerate(sgs)
        for atoms in _crystals(symbols, group, a0, np.random.default_rng([seed, number]))
    ]


def _crystals(symbols: list[str], group: int, a0: float, rng: np.random.Generator) -> list[Atoms]:
    """Yield a crystal of each element, and one of all elements."""
    host = host_crystal(symbols[0], group, a0, rng)
    crystals = []
    for symbol in symbols:
        pure = host.copy()
        pure.symbols = symbol
        crystals.append(pure)
    if len(symbols) > 1:
        crystals.append(alloy(host, symbols, rng))
    return [enforce_magnetic_moments(atoms) for atoms in crystals]
