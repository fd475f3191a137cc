"""Carving: the reference is the parent's force on the centre, in the chunk and in the target."""

from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list

from amp.nft.chunks import carve_chunk, carve_chunks, convergence
from amp.nft.errors import InputError

# radius (Å): max and mean error of the central EMT force (eV/Å); mean, least and most atoms of a chunk
PT260 = {
    4.5: (1.574, 0.821, 14.9, 9, 20),
    5.5: (0.321, 0.131, 30.9, 17, 48),
    6.0: (0.0353, 0.0127, 37.3, 21, 58),
    6.5: (0.0059, 0.0018, 48.9, 24, 79),
    7.5: (0.0006, 0.0003, 67.0, 35, 119),
    8.0: (0.0001, 0.0000, 77.5, 45, 138),
}


def emt_forces(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_forces()


LARGE = 7.0  # Å; chunks up to it show the law in a moment


@pytest.mark.parametrize("radius", [pytest.param(r, marks=[pytest.mark.slow] if r > LARGE else []) for r in PT260])
def test_emt_error_table_of_pt260(pt260, radius):
    chunks = carve_chunks(pt260, range(len(pt260)), radius)
    whole = emt_forces(pt260)
    errors = [np.linalg.norm(emt_forces(c)[0] - f) for c, f in zip(chunks, whole, strict=True)]
    sizes = [len(chunk) for chunk in chunks]
    largest, mean, mean_size, least, most = PT260[radius]
    digits = 3 if radius < 6 else 4  # as printed
    assert round(max(errors), digits) == largest
    assert round(np.mean(errors), digits) == mean
    assert (round(np.mean(sizes), 1), min(sizes), max(sizes)) == (mean_size, least, most)


def test_centre_first_free_and_in_vacuum(pt260):
    chunk = carve_chunk(pt260, 29, 6.5)
    distances = np.linalg.norm(chunk.positions - chunk.positions[0], axis=1)
    assert distances.max() < 6.5
    assert not chunk.pbc.any()
    assert chunk.info["target_atom"] == 29
    margins = np.concatenate([chunk.positions.min(axis=0), np.diag(chunk.cell) - chunk.positions.max(axis=0)])
    np.testing.assert_allclose(margins, 5.0, atol=1e-12)


def test_one_search_equals_many(pt260):
    together = carve_chunks(pt260, [3, 77, 200], 6.5)
    apart = [carve_chunk(pt260, i, 6.5) for i in (3, 77, 200)]
    assert all(a == b for a, b in zip(together, apart, strict=True))


def test_keeps_moments_and_charges_and_leaves_the_target_alone():
    target = fcc111("Ni", (3, 3, 3), vacuum=8.0, a=3.52)
    target.set_initial_magnetic_moments(np.linspace(-1, 1, len(target)))
    target.set_initial_charges(np.linspace(0, 0.5, len(target)))
    target.set_constraint(FixAtoms([0]))
    before = target.copy()
    chunk = carve_chunk(target, 13, 4.0)
    assert chunk.get_initial_magnetic_moments()[0] == target.get_initial_magnetic_moments()[13]
    assert set(chunk.get_initial_charges()) <= set(target.get_initial_charges())
    assert chunk.get_initial_charges()[0] == target.get_initial_charges()[13]
    assert not chunk.constraints
    assert target == before
    assert len(target.constraints) == 1


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, True)])
@pytest.mark.parametrize("repeat", [1, 2])
def test_periodic_targets_also_smaller_than_the_cutoff(pbc, repeat):
    """A pair potential that ends at the cutoff feels the same force in the chunk as in the crystal."""
    target = bulk("Ar", cubic=True, a=4.0).repeat((repeat, 1, 1))
    target.rattle(0.15, seed=4)
    target.pbc = pbc
    target.positions += [7.3, -11.1, 3.0]  # outside its cell
    radius = 6.0
    target.calc = LennardJones(sigma=2.6, epsilon=0.5, rc=radius, smooth=False)
    forces = target.get_forces()
    for i, chunk in enumerate(carve_chunks(target, range(len(target)), radius)):
        chunk.calc = LennardJones(sigma=2.6, epsilon=0.5, rc=radius, smooth=False)
        np.testing.assert_allclose(chunk.get_forces()[0], forces[i], atol=1e-10)


