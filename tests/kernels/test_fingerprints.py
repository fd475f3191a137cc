"""Fingerprints: Amp's own values, finite differences and symmetry laws."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import forked
import numpy as np
import pytest
from amp.descriptor.gaussian import (
    FingerprintCalculator,
    FingerprintPrimeCalculator,
    NeighborlistCalculator,
    make_symmetry_functions,
)
from ase import Atoms
from ase.build import bulk, make_supercell

from amp.nft.kernels import jit
from amp.nft.kernels.fingerprints import gaussian
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.fingerprints.neighbors import find_neighbors
from amp.nft.kernels.jit import kernel
from amp.nft.kernels.simd import vectors as simd

RC = 4.5  # Å; Amp is slow
COSINE = {"name": "Cosine", "kwargs": {"Rc": RC}}
POLYNOMIAL = {"name": "Polynomial", "kwargs": {"Rc": RC, "gamma": 4.0}}
UNEVEN = {"name": "Polynomial", "kwargs": {"Rc": RC, "gamma": 2.5}}
SAME = 1e-10  # agreement with Amp, absolute
EXACT = 1e-12  # laws that hold but for rounding
STEP, DIFFERENCES = 1e-4, 2e-6  # of finite differences, and their error


def functions(elements):
    """G2 with and without offset, G4 and G5, whole and broken zetas, narrow and wide."""
    g2 = make_symmetry_functions(elements, "G2", [0.05, 4.0, 80.0], offsets=[0.0, 2.0])
    g4 = make_symmetry_functions(elements, "G4", [0.005, 1.0, 12.0], zetas=[1.0, 4.0, 16.0], gammas=[1.0, -1.0])
    g5 = make_symmetry_functions(elements, "G5", [0.005, 2.0], zetas=[1.0, 2.5], gammas=[1.0, -1.0])
    return {element: g2 + g4 + g5 for element in elements}


def free(symbols, seed=1):
    """Atoms at random in a box, none closer than 1.6 Å."""
    rng, positions = np.random.default_rng(seed), []
    n = len(Atoms(symbols))
    while len(positions) < n:
        place = rng.uniform(0.0, 2.2 * n ** (1 / 3) + 1.0, 3)
        if all(np.linalg.norm(place - other) > 1.6 for other in positions):
            positions.append(place)
    return Atoms(symbols, positions)


def crystal(name="Pt", mixed=False):
    """Return a small rattled cell, smaller than the cutoff in one direction or more."""
    atoms = bulk("CuAu", "rocksalt", a=5.2) if name == "CuAu" else bulk(name, a=3.99, cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.positions[0] += atoms.cell[0] - 2 * atoms.cell[1]  # not wrapped
    atoms.pbc = [True, False, True] if mixed else True
    return atoms


STRUCTURES = {
    "free": free("Pt9"), "free, two elements": free("Pt5Cu4"), "periodic": crystal(), "periodic, two elements": crystal("CuAu"),
    "mixed boundaries": crystal(mixed=True), "one atom and its images": bulk("Pt", a=3.99), "alone": Atoms("Pt", [[0, 0, 0]]),
}  # fmt: skip


@pytest.fixture(params=STRUCTURES)
def atoms(request):
    return STRUCTURES[request.param].copy()


def fingerprints(atoms, cutoff=COSINE):
    return Fingerprints(functions(sorted(set(atoms.symbols))), cutoff)


def derivative(rows, atom):
    """Return dx / dposition of one force atom, all rows: (rows, xyz, width)."""
    dense = np.zeros((len(rows.x), 3, rows.x.shape[1]))
    entries = slice(rows.force_start[atom], rows.force_start[atom + 1])
    dense[rows.force_row[entries]] = rows.dx[entries]
    return dense


def amp_rows(atoms, gs, cutoff):
    """Amp's values (atoms, width) and derivatives (moved atom, row, xyz, width)."""
    lists = {"key": NeighborlistCalculator(cutoff["kwargs"]["Rc"]).calculate(atoms, "key")}
    values = FingerprintCalculator(lists, gs, cutoff, True).calculate(atoms, "key")
    primes = FingerprintPrimeCalculator(lists, gs, cutoff, True).calculate(atoms, "key")
    x = np.array([value for _, value in values])
    dx = np.zeros((len(x), len(x), 3, x.shape[1]))
    for (moved, _, row, _, axis), prime in primes.items():
        dx[moved, row, axis] = prime
    return x, dx


