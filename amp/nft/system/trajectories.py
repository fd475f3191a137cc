"""Labelled images as ASE trajectories: many of them, or the same ones in many files."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import ulm
from ase.io.trajectory import TrajectoryWriter

# ASE's format: a tag; version, number of images and place of the table of their places; then each image's arrays and description
_TAG, _HEAD, _FIRST = 24, 48, 56  # bytes before the version, the table of one image, and that image
_PLACE = re.compile(rb'("ndarray": \[\[[\d, ]*\], "\w+", )(\d+)')


class EncodedImage:
    """An image as the bytes that ASE writes for it, which several files may contain and one file several times.

    Parameters
    ----------
    image : Atoms
        With its results, if they are those of its positions.
    """

    def __init__(self, image: Atoms) -> None:
        data = trajectory_bytes([image])
        place = _integer(data, _HEAD)
        self.tag, self.version = data[:_TAG], _integer(data, _TAG)
        self._arrays, text = data[_FIRST:place], data[place + 8 : place + 8 + _integer(data, place)]
        self._parts = _PLACE.split(text)  # each place after the two texts before it

    def write(self, file: IO[bytes]) -> int:
        """Add the image to a file.

        Parameters
        ----------
        file : file
            Opened for binary writing, at its end.

        Returns
        -------
        int
            Place of the image's description in the file.
        """
        file.write(b"#" * (-file.tell() % 8))
        shift = file.tell() - _FIRST
        text = b"".join(b"%d" % (int(part) + shift) if k % 3 == 2 else part for k, part in enumerate(self._parts))
        file.write(self._arrays)
        place = file.tell()
        file.write(len(text).to_bytes(8, "little") + text)
        return place


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


def write_encoded(path: Path, frames: Sequence[EncodedImage]) -> None:
    """Write a ``.traj`` file of frames, in this order; a frame may be there more than once.

    Parameters
    ----------
    path : Path
    frames : sequence of EncodedImage
    """
    with open(path, "wb") as file:
        if not frames:
            return
        file.write(bytes(_HEAD))
        places = np.array([frame.write(file) for frame in frames], dtype="<i8")
        file.write(b"#" * (-file.tell() % 8))
        table = file.tell()
        room = 1
        while room < len(places):
            room *= ulm.N1
        file.write(places.tobytes() + bytes(8 * (room - len(places))))
        file.seek(0)
        file.write(frames[0].tag + np.array([frames[0].version, len(places), table], dtype="<i8").tobytes())


def _write(writer: TrajectoryWriter, image: Atoms) -> None:
    """Write an image. ASE compares it with its calculator's atoms for each result, which takes most of the time; this does so once."""
    if type(image.calc) is not SinglePointCalculator:
        writer.write(image)
        return
    bare = copy.copy(image)
    bare.calc = None
    labelled = image.calc.atoms
    current = (labelled is not None and _identical(image, labelled)) or not image.calc.check_state(image)
    writer.write(bare, **(image.calc.results if current else {}))


def _identical(one: Atoms, other: Atoms) -> bool:
    """Return True if all arrays, cell and periodicity are the same to the bit, which is found out sooner than what has changed."""
    arrays = one.arrays.keys() == other.arrays.keys() and all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
    return bool(arrays and np.array_equal(one.cell.array, other.cell.array) and np.array_equal(one.pbc, other.pbc))


def _integer(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")
