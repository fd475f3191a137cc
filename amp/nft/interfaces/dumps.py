"""Text dumps of a deck: frames by which learning can begin, and frames that a process which was killed has written too much."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

APPENDED = ("custom", "atom", "xyz", "yaml")  # dumps to which LAMMPS can append
_COMPRESSED = (".bin", ".gz", ".zst")
_BEGIN = {"xyz": re.compile(rb"\d+\s*$"), "yaml": re.compile(rb"---\s*$")}  # first line of a frame
_STEP = {"xyz": re.compile(rb" Atoms\. Timestep: (\d+).*\n"), "yaml": re.compile(rb"timestep: (\d+)\s*\n")}
_ITEM = re.compile(rb"ITEM: (UNITS|TIME|TIMESTEP)\s*$")  # of the other two styles
_NUMBER = re.compile(rb"(\d+)\s*\n")
_AXES = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))


def is_one_text(style: str, path: str) -> bool:
    """Return True if a dump appends text to one file, or to one of each process.

    Parameters
    ----------
    style, path : str

    Returns
    -------
    bool
    """
    return style in APPENDED and "*" not in path and not path.endswith(_COMPRESSED)


def is_readable(found: Sequence[str]) -> bool:
    """Return True if a dump has, in one text file, positions and uncertainties of all atoms, by which frames can be learned.

    Parameters
    ----------
    found : sequence of str
        Words of its command.

    Returns
    -------
    bool
    """
    columns = found[6:]
    if found[2] != "all" or found[3] != "custom" or "%" in found[5] or not is_one_text(found[3], found[5]):
        return False
    places = any({*axes} <= {*columns} for axes in _AXES)
    return places and "id" in columns and "d_delta" in columns and ("type" in columns or "element" in columns)


def cut_after(path: Path, step: int, begin: int = 0, style: str = "custom") -> None:
    """Remove the frames after a step from a text dump; where the deck has reset the step, those alone that came later.

    Parameters
    ----------
    path : Path
    step : int
    begin : int
        Number of bytes that stay in any case.
    style : str
        Of the dump.
    """
    with open(path, "rb+") as file:
        file.seek(begin)
        last, cut = 0, None
        for place, number in _frames(file, style):
            if number is not None and number < last:
                cut = None
            if cut is None and (number is None or number > step):
                cut = place
            last = last if number is None else number
        if cut is not None:
            file.truncate(cut)


def _frames(file: BinaryIO, style: str) -> Iterator[tuple[int, int | None]]:
    """Yield the place and the step of each frame; the step is None where a kill has cut the first lines of the last frame."""
    place, begin = file.tell(), None
    while line := file.readline():
        if begin is None and (not line.endswith(b"\n") or _BEGIN.get(style, _ITEM).match(line)):
            begin = place
        if style not in _STEP and line == b"ITEM: TIMESTEP\n":
            line = file.readline()
            found = _NUMBER.fullmatch(line)
        else:
            found = _STEP[style].fullmatch(line) if style in _STEP else None
        if found is not None and begin is not None:
            yield begin, int(found[1])
            begin = None
        place = file.tell()
    if begin is not None:
        yield begin, None
