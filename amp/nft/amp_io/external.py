"""Members that another program trained: their description as a text, their files, and the calculator that loads them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from amp.nft.errors import AmpFileError, InputError
from amp.nft.inputs.named import load_named

_BEGIN = '{"external member": 1, '
KEY = "external member"


@dataclass(frozen=True)
class Loader:
    """Calculator that loads a model.

    Attributes
    ----------
    calculator : str
        ``module.Class``, or ``file.py:function``, where the file is next to the model.
    argument : str or None
        Keyword of the model's path; None: the first argument.
    options : dict
        Further keyword arguments: plain data.
    """

    calculator: str
    argument: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def load(self, path: str | os.PathLike[str]) -> Any:
        """Return the calculator of a model.

        Parameters
        ----------
        path : path

        Returns
        -------
        ASE calculator

        Raises
        ------
        InputError
            The class or function cannot be imported, or does not load the model.
        """
        where, colon, what = self.calculator.rpartition(":")
        make = load_named(f"{Path(path).parent / where}:{what}" if colon else self.calculator, "calculator")
        first, given = ([os.fspath(path)], {}) if self.argument is None else ([], {self.argument: os.fspath(path)})
        try:
            return make(*first, **given, **self.options)
        except Exception as error:  # programs raise many kinds
            raise InputError(
                f"{self.calculator} cannot load {os.fspath(path)} ({type(error).__name__}: {error}): use the versions with which it was "
                "trained, and compare the keyword arguments."
            ) from error


@dataclass(frozen=True)
class ExternalMember:
    """Description of one member.

    Attributes
    ----------
    loader : Loader
    model : str
        Path of the model in a directory that its user knows, with slashes.
    files : dict of str to str
        SHA-256 of each file of the model, by its path in the same directory.
    nft : dict
        Data of amp.nft, such as the calibration.
    """

    loader: Loader
    model: str
    files: dict[str, str]
    nft: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the description as a text, which `read_external` reads.

        Returns
        -------
        str
        """
        return _BEGIN + json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)[1:]

    @property
    def error95_factor(self) -> float | None:
        """Factor on the uncertainty that covers 95 % of the out-of-bag errors; None if it is not known."""
        found = self.nft.get("out_of_bag")
        factor = found.get("factor") if isinstance(found, dict) else None
        return float(factor) if isinstance(factor, int | float) else None

    def check(self, directory: Path) -> None:
        """Raise AmpFileError unless all files of the model are in a directory, unchanged.

        Parameters
        ----------
        directory : Path
        """
        for name, known in self.files.items():
            if not (path := directory / name).is_file():
                raise AmpFileError(f"{path} is missing: restore it, or train this iteration again under another label.")
            if digest_of(path) != known:
                raise AmpFileError(f"{path} was changed since its training: restore it, or train again under another label.")

    def open(self, directory: Path) -> Any:
        """Return the calculator of the model in a directory, after a check of its files.

        Parameters
        ----------
        directory : Path

        Returns
        -------
        ASE calculator

        Raises
        ------
        AmpFileError
            A file is missing or changed.
        InputError
            The calculator cannot be imported.
        """
        self.check(directory)
        return self.loader.load(directory / self.model)


def is_external(text: str) -> bool:
    """Return True if the text of a member describes a model of another program.

    Parameters
    ----------
    text : str

    Returns
    -------
    bool
    """
    return text.startswith(f'{{"{KEY}"')


def read_external(text: str) -> ExternalMember:
    """Return the member that a text describes.

    Parameters
    ----------
    text : str
        As `ExternalMember.text` writes it.

    Returns
    -------
    ExternalMember

    Raises
    ------
    AmpFileError
        The text is damaged, or names files outside its directory.
    """
    try:
        return member_of(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise AmpFileError(f"not the description of a member ({error}): restore the files of the run") from None


def member_of(parts: Any) -> ExternalMember:
    """Return the member that plain data describe.

    Parameters
    ----------
    parts : dict
        As ``dataclasses.asdict`` gives it.

    Returns
    -------
    ExternalMember

    Raises
    ------
    AmpFileError
        The data are damaged, or name files outside their directory.
    """
    try:
        found = ExternalMember(Loader(**parts["loader"]), parts["model"], dict(parts["files"]), dict(parts["nft"]))
    except (ValueError, TypeError, KeyError) as error:
        raise AmpFileError(f"not the description of a member ({type(error).__name__}: {error}): restore the files of the run") from None
    for name in (found.model, *found.files):
        path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath("..")
        if path.is_absolute() or ".." in path.parts:
            raise AmpFileError(f"the description of a member names {name!r}, outside its directory: restore the files of the run")
    return found


def common_factor(members: Sequence[ExternalMember]) -> float | None:
    """Return the factor on the uncertainty that covers 95 % of the out-of-bag errors, if all members have the same one.

    Parameters
    ----------
    members : sequence of ExternalMember

    Returns
    -------
    float or None
    """
    factors = {member.error95_factor for member in members}
    return factors.pop() if len(factors) == 1 else None


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(place: Path, base: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a directory, by its path from another directory.

    Parameters
    ----------
    place, base : Path

    Returns
    -------
    dict of str to str
    """
    return {
        path.relative_to(base).as_posix(): digest_of(path) for path in sorted(place.rglob("*")) if path.is_file() and path.suffix != ".pyc"
    }


def bare(text: str) -> Mapping[str, Any]:
    """Return what identifies a model: its loader and the hashes of its files, wherever they are.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict
    """
    member = read_external(text)
    return {"loader": asdict(member.loader), "files": sorted(member.files.values())}
