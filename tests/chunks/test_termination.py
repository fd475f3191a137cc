"""Terminations by law: bonds kept, molecules whole, the same chunk from any description of the same target."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, molecule
from ase.calculators.emt import EMT
from ase.data import covalent_radii

from amp.nft.chunks import carve_chunk, carve_chunks, charge_warning, check_magnetic_moments, summarise_terminations
from amp.nft.chunks.bonds import BondGraph
from amp.nft.chunks.termination import CLASH
from amp.nft.errors import ChunkError

PLACE = 1e-8  # Å between the same atom of two descriptions of a target
NAMES = ("sphere", "hydrogen", "molecules", "neutral", "auto")


def diamond(periodic=True):
    target = bulk("C", "diamond", a=3.57, cubic=True) * (2, 2, 2)
    target.rattle(0.05, seed=1)
    target.pbc = periodic
    return target


def water_box(edge=9.3):
    """27 molecules on a grid, turned at random, some across the faces of the cell."""
    rng = np.random.default_rng(2)
    target = Atoms(cell=[edge] * 3, pbc=True)
    for place in np.ndindex(3, 3, 3):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(np.array(place) * edge / 3)
        target += one
    target.wrap()
    return target


def oxide_slab():
    target = bulk("MgO", "rocksalt", a=4.21, cubic=True) * (2, 2, 1)
    target.center(vacuum=6.0, axis=2)
    target.pbc = (True, True, False)
    target.rattle(0.03, seed=3)
    add_adsorbate(target, molecule("CO"), 2.6, (2.1, 2.1), mol_index=1)
    return target


def nanodiamond():
    """Return a ball of diamond whose surface is capped."""
    ball = carve_chunk(bulk("C", "diamond", a=3.57, cubic=True), 0, 4.6, termination="hydrogen")
    return Atoms(ball.symbols, ball.positions)


def molecular_cluster():
    """Return the molecules of a box, without its images."""
    target = carve_chunk(water_box(), 0, 5.5, termination="molecules")
    return Atoms(target.symbols, target.positions)


def ring():
    """Benzene: bonds that no termination cuts."""
    return molecule("C6H6")


TARGETS = {"diamond": diamond, "free diamond": lambda: diamond(False), "water": water_box, "oxide": oxide_slab, "ring": ring}
every_target = pytest.mark.parametrize("target", [make() for make in TARGETS.values()], ids=list(TARGETS))
every_termination = pytest.mark.parametrize("termination", NAMES)


def rows(chunk):
    """Return a chunk without the order of its atoms: element, vector from the centre, depth; nan becomes -1."""
    vectors = chunk.positions - chunk.positions[0]
    table = np.column_stack([chunk.numbers, np.nan_to_num(chunk.arrays["depth"], nan=-1, posinf=-2), vectors])
    return table[np.lexsort(np.round(table, 5).T)]


def assert_same(one, other):
    assert len(one) == len(other)
    np.testing.assert_allclose(rows(one), rows(other), atol=PLACE)


@every_target
@every_termination
def test_any_description_of_a_target_gives_the_same_chunk(target, termination):
    rng = np.random.default_rng(5)
    order = rng.permutation(len(target))
    moved = target[order]
    moved.positions += [0.31, -17.2, 5.0]
    for axis in np.flatnonzero(target.pbc):  # each atom is some periodic image of itself
        moved.positions += rng.integers(-2, 3, len(target))[:, None] * target.cell.array[axis]
    centres = rng.choice(len(target), 4, replace=False)
    places = [int(np.flatnonzero(order == centre)[0]) for centre in centres]
    ours, theirs = (carve_chunks(t, c, 4.0, termination=termination, min_atoms=9) for t, c in ((target, centres), (moved, places)))
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other)
        assert one.info["n_caps"] == other.info["n_caps"] and one.info["clashes"] == other.info["clashes"]


@pytest.mark.parametrize("termination", NAMES)
@pytest.mark.parametrize("make", [diamond, water_box, oxide_slab])
def test_a_supercell_gives_the_same_chunk(make, termination):
    target = make()
    axis = (1, 2, 1)
    for centre in (0, 7, len(target) - 1):
        one, other = (carve_chunk(t, centre, 4.5, termination=termination) for t in (target, target * axis))
        assert_same(one, other)


@every_target
@every_termination
def test_arrays_name_the_atoms_of_the_target(target, termination):
    for centre, chunk in zip((0, 5), carve_chunks(target, (0, 5), 4.0, termination=termination), strict=True):
        index, caps = chunk.arrays["target_index"], chunk.arrays["target_index"] < 0
        assert index.dtype.kind == "i" and index[0] == centre == chunk.info["target_atom"] and not caps[0]
        assert caps.sum() == chunk.info["n_caps"] and not caps[: len(chunk) - chunk.info["n_caps"]].any()
        assert (chunk.numbers[~caps] == target.numbers[index[~caps]]).all() and (chunk.numbers[caps] == 1).all()
        assert (np.isnan(chunk.arrays["depth"]) == caps).all()
        assert chunk.info["termination"] == termination and chunk.info["radius"] == 4.0
        shift = chunk.positions - chunk.positions[0] - (target.positions[index] - target.positions[centre])
        fractions = shift[~caps] @ np.linalg.inv(target.cell.complete().array)
        np.testing.assert_allclose(fractions, np.round(fractions), atol=PLACE)


@every_target
@every_termination
def test_depth_is_the_distance_to_the_nearest_atom_that_is_not_there(target, termination):
    """Against all images of all atoms, one by one."""
    chunk = carve_chunk(target, 3, 3.0, termination=termination)
    kept = chunk[chunk.arrays["target_index"] >= 0]
    shifts = np.array(list(np.ndindex(*[9 if periodic else 1 for periodic in target.pbc])))
    shifts = (shifts - [4 if periodic else 0 for periodic in target.pbc]) @ target.cell.array
    images = (target.positions[None] + shifts[:, None]).reshape(-1, 3) - target.positions[3]
    here = kept.positions - kept.positions[0]
    away = np.linalg.norm(images[:, None] - here[None], axis=2)
    missing = away[away.min(axis=1) > PLACE]
    expected = missing.min(axis=0) if len(missing) else np.full(len(kept), np.inf)
    np.testing.assert_allclose(kept.arrays["depth"], expected, atol=PLACE)


def covalent_partners(chunk):
    distances = chunk.get_all_distances()
    sums = covalent_radii[chunk.numbers][:, None] + covalent_radii[chunk.numbers]
    return (distances < 1.2 * sums).sum(axis=1) - 1


@pytest.mark.parametrize("termination", ["hydrogen", "auto"])
@pytest.mark.parametrize("periodic", [True, False])
def test_capped_atoms_keep_their_number_of_bonds(periodic, termination):
    target = diamond(periodic)
    graph = BondGraph(target)
    for chunk in carve_chunks(target, range(0, len(target), 9), 3.0, termination=termination):
        index = chunk.arrays["target_index"]
        kept = index >= 0
        expected = [len(graph.partners((int(atom), 0, 0, 0))) for atom in index[kept]]
        assert chunk.info["n_caps"] > 0 and chunk.info["clashes"] == 0
        assert covalent_partners(chunk)[kept].tolist() == expected
        caps = np.flatnonzero(~kept)
        nearest = chunk.get_all_distances()[np.ix_(caps, np.flatnonzero(kept))].min(axis=1)
        np.testing.assert_allclose(nearest, covalent_radii[6] + covalent_radii[1], atol=PLACE)


def test_atoms_that_a_cut_would_leave_on_one_bond_are_kept():
    """Around a carbon atom of benzene at 1.6 Å: the ring closes over its short bonds, and each hydrogen atom follows."""
    chunk = carve_chunk(ring(), 0, 1.6, termination="hydrogen")
    assert chunk.info["n_caps"] == 0 and len(chunk) == 12
    assert np.isinf(chunk.arrays["depth"]).all()


def test_a_hydrogen_atom_without_its_partner_is_dropped_and_a_central_one_gets_it():
    ethane = molecule("C2H6")
    carbon = carve_chunk(ethane, 0, 2.3, termination="sphere")
    assert set(carbon.symbols) == {"C", "H"}
    hydrogen = int(np.flatnonzero(ethane.numbers == 1)[0])
    chunk = carve_chunk(ethane, hydrogen, 0.5, termination="hydrogen")
    assert chunk.symbols[0] == "H" and "C" in chunk.symbols
    assert (covalent_partners(chunk)[chunk.numbers == 6] == 4).all()


@pytest.mark.parametrize("termination", ["molecules", "neutral", "auto"])
def test_molecules_are_whole_across_the_faces_of_a_cell(termination):
    target = water_box()
    for chunk in carve_chunks(target, range(len(target)), 3.5, termination=termination):
        assert (chunk.numbers == 1).sum() == 2 * (chunk.numbers == 8).sum()
        assert (covalent_partners(chunk) == np.where(chunk.numbers == 8, 2, 1)).all()


def test_neutral_chunks_have_formal_charges_that_sum_to_zero():
    target = oxide_slab()
    counts = [
        ((c.numbers == 12).sum(), (c.numbers == 8).sum() - (c.numbers == 6).sum())
        for c in carve_chunks(target, range(len(target)), 4.0, termination="neutral")
    ]
    assert all(magnesium == oxygen for magnesium, oxygen in counts)
    carved = carve_chunks(target, range(len(target)), 4.0)
    assert any((c.numbers == 12).sum() != (c.numbers == 8).sum() - (c.numbers == 6).sum() for c in carved)


def test_kinds_of_matter():
    assert set(BondGraph(diamond()).kinds) == {"network"}
    assert set(BondGraph(bulk("C", "diamond", a=3.57)).kinds) == {"network"}  # two atoms, and endless
    assert set(BondGraph(water_box()).kinds) == {"molecule"}
    assert set(BondGraph(bulk("Mg", a=3.2, c=5.2)).kinds) == {"metal"}
    assert set(BondGraph(Atoms("ArH", [[0, 0, 0], [9, 0, 0]])).kinds) == {"unbonded"}
    kinds = BondGraph(oxide_slab()).kinds
    assert set(kinds[:-2]) == {"ionic"} and set(kinds[-2:]) == {"molecule"}


def test_metals_and_ions_stay_as_carved_in_auto():
    target = fcc100("Cu", (3, 3, 3), a=3.6, vacuum=6.0)
    for one, other in zip(*(carve_chunks(target, range(9), 5.0, termination=name) for name in ("sphere", "auto")), strict=True):
        assert_same(one, other)


def test_close_caps_are_counted_and_named():
    """The two bonds that are cut in a ring of three atoms lie 60 degrees apart."""
    target = molecule("C3H6_D3h")
    chunk = carve_chunk(target, 0, 0.5, termination="hydrogen")
    caps = chunk.positions[chunk.arrays["target_index"] < 0]
    assert len(caps) == 2 and np.linalg.norm(caps[0] - caps[1]) < CLASH
    assert chunk.info["clashes"] == 1
    assert str(summarise_terminations(target, [chunk])).endswith("1 cap pairs closer than 1.2 Å, in the chunks around atoms 0.")


def test_the_order_of_atoms_in_a_sphere(pt260):
    """The centre, then the others by their index: hashes of chunks depend on it."""
    for chunk in carve_chunks(pt260, [0, 77, 200], 6.5):
        index = chunk.arrays["target_index"]
        assert (np.diff(index[1:]) > 0).all()
        moved = pt260.positions[index] - pt260.positions[index[0]]
        assert np.abs(chunk.positions - chunk.positions[0] - moved).max() < PLACE


def test_a_larger_radius_where_a_chunk_has_fewer_atoms():
    target = oxide_slab()
    carbon = len(target) - 1
    small, large = (carve_chunk(target, carbon, 3.0, min_atoms=least) for least in (None, 20))
    assert len(small) < 20 <= len(large) and large.info["radius"] > 3.0
    assert_same(large, carve_chunk(target, carbon, large.info["radius"]))
    assert len(carve_chunk(target, carbon, large.info["radius"] - 0.5)) < 20
    assert len(carve_chunk(ring(), 0, 1.0, min_atoms=100)) == 12  # all there are


def test_the_summary_says_what_was_done_with_each_kind_of_matter():
    target = oxide_slab()
    line = str(summarise_terminations(target, carve_chunks(target, [0, 33], 4.0, termination="auto")))
    assert line == "Termination auto: molecule (2 atoms) completed; ionic (32 atoms) as carved. 2 chunks, 0 caps, no clashes."
    with pytest.raises(ChunkError, match="chunks is empty"):
        summarise_terminations(target, [])


def test_initial_charges_of_the_target_make_no_ions():
    target = oxide_slab()
    target.set_initial_charges(np.where(target.numbers == 12, 2.0, -2.0))
    target.set_initial_magnetic_moments(np.linspace(-1, 1, len(target)))
    sphere, auto = (carve_chunk(target, 4, 4.0, termination=name) for name in ("sphere", "auto"))
    assert sphere.get_initial_charges()[0] == target.get_initial_charges()[4]
    assert not auto.get_initial_charges().any()
    assert "Initial charges of 1 of 1 chunks do not sum to 0 (up to" in charge_warning([sphere])
    assert charge_warning([auto]) == ""
    assert auto.get_initial_magnetic_moments()[0] == target.get_initial_magnetic_moments()[4]


def nearest_six(target, centre, radius):
    """Return a user's termination: the six nearest atoms, one cap, charge 1."""
    order = np.argsort(target.get_distances(centre, range(len(target)), mic=True))[:6]
    vectors = target.get_distances(centre, order, mic=True, vector=True)
    chunk = Atoms(target.numbers[order], target.positions[centre] + vectors) + Atoms("H", [target.positions[centre] + [0, 0, 8.0]])
    chunk.set_array("target_index", np.append(order, -1))
    chunk.info["charge"] = 1
    return chunk


