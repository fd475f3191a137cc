"""Energies, forces and uncertainties of a whole ensemble in one pass over the atoms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import vesin

from amp.nft.kernels.ensemble import (
    Scratch,
    add_block,
    build_networks,
    evaluate_block,
    make_scratch,
    summarise,
)
from amp.nft.kernels.gaussian import Fingerprints
from amp.nft.kernels.jit import available_cpus, run_threads
from amp.nft.kernels.neighbors import Neighbors, find_neighbors
from amp.nft.kernels.regions import REGION, Regions
from amp.nft.kernels.workspace import Workspace, make_workspace

_KEPT = ("_regions", "_searches", "_searching")
_BLOCK = 64  # atoms that one thread takes at a time


@dataclass(frozen=True)
class Evaluation:
    """
    What an ensemble says of one structure.

    Attributes
    ----------
    energies_mi : ndarray, shape (members, atoms)
        Atomic energies, eV.
    forces : ndarray, shape (atoms, xyz)
        Mean over the members, eV/Å.
    forces_uncertainty : ndarray, shape (atoms,)
        2.58 sqrt(sum over members of |F_m - mean|² / (members - 1)), eV/Å; zeros for one member
        (Zeng, Chen, Peterson, J. Chem. Phys. 156, 064104 (2022)).
    forces_mni : ndarray, shape (members, atoms, xyz), or None
        Of each member, eV/Å.
    virial_mab : ndarray, shape (members, xyz, xyz), or None
        Minus the derivative of each member's energy in the strain, eV; the stress is minus this over the volume.
    extrapolating : int
        How many atoms have a fingerprint outside the range that any of the members was trained on.
    """

    energies_mi: np.ndarray
    forces: np.ndarray
    forces_uncertainty: np.ndarray
    forces_mni: np.ndarray | None
    virial_mab: np.ndarray | None
    extrapolating: int

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
        Members with the attributes of `amp.nft.amp_model.AmpModel`. They share `gs`, `cutoff`, `hiddenlayers` and `activation`;
        weights, scalings and ranges of the fingerprints are each member's own.
    skin : float
        In Å. If not 0, a list of neighbours is used again, in the next call, while no atom has moved by more than half
        of this. For molecular dynamics of up to some ten thousand atoms.

    Raises
    ------
    ValueError
        If there are no members, or they differ in what they have to share, or have fingerprints that Amp does not.
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
        self._forget()

    def _forget(self) -> None:
        """Drop what is kept from call to call."""
        self._regions: Regions | None = None
        self._searches: dict[int, vesin.NeighborList] = {}
        self._searching = threading.Lock()

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
        """
        Evaluate one structure. The result does not depend on the number of threads, in any digit.

        Parameters
        ----------
        positions : ndarray, shape (atoms, xyz)
            In Å; need not be wrapped into the cell.
        numbers : ndarray of int, shape (atoms,)
            Atomic numbers.
        cell : ndarray, shape (3, 3)
            Cell vectors as rows, Å.
        pbc : ndarray of bool, shape (3,)
            Which of them repeat.
        forces_ensemble, stress : bool
            Whether `forces_mni` and `virial_mab` are wanted.
        threads : int, optional
            As many as there are processors to use if None.
        progress : callable, optional
            Called now and then, perhaps from another thread, with the number of atoms done and that of all.

        Raises
        ------
        ValueError
            For an element that the ensemble was not trained on, two atoms in one place, or a position that is no number.
        """
        positions, kind = np.asarray(positions, dtype=float), self.fingerprints.kinds(numbers)
        if not np.isfinite(positions).all():
            atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise ValueError(f"The position of atom {atom} is {positions[atom]}: not a place.")
        threads = available_cpus() if threads is None else threads
        n, lanes = len(positions), self._networks.lanes
        regions, search = self._prepare(positions, cell, pbc, threads)
        forces, energies_mi = np.zeros((n, 3, lanes)), np.empty((self.n_members, n))
        virial, extrapolating = np.zeros((3, 3, lanes)), 0
        before = 0
        for atoms, centres in regions.parts(REGION):
            with self._searching:  # a search works in arrays of its own
                found = find_neighbors(positions[atoms], cell, pbc, self.fingerprints.radius, search, centres)
            sweep = _Sweep(self, found, atoms, kind[atoms], stress, forces, virial)
            if progress is not None:
                sweep.report = lambda done, before=before: progress(before + done, n)  # type: ignore[misc]
            run_threads(sweep.work, sweep.blocks(n), threads)
            energies_mi[:, atoms[:centres]] = sweep.energies[:, : self.n_members].T
            extrapolating += sweep.extrapolating
            before += centres
        mean, uncertainty = np.empty((n, 3)), np.empty(n)
        summarise(forces, self.n_members, mean, uncertainty)
        forces_mni = np.ascontiguousarray(forces[:, :, : self.n_members].transpose(2, 0, 1)) if forces_ensemble else None
        virial_mab = np.ascontiguousarray(virial[:, :, : self.n_members].transpose(2, 0, 1)) if stress else None
        return Evaluation(energies_mi, mean, uncertainty, forces_mni, virial_mab, extrapolating)

    def _prepare(
        self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, threads: int
    ) -> tuple[Regions, vesin.NeighborList]:
        """An order of the atoms and a search for neighbours, with the arrays of the last call; where there is a skin, its order."""
        regions = self._regions
        if self.skin == 0.0 or regions is None or len(regions.order) != len(positions):
            regions = Regions(positions, cell, pbc, self.fingerprints.radius)
        search = self._searches.get(threads)
        if search is None:
            search = vesin.NeighborList(
                cutoff=self.fingerprints.radius, full_list=False, skin=self.skin, n_threads=threads
            )
        small = len(positions) <= REGION
        self._regions, self._searches = (regions, {threads: search}) if small else (None, {})
        return regions, search

    def __getstate__(self) -> dict:
        """Everything but what is kept from call to call."""
        return {name: value for name, value in self.__dict__.items() if name not in _KEPT}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget()


class _Sweep:
    """The centres of one region, block by block; what each block adds to the forces is added in the order of the blocks."""

    def __init__(
        self, owner: Evaluator, found: Neighbors, atoms: np.ndarray, kind: np.ndarray,
        stress: bool, forces: np.ndarray, virial: np.ndarray,
    ):
        self._tables, self._networks = owner.fingerprints.tables, owner._networks
        self._found, self._atoms, self._kind, self._stress = found, atoms, kind, stress
        self._forces, self._virial = forces, virial
        self._lock, self._free = threading.Lock(), []
        self._waiting: dict[int, tuple[int, Workspace, Scratch]] = {}
        self._done = 0
        self.energies = np.empty((len(found.start) - 1, self._networks.lanes))
        self.extrapolating = 0
        self.report: Callable[[int], None] = lambda done: None

    def blocks(self, n_atoms: int) -> Iterator[tuple[int, int]]:
        """Where blocks of centres begin and end; smaller ones in small structures, so that there are several."""
        self._size = min(_BLOCK, max(8, n_atoms // 16))
        centres = len(self._found.start) - 1
        for first in range(0, centres, self._size):
            yield first, min(first + self._size, centres)

    def work(self, block: tuple[int, int]) -> None:
        """Evaluate a block, and add up those whose turn has come."""
        with self._lock:
            workspace, scratch = self._free.pop() if self._free else self._make_room()
        first, last = block
        scratch.count[:], scratch.virial[:] = 0, 0.0
        evaluate_block(first, last, self._found.start, self._found.index, self._found.vector, self._kind, self._stress,
                       self._tables, self._networks, workspace, scratch, self.energies)
        with self._lock:
            self._waiting[first] = last, workspace, scratch
            while self._done in self._waiting:
                self._done, workspace, scratch = self._waiting.pop(self._done)
                add_block(scratch.count, scratch.touched, scratch.force, scratch.line, self._atoms, self._forces)
                self._virial += scratch.virial
                self.extrapolating += int(scratch.count[1])
                self._free.append((workspace, scratch))
            self.report(self._done)

    def _make_room(self) -> tuple[Workspace, Scratch]:
        """Arrays for one more thread."""
        most = self._found.most
        return (make_workspace(self._tables, most),
                make_scratch(self._networks, len(self._atoms), self._size * (most + 1)))
