"""Labels of structures by a second calculator, the baseline, in the journal of a run or a fit: each is made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from amp.nft.errors import RunStoreError
from amp.nft.labels.gate import Label
from amp.nft.labels.identity import structure_key
from amp.nft.labels.single_point import labelled
from amp.nft.run.store import RunRecord, RunStore

EVENT = "baseline-labels"


class SecondLabels:
    """Labels by the baseline that a journal names.

    Parameters
    ----------
    record : RunRecord or RunStore
        A store, where labels are kept.
    """

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._files = {key: event["file"] for event in record.events if event["event"] == EVENT for key in event["structures"]}
        self._labels: dict[str, Label] = {}

    def get(self, atoms: Atoms) -> Label | None:
        """Return the label of a structure.

        Parameters
        ----------
        atoms : Atoms

        Returns
        -------
        Label or None
            None if there is none.
        """
        key = structure_key(atoms)
        if key not in self._labels and key in self._files:
            for image in self._record.images(self._files[key]):
                energy, forces = image.get_potential_energy(apply_constraint=False), image.get_forces(apply_constraint=False)
                self._labels[structure_key(image)] = Label(energy, forces, 0.0)
        return self._labels.get(key)

    def keep(self, found: Sequence[tuple[Atoms, Label]]) -> None:
        """Store labels, all in one event.

        Parameters
        ----------
        found : sequence of (Atoms, Label)
        """
        assert isinstance(self._record, RunStore)
        name = self._record.keep_images([labelled(_bare(atoms), label) for atoms, label in found])
        keys = [structure_key(atoms) for atoms, _ in found]
        self._record.append(EVENT, structures=keys, file=name)
        self._files |= dict.fromkeys(keys, name)
        self._labels |= {key: label for key, (_, label) in zip(keys, found, strict=True)}

    def forces(self, atoms: Atoms) -> np.ndarray:
        """Return the stored forces on a structure.

        Parameters
        ----------
        atoms : Atoms

        Returns
        -------
        ndarray, shape (atoms, 3)
            In eV/Å; zero if there is no label by any baseline.

        Raises
        ------
        RunStoreError
            There are labels by a baseline, and none of this structure.
        """
        if not self._files:
            return np.zeros((len(atoms), 3))
        if (label := self.get(atoms)) is None:
            raise RunStoreError(
                f"{self._record.directory} has no forces of its baseline on {atoms.get_chemical_formula()}: rerun the script, "
                "which computes them."
            )
        return label.forces


def _bare(atoms: Atoms) -> Atoms:
    """Return what a calculator sees of a structure."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    for name in ("initial_charges", "initial_magmoms"):
        if name in atoms.arrays:
            bare.set_array(name, atoms.arrays[name])
    return bare
