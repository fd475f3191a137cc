"""Read and write directories of committees: models of another program, and ``committee.json``, which names them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from amp.nft.amp_io.external import member_of, read_external
from amp.nft.errors import AmpFileError, UnsupportedModel
from amp.nft.system import files

COMMITTEE = ".committee"
INDEX = "committee.json"
FORMAT = 1


def is_committee(path: str | os.PathLike[str]) -> bool:
    """Return True if a path has the name of a committee.

    Parameters
    ----------
    path : path

    Returns
    -------
    bool
    """
    return Path(path).suffix == COMMITTEE


def refuse_committee(path: object, rule: str, remedy: str) -> None:
    """Raise UnsupportedModel if a path is that of a committee, where only networks of Amp can be used.

    Parameters
    ----------
    path : path, or anything else
    rule : str
        What the caller needs, and why.
    remedy : str

    Raises
    ------
    UnsupportedModel
    """
    if isinstance(path, str | os.PathLike) and is_committee(path):
        raise UnsupportedModel(f"{os.fspath(path)} is a committee, models of another program: {rule}. {remedy}")


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
        if not isinstance(found.get("card"), dict | None):
            raise ValueError("its card is not a table")
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