def test_order_of_a_chunk_does_not_depend_on_the_order_of_the_search(pt260):
    """Translating or wrapping the target gives the same chunk, atom by atom."""
    shifted = pt260.copy()
    shifted.positions += [0.37, 12.0, -5.0]
    a, b = carve_chunk(pt260, 100, 6.5), carve_chunk(shifted, 100, 6.5)
    np.testing.assert_allclose(a.positions, b.positions, atol=1e-9)


def test_a_lone_atom_is_a_chunk():
    assert len(carve_chunk(Atoms("Pt2", [[0, 0, 0], [0, 0, 20]]), 1, 6.5)) == 1


def test_errors_name_the_value(pt260):
    with pytest.raises(ValueError, match="cutoff is -1: it must be above 0"):
        carve_chunk(pt260, 0, -1)
    with pytest.raises(IndexError, match="indices contains 260, which does not exist: give indices of the 260 atoms of the target"):
        carve_chunk(pt260, 260, 6.5)


@pytest.mark.parametrize("pbc", [True, False])
def test_ase_finds_the_same_chunk_in_the_same_order(pbc):
    target = bulk("Pt", cubic=True) * (2, 1, 3)
    target.rattle(0.1, seed=5)
    target.pbc = pbc
    first, second, vectors = neighbor_list("ijD", target, 6.0)
    for centre, chunk in enumerate(carve_chunks(target, range(len(target)), 6.0)):
        here = first == centre
        order = np.lexsort((*np.round(vectors[here], 9).T, second[here]))
        np.testing.assert_allclose(chunk.positions[1:] - chunk.positions[0], vectors[here][order], atol=1e-12)


def test_a_mask_selects_its_atoms(pt260):
    mask = pt260.positions[:, 2] > 8.0
    assert 0 < mask.sum() < 100
    assert [chunk.info["target_atom"] for chunk in carve_chunks(pt260, mask, 3.5)] == np.flatnonzero(mask).tolist()
    found = convergence(pt260, EMT(), [4.0, 4.5], np.arange(len(pt260)) < 2)
    assert found.atoms.tolist() == [0, 1]
    for atoms in ("12", [0.0, 1.0], [True, False], True):
        with pytest.raises(InputError, match="atoms is"):
            convergence(pt260, EMT(), [4.0, 4.5], atoms)


@pytest.mark.parametrize(("cutoff", "says"), [(np.inf, "cutoff is inf"), (np.nan, "cutoff is nan"), (1e3, "images of a cell of 4 atoms")])
def test_a_cutoff_that_no_computer_can_carve_is_refused(cutoff, says):
    with pytest.raises(InputError, match=says):
        carve_chunks(bulk("Pt", cubic=True), [0], cutoff)


def test_convergence_wants_atoms():
    with pytest.raises(TypeError, match=r"target is 'mine\.xyz': give an ase\.Atoms"):
        convergence("mine.xyz", EMT(), [5.0, 6.0])


def test_convergence_against_the_whole_target(pt260):
    atoms = range(0, len(pt260), 10)
    found = convergence(pt260, EMT(), [6.0, 5.5], atoms, reference="target")
    assert found.radii.tolist() == [5.5, 6.0] and found.atoms.tolist() == list(atoms)
    whole = emt_forces(pt260)
    for radius, errors, sizes in zip(found.radii, found.errors_ra, found.sizes_ra, strict=True):
        chunks = carve_chunks(pt260, atoms, radius)
        assert sizes.tolist() == [len(chunk) for chunk in chunks]
        expected = [np.linalg.norm(emt_forces(c)[0] - whole[a]) for a, c in zip(atoms, chunks, strict=True)]
        np.testing.assert_allclose(errors, expected, atol=1e-10)
    assert found.recommended(0.05) == 6.0 and found.recommended(0.5) == 5.5
    with pytest.raises(ValueError, match=r"At 6 Å.* still off by 0.0\d+ eV/Å, more than tolerance = 0.01"):
        found.recommended(0.01)


