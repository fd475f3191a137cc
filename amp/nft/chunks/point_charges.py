"""Coulomb forces between fixed charges of the elements: the cheapest correction for whole molecules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes

from amp.nft.errors import InputError

COULOMB = units.Hartree * units.Bohr  # eV Å / e²


class PointCharges(Calculator):
    """Energy and forces of fixed point charges, one for each element, in a free structure.

    Parameters
    ----------
    charges : mapping of str to float
        Charge of each element, e, such as ``{"O": -0.67, "H": 0.335}`` for water. A molecule must be neutral.

    Notes
    -----
    Coulomb interactions within a molecule are included: a chunk that has the molecule whole has them as the target has them.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, charges: Mapping[str, float]) -> None:
        super().__init__(charges=dict(charges))

    def calculate(self, atoms: Any = None, properties: object = ("energy",), system_changes: object = all_changes) -> None:
        """Compute energy and forces, as ASE asks for them.

        Parameters
        ----------
        atoms : Atoms
            A free structure.
        properties, system_changes : list of str
            As ASE passes them; energy and forces are always computed.

        Raises
        ------
        InputError
            For a periodic structure, or an element without a charge.
        """
        super().calculate(atoms, properties, system_changes)
        charges = self.parameters["charges"]
        if atoms.pbc.any() or (missing := set(atoms.symbols) - set(charges)):
            reason = "periodic" if atoms.pbc.any() else f"made of {', '.join(sorted(missing))} too"
            raise InputError(f"PointCharges({charges}): the structure is {reason}; give free structures and a charge for each element.")
        q = np.array([charges[symbol] for symbol in atoms.symbols])
        vectors = atoms.positions[:, None] - atoms.positions
        distances = np.linalg.norm(vectors, axis=2)
        np.fill_diagonal(distances, np.inf)
        potential = COULOMB * q / distances  # at each atom, from each other one
        self.results["energy"] = 0.5 * float(q @ potential.sum(axis=1))
        self.results["forces"] = q[:, None] * np.einsum("ij,ijx->ix", potential / distances**2, vectors)
