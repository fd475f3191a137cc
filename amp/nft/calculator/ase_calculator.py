"""The trained ensemble as an ASE calculator with uncertainties."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress

from amp.nft.amp_io import AmpModel, read_amp, read_ensemble, write_amp
from amp.nft.calculator.baseline import Baseline
from amp.nft.errors import AmpFileError, InputError, UnsupportedModel
from amp.nft.inputs.arguments import check_count, checked_indices
from amp.nft.inputs.geometry import check_atoms
from amp.nft.labels.single_point import Parent
from amp.nft.uncertainty.calibration import error95
from amp.nft.uncertainty.forces import CONFIDENCE

if TYPE_CHECKING:
    from amp.nft.kernels.prediction.evaluate import Evaluation, Evaluator

Ensemble = str | os.PathLike[str] | Sequence[AmpModel]


class EnsembleCalculator(Calculator):
    """Mean energy and forces of an ensemble, with their uncertainties.

    Parameters
    ----------
    ensemble : path, or sequence of AmpModel
        An ``.ensemble`` file of this package or of Amp's BootStrap, a single ``.amp`` file, or models.
    members : int, or sequence of int or of bool, optional
        Number of members to use, from the first one on, or their indices, or a mask; each once.
    threads : int, optional
        Threads of one evaluation; the processors that this process may use if not given. Results do not depend on it.
    keep_members : bool
        Also keep ``results['forces_ensemble']``, shape (members, atoms, 3), eV/Å, and ``results['energy_comm']``, shape (members,), eV;
        ``results['forces_comm']`` is the same array as the first.
    skin : float
        A neighbour list is kept until an atom has moved half of this, Å.
    progress : bool or callable
        True shows a bar in the terminal; or ``progress(done, all)`` is called periodically with numbers of atoms.
    baseline : ASE calculator, or callable, optional
        The calculator to which the members add, if they were trained with one; a callable ``f(directory)`` returns it. Energy, forces and
        stress are then sums, and uncertainties those of the members.

    Raises
    ------
    AmpFileError, UnsupportedModel
        The file cannot be read, or contains models other than Gaussian fingerprints with a neural network.
    InputError
        The members were trained with a baseline, and it is not given, or is not this one.
    ValueError
        If there is no member, or a requested one does not exist, or `threads` or `skin` is out of range; on
        evaluation, if an element was never trained, or the cell is flat where the structure is periodic.

    Notes
    -----
    In addition to ASE's properties, `results` contains

    - ``forces_uncertainty``, shape (atoms,), eV/Å: 2.58 standard deviations of the members' forces, the factor included;
    - ``forces_committee_std``, shape (atoms, 3), eV/Å: one standard deviation of each component (with members - 1), so
      that ``forces_uncertainty`` is 2.58 times the length of its rows;
    - ``forces_error95``, shape (atoms,), eV/Å: a 95 % band of the force error, the uncertainty times the factor that the trainer
      found out of bag, and at least as wide as the label error that a run found by larger chunks, if its card has it
      (see `amp.nft.uncertainty.error95_floor`); only where the members carry that factor;
    - ``energy_uncertainty``, eV: 2.58 standard deviations of the members' energies;
    - ``extrapolating``, bool, shape (atoms,): atoms with a fingerprint outside the range of the training set; the first
      time that there are any, a warning says so;
    - ``n_extrapolating``, int: the number of these atoms.

    ``free_energy`` is the same number as ``energy``: the ``energy`` of the training images
    (``atoms.get_potential_energy()``), not their ``free_energy``.

    All come from one pass over the structure. Beyond the results it takes some 0.5 kB of memory per atom for ten members,
    most of it for their forces. The stress, also per atom, is there where the structure has a cell of three vectors.
    A single member has no uncertainty: the first three are then NaN.
    """

    atoms: Atoms  # ASE's copy of the structure, from the first call on
    implemented_properties = [  # noqa: RUF012 - ASE's own interface
        "energy", "free_energy", "energies", "forces", "stress", "stresses",
        "forces_uncertainty", "forces_committee_std", "energy_uncertainty", "extrapolating", "n_extrapolating",
    ]  # fmt: skip
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012 - ASE's own interface

    def __init__(
        self,
        ensemble: Ensemble,
        *,
        members: int | Sequence[int] | None = None,
        threads: int | None = None,
        keep_members: bool = False,
        skin: float = 0.5,
        progress: bool | Callable[[int, int], None] = False,
        baseline: Parent | None = None,
    ) -> None:
        super().__init__()
        _check_settings(threads, skin, progress)
        self.models = _chosen(_models(ensemble), members)
        self.baseline = Baseline.of(baseline, self.models)
        self.threads = threads
        self.keep_members = keep_members
        self.error95_factor = _common(model.error95_factor for model in self.models)
        self.error95_floor = _common(model.error95_floor for model in self.models)
        if self.error95_factor is not None:
            self.implemented_properties = [*self.implemented_properties, "forces_error95"]
        if keep_members:
            self.implemented_properties = [*self.implemented_properties, "forces_ensemble", "forces_comm", "energy_comm"]
        self.skin = skin
        self.progress = progress
        self._evaluator: Evaluator | None = None
        self._warned = False

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate all members in one pass; called by ASE."""
        from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

        super().calculate(atoms, properties, system_changes)
        check_atoms(self.atoms)
        self._check_elements()
        if self._evaluator is None:
            self._evaluator = Evaluator(self.models, skin=self.skin)
        with _bar() if self.progress is True else nullcontext(self.progress or None) as progress:
            result = self._evaluator.evaluate(
                self.atoms.positions, self.atoms.numbers, self.atoms.cell.array, self.atoms.pbc,
                forces_ensemble=self.keep_members, stress=self.atoms.cell.rank == 3,
                threads=self.threads, progress=progress,
            )  # fmt: skip
        self.results = self.baseline.added(self._properties(result), self.atoms, properties)
        self._say_if_extrapolating(self.results["n_extrapolating"])

    def _properties(self, result: Evaluation) -> dict[str, Any]:
        """Return the results of one pass by ASE's names."""
        energy_m = result.energy_m
        several = len(energy_m) > 1
        found = {
            "energy": float(energy_m.mean()),
            "free_energy": float(energy_m.mean()),
            "energies": result.energies_mi.mean(axis=0),
            "forces": result.forces,
            "forces_uncertainty": result.forces_uncertainty,
            "forces_committee_std": result.forces_std,
            "energy_uncertainty": CONFIDENCE * float(energy_m.std(ddof=1)) if several else np.nan,
            "extrapolating": result.extrapolating,
            "n_extrapolating": int(result.extrapolating.sum()),
        }
        if self.error95_factor is not None:
            found["forces_error95"] = error95(found["forces_uncertainty"], self.error95_factor, self.error95_floor)
        if result.forces_mni is not None:
            found["forces_ensemble"] = found["forces_comm"] = result.forces_mni
            found["energy_comm"] = energy_m
        if result.virial_iab is not None:
            found["stresses"] = full_3x3_to_voigt_6_stress(-result.virial_iab / self.atoms.get_volume())
            found["stress"] = found["stresses"].sum(axis=0)
        return found

    def _check_elements(self) -> None:
        unknown = sorted(set(self.atoms.symbols) - set(self.models[0].elements))
        if unknown:
            raise ValueError(
                f"The structure contains {', '.join(unknown)}, but this ensemble was trained on "
                f"{', '.join(self.models[0].elements)} only: train one on images with every element."
            )

    def _say_if_extrapolating(self, count: int) -> None:
        if count and not self._warned:
            self._warned = True
            warnings.warn(
                f"{count} of {len(self.atoms)} atoms have a fingerprint outside the range of the training set: mind "
                "their forces_uncertainty. Said once; results['n_extrapolating'] counts them each time.",
                UserWarning,
                stacklevel=2,
            )

    @cached_property
    def digest(self) -> str:
        """Sixteen digits that identify the members and their parameters; a model card changes nothing."""
        return digest_of_models(self.models)

    def export_properties(self) -> Properties:
        """Return the results that ASE knows, for ``atoms.get_properties``."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without compiled tables and neighbour lists, which are recreated."""
        return self.__dict__ | {"_evaluator": None, "progress": self.progress is True}


