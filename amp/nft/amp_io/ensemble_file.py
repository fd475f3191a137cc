"""Read and write ``.ensemble`` files, the members of an ensemble as ``.amp`` texts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from amp.nft.amp_io.committee_file import refuse_committee
from amp.nft.amp_io.model import AmpModel, read_amp
from amp.nft.errors import AmpFileError, UnsupportedModel
from amp.nft.system import files


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """Return the members' ``.amp`` texts in an ``.ensemble`` file, for any kind of model.

    Parameters
    ----------
    path : path
        File written by ``BootStrap`` or :func:`write_ensemble`: a JSON list of texts.

    Returns
    -------
    list of str

    Raises
    ------
    AmpFileError
        The file is no such list, or is cut off.
    FileNotFoundError
        There is no such file.
    UnsupportedModel
        It is the directory of a committee.
    """
    refuse_committee(
        path, "this needs networks of Amp", "Give an .ensemble file; amp.nft.calculator.load gives the committee's calculator."
    )
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no file {os.fspath(path)!r} in {os.getcwd()}: give an ensemble that a run has left, such as best.al.ensemble."
        )
    try:
        texts = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AmpFileError(f"{path}: not an ensemble file ({error}); is it cut off or of another kind?") from None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise AmpFileError(f"{path}: not an ensemble file: expected a JSON list of .amp texts")
    return texts


def read_ensemble(path: str | os.PathLike[str]) -> list[AmpModel]:
    """Return the members in an ``.ensemble`` file.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of AmpModel

    Raises
    ------
    AmpFileError, UnsupportedModel
        As :func:`read_amp`, with the file and the member named.
    """
    return [_read_member(path, member, text) for member, text in enumerate(read_texts(path))]


def _read_member(path: str | os.PathLike[str], member: int, text: str) -> AmpModel:
    try:
        return read_amp(text)
    except (AmpFileError, UnsupportedModel) as error:
        raise type(error)(f"{path}, member {member}: {error}") from None


def write_ensemble(path: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write an ``.ensemble`` file that ``BootStrap(load=...)`` reads, atomically.

    Parameters
    ----------
    path : path
    texts : sequence of str
        The members' ``.amp`` texts.
    """
    files.write(path, json.dumps(list(texts)).encode())


def forces_by_amp(texts: list[str], target: Atoms, dblabel: str) -> np.ndarray:
    """Compute the forces of each member by Amp itself.

    Parameters
    ----------
    texts : list of str
        The members' ``.amp`` texts.
    target : Atoms
    dblabel : str
        Path prefix of Amp's fingerprint databases.

    Returns
    -------
    ndarray, shape (members, atoms, 3)
        eV/Å.
    """
    from amp.stats.bootstrap import BootStrap
    from amp.utilities import Logger

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "now.ensemble"
        write_ensemble(path, texts)
        ensemble = BootStrap(load=str(path), log=Logger(None), label=dblabel)
        return np.array(ensemble.get_forces(target, output=[0.5, "e"])[-1])
