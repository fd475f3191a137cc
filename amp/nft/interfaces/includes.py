"""Files that a deck includes, in their places: their runs are noticed as those of the deck."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from amp.nft.errors import InputError
from amp.nft.interfaces.commands import commands, words

DEPTH = 20  # files within files
_IN_IF = re.compile(r"[\"']\s*(?P<name>include|jump|run)\s+(?P<file>[^\s\"']+)")
_RUN = re.compile(r"^\s*run\s", re.MULTILINE)
_LABEL = re.compile(r"\b(label|jump)\s")
_WRITERS = ("print", "shell", "fix", "python", "if", "info", "write_dump")  # commands that can write a file for LAMMPS


def inlined(text: str, depth: int = 0) -> str:
    """Return a deck with the text of its included files in place of their commands.

    Parameters
    ----------
    text : str
    depth : int
        Of files within files.

    Returns
    -------
    str
        A file stays as it is if it is missing or no text in UTF-8, if the deck may write it, or if it has labels, jumps, or a variable
        in its name.

    Raises
    ------
    InputError
        Files include each other without end.
    """
    if depth > DEPTH:
        raise InputError(f"the deck includes files that include each other, more than {DEPTH} deep: remove an `include`.")
    parts, written = list[str](), ""
    for command in commands(text):
        found = words(command)
        path = _included(found)
        if path and path not in written and (inner := _text_of(path)) and not _LABEL.search(inner):
            parts.append(inlined(inner if inner.endswith("\n") else inner + "\n", depth + 1))
        else:
            written += command if found and found[0] in _WRITERS else ""
            parts.append(command)
    return "".join(parts)


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file.

    Parameters
    ----------
    path : path

    Returns
    -------
    str

    Raises
    ------
    InputError
        It is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{os.fspath(path)} is no text in UTF-8: give an input deck of LAMMPS.") from None


def refuse_hidden_runs(command: str, found: Sequence[str]) -> None:
    """Refuse a command that makes a run which cannot be noticed.

    Parameters
    ----------
    command : str
        That stands in a deck whose files are inlined.
    found : sequence of str
        Its words.

    Raises
    ------
    InputError
        A run in a condition or in another file, or ``clear``.
    """
    name, remedy = found[0] if found else "", ""
    others = [[one["name"], one["file"]] for one in _IN_IF.finditer(command)] if name == "if" else [[name, *found[1:2]]]
    if name == "clear" or (name == "if" and any(one[0] == "run" for one in others)):
        remedy = "write `run` on its own line, and no `clear`"
    for one in others:
        if one[0] == "jump" and one[1:] != ["SELF"]:
            remedy = "jump to a label of the deck itself, by `jump SELF`"
        elif (path := _included(one)) and _RUN.search(_text_of(path) or ""):
            remedy = f"write the commands of {path} into the deck, since it has a `run`"
    if remedy:
        raise InputError(f"the deck has `{command.strip()}`: with --relearn {remedy}.")


def _text_of(path: str) -> str | None:
    """Return the text of a file; None if it is missing or no text in UTF-8."""
    with suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8")
    return None


def _included(found: Sequence[str]) -> str:
    """Return the file that a command includes, if its name is known; else an empty text."""
    path = found[1].strip("\"'") if len(found) == 2 and found[0] == "include" else ""
    return "" if "$" in path else path