@pytest.mark.parametrize("cutoff", [COSINE, POLYNOMIAL, UNEVEN], ids=["cosine", "polynomial", "gamma 2.5"])
def test_values_and_derivatives_are_those_of_amp(atoms, cutoff):
    ours = fingerprints(atoms, cutoff)
    rows = ours.rows(atoms)
    x, dx = amp_rows(atoms, functions(ours.elements), cutoff)
    assert rows.x == pytest.approx(x, abs=SAME)
    assert [ours.elements[kind] for kind in rows.kind] == list(atoms.symbols)
    for atom in range(len(atoms)):
        assert derivative(rows, atom) == pytest.approx(dx[atom], abs=SAME)


@pytest.mark.parametrize("radius", [9.0, 13.0], ids=["200 neighbours", "600 neighbours"])
def test_more_neighbours_and_pairs_than_are_worked_on_at_a_time(radius):
    atoms, wide = bulk("Pt", a=3.99), {"name": "Cosine", "kwargs": {"Rc": radius}}
    ours, gs = Fingerprints(functions(["Pt"]), wide), functions(["Pt"])
    x, dx = amp_rows(atoms, gs, wide)
    known = np.isfinite(x[0])  # three atoms in line and a broken zeta: Amp takes a power of -1e-17
    assert known.sum() >= len(known) - 2
    rows = ours.rows(atoms)
    assert np.isfinite(rows.x).all()
    assert rows.x[:, known] == pytest.approx(x[:, known], abs=SAME, rel=SAME)
    assert rows.dx[..., known] == pytest.approx(dx[0][..., known], abs=SAME)


@pytest.mark.parametrize("cutoff", [COSINE, POLYNOMIAL], ids=["cosine", "polynomial"])
def test_derivatives_are_finite_differences(atoms, cutoff):
    ours = fingerprints(atoms, cutoff)
    rows = ours.rows(atoms)
    for atom, axis in [(0, 0), (len(atoms) - 1, 2)]:
        shifted = []
        for step in (STEP, -STEP):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            shifted.append(ours.rows(moved).x)
        numerical = (shifted[0] - shifted[1]) / (2 * STEP)
        assert derivative(rows, atom)[:, axis] == pytest.approx(numerical, abs=DIFFERENCES)


@pytest.mark.parametrize("block", [3, 1000])
def test_values_alone_are_those_of_rows(atoms, block, monkeypatch):
    monkeypatch.setattr(gaussian, "_BLOCK", block)
    ours = fingerprints(atoms)
    rows, alone = ours.rows(atoms), ours.values(atoms)
    assert alone.x == pytest.approx(rows.x, abs=EXACT, rel=EXACT)
    assert (alone.kind == rows.kind).all()
    assert list(alone.force_start) == [0] and len(alone.force_row) == len(alone.dx) == 0


def test_values_take_no_memory_for_derivatives():
    """Dense derivatives of these atoms and their neighbours would be 58 times as large as the values."""
    atoms = bulk("Pt", a=3.99, cubic=True) * (10, 10, 10)
    ours = fingerprints(atoms)
    ours.values(atoms[:50])
    tracemalloc.start()
    x = ours.values(atoms).x
    assert tracemalloc.get_traced_memory()[1] < 20 * x.nbytes
    tracemalloc.stop()


def test_central_rows_are_rows_of_the_whole(atoms):
    ours = fingerprints(atoms)
    whole = ours.rows(atoms)
    for centre in range(len(atoms)):
        rows = ours.rows(atoms, centre)
        expected = derivative(whole, centre)
        touched = np.flatnonzero(np.abs(expected).max(axis=(1, 2)) > 0.0)
        found = find_neighbors(atoms.positions, atoms.cell.array, atoms.pbc, RC)
        near = np.unique(found.index[found.start[centre] : found.start[centre + 1]])
        atoms_of_rows = [centre, *(j for j in near if j != centre)]
        assert set(touched) <= set(atoms_of_rows)
        assert rows.x == pytest.approx(whole.x[atoms_of_rows], abs=EXACT)
        assert (rows.kind == whole.kind[atoms_of_rows]).all()
        assert rows.force_start.tolist() == [0, len(rows.x)]
        assert rows.dx == pytest.approx(expected[atoms_of_rows][rows.force_row], abs=EXACT)


