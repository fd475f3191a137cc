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
        With an `EnsembleCalculator` or a `Committee`. Its arrays and ``info`` are changed.
    prefix : str
        Start of all names.

    Returns
    -------
    Atoms
        The same object, with

        - arrays ``nft_forces`` (atoms, 3), ``nft_delta`` (atoms,), the ``forces_uncertainty``, eV/Å, and
          ``nft_extrapolating`` (atoms,), bool, if the calculator knows it;
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
        if name in found:
            atoms.set_array(prefix + short, found[name])
    atoms.info |= {prefix + short: float(found[name]) for name, short in OF_ALL.items()}
    atoms.info |= {prefix + "delta_max": float(found["forces_uncertainty"].max()), prefix + "units": UNITS}
    if hasattr(atoms.calc, "digest"):
        atoms.info[prefix + "ensemble"] = atoms.calc.digest
    return atoms


def _results(atoms: Atoms) -> dict[str, Any]:
    try:
        found = {name: atoms.calc.get_property(name, atoms) for name in ("forces", "forces_uncertainty", *OF_ALL)}
        known = "extrapolating" in atoms.calc.results
        return {**found, **({"extrapolating": atoms.calc.results["extrapolating"]} if known else {})}
    except (PropertyNotImplementedError, AttributeError) as error:
        raise InputError(
            f"The calculator is {type(atoms.calc).__name__}, which gives no forces_uncertainty: keep() needs atoms with an "
            "EnsembleCalculator or a Committee."
        ) from error
