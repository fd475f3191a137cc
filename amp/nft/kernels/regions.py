"""Atoms in an order that keeps neighbours together, and the surroundings of a stretch of that order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from ase.geometry import complete_cell

REGION = 32768  # atoms whose neighbours are listed at a time: what bounds the memory
_BITS = 21  # cells per axis, as a power of two


class Regions:
    """
    Atoms sorted along a Z-order curve of cells at least as wide as the cutoff.

    Parameters
    ----------
    positions : ndarray, shape (atoms, xyz)
        In Å; need not be wrapped.
    cell : ndarray, shape (3, 3)
        Cell vectors as rows, Å.
    pbc : ndarray of bool, shape (3,)
        Which of them repeat.
    radius : float
        Cutoff, Å.

    Attributes
    ----------
    order : ndarray of int, shape (atoms,)
        The atoms in the order of the curve.
    """

    def __init__(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float):
        cell, self._pbc = complete_cell(cell), np.asarray(pbc, dtype=bool)
        inverse = np.linalg.inv(cell)
        place = positions @ inverse
        extent = np.where(self._pbc, 1.0, np.ptp(place, axis=0)) if len(place) else np.ones(3)
        width = radius * np.linalg.norm(inverse, axis=0)  # of the cutoff, in fractions of the cell's height
        self._shape = np.clip(extent / width, 1, 2**_BITS - 1).astype(np.int64)
        low = np.where(self._pbc, 0.0, place.min(axis=0, initial=np.inf))
        place = (place - low) / np.where(extent > 0.0, extent, 1.0)
        place -= np.where(self._pbc, np.floor(place), 0.0)
        box = np.minimum((place * self._shape).astype(np.int64), self._shape - 1)
        code = _z_order(box)
        self.order = np.argsort(code, kind="stable")
        self._box, self._code = box[self.order], code[self.order]

    def parts(self, size: int) -> Iterator[tuple[np.ndarray, int]]:
        """Stretches of so many atoms: the indices of these and of their surroundings, and how many of them are the stretch."""
        for first in range(0, len(self.order), size):
            last = min(first + size, len(self.order))
            yield np.concatenate([self.order[first:last], self.order[self.surroundings(first, last)]]), last - first

    def surroundings(self, first: int, last: int) -> np.ndarray:
        """
        Places in `order`, outside of ``first:last``, of all atoms within the cutoff of one inside; some are further away.
        """
        if last - first == len(self.order):
            return np.zeros(0, dtype=np.int64)
        steps = np.array(list(product((-1, 0, 1), repeat=3)))
        boxes = (np.unique(self._box[first:last], axis=0)[:, None] + steps).reshape(-1, 3)
        boxes = np.where(self._pbc, boxes % self._shape, boxes)
        boxes = boxes[((boxes >= 0) & (boxes < self._shape)).all(axis=1)]
        code = np.unique(_z_order(boxes))
        near = _ranges(np.searchsorted(self._code, code), np.searchsorted(self._code, code, side="right"))
        return near[(near < first) | (near >= last)]


def _z_order(box: np.ndarray) -> np.ndarray:
    """Place of a cell on the curve: the binary digits of its three numbers, interleaved."""
    code = np.zeros(len(box), dtype=np.int64)
    for bit in range(int(box.max(initial=0)).bit_length()):
        for axis in range(3):
            code |= (box[:, axis] >> bit & 1) << (3 * bit + axis)
    return code


def _ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All whole numbers in several ranges, one after the other."""
    length = end - start
    shift = np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    return np.arange(length.sum()) + shift
