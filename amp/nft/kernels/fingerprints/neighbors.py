"""
Neighbours, found a few atoms at a time: no list of a whole large structure is ever held.

Atoms are sorted into bins at least as wide as the cutoff, where the cell allows, and the bins along a Z-order curve,
so that atoms that follow each other are near each other. A hash table finds the bins that contain atoms: time and memory
grow with the number of atoms, also if some are far from the rest. Any thread can list the neighbours of a slice of atoms.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple, NoReturn

import numpy as np
from ase.geometry import complete_cell

from amp.nft.errors import InputError
from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.simd.vectors import LANES, get, load, put, splat, store

FARTHEST = 1e6  # Å from the origin: beyond it positions lose the digits that forces need
SAME = 1e-6  # Å; atoms nearer than this are in one place: a cell's vectors round them apart
MOST_IMAGES = 100_000  # of the cell, within the radius: 10^5 primitive cells of a metal are a sphere of 70 Å
MOST_ATOMS = 10_000_000  # of all images, where several of them are within the radius
DENSEST = 1.0  # atoms/Å³ around an atom, and 100 more: six times the density of diamond
_MOST_BINS = 2**20  # along one axis: three such numbers fit into one integer


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
    """Positions of atoms for the search. Atoms are counted in sorted order."""

    shape: np.ndarray  # (3,) bins along each cell vector
    reach: np.ndarray  # (3,) bins to look through in each direction
    wraps: np.ndarray  # (3,) cells that these extend over; 0 where nothing repeats
    box: np.ndarray  # (atoms, 3) bin of each atom
    key: np.ndarray  # (slots,) which bin a slot of the hash table describes; -1: none
    first: np.ndarray  # (slots,) atoms of that bin, from
    last: np.ndarray  # (slots,) and to
    xyz: np.ndarray  # (3, atoms and some padding), Å
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
        True for those that repeat.
    radius : float
        Largest distance of neighbours, Å.
    closest : float
        Distance of two atoms that is an error if they are closer, Å.

    Attributes
    ----------
    order : ndarray of int, shape (atoms,)
        The atoms in the order in which this class counts them.
    position : ndarray, shape (atoms, xyz)
        In this order, and wrapped, Å.
    whole : ndarray of int, shape (atoms, 3)
        Cell vectors that were subtracted from each position as it was given.
    images : ndarray of int, shape (images, 3)
        Cell vectors of each image.

    Raises
    ------
    InputError
        If `radius` is not a positive number, a position is not finite or is beyond 10^6 Å, the cell vectors that repeat
        span no space, or the radius reaches too many images of the cell.
    """

    def __init__(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float, closest: float = SAME):
        positions, pbc = np.asarray(positions, dtype=float), np.asarray(pbc, dtype=bool)
        _check(positions, radius)
        cell = _completed(np.where(pbc[:, None], cell, 0.0), pbc)
        inverse = np.linalg.inv(cell)
        place = positions @ inverse
        whole = np.where(pbc, np.floor(place), 0.0)
        place -= whole
        low, extent = np.zeros(3), np.ones(3)
        for axis in np.flatnonzero(~pbc):
            low[axis], extent[axis] = place[:, axis].min(initial=np.inf), np.ptp(place[:, axis]) if len(place) else 1.0
        width = radius * np.sqrt((inverse**2).sum(axis=0))  # in fractions of the cell's height
        shape = np.clip(extent / width, 1, _MOST_BINS).astype(np.int64)
        box = np.minimum(((place - low) * (shape / np.where(extent > 0.0, extent, 1.0))).astype(np.int64), shape - 1)
        self.order = np.argsort(_z_order(box), kind="stable")
        self._offset = -(whole @ cell)[self.order]
        self.position = self.placed(positions)
        reach = np.where(pbc, np.maximum(np.ceil(width * shape - 1e-9), 1), 1)
        wraps = np.where(pbc, -(-reach // shape), 0)
        _check_images(wraps, radius, len(positions))
        reach, wraps = reach.astype(np.int64), wraps.astype(np.int64)
        self.whole = whole.astype(np.int64)
        self.images = np.array(list(product(*(range(-w, w + 1) for w in wraps))))
        shift = self.images @ cell
        self._bins = Bins(shape, reach, wraps, box[self.order], *_fill_bins(self.position, box[self.order], shape), shift)
        self._limit, self._closest = radius**2, closest
        self._most = int(min(100 + DENSEST * 4 / 3 * np.pi * radius**3, 2**31))
        self._numbers = np.arange(len(positions), dtype=np.int32)
        self._guess = 128  # entries per centre

    def placed(self, positions: np.ndarray) -> np.ndarray:
        """Return positions in this order, shifted by the same amounts that moved the first ones into the cell.

        Parameters
        ----------
        positions : ndarray, shape (atoms, 3)
            In the order of the caller, Å.

        Returns
        -------
        ndarray, shape (atoms, 3)
        """
        return positions[self.order] + self._offset

    def neighbors(self, first: int, last: int) -> Neighbors:
        """Return all neighbours within the radius of a contiguous range of atoms, counted in this order.

        Parameters
        ----------
        first, last : int
            From `first` to before `last`.

        Returns
        -------
        Neighbors

        Raises
        ------
        InputError
            Two atoms are closer than `closest`, or an atom has more neighbours than matter allows.
        """
        return self._list(self._numbers[first:last], self._numbers, self.position)

    def neighbors_of(self, atoms: np.ndarray) -> Neighbors:
        """Return all neighbours within the radius of some atoms, counted as the atoms were given; errors as `neighbors`.

        Parameters
        ----------
        atoms : ndarray of int

        Returns
        -------
        Neighbors
        """
        places, position = np.empty_like(self._numbers), np.empty_like(self.position)
        places[self.order], position[self.order] = self._numbers, self.position
        return self._list(places[atoms], self.order.astype(np.int32), position)

    def some(self, places: np.ndarray, names: np.ndarray) -> Neighbors:
        """Return the neighbours of the atoms at some places of this order, with other indices of all places; errors as `neighbors`.

        Parameters
        ----------
        places : ndarray of int
        names : ndarray of int, shape (atoms,)
            Index of the atom at each place.

        Returns
        -------
        Neighbors
        """
        return self._list(places, names, self.position)

    def _list(self, places: np.ndarray, names: np.ndarray, position: np.ndarray) -> Neighbors:
        """Return the neighbours of the atoms at some places of the order; `names` are the numbers to give to atoms."""
        start, guess = np.zeros(len(places) + 1, dtype=np.int64), self._guess
        around = np.empty((int((2 * self._bins.reach + 1).prod()), 3), dtype=np.int64)
        dense = np.empty(int((self._bins.last - self._bins.first).max(initial=0)) + LANES)
        while True:
            index, image = np.empty((2, guess * len(places) + len(dense) + 1), dtype=np.int32)
            used = _list_entries(places, names, self._bins, self._limit, self._closest**2, self._most, around, dense, start, index, image)
            if used >= 0:
                return Neighbors(start, index[:used], image[:used], self._bins.shift, position)
            if used == _CLASH:
                self._refuse_close(*self.order[start[:2]])
            if used == _DENSE:
                raise InputError(
                    f"atom {self.order[start[0]]} has more than {self._most} neighbours within {np.sqrt(self._limit):g} Å: no matter is "
                    "so dense; are positions and cell in Å?"
                )
            self._guess = guess = 2 * guess

    def _refuse_close(self, *pair: int) -> NoReturn:
        """Raise InputError for two atoms that are too close."""
        first, second = sorted(pair)
        place = self.position[self.order == first][0].round(3).tolist()
        how = "in one place" if self._closest <= SAME else f"in one place, or closer than {self._closest:g} Å"
        raise InputError(f"atoms {first} and {second} are {how}, near {place} Å (perhaps as periodic images): move one, or remove it.")


def find_neighbors(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, radius: float) -> Neighbors:
    """Return all neighbours within a radius, for any cell, mixed boundaries and unwrapped positions; errors as `Search.neighbors`.

    Parameters
    ----------
    positions : ndarray, shape (atoms, 3)
        In Å.
    cell : ndarray, shape (3, 3)
        Cell vectors as rows, Å.
    pbc : ndarray of bool, shape (3,)
    radius : float
        In Å.

    Returns
    -------
    Neighbors
    """
    return Search(positions, cell, pbc, radius).neighbors_of(np.arange(len(positions)))


_FULL, _CLASH, _DENSE = -1, -2, -3  # errors that `_list_entries` may return instead


def _check(positions: np.ndarray, radius: float) -> None:
    """Raise InputError for positions or a radius that no search can use."""
    if not 0.0 < radius < np.inf:
        raise InputError(f"the radius is {radius} Å: it must be a number above 0.")
    if not (good := (np.abs(positions) <= FARTHEST).all(axis=1)).all():
        atom = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"the position of atom {atom} is {positions[atom].tolist()} Å: it must be finite, and within {FARTHEST:.0e} Å of the origin."
        )


def _check_images(wraps: np.ndarray, radius: float, n_atoms: int) -> None:
    """Raise InputError for a radius that is too large for the cell."""
    images = (2 * wraps + 1).prod()
    if images > MOST_IMAGES or (wraps.max() > 1 and images * n_atoms > MOST_ATOMS):
        raise InputError(
            f"a radius of {radius:g} Å reaches {images:.3g} images of a cell of {n_atoms} atoms, too many to search: use a "
            "smaller radius, and check that the cell is in Å."
        )


def _completed(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Return the repeat vectors, with unit vectors across them in place of the zero vectors; InputError if they span no space."""
    if not np.isfinite(cell).all() or np.linalg.matrix_rank(cell) < pbc.sum():
        raise InputError(f"the cell vectors {cell[pbc].tolist()}, which repeat, span no space: set the cell, or pbc=False.")
    return complete_cell(cell)


def _fill_bins(position: np.ndarray, box: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`Bins.key`, `first`, `last` and `xyz` of sorted atoms."""
    flat = (box[:, 0] * shape[1] + box[:, 1]) * shape[2] + box[:, 2]
    change = np.flatnonzero(np.diff(flat, prepend=-1))
    slots = 1 << max(2 * len(change), 2).bit_length()
    key, (first, last) = np.full(slots, -1), np.zeros((2, slots), dtype=np.int64)
    _fill_table(flat, change, np.append(change[1:], len(flat)), key, first, last)
    xyz = np.zeros((3, len(position) + LANES))
    xyz[:, : len(position)] = position.T
    return key, first, last, xyz


def _z_order(box: np.ndarray) -> np.ndarray:
    """Place of a bin on the curve: the binary digits of its three numbers, interleaved."""
    code = np.zeros(len(box), dtype=np.int64)
    for bit in range(int(box.max(initial=0)).bit_length()):
        for axis in range(3):
            code |= (box[:, axis] >> bit & 1) << (3 * bit + axis)
    return code


@kernel
def _fill_table(flat, begin, end, key, first, last):
    """Enter bins with atoms from `begin` to `end` into the hash table."""
    for n in range(begin.size):
        slot = _slot(flat[begin[n]], key)
        key[slot], first[slot], last[slot] = flat[begin[n]], begin[n], end[n]


@inner
def _slot(bin_key, key):
    """Slot of a bin in the hash table, or the free one where it belongs."""
    slot = (bin_key * np.int64(0x1E3779B97F4A7C15) >> 20) & (key.size - 1)
    while key[slot] != bin_key and key[slot] >= 0:
        slot = (slot + 1) & (key.size - 1)
    return slot


@kernel
def _list_entries(places, names, bins, limit, closest, most, around, dense, start, index, image):
    """
    Write the lists of the atoms at some places of the order; returns the number of entries.

    Returns _FULL if the buffers are too short, _CLASH if two atoms are closer than `closest` (a squared distance), and
    _DENSE if an atom has more than `most` neighbours: their places are then in `start`. `around` and `dense` are
    scratch: the bins to look through, and squared distances.
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
            used = _take(first, last, which, limit, closest, names, dense, used, index, image)
            if used < 0:
                start[0], start[1] = i, -1 - used
                return _CLASH
        if used - start[centre] > most:
            start[0] = i
            return _DENSE
        start[centre + 1] = used
    return used


@inner
def _differ(i, j, box):
    """Return True if two atoms are in different bins."""
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
                if abs(cell_z) > wz:
                    continue
                here = _slot(((x - nx * cell_x) * ny + y - ny * cell_y) * nz + z - nz * cell_z, bins.key)
                if bins.first[here] < bins.last[here]:
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
def _take(first, last, which, limit, closest, names, dense, used, index, image):
    """Append those of some atoms that are within the limit; returns the number of entries, or -1 - an atom that is too close."""
    for k in range(first, last):
        square = get(dense, k - first)
        if square < closest:
            return -1 - k
        put(index, used, get(names, k))
        put(image, used, np.int32(which))
        used += square <= limit
    return used
