"""Labelled images as ASE trajectories: many of them, or the same ones in many files."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import ulm
from ase.io.trajectory import TrajectoryWriter

# ASE's format: a tag and the version; number of images and place of the table of their places; then each image's arrays and description
_NUMBER, _TABLE, _HEAD, _FIRST = 32, 40, 48, 56  # places of the number of images, the table's place, a table of one image, its image
# ASE takes the results that it is given, and asks the calculator for all others
_NOTHING, _NAME_ONLY = dict.fromkeys(all_properties), SinglePointCalculator(Atoms())
_BUFFER = 1 << 18
_PLACE = re.compile(rb'("ndarray": \[\[[\d, ]*\], "\w+", )(\d+)')


class EncodedImage:
    """An image as the bytes that ASE writes for it, which several files may contain and one file several times.

    Parameters
    ----------
    head : bytes
        Begin of a file.
    arrays : bytes
        The image's arrays, the first one at a place that 8 divides.
    text : bytes
        Its description.
    begin : int
        Place of the arrays where the description was written.
    """

    def __init__(self, head: bytes, arrays: bytes, text: bytes, begin: int) -> None:
        self.head, self._arrays = head, arrays
        parts = _PLACE.split(text)  # each place after the two texts before it
        self._places = [int(part) - begin for part in parts[2::3]]
        self._text = b"".join(b"%d" if k % 3 == 2 else part.replace(b"%", b"%%") for k, part in enumerate(parts))

    def pieces(self, place: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the bytes that add the image to a file.

        Parameters
        ----------
        place : int
            Length of the file before.

        Returns
        -------
        tuple of bytes
            Filling, arrays, length of the description, and the description, whose length is the image's place in the file.
        """
        filling = -place % 8
        begin = place + filling
        text = self._text % tuple([begin + part for part in self._places])
        return b"#" * filling, self._arrays, len(text).to_bytes(8, "little"), text


class GrowingTrajectory:
    """Content of a trajectory to which images are added: each image is written once."""

    def __init__(self) -> None:
        self._images: list[Atoms] = []
        self._begin()

    def content(self, images: Sequence[Atoms]) -> bytes:
        """Return the content for these images; none give no bytes.

        Parameters
        ----------
        images : sequence of Atoms
            Quick where they begin with all images of the last call, the same objects.

        Returns
        -------
        bytes
        """
        n = len(self._images)
        if len(images) < n or any(a is not b for a, b in zip(images, self._images, strict=False)):
            self._begin()
            n = 0
        for image in images[n:]:
            _write(self._writer, image)
        self._images = list(images)
        return self._buffer.getvalue()

    def _begin(self) -> None:
        self._images, self._buffer = [], io.BytesIO()
        self._writer = TrajectoryWriter(self._buffer, "w")


def trajectory_bytes(images: Sequence[Atoms]) -> bytes:
    """Return images as the content of a ``.traj`` file.

    Parameters
    ----------
    images : sequence of Atoms

    Returns
    -------
    bytes
        Empty without images.
    """
    return GrowingTrajectory().content(images)


def encode_images(images: Sequence[Atoms]) -> list[EncodedImage]:
    """Return each image as ASE writes it at the beginning of a file.

    Parameters
    ----------
    images : sequence of Atoms
        With their results, if they are those of their positions.

    Returns
    -------
    list of EncodedImage
    """
    buffer, begins = io.BytesIO(), []
    writer = TrajectoryWriter(buffer, "w")
    for image in images:
        begins.append(max(_FIRST, buffer.tell() + -buffer.tell() % 8))
        writer.header_data = None  # numbers and periodicity are written with each image
        _write(writer, image)
    data = buffer.getvalue()
    table = _integer(data, _TABLE) if images else 0
    places = [_integer(data, table + 8 * k) for k in range(len(images))]
    texts = [data[place + 8 : place + 8 + _integer(data, place)] for place in places]
    return [EncodedImage(data[:_NUMBER], data[begin:place], text, begin) for begin, place, text in zip(begins, places, texts, strict=True)]


def write_encoded(path: Path, frames: Sequence[EncodedImage]) -> None:
    """Write a ``.traj`` file of frames, in this order; a frame may be there more than once.

    Parameters
    ----------
    path : Path
    frames : sequence of EncodedImage
    """
    if not frames:
        path.write_bytes(b"")
        return
    pieces, places, end = [bytes(_HEAD)], [], _HEAD
    for frame in frames:
        added = frame.pieces(end)
        places.append(end + len(added[0]) + len(added[1]))
        end = places[-1] + len(added[2]) + len(added[3])
        pieces += added
    room = 1
    while room < len(places):
        room *= ulm.N1
    table = end + -end % 8
    pieces += [b"#" * (-end % 8), np.array(places, dtype="<i8").tobytes(), bytes(8 * (room - len(places)))]
    pieces[0] = frames[0].head + np.array([len(places), table], dtype="<i8").tobytes()
    with open(path, "wb", buffering=_BUFFER) as file:  # joining all first takes longer
        file.writelines(pieces)


def _write(writer: TrajectoryWriter, image: Atoms) -> None:
    """Write an image. ASE compares it with its calculator's atoms for each result, which takes most of the time; this does so once."""
    if type(image.calc) is not SinglePointCalculator:
        writer.write(image)
        return
    bare = copy.copy(image)
    bare.calc = None
    labelled = image.calc.atoms
    current = (labelled is not None and _identical(image, labelled)) or not image.calc.check_state(image)
    if current and image.calc.results:
        bare.calc = _NAME_ONLY
        writer.write(bare, **_NOTHING | image.calc.results)
    else:
        writer.write(bare)


def _identical(one: Atoms, other: Atoms) -> bool:
    """Return True if all arrays, cell and periodicity are the same to the bit, which is found out sooner than what has changed."""
    arrays = one.arrays.keys() == other.arrays.keys() and all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
    return bool(arrays and np.array_equal(one.cell.array, other.cell.array) and np.array_equal(one.pbc, other.pbc))


def _integer(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")
