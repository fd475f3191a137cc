"""Committee of any ASE calculators, with the same results as the trained ensemble."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs

from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.errors import InputError, NFTError
from amp.nft.inputs.geometry import check_atoms
from amp.nft.labels.identity import is_calculator
from amp.nft.uncertainty.calibration import error95
from amp.nft.uncertainty.forces import CONFIDENCE, force_uncertainty

MEMBERS_FIRST = ("forces_comm", "forces_committee")  # (members, atoms, 3): MACE and EnsembleCalculator; RuNNerASE
EITHER = "forces_ensemble"  # (atoms, 3, members) of apax, or (members, atoms, 3)
ENERGIES = ("energy_comm", "energy_committee", "energy_ensemble")  # (members,)
OPTIONAL = ("energies", "stress", "stresses", "extrapolating")  # means, and for the last a union, where each calculator has them
ON_REQUEST = ("stress", "stresses")


class Committee(Calculator):
    """Mean energy and forces of several ASE calculators, with their uncertainties.

    Parameters
    ----------
    calculators : sequence of ASE calculators
        Each is one member, or several, if its results contain ``forces_comm``, ``forces_committee`` or ``forces_ensemble``.
    keep_members : bool
        Also keep ``results['forces_ensemble']``, shape (members, atoms, 3), eV/Å, and ``results['energy_comm']``, shape (members,), eV;
        ``results['forces_comm']`` is the same array as the first.
    error95_factor : float, optional
        Factor on ``forces_uncertainty`` that covers 95 % of the force errors, as a calibration found it.
    error95_floor : float, optional
        Least width of that band, eV/Å, as `amp.nft.uncertainty.error95_floor` gives it.
    elements : sequence of str, optional
        Elements of the structures on which the members were trained. A warning says if a structure has others, since members that
        ignore elements, or know them from elsewhere, may agree where all are wrong.

    Raises
    ------
    InputError
        If there is no calculator, one is none or occurs twice; on evaluation, if one fails, its forces have another shape, or values
        that are not finite, or the axis of its members is ambiguous.

    Notes
    -----
    `results` has the names and definitions of `EnsembleCalculator`: ``energy``, ``free_energy``, ``forces`` are means over the members.

    - ``forces_uncertainty``, shape (atoms,), eV/Å: 2.58 sqrt(sum_xyz sum_m (F_m - F)² / (members - 1));
    - ``forces_committee_std``, shape (atoms, 3), eV/Å: one standard deviation of each component (with members - 1);
    - ``energy_uncertainty``, eV: 2.58 standard deviations of the members' energies; NaN if a calculator of several members
      gives their forces only;
    - ``forces_error95``, shape (atoms,), eV/Å: `error95_factor` times the uncertainty, if it is given, and at least `error95_floor`;
    - ``energies``, ``stress``, ``stresses`` and ``extrapolating``, if each calculator gives them. An atom extrapolates if it does so
      for one of the calculators.

    Uncertainties that the calculators give themselves are not used, as their definitions differ. With a single member they are NaN.
    """

    atoms: Atoms
    ignored_changes: set[str] = set()  # noqa: RUF012 - ASE's own interface

    def __init__(
        self,
        calculators: Sequence[Any],
        *,
        keep_members: bool = False,
        error95_factor: float | None = None,
        error95_floor: float | None = None,
        elements: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        _check(calculators)
        self.calculators = list(calculators)
        self.keep_members = keep_members
        self.error95_factor, self.error95_floor = error95_factor, error95_floor
        self.elements = None if elements is None else frozenset(elements)
        common = [name for name in OPTIONAL if all(name in each.implemented_properties for each in self.calculators)]
        self._common = common
        self.implemented_properties = [
            "energy", "free_energy", "forces", "forces_uncertainty", "forces_committee_std", "energy_uncertainty", *common,
            *(["n_extrapolating"] if "extrapolating" in common else []),
            *([] if error95_factor is None else ["forces_error95"]),
            *(["forces_ensemble", "forces_comm", "energy_comm"] if keep_members else []),
        ]  # fmt: skip

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate all calculators; called by ASE.

        Parameters
        ----------
        atoms : Atoms, optional
        properties, system_changes : sequence of str
            As for ASE's calculators.
        """
        super().calculate(atoms, properties, system_changes)
        check_atoms(self.atoms)
        if self.elements is not None and (others := set(self.atoms.symbols) - self.elements):
            warnings.warn(
                f"The members were not trained on {', '.join(sorted(others))}, but on {', '.join(sorted(self.elements))}: "
                "forces and uncertainties may be wrong.",
                UserWarning,
                stacklevel=2,
            )
        wanted = [name for name in self._common if name not in ON_REQUEST or name in properties]
        parts = [self._evaluate(k, wanted) for k in range(len(self.calculators))]
        sizes = np.array([len(part["forces_mni"]) for part in parts])
        forces_mni = np.concatenate([part["forces_mni"] for part in parts])
        energy_m = np.concatenate([part["energy_m"] for part in parts])
        energy = float(np.average([part["energy"] for part in parts], weights=sizes))
        several = len(forces_mni) > 1
        std = forces_mni.std(axis=0, ddof=1) if several else np.full(forces_mni.shape[1:], np.nan)
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces_mni.mean(axis=0),
            "forces_uncertainty": force_uncertainty(forces_mni),
            "forces_committee_std": std,
            "energy_uncertainty": CONFIDENCE * float(energy_m.std(ddof=1)) if several else np.nan,
        }
        for name in (name for name in wanted if name != "extrapolating"):
            self.results[name] = np.average([part[name] for part in parts], axis=0, weights=sizes)
        if "extrapolating" in wanted:
            found = np.any([part["extrapolating"] for part in parts], axis=0)
            self.results |= {"extrapolating": found, "n_extrapolating": int(found.sum())}
        if self.error95_factor is not None:
            self.results["forces_error95"] = error95(self.results["forces_uncertainty"], self.error95_factor, self.error95_floor)
        if self.keep_members:
            self.results |= {"forces_ensemble": forces_mni, "forces_comm": forces_mni, "energy_comm": energy_m}

    def _evaluate(self, number: int, wanted: Sequence[str]) -> dict[str, Any]:
        """Return the members' forces and energies of one calculator, and its own value of each further property."""
        calculator = self.calculators[number]
        try:
            given = {name: calculator.get_property(name, self.atoms) for name in ("forces", "energy", *wanted)}
        except (NFTError, PropertyNotImplementedError):
            raise
        except Exception as error:  # programs raise many kinds
            raise InputError(
                f"Calculator {number} of the committee, {type(calculator).__name__}, failed for {self.atoms.get_chemical_formula()} "
                f"({type(error).__name__}: {error}): is the structure one that its model can describe?"
            ) from error
        results = calculator.results
        forces_mni = members_of(results, len(self.atoms))
        if forces_mni is None:
            forces_mni = np.array(given["forces"], dtype=float)[None]
        if forces_mni.shape[1:] != (len(self.atoms), 3) or not np.isfinite(forces_mni).all():
            raise InputError(
                f"Calculator {number} of the committee, {type(calculator).__name__}, gave forces of shape {forces_mni.shape[1:]} "
                f"for {len(self.atoms)} atoms, or values that are not finite: remove it, or find out why."
            )
        energy_m = next((np.array(results[name], dtype=float).ravel() for name in ENERGIES if name in results), None)
        if energy_m is None:
            energy_m = np.array([given["energy"]], dtype=float) if len(forces_mni) == 1 else np.full(len(forces_mni), np.nan)
        return {**given, "forces_mni": forces_mni, "energy_m": energy_m, "energy": float(given["energy"])}

    def export_properties(self) -> Properties:
        """Return the results that ASE knows, for ``atoms.get_properties``.

        Returns
        -------
        Properties
        """
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})


