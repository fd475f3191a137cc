"""Commands of an input deck of LAMMPS, and their words."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"""[\s\S]*?"""|"[^"]*"|\'[^\']*\'|\S+')


def commands(text: str) -> Iterator[str]:
    """Yield the commands of a deck, with their continuation lines.

    Parameters
    ----------
    text : str

    Yields
    ------
    str
    """
    command = ""
    for line in text.splitlines(keepends=True):
        command += line
        if not line.rstrip("\r\n").endswith("&") and command.count('"""') % 2 == 0:
            yield command
            command = ""
    if command:
        yield command


def words(command: str) -> list[str]:
    """Return the words of a command, quoted texts with their quotation marks; none of a comment.

    Parameters
    ----------
    command : str

    Returns
    -------
    list of str
    """
    found = _TOKEN.findall(command.replace("&\n", " "))
    comment = next((place for place, word in enumerate(found) if word.startswith("#")), len(found))
    return found[:comment]
