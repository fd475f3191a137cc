"""Label error against depth: known parameters are found again; a real parent's error is found without its true forces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from amp.nft.chunks import carve_chunks
from amp.nft.chunks.label_error import DEEPEST, LabelError, LabelRows, common_error, default_floor, label_rows
from amp.nft.errors import ChunkError

SEEDS = 5
WITHIN = 1.25  # factor of sigma at any depth, from 600 rows of 60 atoms
REAL = 1.5  # factor at the centre, from a real parent

TRUE = LabelError(scale=0.25, length=1.5, floor=0.02)


def synthetic(seed, n_atoms=60, repeats=10, error=TRUE):
    """Rows of atoms with unknown forces, each seen in several chunks at random depths; every third atom is oxygen, others hydrogen."""
    rng = np.random.default_rng(seed)
    atoms = rng.permutation(np.repeat(np.arange(n_atoms), repeats))
    depths = rng.uniform(1.5, 9.0, len(atoms))
    numbers = np.where(atoms % 3, 1, 8) if error.factors else np.full(len(atoms), 78)
    true = rng.normal(size=(n_atoms, 3))
    forces = true[atoms] + rng.normal(size=(len(atoms), 3)) * error.sigma(depths, numbers)[:, None]
    return LabelRows(atoms, depths, forces, np.zeros(len(atoms), dtype=bool), numbers)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_known_parameters_are_found_again(seed):
    found = LabelError.fit(synthetic(seed))
    depths = np.linspace(2.0, 9.0, 15)
    ratio = found.sigma(depths) / TRUE.sigma(depths)
    assert found.n_atoms == 60
    assert (1 / WITHIN < ratio).all() and (ratio < WITHIN).all()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_elements_have_factors(seed):
    """As in water, where the errors on oxygen are three times those on hydrogen."""
    error = replace(TRUE, factors={1: 0.6, 8: 1.8})
    found = LabelError.fit(synthetic(seed, error=error))
    ratio = found.sigma([3.0, 3.0, 6.0, 6.0], [1, 8, 1, 8]) / error.sigma([3.0, 3.0, 6.0, 6.0], [1, 8, 1, 8])
    assert (1 / WITHIN < ratio).all() and (ratio < WITHIN).all()
    assert found.sigma(3.0, 14) == found.sigma(3.0)
    assert sum(np.log(found.factors[number]) * share for number, share in ((1, 2), (8, 1))) == pytest.approx(0, abs=1e-9)
    one, other = found.weights(3.0, 0.1, [1, 8])
    assert one > other


def test_the_forces_themselves_do_not_matter():
    """Another force on each atom, the order of the rows and the numbers of the atoms change nothing."""
    rows = synthetic(0)
    order = np.random.default_rng(1).permutation(len(rows.atoms))
    shifted = LabelRows(
        rows.atoms[order] * 7 + 3, rows.depths[order], (rows.forces_rx + np.sin(rows.atoms)[:, None])[order], rows.centres,
        rows.numbers[order],
    )  # fmt: skip
    one, other = LabelError.fit(rows), LabelError.fit(shifted)
    np.testing.assert_allclose(other.sigma([2, 4, 8]), one.sigma([2, 4, 8]), rtol=1e-3)  # of a minimum found by steps


def test_many_rows_are_thinned_and_give_the_same():
    many = LabelError.fit(synthetic(2, n_atoms=6000))
    assert 1000 < many.n_atoms < 3000
    np.testing.assert_allclose(many.sigma([2, 4, 8]), TRUE.sigma([2, 4, 8]), rtol=0.1)


def test_without_overlap_the_prior_is_returned_and_says_so():
    rows = synthetic(0, repeats=1)
    found = LabelError.fit(rows)
    assert found.n_atoms == 0
    assert 0.2 < found.sigma(3.0) < 0.4


def test_weights_fall_with_the_label_error():
    depths = np.array([2.0, 3.0, 6.0, DEEPEST, np.inf])
    weights = TRUE.weights(depths, 0.1)
    assert (np.diff(weights) >= 0).all() and weights[-1] == weights[-2] == pytest.approx(0.1**2 / (0.02**2 + 0.1**2), rel=1e-6)
    assert TRUE.weights(3.0, np.hypot(0.25, 0.02)) == pytest.approx(0.5)
    assert default_floor(np.full((4, 3), 1.0)) == pytest.approx(0.1 * 3**0.5)


def test_rows_to_train_leave_out_caps_and_the_surface_but_never_the_centre():
    target = bulk("Si", cubic=True) * (2, 2, 2)
    chunk = carve_chunks(target, [11], 5.0, termination="hydrogen")[0]
    atoms, weights = TRUE.rows(chunk, 0.05)
    assert atoms[0] == 0 and (chunk.arrays["target_index"][atoms] >= 0).all()
    assert 1 < len(atoms) < (chunk.arrays["target_index"] >= 0).sum()
    assert (weights >= 0.05).all()
    assert LabelError(100.0, 50.0, 100.0).rows(chunk, 0.05)[0].tolist() == [0]


def test_rows_of_chunks_have_the_atoms_of_their_targets():
    target = bulk("Si", cubic=True) * (2, 2, 2)
    chunks = carve_chunks(target, [0, 9], 4.0, termination="hydrogen")
    forces = [np.arange(3 * len(chunk)).reshape(-1, 3) for chunk in chunks]
    rows = label_rows(chunks, forces, first=[0, 100])
    n = [int((chunk.arrays["target_index"] >= 0).sum()) for chunk in chunks]
    assert len(rows.atoms) == len(rows.depths) == sum(n)
    assert np.flatnonzero(rows.centres).tolist() == [0, n[0]] and rows.atoms[[0, n[0]]].tolist() == [0, 109]
    np.testing.assert_array_equal(rows.forces_rx, np.concatenate([forces[0][: n[0]], forces[1][: n[1]]]))
    assert (rows.numbers == 14).all()
    with pytest.raises(ChunkError, match="chunks is empty"):
        label_rows([], [])
    with pytest.raises(ChunkError, match="no 'target_index' or no 'depth': use carve_chunks"):
        label_rows([target], [np.zeros((len(target), 3))])


def test_the_common_error_is_that_which_overlaps_cannot_show():
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(400, 3))
    assert common_error(forces, forces + rng.normal(scale=0.05, size=forces.shape)) == pytest.approx(0.05, rel=0.1)
    with pytest.raises(ChunkError, match=r"shapes \(400, 3\) and \(3, 3\)"):
        common_error(forces, forces[:3])
    assert TRUE.at_centres([6.5]) == pytest.approx(TRUE.sigma(6.5))
    assert TRUE.with_common(0.3).at_centres([6.5]) == 0.3


@pytest.mark.slow
@pytest.mark.parents
def test_the_error_of_a_real_parent_is_found_without_its_true_forces():
    """Mg147, GFN1-xTB, chunks of 6.5 Å; medians over draws of chunks, at central atoms."""
    TBLite = pytest.importorskip("tblite.ase").TBLite
    target = read(Path(__file__).parents[1] / "data" / "Mg147.extxyz")
    true = target.get_forces()
    chunks = carve_chunks(target, np.random.default_rng(0).permutation(len(target))[:24], 6.5)
    forces = []
    for chunk in chunks:
        chunk.calc = TBLite(method="GFN1-xTB", electronic_temperature=300.0, verbosity=0)
        forces.append(chunk.get_forces())
    for n in (10, 20):
        ratios = []
        for seed in range(SEEDS):
            drawn = np.random.default_rng(seed).permutation(len(chunks))[:n]
            rows = label_rows([chunks[i] for i in drawn], [forces[i] for i in drawn])
            errors = (rows.forces_rx - true[rows.atoms])[rows.centres]
            ratios.append(LabelError.fit(rows).at_centres(rows.depths[rows.centres]) / np.sqrt(np.mean(errors**2)))
        assert 1 / REAL < np.median(ratios) < REAL