def members_of(results: dict[str, Any], n_atoms: int) -> np.ndarray | None:
    """Return the forces of each member in the results of one calculator.

    Parameters
    ----------
    results : dict
        Of an ASE calculator.
    n_atoms : int

    Returns
    -------
    ndarray, shape (members, atoms, 3), or None
        In eV/Å; None if the results have no members.

    Raises
    ------
    InputError
        The axis of the members is ambiguous, or no axis fits.
    """
    for name in MEMBERS_FIRST:
        if results.get(name) is not None:
            return _checked(name, np.array(results[name], dtype=float), n_atoms)
    if results.get(EITHER) is None:
        return None
    found = np.array(results[EITHER], dtype=float)
    first, last = found.shape[1:] == (n_atoms, 3), found.shape[:2] == (n_atoms, 3)
    if first and last:
        raise InputError(
            f"{EITHER} has shape {found.shape} for {n_atoms} atoms, so that its members may be on the first or the last axis: "
            "use another number of members, or give forces_comm, shape (members, atoms, 3)."
        )
    return np.moveaxis(found, 2, 0) if last and found.ndim == 3 else _checked(EITHER, found, n_atoms)


def _checked(name: str, found: np.ndarray, n_atoms: int) -> np.ndarray:
    if found.ndim != 3 or found.shape[1:] != (n_atoms, 3) or not len(found):
        raise InputError(f"{name} has shape {found.shape}: it must be (members, {n_atoms}, 3) for {n_atoms} atoms.")
    return found


def _check(calculators: Sequence[Any]) -> None:
    if is_calculator(calculators):
        raise InputError(f"calculators is one {type(calculators).__name__}: give a list, of one calculator if it has several members.")
    if not len(calculators):
        raise InputError("The committee is empty: give at least two calculators, or one with several members.")
    for number, calculator in enumerate(calculators):
        if not is_calculator(calculator) or not hasattr(calculator, "get_property"):
            raise InputError(f"calculators[{number}] is {calculator!r}: it must be an ASE calculator.")
        if isinstance(calculator, EnsembleCalculator | Committee) and _hides_members(calculator):
            raise InputError(f"calculators[{number}] does not show its members: make it with keep_members=True.")
    if len({id(calculator) for calculator in calculators}) < len(calculators):
        raise InputError("The committee contains one calculator twice: give each once; a member that counts twice lowers the uncertainty.")


def _hides_members(calculator: EnsembleCalculator | Committee) -> bool:
    parts = calculator.models if isinstance(calculator, EnsembleCalculator) else calculator.calculators
    return len(parts) > 1 and not calculator.keep_members