def digest_of_models(models: Sequence[AmpModel]) -> str:
    """Return sixteen digits that identify members and their parameters; a model card changes nothing.

    Parameters
    ----------
    models : sequence of AmpModel

    Returns
    -------
    str
    """
    own = [replace(model, nft={key: value for key, value in model.nft.items() if key != "card"}) for model in models]
    return hashlib.sha256("".join(map(write_amp, own)).encode()).hexdigest()[:16]


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar in the terminal; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        "evaluating atoms", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _models(ensemble: Ensemble) -> list[AmpModel]:
    """Return the models of a file of either kind, or as given."""
    if not isinstance(ensemble, str | os.PathLike):
        return list(ensemble)
    if Path(ensemble).suffix != ".amp":
        return read_ensemble(ensemble)
    try:
        return [read_amp(Path(ensemble).read_bytes().decode(errors="replace"))]
    except (AmpFileError, UnsupportedModel) as error:
        raise type(error)(f"{ensemble}: {error}") from None


def _common(values: Iterable[float | None]) -> float | None:
    """Return the value that all members carry, or None."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _chosen(models: list[AmpModel], members: int | Sequence[int] | None) -> list[AmpModel]:
    if not models:
        raise InputError("The ensemble is empty: give a file, or at least one model.")
    if members is None:
        return models
    if isinstance(members, int | np.integer) and not isinstance(members, bool):
        check_count("members", members, least=1)
        members = range(members)
    chosen = checked_indices("members", members, len(models), "members of the ensemble").tolist()
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"members is {members!r}: give at least one, each once; a member that counts twice lowers the uncertainty.")
    return [models[member] for member in chosen]


def _check_settings(threads: int | None, skin: float, progress: bool | Callable[[int, int], None]) -> None:
    if not (isinstance(progress, bool) or callable(progress)):
        raise ValueError(f"progress is {progress!r}: it must be True, False or a callable.")
    if threads is not None and not (isinstance(threads, int | np.integer) and threads >= 1):
        raise ValueError(f"threads is {threads!r}: it must be an integer, at least 1, or None.")
    if not skin >= 0:
        raise ValueError(f"skin is {skin} Å: it must not be negative.")
