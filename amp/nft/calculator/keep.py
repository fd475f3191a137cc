"""Copy the ensemble's results to places that ASE's files keep."""

from __future__ import annotations

from typing import Any

from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from amp.nft.errors import InputError

UNITS = "eV, Angstrom"
PER_ATOM = {"forces": "forces", "forces_uncertainty": "delta", "extrapolating": "extrapolating"}
OF_ALL = {"energy": "energy", "energy_uncertainty": "energy_delta"}


def keep(atoms: Atoms, prefix: str = "nft_") -> Atoms:
    """Copy the results of an ensemble to per-atom arrays and to ``info``, which extended XYZ files keep.

    Parameters
    ----------
    atoms : Atoms
        With an `EnsembleCalculator`. Its arrays and ``info`` are changed.
    prefix : str
        Start of all names.

    Returns
    -------
    Atoms
        The same object, with

        - arrays ``nft_forces`` (atoms, 3), ``nft_delta`` (atoms,), the ``forces_uncertainty``, eV/Å, and
          ``nft_extrapolating`` (atoms,), bool;
        - ``info`` entries ``nft_energy``, ``nft_energy_delta`` (eV), ``nft_delta_max`` (eV/Å), ``nft_ensemble``, which
          identifies the ensemble, and ``nft_units``.

    Raises
    ------
    InputError
        If the calculator gives no ``forces_uncertainty``.

    Notes
    -----
    ASE's ``.traj`` and ``.json`` files drop these arrays; write ``.extxyz``.
    """
    found = _results(atoms)
    for name, short in PER_ATOM.items():
        atoms.set_array(prefix + short, found[name])
    atoms.info |= {prefix + short: float(found[name]) for name, short in OF_ALL.items()}
    atoms.info |= {prefix + "delta_max": float(found["forces_uncertainty"].max()), prefix + "units": UNITS}
    if hasattr(atoms.calc, "digest"):
        atoms.info[prefix + "ensemble"] = atoms.calc.digest
    return atoms


def _results(atoms: Atoms) -> dict[str, Any]:
    try:
        return {name: atoms.calc.get_property(name, atoms) for name in (*PER_ATOM, *OF_ALL)}
    except (PropertyNotImplementedError, AttributeError) as error:
        raise InputError(
            f"The calculator is {type(atoms.calc).__name__}, which gives no forces_uncertainty: keep() needs atoms with an "
            "EnsembleCalculator."
        ) from error
