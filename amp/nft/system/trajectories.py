"""Labelled images as ASE trajectories: many of them, or the same ones in many files."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import TrajectoryWriter


class Frame:
    """An image as it is written.

    ASE compares an image with its calculator's atoms for each result and each time that it writes the image, which takes most
    of the time. Here they are compared once.

    Parameters
    ----------
    image : Atoms
        Is not to change while the frame is used.
    """

    def __init__(self, image: Atoms) -> None:
        self._atoms, self._results = image, {}
        if type(image.calc) is SinglePointCalculator:
            changed = image.calc.check_state(image)
            self._atoms = copy.copy(image)
            self._atoms.calc = None
            self._results = {} if changed else dict(image.calc.results)

    def write(self, writer: TrajectoryWriter) -> None:
        """Add the image to a trajectory.

        Parameters
        ----------
        writer : TrajectoryWriter
        """
        writer.write(self._atoms, **self._results)


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
            Frame(image).write(self._writer)
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


def write_frames(file: Path | IO[bytes], frames: Sequence[Frame]) -> None:
    """Write a ``.traj`` file of frames.

    Parameters
    ----------
    file : Path or binary file
    frames : sequence of Frame
        In this order; a frame may occur more than once.
    """
    with TrajectoryWriter(file, "w") as writer:
        for frame in frames:
            frame.write(writer)
