"""Labelled chunks of a run: carved where they are requested, labelled through a pool, kept in the run's files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms

from amp.nft.activelearner.chunk_rows import rows_of_chunks
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.activelearner.stored_labels import read_labels
from amp.nft.calculator.baseline import Baseline
from amp.nft.chunks.numbered import carve_numbered
from amp.nft.chunks.termination import CLASH, Termination
from amp.nft.errors import LabellingError
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, LabelFailure, labelled
from amp.nft.records import ForceRows, LabelOptions
from amp.nft.run.state import RunState
from amp.nft.run.store import RunStore

SAMPLE = 100  # chunks that are looked at before a run
LARGER = 2.0  # Å by which the radius of a larger chunk exceeds that of the others


class BatchStopped(Exception):
    """The time of a start is over, and some labels of a batch have not begun; those that are made are in the journal."""


@dataclass(frozen=True)
class Carving:
    """Settings of chunks: their targets, radius (Å), termination and least number of atoms."""

    targets: list[Atoms]
    cutoff: float
    termination: Termination = "sphere"
    min_atoms: int | None = None

    def chunks(self, atoms: Sequence[int]) -> dict[int, Atoms]:
        """Carve the chunks around atoms.

        Parameters
        ----------
        atoms : sequence of int
            Numbered from one target to the next.

        Returns
        -------
        dict of int to Atoms
            By the number of the central atom.
        """
        return carve_numbered(self.targets, atoms, self.cutoff, termination=self.termination, min_atoms=self.min_atoms)

    def sample(self) -> list[Atoms]:
        """Carve up to 100 chunks, evenly over the atoms of the targets.

        Returns
        -------
        list of Atoms
        """
        n_atoms = sum(map(len, self.targets))
        return list(self.chunks(np.unique(np.linspace(0, n_atoms - 1, min(n_atoms, SAMPLE)).astype(int)).tolist()).values())


def larger_carving(carving: Carving) -> Carving:
    """Return the settings of larger chunks, whose labels show the error of the others.

    Parameters
    ----------
    carving : Carving

    Returns
    -------
    Carving
    """
    return replace(carving, cutoff=carving.cutoff + LARGER)


class ChunkLabels:
    """Labels of chunks, by the number of their atom.

    Parameters
    ----------
    carving : Carving
    options : LabelOptions
    store : RunStore
        Each label and each failure is in the journal before anything is built on it.
    directory : Path
        Each label has its own directory in it while it is made.
    log : callable
        Takes a message.
    event : str
        Event of a finished label in the journal.
    baseline : Baseline
        Is subtracted from the forces that are trained and tested.

    Attributes
    ----------
    images : dict of int to Atoms
        Labelled chunks, as the parent labelled them.
    """

    def __init__(
        self, carving: Carving, options: LabelOptions, store: RunStore, directory: Path, log: Callable[[str], object], event: str = "label",
        baseline: Baseline | None = None,
    ) -> None:  # fmt: skip
        self.carving, self.options, self.store, self.directory, self.log = carving, options, store, directory, log
        self.event, self.baseline = event, baseline or Baseline()
        self._first = np.cumsum([0, *map(len, carving.targets)])  # first atom of each target
        self.images: dict[int, Atoms] = {}
        self._chunks: dict[int, Atoms] = {}  # those that are being labelled

    def larger(self) -> ChunkLabels:
        """Return the labels of larger chunks around the same atoms.

        Returns
        -------
        ChunkLabels
        """
        carving, directory = larger_carving(self.carving), self.directory / "larger"
        return ChunkLabels(carving, self.options, self.store, directory, self.log, "larger-label", self.baseline)

    def open(self, parents: ParentRecord, state: RunState) -> None:
        """Read the labels that the journal names; a label that the gate refuses is dropped.

        Parameters
        ----------
        parents : ParentRecord
        state : RunState
        """
        self._parents = parents
        files = {atom: label.file for atom, label in state.labels_of(self.event).items()}
        self.images = read_labels(self.store, files, self.carving.chunks(list(files)), self.log)

    def label(
        self, atoms: Sequence[int], ranking: np.ndarray, used: Collection[int], stop: Callable[[], bool] = lambda: False
    ) -> tuple[list[int], dict[int, LabelFailure]]:
        """Label the chunks around atoms; the next atom of the ranking replaces one that fails.

        Parameters
        ----------
        atoms : sequence of int
        ranking : ndarray, shape (atoms of all targets,)
            Largest first.
        used : collection of int
            Atoms that cannot replace one that failed.
        stop : callable, optional
            Returns True when no further label is to begin.

        Returns
        -------
        atoms : list of int
            Atoms that have a label now, replacements last.
        failures : dict of int to LabelFailure

        Raises
        ------
        LabellingError
            If no atom has a label.
        BatchStopped
            If `stop` kept a label from beginning.
        """
        taken = {*atoms, *used}  # not the labels: a batch that was cut short must take the same course again
        ranked = [int(atom) for atom in np.argsort(-ranking, kind="stable")]
        spare = deque([atom for atom in ranked if atom not in taken][: len(atoms)])
        new = [atom for atom in atoms if atom not in self.images]
        self.log(f"{len(atoms)} atoms chosen, {len(new)} of them to be labelled.")
        replacements: list[int] = []
        failures: dict[int, LabelFailure] = {}
        with self._pool(stop) as pool:
            for atom, failure in self._make(pool, new):
                failures[atom] = failure
                replacements += self._replace(pool, spare)
        if left := [atom for atom in [*atoms, *replacements] if atom not in self.images and atom not in failures]:
            self.log(f"The time of this start is over: {len(left)} labels of this batch are left for the next start.")
            raise BatchStopped
        made = [atom for atom in [*atoms, *replacements] if atom in self.images]
        if not made:
            raise LabellingError(_all_failed(failures))
        return made, failures

    def restore(self, atoms: Sequence[int]) -> list[int]:
        """Repeat labels that were dropped.

        Parameters
        ----------
        atoms : sequence of int
            Central atoms of the training set.

        Returns
        -------
        list of int
            Those that have a label.
        """
        dropped = [atom for atom in atoms if atom not in self.images]
        if dropped:
            self.log(f"Labelling {len(dropped)} chunks of the training set again.")
            with self._pool() as pool:
                for _ in self._make(pool, dropped):
                    pass
        return [atom for atom in atoms if atom in self.images]

    def forces(self, atom: int) -> np.ndarray:
        """Return the forces of a labelled chunk without its baseline.

        Parameters
        ----------
        atom : int
            Central atom.

        Returns
        -------
        ndarray, shape (atoms, 3)
            In eV/Å.
        """
        return self.baseline.remainders([self.images[atom]])[0].get_forces(apply_constraint=False)

    def target_of(self, atom: int) -> int:
        """Return the number of the target that an atom belongs to.

        Parameters
        ----------
        atom : int
            Numbered from one target to the next.

        Returns
        -------
        int
        """
        return int(np.searchsorted(self._first, atom, side="right")) - 1

    def first_atoms(self, atoms: Sequence[int]) -> list[int]:
        """Return for each atom the number of the first atom of its target.

        Parameters
        ----------
        atoms : sequence of int
            Numbered from one target to the next.

        Returns
        -------
        list of int
        """
        return [int(self._first[self.target_of(atom)]) for atom in atoms]

    def training_set(self, atoms: Sequence[int], forces: str, energies: bool) -> tuple[list[Atoms], list[ForceRows]]:
        """Return labelled chunks without their baseline, and their forces that are trained.

        Parameters
        ----------
        atoms : sequence of int
            Central atoms.
        forces : str
        energies : bool
            See `rows_of_chunks`.

        Returns
        -------
        chunks : list of Atoms
        rows : list of ForceRows
        """
        chunks = self.baseline.remainders([self.images[atom] for atom in atoms])
        return chunks, rows_of_chunks(chunks, self.first_atoms(atoms), forces, energies)

    def _pool(self, stop: Callable[[], bool] = lambda: False) -> LabelPool:
        return LabelPool(self.options, self.directory, on_retry=partial(self._note, "label-retried"), log=self.log, stop=stop)

    def _make(self, pool: LabelPool, atoms: Sequence[int]) -> Iterator[tuple[int, LabelFailure]]:
        """Label the chunks around these atoms, keep the labels, and yield the failures."""
        self._request(pool, atoms)
        for atom, found in pool.done():
            outcome = self.baseline.label_too(self._chunks[atom], found) if isinstance(found, Label) else found
            if isinstance(outcome, Label):
                self._keep(atom, outcome)
                pool.tidy(atom)
            else:
                yield atom, self._note("label-failed", atom, outcome)

    def _request(self, pool: LabelPool, atoms: Sequence[int]) -> None:
        chunks = self.carving.chunks(atoms)
        self._chunks |= chunks
        for atom, chunk in chunks.items():
            if chunk.info["clashes"]:
                self.log(f"  the chunk around atom {atom} has {chunk.info['clashes']} pairs of caps closer than {CLASH} Å.")
            pool.request(atom, chunk)

    def _replace(self, pool: LabelPool, spare: deque[int]) -> list[int]:
        """Return the next atom of the ranking, requested unless it has a label; none at the end of the ranking."""
        if not spare:
            return []
        atom = spare.popleft()
        if atom not in self.images:
            self._request(pool, [atom])
        return [atom]

    def _keep(self, atom: int, label: Label) -> None:
        parents = self._parents.label_fields(label)
        self.images[atom] = labelled(self._chunks.pop(atom), label)
        self.store.append(self.event, atom=atom, file=self.store.keep_image(self.images[atom]), seconds=label.seconds, **parents)

    def _note(self, event: str, atom: int, failure: LabelFailure) -> LabelFailure:
        self.store.append(event, atom=atom, kind=failure.kind, message=failure.message)
        what = "is tried again" if event == "label-retried" else "could not be labelled"
        self.log(f"  the chunk around atom {atom} {what}: {failure}")
        return failure


def _all_failed(failures: dict[int, LabelFailure]) -> str:
    atom, failure = next(iter(failures.items()))
    return (
        f"None of {len(failures)} chunks could be labelled; the one around atom {atom} failed with {failure}. "
        f"Fix the cause and rerun the script: finished work is kept.\n{failure.traceback}"
    )