@pytest.mark.parametrize("chosen", [[0, 3], [2, 1, 5]])
def test_rows_of_some_forces_are_those_of_all(atoms, chosen):
    """In the requested order, and with no rows that none of the forces needs."""
    ours, chosen = fingerprints(atoms), [atom for atom in chosen if atom < len(atoms)] or [0]
    whole, some = ours.rows(atoms), ours.rows(atoms, chosen)
    assert set(some.force_row) == set(range(len(some.x)))
    for place, atom in enumerate(chosen):
        of_some, of_whole = slice(*some.force_start[place : place + 2]), slice(*whole.force_start[atom : atom + 2])
        products = [np.einsum("er,ecs->crs", rows.x[rows.force_row[of]], rows.dx[of]) for rows, of in ((some, of_some), (whole, of_whole))]
        assert products[0] == pytest.approx(products[1], rel=EXACT, abs=EXACT)  # whatever the order of the rows
    with pytest.raises(ValueError, match="each once"):
        ours.rows(atoms, [0, 0])


def test_a_centre_may_be_counted_from_the_end():
    atoms = STRUCTURES["free"]
    ours = fingerprints(atoms)
    assert (ours.rows(atoms, -1).dx == ours.rows(atoms, len(atoms) - 1).dx).all()
    with pytest.raises(IndexError):
        ours.rows(atoms, len(atoms))


def test_values_do_not_change_under_rotation_and_translation_and_derivatives_turn(atoms):
    ours = fingerprints(atoms)
    turned = atoms.copy()
    turned.rotate(37.0, (1.0, 2.0, -0.5), rotate_cell=True)
    turned.translate([0.3, -7.0, 11.0])
    before, after = ours.rows(atoms), ours.rows(turned)
    assert after.x == pytest.approx(before.x, abs=EXACT)
    basis = np.eye(3)
    frame = Atoms("H3", basis)
    frame.rotate(37.0, (1.0, 2.0, -0.5))
    for atom in range(len(atoms)):
        expected = np.einsum("iaf,ab->ibf", derivative(before, atom), frame.positions)
        assert derivative(after, atom) == pytest.approx(expected, abs=EXACT * 10)