def test_a_function_of_the_user_terminates():
    target = water_box()
    chunk = carve_chunk(target, 12, 4.0, termination=nearest_six)
    assert len(chunk) == 7 and chunk.info["n_caps"] == 1 and chunk.info["termination"] == "nearest_six"
    assert chunk.get_initial_charges().sum() == 1
    assert chunk.arrays["target_index"][0] == 12 and chunk.arrays["target_index"][-1] == -1


def spoiled(change):
    def termination(target, centre, radius):
        chunk = nearest_six(target, centre, radius)
        return change(chunk)

    return termination


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chunk: None, "returned a NoneType"),
        (lambda chunk: Atoms(chunk.symbols, chunk.positions), "no array 'target_index'"),
        (lambda chunk: chunk[[1, 2]], "without its central atom 12"),
        (lambda chunk: Atoms("O7", chunk.positions) if chunk.set_positions(chunk.positions + 1) else chunk, "element or position"),
    ],
)  # fmt: skip
def test_what_a_function_returns_is_checked(change, message):
    with pytest.raises(ChunkError, match=message):
        carve_chunk(water_box(), 12, 4.0, termination=spoiled(change))


def test_arguments_are_checked():
    with pytest.raises(ChunkError, match=r"termination = 'water' must be one of 'sphere', 'hydrogen', .*or a function"):
        carve_chunk(ring(), 0, 4.0, termination="water")
    with pytest.raises(ChunkError, match="min_atoms = 0 must be a positive integer"):
        carve_chunk(ring(), 0, 4.0, min_atoms=0)


