"""Energies, forces and uncertainties of a whole ensemble in one pass over the atoms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.fingerprints.neighbors import Neighbors, Search
from amp.nft.kernels.fingerprints.workspace import Workspace, make_workspace
from amp.nft.kernels.prediction.ensemble import (
    Scratch,
    add_block,
    build_networks,
    evaluate_block,
    make_scratch,
    summarise,
    virials,
)
from amp.nft.kernels.threads import available_cpus, run_threads

_BLOCK = 64  # atoms that one thread takes at a time
_MOST_KEPT = 32768  # atoms of a structure whose neighbours are kept for the next call: some 1 kB each


@dataclass(frozen=True)
class Evaluation:
    """
    Results of an ensemble for one structure.

    Attributes
    ----------
    energies_mi : ndarray, shape (members, atoms)
        Atomic energies, eV.
    forces : ndarray, shape (atoms, xyz)
        Mean over the members, eV/Å.
    forces_uncertainty : ndarray, shape (atoms,)
        2.58 sqrt(sum over members of |F_m - mean|² / (members - 1)), eV/Å; nan for one member
        (Zeng, Chen, Peterson, J. Chem. Phys. 156, 064104 (2022)).
    forces_std : ndarray, shape (atoms, xyz)
        Standard deviation of each component over the members, with members - 1, eV/Å; nan for one member.
    forces_mni : ndarray, shape (members, atoms, xyz), or None
        Of each member, eV/Å.
    virial_mab : ndarray, shape (members, xyz, xyz), or None
        Minus the derivative of each member's energy in the strain, eV; the stress is minus this over the volume.
    virial_iab : ndarray, shape (atoms, xyz, xyz), or None
        Likewise of each atomic energy, mean over the members, eV.
    extrapolating : ndarray of bool, shape (atoms,)
        Atoms with a fingerprint outside the range that any of the members was trained on.
    """

    energies_mi: np.ndarray
    forces: np.ndarray
    forces_uncertainty: np.ndarray
    forces_std: np.ndarray
    forces_mni: np.ndarray | None
    virial_mab: np.ndarray | None
    virial_iab: np.ndarray | None
    extrapolating: np.ndarray

    @property
    def energy_m(self) -> np.ndarray:
        """Energy of each member, eV."""
        return self.energies_mi.sum(axis=1)


class Evaluator:
    """
    The compiled tables of an ensemble.

    Parameters
    ----------
    models : list
        Members with the attributes of `amp.nft.amp_io.model.AmpModel`. They share `gs`, `cutoff`, `hiddenlayers` and `activation`;
        weights, scalings and ranges of the fingerprints are each member's own.
    skin : float
        In Å. If not 0, a list of neighbours is used again, in the next call, while no atom has moved by more than half
        of this. For molecular dynamics of up to some ten thousand atoms.

    Raises
    ------
    ValueError
        If there are no members, or they differ in data that they must share, or have fingerprints that Amp does not.
    """

    def __init__(self, models: list, skin: float = 0.0):
        if not models:
            raise ValueError("An ensemble needs one member or more.")
        for name in ("gs", "cutoff", "hiddenlayers", "activation"):
            if any(getattr(model, name) != getattr(models[0], name) for model in models):
                raise ValueError(f"Members differ in {name!r}: evaluate such models one at a time.")
        self.elements = tuple(sorted(models[0].weights))
        self.fingerprints = Fingerprints({e: models[0].gs[e] for e in self.elements}, models[0].cutoff)
        self.n_members = len(models)
        self.skin = skin
        self._networks = build_networks(models, self.fingerprints.slot_feature, self.elements)
        self._kept: _Surroundings | None = None

    def evaluate(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        forces_ensemble: bool = False,
        stress: bool = False,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Evaluate one structure. The result does not depend on the number of threads, in any digit.

        Parameters
        ----------
        positions : ndarray, shape (atoms, xyz)
            In Å; need not be wrapped into the cell.
        numbers : ndarray of int, shape (atoms,)
            Atomic numbers.
        cell : ndarray, shape (3, 3)
            Cell vectors as rows, Å.
        pbc : ndarray of bool, shape (3,)
            True for those that repeat.
        forces_ensemble, stress : bool
            Compute `forces_mni`; compute `virial_mab` and `virial_iab`.
        threads : int, optional
            As many as there are processors to use if None.
        progress : callable, optional
            Called periodically, perhaps from another thread, with the numbers of finished and of all atoms.

        Returns
        -------
        Evaluation

        Raises
        ------
        ValueError
            The ensemble was not trained on an element, two atoms are in one place, or a position is not a number.
        """
        positions, kind = np.asarray(positions, dtype=float), self.fingerprints.kinds(numbers)
        threads = available_cpus() if threads is None else threads
        n = len(positions)
        surroundings = self._surroundings(positions, np.asarray(cell, dtype=float), np.asarray(pbc, dtype=bool))
        order = surroundings.search.order
        sweep = _Sweep(self, surroundings, positions, kind[order], stress, threads, progress)
        run_threads(sweep.work, sweep.blocks(), threads)
        mean, std, uncertainty, forces_mni = np.empty((n, 3)), np.empty((n, 3)), np.empty(n), None
        summarise(sweep.forces, order, self.n_members, mean, std, uncertainty)
        if forces_ensemble:
            forces_mni = np.empty((self.n_members, n, 3))
            forces_mni[:, order] = sweep.forces[:, :, : self.n_members].transpose(2, 0, 1)
        virial_mab = np.ascontiguousarray(sweep.virial[:, :, : self.n_members].transpose(2, 0, 1)) if stress else None
        return Evaluation(sweep.energies_mi, mean, uncertainty, std, forces_mni, virial_mab, sweep.virial_iab, sweep.extrapolating)

    def _surroundings(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> _Surroundings:
        """Return the lists of neighbours, to be filled: those of the last call if they are still valid."""
        kept, small = self._kept, self.skin > 0.0 and len(positions) <= _MOST_KEPT
        if small and kept is not None and kept.hold(positions, cell, pbc, self.skin):
            return kept
        search = Search(positions, cell, pbc, self.fingerprints.radius + (self.skin if small else 0.0))
        found = _Surroundings(search, positions.copy(), cell.copy(), pbc.copy(), {} if small else None)
        self._kept = found if small else None
        return found

    def __getstate__(self) -> dict:
        """Return all attributes except the neighbours that are kept from call to call."""
        return self.__dict__ | {"_kept": None}


@dataclass(frozen=True)
class _Surroundings:
    """The neighbours of all atoms of one structure, block by block."""

    search: Search
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    lists: dict[int, Neighbors] | None  # neighbours by the first atom of their block; None: not kept

    def hold(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, skin: float) -> bool:
        """Return True if the lists are valid for these positions."""
        if len(positions) != len(self.positions) or (cell != self.cell).any() or (pbc != self.pbc).any():
            return False
        return bool((((positions - self.positions) ** 2).sum(axis=1) <= skin**2 / 4).all())

    def neighbors(self, first: int, last: int) -> Neighbors:
        """Return the neighbours of the atoms of one block, in the order of the search."""
        if self.lists is None:
            return self.search.neighbors(first, last)
        if first not in self.lists:
            self.lists[first] = self.search.neighbors(first, last)
        return self.lists[first]


class _Buffer(NamedTuple):
    """Buffers of one thread."""

    workspace: Workspace
    scratch: Scratch


class _Sweep:
    """All atoms in the order of the search, block by block; the blocks' forces are added in the order of the blocks."""

    def __init__(
        self,
        owner: Evaluator,
        surroundings: _Surroundings,
        positions: np.ndarray,
        kind: np.ndarray,
        stress: bool,
        threads: int,
        progress: Callable[[int, int], None] | None,
    ):
        n, columns = len(kind), owner._networks.columns
        self._tables, self._networks, self._n_members = owner.fingerprints.tables, owner._networks, owner.n_members
        self._surroundings, self._kind, self._stress, self._progress = surroundings, kind, stress, progress
        self._position = surroundings.search.placed(positions)
        self._size = min(_BLOCK, max(16, n // 32))  # smaller blocks in small structures, so that there are several
        self._lock, self._free, self._threads = threading.Lock(), [], threads
        self._places = threading.Semaphore(2 * threads)  # for blocks that are worked on, or wait for their turn
        self._waiting: dict[int, tuple[int, _Buffer]] = {}
        self._done = 0
        self.forces, self.virial = np.zeros((n, 3, columns)), np.zeros((3, 3, columns))
        self.virial_iab = np.empty((n, 3, 3)) if stress else None
        self.energies_mi, self.extrapolating = np.empty((owner.n_members, n)), np.empty(n, dtype=bool)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last centre of each block when a buffer is free."""
        for first in range(0, len(self._kind), self._size):
            self._places.acquire()
            yield first, min(first + self._size, len(self._kind))

    def work(self, block: tuple[int, int]) -> None:
        """Evaluate a block, and add up those whose turn has come."""
        try:
            self._take_turn(block, self._evaluate(*block))
        except BaseException:  # Ctrl-C too
            self._places.release(self._threads)  # others may be waiting for this block
            raise

    def _take_turn(self, block: tuple[int, int], room: _Buffer) -> None:
        """Add the results of a block, and of blocks that waited for it, or let it wait."""
        with self._lock:
            self._waiting[block[0]] = block[1], room
            while self._done in self._waiting:
                self._done, room = self._waiting.pop(self._done)
                self._add(room.scratch)
                self._free.append(room)
                self._places.release()
            if self._progress is not None:
                self._progress(self._done, len(self._kind))

    def _evaluate(self, first: int, last: int) -> _Buffer:
        """Evaluate a block in a separate buffer."""
        found = self._surroundings.neighbors(first, last)._replace(position=self._position)
        room = self._room(found.most)
        room.scratch.count[:] = 0
        if self._stress:
            room.scratch.virial[:] = 0.0
        evaluate_block(first, found, self._kind, self._stress, self._tables, self._networks, room.workspace, room.scratch)
        atoms = self._surroundings.search.order[first:last]
        self.extrapolating[atoms] = room.scratch.outside[: last - first]
        self.energies_mi[:, atoms] = room.scratch.energy[: last - first, : self._n_members].T
        if self.virial_iab is not None:
            self.virial_iab[atoms] = virials(room.scratch)[: last - first, :, :, : self._n_members].mean(axis=3)
        return room

    def _room(self, most: int) -> _Buffer:
        """Return a free buffer that is large enough, or a new one."""
        with self._lock:
            room = self._free.pop() if self._free else None
        if room is not None and len(room.workspace.atom) >= most:
            return room
        workspace = make_workspace(self._tables, most)
        return _Buffer(workspace, make_scratch(self._networks, len(self._kind), self._size, self._size * (len(workspace.atom) + 1)))

    def _add(self, scratch: Scratch) -> None:
        """Add the results of a block."""
        add_block(scratch.count, scratch.touched, scratch.force, scratch.line, self.forces)
        if self._stress:
            self.virial += virials(scratch).sum(axis=0)