def test_permutation_of_atoms_permutes_rows(atoms):
    ours = fingerprints(atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    assert ours.rows(atoms[order]).x == pytest.approx(ours.rows(atoms).x[order], abs=EXACT)


@pytest.mark.parametrize("name", ["periodic", "periodic, two elements", "one atom and its images"])
def test_a_supercell_repeats_the_rows(name):
    atoms = STRUCTURES[name]
    ours = fingerprints(atoms)
    big = make_supercell(atoms, [[2, 0, 0], [1, 1, 0], [0, 0, 1]])
    places = np.linalg.solve(atoms.cell.T, (big.positions[:, None] - atoms.positions).reshape(-1, 3).T).T
    same = np.abs(places - places.round()).max(axis=1).reshape(len(big), len(atoms)) < 1e-6
    assert ours.rows(big).x == pytest.approx(ours.rows(atoms).x[same.argmax(axis=1)], abs=EXACT * 10)


def test_moving_everything_changes_nothing(atoms):
    rows = fingerprints(atoms).rows(atoms)
    total = sum(derivative(rows, atom) for atom in range(len(atoms)))
    assert total == pytest.approx(np.zeros_like(total), abs=EXACT)


@pytest.mark.parametrize("cutoff", [COSINE, POLYNOMIAL], ids=["cosine", "polynomial"])
def test_values_and_slopes_vanish_at_the_cutoff_and_beyond(cutoff):
    """Third atom of an acute triangle leaves the first: everything it adds goes to zero, and without a jump."""
    apex = [RC / 2, 2.0, 0.0]

    def rows(distance):
        return fingerprints(Atoms("Pt3"), cutoff).rows(Atoms("Pt3", [[0, 0, 0], apex, [distance, 0.0, 0.0]]))

    inside, outside = rows(RC - 1e-7), rows(RC + 1e-7)
    assert inside.x[0] == pytest.approx(outside.x[0], abs=1e-6)
    for atom in range(3):
        assert derivative(inside, atom)[0] == pytest.approx(derivative(outside, atom)[0], abs=1e-6)
    alone = fingerprints(Atoms("Pt"), cutoff).rows(Atoms("Pt2", [[0, 0, 0], [RC + 1e-7, 0, 0]]))
    assert (alone.x == 0.0).all()
    assert (alone.dx == 0.0).all()
    edge = fingerprints(Atoms("Pt"), cutoff).rows(Atoms("Pt2", [[0, 0, 0], [RC - 1e-7, 0, 0]]))
    assert np.abs(edge.x).max() < 1e-12
    assert 0.0 < np.abs(edge.dx).max() < 1e-6


def test_elements_without_functions_of_their_own_count_as_absent():
    """As Amp: a function of an element that no atom is stays zero."""
    atoms = STRUCTURES["free"]
    gs = functions(["Pt"])
    extended = {"Pt": [*gs["Pt"], {"type": "G2", "element": "Au", "eta": 1.0, "offset": 0.0}]}
    x = Fingerprints(extended, COSINE).rows(atoms).x
    assert x[:, :-1] == pytest.approx(Fingerprints(gs, COSINE).rows(atoms).x, abs=EXACT)
    assert (x[:, -1] == 0.0).all()


@pytest.mark.parametrize(
    ("gs", "cutoff", "message"),
    [
        ([{"type": "G3", "element": "Pt", "eta": 1.0}], COSINE, "'G3'"),
        ([{"type": "G2", "element": "Pt", "eta": 1.0, "offset": 0.0}], {"name": "Tanh", "kwargs": {"Rc": 5.0}}, "'Tanh'"),
        ([{"type": "G2", "element": "Pt", "eta": 1.0, "offset": 0.0}], {"name": "Cosine", "kwargs": {"Rc": 0.0}}, "Rc > 0"),
    ],
)
def test_what_amp_does_not_have_is_an_error(gs, cutoff, message):
    with pytest.raises(ValueError, match=message):
        Fingerprints({"Pt": gs}, cutoff)


def test_unknown_elements_and_atoms_in_one_place_are_errors():
    ours = fingerprints(Atoms("Pt"))
    with pytest.raises(ValueError, match="Cu"):
        ours.rows(Atoms("PtCu", [[0, 0, 0], [0, 0, 2.5]]))
    with pytest.raises(ValueError, match="atoms 0 and 1"):
        ours.rows(Atoms("Pt2", [[0, 0, 0], [0, 0, 0]]))


def test_no_atoms_no_rows():
    rows = fingerprints(Atoms("Pt")).rows(Atoms())
    assert rows.x.shape[0] == 0
    assert rows.force_start.tolist() == [0]


@kernel
def _apply(x, exponential, hyperbolic):
    for n in range(0, x.size, simd.LANES):
        simd.store(exponential, n, simd.exp(simd.load(x, n)))
        simd.store(hyperbolic, n, simd.tanh(simd.load(x, n)))


def test_exponential_and_hyperbolic_tangent():
    x = np.concatenate([np.linspace(-30.0, 30.0, 4001), np.linspace(-1e-3, 1e-3, 99), [-700.0, 700.0, 0.0, np.nan]])
    exponential, hyperbolic = np.empty_like(x), np.empty_like(x)
    _apply(x, exponential, hyperbolic)
    assert exponential == pytest.approx(np.exp(x), rel=1e-15, nan_ok=True)
    assert hyperbolic == pytest.approx(np.tanh(x), abs=1e-15, nan_ok=True)


def test_kernels_do_without_a_cache(tmp_path):
    """A function that no file holds has no place for a cache either."""
    text = "from amp.nft.kernels.jit import kernel\ndef twice(x):\n    return 2 * x\nprint(kernel(twice)(21))"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "42", result.stderr


def test_an_unreadable_cache_is_rewritten(tmp_path):
    """As after an upgrade: the index of the last release names classes that are no more."""
    (tmp_path / "twice.py").write_text("from amp.nft.kernels.jit import kernel\n@kernel\ndef twice(x):\n    return 2 * x\nprint(twice(21))")

    def run():
        result = forked.run(f"from numba.core import config; config.CACHE_DIR = {str(tmp_path / 'cache')!r}; import twice", cwd=tmp_path)
        assert result.stdout.strip() == "42", result.stderr
        return next((tmp_path / "cache").rglob("*.nbi"))

    index = run()
    written = b"cno_such_module\nNoSuchClass\n."
    index.write_bytes(written)
    assert run().read_bytes() != written


def test_a_kernel_is_recompiled_when_its_callees_change(tmp_path):
    """Of another file, which numba by itself does not look at."""
    package = tmp_path / "pack"
    package.mkdir()
    (package / "jit.py").write_text(Path(jit.__file__).read_text())
    (package / "calls.py").write_text(
        "from pack.jit import kernel\nfrom pack.between import between\n@kernel\ndef calls(x):\n    return between(x)\n"
    )
    (package / "between.py").write_text(
        "from pack.jit import inner\nfrom pack.far import far\n@inner\ndef between(x):\n    return far(x)\n"
    )

    def change(factor):
        (package / "far.py").write_text(f"from pack.jit import inner\n@inner\ndef far(x):\n    return {factor} * x\n")

    def result():
        text = "from pack.calls import calls; print(calls(7), sum(calls.stats.cache_hits.values()))"
        return forked.run(text, cwd=tmp_path, check=True).stdout.split()

    change(2)
    assert result() == ["14", "0"]
    assert result() == ["14", "1"]
    change(300)
    assert result() == ["2100", "0"]
