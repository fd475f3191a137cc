"""The search for neighbours against ASE's, for every kind of cell, and how it is cut into stretches."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from amp.nft.errors import InputError
from amp.nft.kernels.fingerprints.neighbors import Search, find_neighbors

ROUNDING = 1e-9  # Å
CELLS = {
    "cubic": np.diag([9.0, 9.0, 9.0]), "skewed": np.array([[7.0, 0.0, 0.0], [4.0, 6.0, 0.0], [-3.0, 5.0, 6.5]]),
    "smaller than the radius": np.array([[2.2, 0.3, 0.0], [0.0, 2.5, 1.0], [1.0, 0.0, 2.9]]), "flat": np.diag([12.0, 11.0, 1.9]),
    "left-handed": np.array([[0.0, 8.0, 0.0], [8.5, 0.0, 0.0], [1.0, 0.0, 9.0]]), "long": np.diag([3.0, 3.5, 60.0]),
}  # fmt: skip
BOUNDARIES = list(itertools.product([False, True], repeat=3))


def structure(cell, pbc, n=12, seed=0):
    """Atoms inside and outside of the cell."""
    rng = np.random.default_rng(seed)
    return Atoms(f"Pt{n}", rng.uniform(-1.2, 2.1, (n, 3)) @ cell, cell=cell, pbc=pbc)


def entries(found, centres):
    """Sorted lines i, j, x, y, z of a list."""
    i = np.repeat(centres, np.diff(found.start))
    way = found.position[found.index] + found.shift[found.image] - found.position[i]
    return in_order(i, found.index, way)


def in_order(i, j, way):
    lines = np.column_stack([i, j, way])
    return lines[np.lexsort(np.round(lines, 6).T[::-1])]


@pytest.mark.parametrize("pbc", BOUNDARIES, ids=lambda pbc: "".join("fp"[p] for p in pbc))
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("radius", [2.5, 5.0])
def test_ase_finds_the_same(name, pbc, radius):
    atoms = structure(CELLS[name], pbc)
    found = find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, radius)
    expected = in_order(*neighbor_list("ijD", atoms, radius))
    ours = entries(found, np.arange(len(atoms)))
    assert ours.shape == expected.shape
    assert ours == pytest.approx(expected, abs=ROUNDING)
    assert found.most == np.bincount(expected[:, 0].astype(int)).max(initial=0)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_stretches_of_the_order_make_up_the_whole(size):
    atoms = structure(CELLS["skewed"], [True, False, True], 50)
    search, radius = Search(atoms.positions, atoms.cell.array, atoms.pbc, 4.0), 4.0
    lines = []
    for first in range(0, 50, size):
        last = min(first + size, 50)
        part = entries(search.neighbors(first, last), np.arange(first, last))
        part[:, :2] = search.order[part[:, :2].astype(int)]
        lines.append(part)
    lines = np.concatenate(lines)
    assert in_order(lines[:, 0], lines[:, 1], lines[:, 2:]) == pytest.approx(in_order(*neighbor_list("ijD", atoms, radius)), abs=ROUNDING)


def test_more_neighbours_than_was_guessed():
    atoms = structure(CELLS["smaller than the radius"], True, 3)
    found = find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, 12.0)
    assert len(found.index) == len(neighbor_list("i", atoms, 12.0)) > 300 * len(atoms)


def test_vacuum_takes_no_memory():
    """A dense grid of bins of this radius between these atoms would have 1e15 of them."""
    positions = np.random.default_rng(0).uniform(0.0, 5e5, (40, 3))
    positions[1] = positions[0] + 1.0
    found = find_neighbors(positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 5.0)
    assert list(np.repeat(np.arange(40), np.diff(found.start))) == [0, 1]
    assert list(found.index) == [1, 0]


def test_consecutive_atoms_are_near_each_other():
    atoms = structure(np.diag([60.0, 60.0, 60.0]), True, 4000)
    search = Search(atoms.positions, atoms.cell.array, atoms.pbc, 6.0)
    steps = np.linalg.norm(np.diff(search.position, axis=0), axis=1)
    assert steps.mean() < 12.0  # two bins; in any order it would be 40


def test_an_atom_far_from_the_rest_changes_nothing():
    """Also in the number of bins to look through: each contains a few atoms."""
    rng = np.random.default_rng(3)
    positions = rng.uniform(0.0, 40.0, (3000, 3))
    near = Search(positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), 3.0)
    far = Search(np.vstack([positions, [9e5, -9e5, 9e5]]), np.zeros((3, 3)), np.zeros(3, dtype=bool), 3.0)
    assert (far._bins.last - far._bins.first).max() <= 2 * (near._bins.last - near._bins.first).max()
    one, other = (entries(search.neighbors_of(np.arange(3000)), np.arange(3000)) for search in (near, far))
    assert len(one) > 3000 and one == pytest.approx(other, abs=ROUNDING)


def test_neighbours_of_some_atoms():
    atoms = structure(CELLS["skewed"], [True, False, True], 50)
    chosen = np.array([40, 3, 3, 17])
    found = Search(atoms.positions, atoms.cell.array, atoms.pbc, 4.0).neighbors_of(chosen)
    lines = in_order(*neighbor_list("ijD", atoms, 4.0))
    for n, atom in enumerate(chosen):
        part = slice(found.start[n], found.start[n + 1])
        way = found.position[found.index[part]] + found.shift[found.image[part]] - found.position[atom]
        assert in_order(np.full(len(way), atom), found.index[part], way) == pytest.approx(lines[lines[:, 0] == atom], abs=ROUNDING)


@pytest.mark.parametrize(
    ("positions", "cell", "radius", "says"),
    [
        ([[0, 0, 0], [0, 0, 2e6]], np.zeros((3, 3)), 3.0, "the position of atom 1 is .* within 1e.06 Å of the origin"),
        ([[0, 0, 0], [0, 0, 1e300]], np.zeros((3, 3)), 3.0, "the position of atom 1 is"),
        ([[0, 0, 0]], np.eye(3), np.inf, "the radius is inf Å"),
        ([[0, 0, 0]], np.eye(3), np.nan, "the radius is nan Å"),
        ([[0, 0, 0]], np.eye(3), -1.0, "the radius is -1"),
        ([[0, 0, 0]], np.eye(3), 1e5, r"a radius of 100000 Å reaches 8e\+15 images of a cell"),
        ([[0, 0, 0]], np.eye(3) * 1e-6, 3.0, "reaches .* images of a cell of 1 atoms, too many"),
        (np.random.default_rng(0).uniform(size=(3000, 3)), np.zeros((3, 3)), 6.5, "has more than 1250 neighbours within 6.5 Å"),
    ],
)  # fmt: skip
def test_input_beyond_any_matter_is_an_error(positions, cell, radius, says):
    with pytest.raises(InputError, match=says):
        find_neighbors(np.array(positions, dtype=float), cell, np.full(3, bool(cell.any())), radius)


def test_a_closest_distance_can_be_required():
    positions = np.random.default_rng(0).uniform(size=(3000, 3))
    with pytest.raises(InputError, match=r"are in one place, or closer than 0\.3 Å, near"):
        Search(positions, np.eye(3), np.ones(3, dtype=bool), 0.3, closest=0.3).neighbors(0, 64)


def test_impossible_input_is_an_error():
    for pbc in (False, True):
        atoms = structure(CELLS["cubic"], pbc, 30)
        atoms.positions[21] = atoms.positions[4] + (atoms.cell[1] if pbc else 0.0)
        with pytest.raises(ValueError, match="atoms 4 and 21 are in one place"):
            find_neighbors(np.round(atoms.positions, 3), atoms.cell.array, atoms.pbc, 3.0)
    for seed in range(20):  # in one place but for the rounding of the cell
        atoms = structure(CELLS["skewed"], True, 5, seed)
        atoms.positions[3] = atoms.positions[1] + [3, -2, 1] @ atoms.cell.array
        with pytest.raises(ValueError, match="atoms 1 and 3 are in one place"):
            find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
    atoms.positions[4, 2] = np.inf
    with pytest.raises(ValueError, match="atom 4"):
        find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), [[4.0, 0, 0], [0, 4, 0], [4, 4, 0]], np.full((3, 3), np.nan)])
def test_a_cell_that_spans_no_space_cannot_repeat(cell):
    with pytest.raises(ValueError, match=r"which repeat, span no space: set the cell, or pbc=False"):
        find_neighbors(np.zeros((1, 3)), cell, np.ones(3, dtype=bool), 3.0)


def test_vectors_that_do_not_repeat_do_not_matter():
    """Nor may they lie in the plane of the others, which no bins could be made of."""
    atoms, flat = structure(CELLS["skewed"], [True, True, False], 20), CELLS["skewed"].copy()
    flat[2] = flat[0] - flat[1]
    found = [find_neighbors(atoms.positions, cell, atoms.pbc, 4.0) for cell in (atoms.cell.array, flat)]
    first, second = (entries(one, np.arange(20)) for one in found)
    assert len(first) > 0 and second == pytest.approx(first, abs=ROUNDING)


def test_no_atoms():
    for pbc in (False, True):
        found = find_neighbors(np.zeros((0, 3)), np.eye(3), np.full(3, pbc), 3.0)
        assert list(found.start) == [0] and len(found.index) == 0