def test_convergence_against_the_largest_radius_and_given_forces(pt260, tmp_path):
    radii = [5.5, 6.5, 8.0]
    found = convergence(pt260, EMT(), radii, 5)
    assert len(found.atoms) == len(set(found.atoms)) == 5
    assert (found.errors_ra[-1] == 0).all() and not found.absolute
    assert found.sizes_ra[0][0] == 17 and found.sizes_ra[0][-1] == 48  # from the corner to the bulk
    given = convergence(pt260, EMT(), radii, found.atoms, reference=emt_forces(pt260))
    np.testing.assert_allclose(given.errors_ra[:2], found.errors_ra[:2], atol=2e-4)  # what 8 Å leaves
    assert found.recommended(0.01) == 6.5
    lines = str(found).splitlines()
    assert len(lines) == 2 + len(radii) and lines[-1].split()[-2] == "reference"
    picture = tmp_path / "convergence.png"
    ax = found.plot(picture)
    assert picture.stat().st_size > 10_000
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), found.errors_ra[:2].max(axis=1))  # of two radii; none of itself


def counted(directory, log):
    log.append(directory)
    return EMT()


def test_convergence_resumes_with_existing_labels(pt260, tmp_path):
    calls = []
    parent = partial(counted, log=calls)
    first = convergence(pt260, parent, [5.0, 5.5], [3, 30], directory=tmp_path)
    assert len(calls) == len(set(calls)) == 3  # no atom lies between 5.0 and 5.5 Å from atom 3
    more = convergence(pt260, parent, [5.0, 5.5, 6.0], [3, 30, 3], directory=tmp_path)
    assert len(calls) == 5 and more.atoms.tolist() == [3, 30]
    assert more.sizes_ra[:2].tolist() == first.sizes_ra.tolist()


class Weak(EMT):
    """Fails on large chunks."""

    def calculate(self, atoms=None, *args, **kwargs):
        if len(atoms) > 30:
            raise RuntimeError("out of memory")
        super().calculate(atoms, *args, **kwargs)


def test_radii_that_are_close_have_labels_of_their_own(pt260):
    found = convergence(pt260, EMT(), [5.0, 5.0004, 1005.0], [3], reference=emt_forces(pt260))
    assert np.isfinite(found.errors_ra).all() and found.errors_ra.shape == (3, 1)


def test_convergence_goes_on_without_what_fails_and_says_so(pt260):
    lines = []
    found = convergence(pt260, Weak(), [4.5, 5.5], 4, reference=emt_forces(pt260), log=lines.append)
    failed = np.isnan(found.errors_ra[1])
    assert 0 < failed.sum() == len(lines) < 4
    assert f"{failed.sum()} failed" in str(found)
    with pytest.raises(ValueError, match=r"At 5.5 Å"):
        found.recommended(10.0)  # not known
    with pytest.raises(RuntimeError, match=r"cannot label the whole target.*out of memory"):
        convergence(pt260, Weak(), [5.0, 5.5], 4, reference="target")
    with pytest.raises(RuntimeError, match=r"None of 2 chunks could be labelled; the sphere chunk of 7 Å around atom 100.*out of mem"):
        convergence(pt260, Weak(), [7.0, 8.0], [100])


def test_convergence_checks_before_it_starts(pt260):
    for changes, message in [
        ({"radii": [6.0]}, "give at least 2"),
        ({"radii": [-1.0, 6.0]}, "all above 0"),
        ({"atoms": 0}, "atoms is 0: it must be between 1 and the 260"),
        ({"atoms": []}, "give a number of atoms, or a list"),
        ({"reference": "best"}, "reference is 'best'"),
        ({"reference": np.zeros((3, 3))}, r"reference has shape \(3, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            convergence(pt260, EMT(), **{"radii": [5.0, 6.0]} | changes)
    with pytest.raises(IndexError, match="atoms contains 260, which does not exist"):
        convergence(pt260, EMT(), [5.0, 6.0], [260])