def test_magnetic_moments_stop_a_parent_that_adds_them_up():
    tblite = pytest.importorskip("tblite.ase")
    target = ring()
    check_magnetic_moments(target, tblite.TBLite(verbosity=0))
    target.set_initial_magnetic_moments([1.0] * len(target))
    check_magnetic_moments(target, EMT())
    check_magnetic_moments(target, tblite.TBLite(multiplicity=1, verbosity=0))
    for parent in (tblite.TBLite(verbosity=0), lambda directory: tblite.TBLite(verbosity=0)):
        with pytest.raises(ChunkError, match="moments of the target sum to 12: tblite adds those of each chunk to a total spin"):
            check_magnetic_moments(target, parent)


@pytest.mark.slow
@pytest.mark.parents
@pytest.mark.parametrize(("target", "radius", "gain"), [(nanodiamond, 3.3, 4.0), (molecular_cluster, 4.5, 1.5)])
def test_terminated_chunks_of_a_real_parent_are_nearer_to_the_target(target, radius, gain):
    """GFN1-xTB, mean error of central forces; spheres whose electrons do not converge count as they come."""
    TBLite = pytest.importorskip("tblite.ase").TBLite

    def force(atoms, index):
        atoms = atoms.copy()
        atoms.calc = TBLite(method="GFN1-xTB", electronic_temperature=300.0, verbosity=0)
        try:
            return atoms.get_forces()[index]
        except RuntimeError:
            return np.full((*np.shape(index), 3), np.nan)

    whole = target()
    centres = np.linspace(0, len(whole) - 1, 12).astype(int)
    true = force(whole, centres)
    means = []
    for termination in ("sphere", "auto"):
        chunks = carve_chunks(whole, centres, radius, termination=termination)
        errors = np.linalg.norm([force(chunk, 0) - f for chunk, f in zip(chunks, true, strict=True)], axis=1)
        means.append(np.nanmean(errors))
    assert not np.isnan(errors).any()  # each terminated chunk converges
    assert means[1] < means[0] / gain, means
