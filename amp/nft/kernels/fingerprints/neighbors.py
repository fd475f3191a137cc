"""
Neighbours, found a few atoms at a time: no list of a whole large structure is ever held.

Atoms are sorted into bins at least as wide as the cutoff, where the cell allows, and the bins along a Z-order curve,
so that atoms that follow each other are near each other. Whoever wants the neighbours of a stretch of them looks
through the bins around, on any thread.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from ase.geometry import complete_cell

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.vectors import LANES, get, load, put, splat, store

_BINS_PER_ATOM = 4  # at most; in a structure with much vacuum bins are wider
_SAME = 1e-6  # Å; atoms nearer than this are in one place: a cell's vectors round them apart


class Neighbors(NamedTuple):
    """
    The neighbours of some atoms, periodic images (an atom's own included) as separate entries.

    The way from the atom i to an entry is ``position[index] + shift[image] - position[i]``.
    """

    start: np.ndarray  # (centres + 1,) the neighbours of centre c are the entries start[c]:start[c + 1]
    index: np.ndarray  # type: ignore[assignment]  # (entries,) which atom the neighbour is (an image of)
    image: np.ndarray  # (entries,) and which image
    shift: np.ndarray  # (images, xyz) of each image, Å
    position: np.ndarray  # (atoms, xyz) wrapped into the cell, Å

    @property
    def most(self) -> int:
        """The largest number of neighbours of any centre."""
        return int(np.diff(self.start).max(initial=0))


class Bins(NamedTuple):
    """Where atoms are, as the search reads it. Atoms are counted in sorted order."""

    shape: np.ndarray  # (3,) bins along each cell vector
    reach: np.ndarray  # (3,) bins to look through in each direction
    wraps: np.ndarray  # (3,) cells that these extend over; 0 where nothing repeats
    box: np.ndarray  # (atoms, 3) bin of each atom
    first: np.ndarray  # (bins,) atoms of each bin, from
    last: np.ndarray  # (bins,) and to
    xyz: np.ndarray  # (3, atoms and some room), Å
    shift: np.ndarray  # (images, xyz) of the whole structure, Å; the atoms themselves are in the middle


class Search:
    """
    Atoms of one structure, sorted, and the means to find their neighbours.

    Parameters
    ----------
    positions : ndarray, shape (atoms, xyz)
        In Å; need not be wrapped.
    cell : ndarray, shape (3, 3)
        Cell vectors as rows, Å; any. Those that do not repeat do not matter.
    pbc : ndarray of bool, shape (3,)
        Which of them repeat.
    radius : float
        Of the neighbours wanted, Å.

    Attributes
    ----------
    order : ndarray of int, shape (atoms,)
        The atoms in the order in which this class counts them.
    position : ndarray, shape (atoms, xyz)
        In this order, and wrapped, Å.

    Raises
    ------
    ValueError
        If a position is no number, or the cell vectors that repeat span no space.
    """

    def __init__(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float):
        positions, pbc = np.asarray(positions, dtype=float), np.asarray(pbc, dtype=bool)
        if not np.isfinite(positions).all():
            atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise ValueError(f"The position of atom {atom} is {positions[atom]}: not a place.")
        cell = _completed(np.where(pbc[:, None], cell, 0.0), pbc)
        inverse = np.linalg.inv(cell)
        place = positions @ inverse
        whole = np.where(pbc, np.floor(place), 0.0)
        place -= whole
        low, extent = np.zeros(3), np.ones(3)
        for axis in np.flatnonzero(~pbc):
            low[axis], extent[axis] = place[:, axis].min(initial=np.inf), np.ptp(place[:, axis]) if len(place) else 1.0
        width = radius * np.sqrt((inverse**2).sum(axis=0))  # in fractions of the cell's height
        shape = _number_of_bins(extent / width, len(positions))
        box = np.minimum(((place - low) * (shape / np.where(extent > 0.0, extent, 1.0))).astype(np.int64), shape - 1)
        self.order = np.argsort(_z_order(box), kind="stable")
        self._offset = -(whole @ cell)[self.order]
        self.position = self.placed(positions)
        reach = np.where(pbc, np.maximum(np.ceil(width * shape - 1e-9), 1), 1).astype(np.int64)
        wraps = np.where(pbc, -(-reach // shape), 0)
        shift = np.array(list(product(*(range(-w, w + 1) for w in wraps)))) @ cell
        self._bins = Bins(shape, reach, wraps, box[self.order], *_fill_bins(self.position, box[self.order], shape), shift)
        self._limit = radius**2
        self._numbers = np.arange(len(positions), dtype=np.int32)
        self._guess = 128  # entries per centre

    def placed(self, positions: np.ndarray) -> np.ndarray:
        """Positions in this order, shifted as the first ones were to be in the cell."""
        return positions[self.order] + self._offset

    def neighbors(self, first: int, last: int) -> Neighbors:
        """
        All neighbours within the radius of the atoms from `first` to before `last`, everything counted in this order.

        Raises
        ------
        ValueError
            If two atoms are in one place: no force has a direction there.
        """
        return self._list(self._numbers[first:last], self._numbers, self.position)

    def all_neighbors(self) -> Neighbors:
        """All neighbours within the radius, everything counted as the atoms were given; errors as `neighbors`."""
        places, position = np.empty_like(self._numbers), np.empty_like(self.position)
        places[self.order], position[self.order] = self._numbers, self.position
        return self._list(places, self.order.astype(np.int32), position)

    def _list(self, places: np.ndarray, names: np.ndarray, position: np.ndarray) -> Neighbors:
        """Neighbours of the atoms at some places of the order; `names` are the numbers to give to atoms."""
        start, guess = np.zeros(len(places) + 1, dtype=np.int64), self._guess
        around = np.empty((int((2 * self._bins.reach + 1).prod()), 3), dtype=np.int64)
        dense = np.empty(int((self._bins.last - self._bins.first).max(initial=0)) + LANES)
        while True:
            index, image = np.empty((2, guess * len(places) + len(dense) + 1), dtype=np.int32)
            used = _list_entries(places, names, self._bins, self._limit, around, dense, start, index, image)
            if used >= 0:
                return Neighbors(start, index[:used], image[:used], self._bins.shift, position)
            if used == _CLASH:
                raise ValueError(f"Atoms {self.order[start[0]]} and {self.order[start[1]]} are in one place: move one, or remove it.")
            self._guess = guess = 2 * guess


def find_neighbors(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float) -> Neighbors:
    """
    All neighbours within a radius, for any cell, mixed boundaries and unwrapped positions.

    Parameters and errors are those of `Search`.
    """
    return Search(positions, cell, pbc, radius).all_neighbors()


_FULL, _CLASH = -1, -2  # what `_list_entries` may say instead


def _completed(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The vectors that repeat, with unit vectors across them in place of the zeros of the others; ValueError if they are none."""
    if not np.isfinite(cell).all() or np.linalg.matrix_rank(cell) < pbc.sum():
        raise ValueError(f"The cell vectors {cell[pbc].tolist()}, which repeat, span no space: set the cell, or pbc=False.")
    return complete_cell(cell)


def _number_of_bins(most: np.ndarray, n_atoms: int) -> np.ndarray:
    """So many bins along each axis at most, and not many more than atoms in all."""
    limit = max(_BINS_PER_ATOM * n_atoms, 1)
    shape = np.clip(most, 1, limit).astype(np.int64)
    while shape.prod(dtype=float) > limit:
        shape[shape.argmax()] = max(shape.max() // 2, 1)
    return shape


def _fill_bins(position: np.ndarray, box: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`Bins.first`, `last` and `xyz` of sorted atoms."""
    flat = (box[:, 0] * shape[1] + box[:, 1]) * shape[2] + box[:, 2]
    change = np.flatnonzero(np.diff(flat, prepend=-1))
    first, last = np.zeros((2, shape.prod()), dtype=np.int64)
    first[flat[change]], last[flat[change]] = change, np.append(change[1:], len(flat))
    xyz = np.zeros((3, len(position) + LANES))
    xyz[:, : len(position)] = position.T
    return first, last, xyz


def _z_order(box: np.ndarray) -> np.ndarray:
    """Place of a bin on the curve: the binary digits of its three numbers, interleaved."""
    code = np.zeros(len(box), dtype=np.int64)
    for bit in range(int(box.max(initial=0)).bit_length()):
        for axis in range(3):
            code |= (box[:, axis] >> bit & 1) << (3 * bit + axis)
    return code


@kernel
def _list_entries(places, names, bins, limit, around, dense, start, index, image):
    """
    Write the lists of the atoms at some places of the order; returns how many entries there are.

    Returns _FULL if there are more than there is room for, and _CLASH if two atoms are in one place: their places
    are then in `start`. `around` and `dense` are scratch: the bins to look through, and squared distances.
    """
    used, before, n_around = np.int64(0), np.int64(-1), 0
    for centre in range(places.size):
        i = np.int64(places[centre])
        if before < 0 or _differ(i, before, bins.box):
            n_around = _look_around(i, bins, around)
        before = i
        for n in range(n_around):
            first, last, which = around[n, 0], around[n, 1], around[n, 2]
            if used + last - first >= index.size:
                return _FULL
            _measure(i, first, last, which, bins.xyz, bins.shift, dense)
            if first <= i < last and 2 * which + 1 == bins.shift.shape[0]:  # the atom itself
                put(dense, i - first, np.inf)
            used = _take(first, last, which, limit, names, dense, used, index, image)
            if used < 0:
                start[0], start[1] = i, -1 - used
                return _CLASH
        start[centre + 1] = used
    return used


@inner
def _differ(i, j, box):
    """Whether two atoms are in different bins."""
    return box[i, 0] != box[j, 0] or box[i, 1] != box[j, 1] or box[i, 2] != box[j, 2]


@inner
def _look_around(i, bins, around):
    """Bins, not empty, in which an atom may have neighbours: their atoms, and the image."""
    nx, ny, nz, wx, wy, wz = (bins.shape[0], bins.shape[1], bins.shape[2], bins.wraps[0], bins.wraps[1], bins.wraps[2])
    n = 0
    for x in range(bins.box[i, 0] - bins.reach[0], bins.box[i, 0] + bins.reach[0] + 1):
        cell_x = x // nx
        if abs(cell_x) > wx:
            continue
        for y in range(bins.box[i, 1] - bins.reach[1], bins.box[i, 1] + bins.reach[1] + 1):
            cell_y = y // ny
            if abs(cell_y) > wy:
                continue
            for z in range(bins.box[i, 2] - bins.reach[2], bins.box[i, 2] + bins.reach[2] + 1):
                cell_z = z // nz
                here = ((x - nx * cell_x) * ny + y - ny * cell_y) * nz + z - nz * cell_z
                if abs(cell_z) <= wz and bins.first[here] < bins.last[here]:
                    around[n, 0], around[n, 1] = bins.first[here], bins.last[here]
                    around[n, 2] = ((cell_x + wx) * (2 * wy + 1) + cell_y + wy) * (2 * wz + 1) + cell_z + wz
                    n += 1
    return n


@inner
def _measure(i, first, last, which, xyz, shift, dense):
    """Squared distances from the atom i to an image of each of some atoms."""
    stride = xyz.shape[1]
    x = splat(get(xyz, i) - get(shift, 3 * which))
    y = splat(get(xyz, stride + i) - get(shift, 3 * which + 1))
    z = splat(get(xyz, 2 * stride + i) - get(shift, 3 * which + 2))
    for k in range(first, last, LANES):
        dx, dy, dz = load(xyz, k) - x, load(xyz, stride + k) - y, load(xyz, 2 * stride + k) - z
        store(dense, k - first, dx * dx + dy * dy + dz * dz)


@inner
def _take(first, last, which, limit, names, dense, used, index, image):
    """Append those of some atoms that are within the limit; returns the number of entries, or -1 - an atom in the same place."""
    for k in range(first, last):
        square = get(dense, k - first)
        if square < _SAME * _SAME:
            return -1 - k
        put(index, used, get(names, k))
        put(image, used, np.int32(which))
        used += square <= limit
    return used
