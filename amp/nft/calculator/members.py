"""Trained members in use, whichever program trained them: their predictions, and their calculator."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import Atoms

from amp.nft.amp_io import forces_by_amp, read_amp, without_card
from amp.nft.amp_io.committee_file import COMMITTEE, is_committee, read_index
from amp.nft.amp_io.ensemble_file import read_texts
from amp.nft.amp_io.external import bare, common_factor, is_external, read_external
from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.calculator.committee import Committee
from amp.nft.errors import InputError, UnsupportedModel
from amp.nft.inputs.geometry import with_cell
from amp.nft.labels.single_point import Parent
from amp.nft.uncertainty.forces import force_uncertainty

if TYPE_CHECKING:
    from amp.nft.kernels.prediction.evaluate import Evaluator

ENSEMBLE = ".ensemble"
BEYOND = 0.1  # Å, by which the reach of the members exceeds the range of a force


@dataclass(frozen=True)
class Prediction:
    """Predictions of all members for one structure.

    Attributes
    ----------
    energy : float
        Mean, eV; nan where only Amp itself evaluates the members, for their forces.
    energy_m : ndarray, shape (members,)
        eV; nan where it is not known.
    forces : ndarray, shape (atoms, 3)
        Mean, eV/Å.
    uncertainty : ndarray, shape (atoms,)
        `amp.nft.uncertainty.force_uncertainty` of the members, eV/Å.
    forces_mni : ndarray, shape (members, atoms, 3), or None
        eV/Å; None unless requested.
    """

    energy: float
    energy_m: np.ndarray
    forces: np.ndarray
    uncertainty: np.ndarray
    forces_mni: np.ndarray | None = None


class Members(Protocol):
    """Trained members of one ensemble.

    Attributes
    ----------
    error95_factor : float or None
        Factor on the uncertainty that covers 95 % of the out-of-bag errors; None if it is not known.
    reach : float or None
        Distance within which atoms act on a force, Å; None if it is not known.
    """

    error95_factor: float | None
    reach: float | None

    def predict(self, atoms: Atoms, each: bool = False) -> Prediction:
        """Return the predictions for one structure.

        Parameters
        ----------
        atoms : Atoms
        each : bool
            Also return the forces of each member.

        Returns
        -------
        Prediction
        """
        ...


class AmpMembers:
    """Members as ``.amp`` texts.

    Parameters
    ----------
    texts : sequence of str
    dblabel : str or None
        Prefix of Amp's database files, where Amp itself must predict; None: it does not.
    threads : int, optional

    Raises
    ------
    UnsupportedModel
        There is no `dblabel`, and only Amp itself can predict.
    """

    def __init__(self, texts: Sequence[str], dblabel: str | None, threads: int | None = None) -> None:
        self.texts, self.dblabel, self.threads = list(texts), dblabel, threads
        self.error95_factor: float | None = None
        self.reach: float | None = None
        try:
            self._models = [read_amp(text) for text in self.texts]
        except UnsupportedModel:
            if dblabel is None:
                raise
            self._models = []
        else:
            self.error95_factor = self._models[0].error95_factor
            self.reach = 2 * float(self._models[0].cutoff["kwargs"]["Rc"]) + BEYOND

    def predict(self, atoms: Atoms, each: bool = False) -> Prediction:
        """Return the predictions for one structure.

        Parameters
        ----------
        atoms : Atoms
        each : bool
            Also return the forces of each member.

        Returns
        -------
        Prediction
        """
        if not self._models:
            assert self.dblabel is not None
            forces_mni = forces_by_amp(self.texts, atoms, self.dblabel)
            unknown = np.full(len(forces_mni), np.nan)
            return Prediction(np.nan, unknown, forces_mni.mean(axis=0), force_uncertainty(forces_mni), forces_mni if each else None)
        found = self._evaluator.evaluate(
            atoms.positions, atoms.numbers, np.asarray(atoms.cell), atoms.pbc, forces_ensemble=each, threads=self.threads
        )
        return Prediction(float(found.energy_m.mean()), found.energy_m, found.forces, found.forces_uncertainty, found.forces_mni)

    @cached_property
    def _evaluator(self) -> Evaluator:
        from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

        return Evaluator(self._models)


class CommitteeMembers:
    """Models of another program, each loaded by its calculator.

    Parameters
    ----------
    texts : sequence of str
        Descriptions of the members.
    directory : path
        Directory in which the descriptions name files.
    """

    reach: float | None = None

    def __init__(self, texts: Sequence[str], directory: str | os.PathLike[str]) -> None:
        self.committee = committee_of(texts, directory, keep_members=True)
        self.error95_factor = self.committee.error95_factor

    def predict(self, atoms: Atoms, each: bool = False) -> Prediction:
        """Return the predictions for one structure.

        Parameters
        ----------
        atoms : Atoms
        each : bool
            Also return the forces of each member.

        Returns
        -------
        Prediction
        """
        forces, found = self.committee.get_property("forces", with_cell(atoms)), self.committee.results
        return Prediction(
            found["energy"], found["energy_comm"], forces, found["forces_uncertainty"], found["forces_comm"] if each else None
        )


def open_members(
    texts: Sequence[str], directory: str | os.PathLike[str], dblabel: str | None = None, threads: int | None = None
) -> Members:
    """Return the members of an iteration, ready to predict.

    Parameters
    ----------
    texts : sequence of str
        As the journal of a run has them.
    directory : path
        Training directory of the run, which contains the models of other programs.
    dblabel : str, optional
        Prefix of Amp's database files, where Amp itself must predict; it does not if not given.
    threads : int, optional
        Of members that the kernels evaluate.

    Returns
    -------
    Members

    Raises
    ------
    AmpFileError
        The file of a model is missing or changed.
    InputError
        The calculator of a model cannot be imported.
    UnsupportedModel
        There is no `dblabel`, and only Amp itself can predict.
    """
    return CommitteeMembers(texts, directory) if is_external(texts[0]) else AmpMembers(texts, dblabel, threads)


def committee_of(texts: Sequence[str], directory: str | os.PathLike[str], **settings: Any) -> Committee:
    """Return the committee of members that another program trained.

    Parameters
    ----------
    texts : sequence of str
        Descriptions of the members.
    directory : path
        Directory in which they name files.
    **settings
        As for `Committee`.

    Returns
    -------
    Committee
    """
    members = [read_external(text) for text in texts]
    return Committee([member.open(Path(directory)) for member in members], error95_factor=common_factor(members), **settings)


def load(path: str | os.PathLike[str], *, baseline: Parent | None = None, **settings: Any) -> EnsembleCalculator | Committee:
    """Return the calculator of the best ensemble that a run has left.

    Parameters
    ----------
    path : path
        An ``.ensemble`` file, an ``.amp`` file, or a ``.committee`` directory, whose models other programs trained. The calculator that
        ``committee.json`` in it names is imported, and may run code from the models: load only what you trust.
    baseline : ASE calculator, or callable, optional
        As for `EnsembleCalculator`; models of other programs have none.
    **settings
        As for `EnsembleCalculator` or `Committee`.

    Returns
    -------
    EnsembleCalculator or Committee

    Raises
    ------
    AmpFileError, FileNotFoundError
        The file or directory is missing or damaged.
    InputError
        The calculator of a model cannot be imported, or a baseline is given for models of another program.
    """
    if not is_committee(path):
        return EnsembleCalculator(path, baseline=baseline, **settings)
    if baseline is not None:
        raise InputError(f"baseline is given for {os.fspath(path)}, whose models were trained without: remove it.")
    index = read_index(path)
    card = index["card"] or {}
    known = {name: card.get(name) for name in ("elements", "error95_floor")}
    return committee_of(index["members"], path, **{**known, **settings})


def digest_of_members(path: str | os.PathLike[str]) -> str:
    """Return a short digest of saved members; a model card, whose terms of use may change, is no part of it.

    Parameters
    ----------
    path : path
        As for `load`.

    Returns
    -------
    str
    """
    if is_committee(path):
        parts: list[Any] = [bare(text) for text in read_index(path)["members"]]
    else:
        parts = [without_card(text) for text in read_texts(path)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def best_path(label: str) -> Path:
    """Return the file or directory with the best members of a finished run.

    Parameters
    ----------
    label : str
        Of the run; a path is allowed.

    Returns
    -------
    Path
    """
    name = Path(label).name
    committee = Path(label).with_name(f"best.{name}{COMMITTEE}")
    return committee if committee.is_dir() else committee.with_name(f"best.{name}{ENSEMBLE}")
