"""Batches of spread atoms, and the rows of chunks that are trained."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.activelearner.batches import batch_size, spread_atoms
from amp.nft.activelearner.chunk_rows import rows_of_chunks
from amp.nft.activelearner.method import choose_method
from amp.nft.chunks import carve_chunks

EXACT = 1e-12


def labelled(chunk):
    free = chunk.copy()
    free.calc = EMT()
    chunk.calc = SinglePointCalculator(chunk, energy=free.get_potential_energy(), forces=free.get_forces())
    return chunk


@pytest.fixture(scope="module")
def chunks(pt260):
    return [labelled(chunk) for chunk in carve_chunks(pt260, [0, 40, 80, 120, 200, 250], 6.5)]


def test_batches_double():
    assert [batch_size(k) for k in range(4)] == [3, 6, 12, 24]


def test_spread_atoms_are_far_apart_and_the_first_is_the_most_uncertain(pt260):
    ranking = np.random.default_rng(0).uniform(size=260)
    chosen = spread_atoms([pt260], ranking, 4, 6.5)
    assert chosen[0] == ranking.argmax()
    distances = pt260.get_all_distances()[np.ix_(chosen, chosen)]
    assert distances[~np.eye(4, dtype=bool)].min() >= 6.5
    again = spread_atoms([pt260], ranking, 4, 6.5, known=chosen)
    assert not set(again) & set(chosen)


def test_more_atoms_than_fit_come_nearer_and_no_atom_comes_twice(pt260):
    chosen = spread_atoms([pt260], np.zeros(260), 300, 6.5)
    assert sorted(chosen) == list(range(260))


def test_spread_counts_periodic_images_and_targets_apart():
    cell = bulk("Pt", cubic=True) * (4, 1, 1)  # 15.7 Å long: the ends are neighbours
    ranking = np.arange(32.0)
    chosen = spread_atoms([cell, cell.copy()], ranking, 4, 5.0)
    for of in ([atom for atom in chosen if atom < 16], [atom - 16 for atom in chosen if atom >= 16]):
        distances = cell.get_all_distances(mic=True)[np.ix_(of, of)]
        assert distances[~np.eye(len(of), dtype=bool)].min(initial=9.0) >= 5.0


def test_central_rows_are_the_published_signal(chunks):
    rows = rows_of_chunks(chunks, [0] * 6, "centre")
    assert [row.centre for row in rows] == [0] * 6


def test_weighted_rows_trust_deep_atoms_more(chunks):
    rows = rows_of_chunks(chunks, [0] * 6, "weighted")
    for chunk, row in zip(chunks, rows, strict=True):
        assert row.atoms[0] == 0 and 0.05 <= min(row.weights) and max(row.weights) <= 1.0
        order = np.argsort(chunk.arrays["depth"][list(row.atoms)])
        assert (np.diff(np.array(row.weights)[order]) >= -EXACT).all()
    assert np.mean([len(row.atoms) for row in rows]) > 10


def test_all_rows_have_weight_one_and_energies_where_there_are_no_other_images(chunks):
    rows = rows_of_chunks(chunks, [0] * 6, "all", energies=True)
    assert all(row.atoms == tuple(range(len(chunk))) for chunk, row in zip(chunks, rows, strict=True))
    assert {(set(row.weights) == {1.0}, row.energy) for row in rows} == {(True, 1.0)}


def test_presets_and_what_replaces_their_parts():
    assert choose_method("paper").forces == "centre"
    robust = choose_method("robust", forces="all", test_labels=7)
    assert (robust.forces, robust.fit_until, robust.test_labels, robust.larger_labels) == ("all", "out-of-bag", 7, 5)
    assert choose_method("robust", check_parent=False).check_parent is False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"forces": "some"}, "forces is 'some': it must be one of 'centre', 'weighted', 'all'"),
        ({"fit_until": "dawn"}, "fit_until is 'dawn'"),
        ({"termination": "tape"}, "termination = 'tape'"),
        ({"test_labels": 3, "larger_labels": 4}, "larger_labels is 4, but test_labels 3"),
        ({"min_atoms": 0}, "min_atoms is 0"),
        ({"aim": -1.0}, "aim is -1.0"),
    ],
)
def test_parts_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        choose_method("paper", **given)


def test_a_method_that_does_not_exist():
    with pytest.raises(ValueError, match="method is 'fast': it must be one of 'paper', 'robust'"):
        choose_method("fast")
