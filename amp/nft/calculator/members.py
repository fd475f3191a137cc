"""Trained members in use, whichever program trained them: predictions, calculators, and the directory of a committee."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from amp.nft.amp_io import without_card
from amp.nft.amp_io.ensemble_file import read_texts
from amp.nft.amp_io.external import bare, is_external, member_of, read_external
from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.calculator.committee import Committee
from amp.nft.calculator.evaluate import error95_factor, predict
from amp.nft.errors import AmpFileError, InputError
from amp.nft.inputs.geometry import with_cell
from amp.nft.labels.single_point import Parent
from amp.nft.system import files

ENSEMBLE, COMMITTEE = ".ensemble", ".committee"
INDEX = "committee.json"
FORMAT = 1


class Members(Protocol):
    """Trained members of one ensemble."""

    error95_factor: float | None

    def predict(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return mean forces and their uncertainty.

        Parameters
        ----------
        atoms : Atoms

        Returns
        -------
        forces : ndarray, shape (atoms, 3)
            eV/Å.
        uncertainty : ndarray, shape (atoms,)
            eV/Å.
        """
        ...


class AmpMembers:
    """Members as ``.amp`` texts.

    Parameters
    ----------
    texts : sequence of str
    dblabel : str or None
        Prefix of Amp's database files, where Amp itself must predict.
    threads : int, optional
    """

    def __init__(self, texts: Sequence[str], dblabel: str | None, threads: int | None) -> None:
        self.texts, self.dblabel, self.threads = list(texts), dblabel, threads
        self.error95_factor = error95_factor(self.texts)

    def predict(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return mean forces and their uncertainty.

        Parameters
        ----------
        atoms : Atoms

        Returns
        -------
        forces : ndarray, shape (atoms, 3)
            eV/Å.
        uncertainty : ndarray, shape (atoms,)
            eV/Å.
        """
        return predict(self.texts, atoms, self.dblabel, self.threads)


class CommitteeMembers:
    """Models of another program, each loaded by its calculator.

    Parameters
    ----------
    texts : sequence of str
        Descriptions of the members.
    directory : path
        Directory in which the descriptions name files.
    """

    def __init__(self, texts: Sequence[str], directory: str | os.PathLike[str]) -> None:
        self.committee = committee_of(texts, directory)
        self.error95_factor = self.committee.error95_factor

    def predict(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return mean forces and their uncertainty.

        Parameters
        ----------
        atoms : Atoms

        Returns
        -------
        forces : ndarray, shape (atoms, 3)
            eV/Å.
        uncertainty : ndarray, shape (atoms,)
            eV/Å.
        """
        return self.committee.get_property("forces", with_cell(atoms)), self.committee.results["forces_uncertainty"]


def open_members(texts: Sequence[str], directory: str | os.PathLike[str], dblabel: str | None, threads: int | None = None) -> Members:
    """Return the members of an iteration, ready to predict.

    Parameters
    ----------
    texts : sequence of str
        As the journal of a run has them.
    directory : path
        Training directory of the run, which contains the models of other programs.
    dblabel : str or None
        Prefix of Amp's database files, where Amp itself must predict; None: it does not.
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
    factors = {member.nft.get("out_of_bag", {}).get("factor") for member in members}
    factor = factors.pop() if len(factors) == 1 else None
    return Committee([member.open(Path(directory)) for member in members], error95_factor=factor, **settings)


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
    if Path(path).suffix != COMMITTEE:
        return EnsembleCalculator(path, baseline=baseline, **settings)
    if baseline is not None:
        raise InputError(f"baseline is given for {os.fspath(path)}, whose models were trained without: remove it.")
    return committee_of(read_index(path)["members"], path, **settings)


def read_index(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of ``committee.json``.

    Parameters
    ----------
    path : path
        The directory of a committee.

    Returns
    -------
    dict
        ``members``, the texts of the members, and ``card``.

    Raises
    ------
    AmpFileError, FileNotFoundError
        It is missing or damaged.
    """
    index = Path(path) / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"There is no file {index}: give the directory of a committee that a run has left, as best.al.committee.")
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not found["members"]:
            raise ValueError(f"format {found['format']!r}")
        return {"members": [member_of(parts).text() for parts in found["members"]], "card": found.get("card")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise AmpFileError(f"{index} is not the index of a committee of format {FORMAT} ({error}): copy it again.") from None


def save_committee(path: Path, texts: Sequence[str], directory: Path, card: dict[str, Any] | None = None) -> None:
    """Write the directory of a committee: its models, and ``committee.json``, which names them.

    Parameters
    ----------
    path : Path
        It may exist; readers find the old or the new committee, never parts of both.
    texts : sequence of str
        The members.
    directory : Path
        Directory in which the texts name files.
    card : dict, optional
        Model card.

    Raises
    ------
    AmpFileError
        A file of a model is missing or changed.
    """
    path.mkdir(parents=True, exist_ok=True)
    members, places = [], []
    for number, member in enumerate(map(read_external, texts)):
        member.check(directory)
        place = f"member-{number}-{hashlib.sha256(''.join(member.files.values()).encode()).hexdigest()[:8]}"
        base = Path(member.model).parent  # the model's own directory, with all of its files
        names = {old: f"{place}/{Path(old).relative_to(base).as_posix()}" for old in member.files}
        if not all((path / new).is_file() for new in names.values()):
            shutil.rmtree(path / place, ignore_errors=True)
            for old, new in names.items():
                (path / new).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / old, path / new)
        model = f"{place}/{Path(member.model).name}"
        members.append(asdict(replace(member, model=model, files={new: member.files[old] for old, new in names.items()})))
        places.append(place)
    data = json.dumps({"format": FORMAT, "members": members, "card": card}, indent=1, ensure_ascii=False).encode() + b"\n"
    if not ((path / INDEX).is_file() and (path / INDEX).read_bytes() == data):
        files.write(path / INDEX, data)
    for stale in path.glob("member-*"):
        if stale.name not in places:
            shutil.rmtree(stale, ignore_errors=True)


def models_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return the paths of the models in the directory of a committee.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of Path
    """
    return [Path(path) / read_external(text).model for text in read_index(path)["members"]]


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
    if Path(path).suffix == COMMITTEE:
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
