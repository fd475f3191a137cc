"""Labels of chunks corrected by a cheap calculator, which labels each target and each chunk too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.activelearner.chunk_labels import Carving, ChunkLabels, larger_carving
from amp.nft.activelearner.chunk_rows import deepest_atoms, rows_in_target, rows_of_chunks
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.chunks import Correction
from amp.nft.labels.identity import identify
from amp.nft.labels.single_point import LabelFailure, Parent
from amp.nft.records import ForceRows, LabelOptions
from amp.nft.run.state import RunState
from amp.nft.run.store import RunStore

_CHEAP = {"label": "cheap-label", "larger-label": "larger-cheap-label"}  # events of the cheap calculator's labels


class CorrectedLabels(ChunkLabels):
    """Labels whose forces estimate those in the target: F_parent(chunk) + F_cheap(target) - F_cheap(chunk).

    `images` contains the chunks as the parent labelled them; `forces` and `training_set` are corrected. The cheap calculator runs in
    this process. A chunk that it cannot label counts as one that failed.

    Parameters
    ----------
    carving, options, store, directory, log, event : as there
        As for `ChunkLabels`.
    cheap : ASE calculator, or callable
    """

    def __init__(
        self, carving: Carving, options: LabelOptions, store: RunStore, directory: Path, log: Callable[[str], object], event: str = "label",
        *, cheap: Parent,
    ) -> None:  # fmt: skip
        super().__init__(carving, options, store, directory, log, event)
        once = LabelOptions(cheap, retries=options.retries)
        self.cheap = ChunkLabels(
            carving, once, store, directory / "cheap", lambda message: log(f"Cheap calculator: {message}"), _CHEAP[event]
        )
        self._corrections: list[Correction] = []
        self._in_target: dict[int, Atoms] = {}

    def larger(self) -> CorrectedLabels:
        """Return the labels of larger chunks around the same atoms.

        Returns
        -------
        CorrectedLabels
        """
        carving, directory = larger_carving(self.carving), self.directory / "larger"
        return CorrectedLabels(carving, self.options, self.store, directory, self.log, "larger-label", cheap=self.cheap.options.parent)

    def open(self, parents: ParentRecord, state: RunState) -> None:
        """Read the labels that the journal names, and the cheap calculator's forces on the targets; compute these if it names none.

        Parameters
        ----------
        parents : ParentRecord
        state : RunState
        """
        super().open(parents, state)
        cheap = self.cheap.options.parent
        self.cheap.open(ParentRecord([], identify(cheap), True, self.store.directory), state)
        for number, target in enumerate(self.carving.targets):
            name = state.cheap_targets.get(number)
            known = None if name is None else self.store.array(name)
            correction = Correction.of(target, cheap, self.cheap.directory / f"target-{number}", forces_nx=known)
            if known is None and self.event == "label":
                self.store.append("cheap-target", target=number, file=self.store.keep_array(correction.target_forces_nx))
            self._corrections.append(correction)

    def label(
        self, atoms: Sequence[int], ranking: np.ndarray, used: Collection[int], stop: Callable[[], bool] = lambda: False
    ) -> tuple[list[int], dict[int, LabelFailure]]:
        """Label chunks with both calculators; see `ChunkLabels.label`.

        Parameters
        ----------
        atoms : sequence of int
        ranking : ndarray, shape (atoms of the targets,)
        used : collection of int
        stop : callable, optional
            For the labels of the parent.

        Returns
        -------
        labelled : list of int
        failures : dict of int to LabelFailure
        """
        made, failures = super().label(atoms, ranking, used, stop)
        for atom in made:
            self._correction(atom).check(self.images[atom])
        both, refused = self.cheap.label(made, ranking, range(len(ranking)))
        return both, failures | refused

    def restore(self, atoms: Sequence[int]) -> list[int]:
        """Repeat labels that were dropped.

        Parameters
        ----------
        atoms : sequence of int
            Central atoms of the training set.

        Returns
        -------
        list of int
            Those that have both labels.
        """
        return self.cheap.restore(super().restore(atoms))

    def forces(self, atom: int) -> np.ndarray:
        """Return the corrected forces of a labelled chunk.

        Parameters
        ----------
        atom : int
            Central atom.

        Returns
        -------
        ndarray, shape (atoms, 3)
            In eV/Å; nan on caps.
        """
        chunk = self.images[atom]
        return self._correction(atom).apply(chunk, super().forces(atom), self.cheap.forces(atom))

    def training_set(self, atoms: Sequence[int], forces: str, energies: bool) -> tuple[list[Atoms], list[ForceRows]]:
        """Return one copy of the target for each chunk, with the chunk's corrected forces, and those that are trained.

        Parameters
        ----------
        atoms : sequence of int
            Central atoms of labelled chunks.
        forces : {'centre', 'weighted', 'all'}
        energies : bool
            Not used: a chunk's energy is not a part of the target's.

        Returns
        -------
        images : list of Atoms
        rows : list of ForceRows
        """
        chunks = [self.images[atom] for atom in atoms]
        rows = rows_of_chunks(chunks, self.first_atoms(atoms), forces, labels=[self.forces(atom) for atom in atoms])
        images = [self._image(atom) for atom in atoms]
        return images, [rows_in_target(some, chunk) for some, chunk in zip(rows, chunks, strict=True)]

    def _image(self, atom: int) -> Atoms:
        """Return the target with the corrected forces of a chunk, the same object each time; zero where the chunk has none."""
        if atom not in self._in_target:
            chunk, target = self.images[atom], self.carving.targets[self.target_of(atom)]
            image = Atoms(target.numbers, target.positions, cell=target.cell, pbc=target.pbc)
            kept, forces_ax = deepest_atoms(chunk), np.zeros((len(target), 3))
            forces_ax[chunk.arrays["target_index"][kept]] = self.forces(atom)[kept]
            image.calc = SinglePointCalculator(image, forces=forces_ax)
            self._in_target[atom] = image
        return self._in_target[atom]

    def _correction(self, atom: int) -> Correction:
        return self._corrections[self.target_of(atom)]
