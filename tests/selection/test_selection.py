"""Selections by law: what is chosen covers, spans or tells what it should; Amp's own code agrees where it has some."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

from amp.nft.chunks import carve_chunks
from amp.nft.features import candidates, g2x, large, large5, larger, paper20
from amp.nft.initialization import initial_images
from amp.nft.selection import (
    by_correlation,
    choose_chunks,
    choose_features,
    choose_images,
    cur,
    distinct,
    farthest_points,
    fingerprints,
)
from amp.nft.selection.rows import METHODS

SAME = 1e-12  # of fingerprints, of the order of 1


@pytest.fixture(scope="module")
def images():
    return initial_images(["Pt"], [225, 79], 4.0, 2.65, 0.03, n_rattled=5)


def test_farthest_points_are_farthest():
    """Against the definition, step by step."""
    x = np.random.default_rng(0).normal(size=(60, 4))
    chosen = farthest_points(x, 12)
    assert chosen[0] == np.argmax(np.linalg.norm(x - x.mean(axis=0), axis=1))
    for step in range(1, 12):
        to_chosen = np.linalg.norm(x[:, None] - x[chosen[:step]], axis=2).min(axis=1)
        assert chosen[step] == np.argmax(to_chosen)


def test_cur_finds_the_rows_that_span_the_others():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, size=(40, 3)) @ np.diag([1.0, 1.0, 1.0]) / 10
    x = np.hstack([x, np.zeros((40, 3))])
    x[[5, 17, 33]] = 30 * np.eye(6)[[0, 1, 2]]
    assert set(cur(x, 3)) == {5, 17, 33}


@pytest.mark.parametrize("choose", [farthest_points, cur])
@pytest.mark.parametrize("case", ["random", "one column", "constant", "zero", "rank two", "duplicates"])
def test_no_row_twice_whatever_the_data(choose, case):
    rng = np.random.default_rng(2)
    x = {
        "random": rng.normal(size=(12, 5)),
        "one column": rng.normal(size=(12, 1)),
        "constant": np.ones((12, 3)),
        "zero": np.zeros((12, 3)),
        "rank two": rng.normal(size=(12, 2)) @ rng.normal(size=(2, 6)),
        "duplicates": np.repeat(rng.normal(size=(3, 4)), 4, axis=0),
    }[case]
    for k in (1, 2, 7, 12):
        chosen = choose(x, k)
        assert len(set(chosen)) == k and set(chosen) <= set(range(12))


def test_correlation_as_in_amp():
    """Step by step as Amp's own function, on fingerprints and forces of a rattled cluster."""
    with pytest.warns(DeprecationWarning):
        from amp.preprocess.feature_selection import FTSel
    cluster = Octahedron("Pt", 5, cutoff=2, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, cluster.positions)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    x, _, _ = fingerprints([atoms], candidates(["Pt"]))
    x = (x - np.median(x, axis=0))[:, x.var(axis=0) > 1e-3]
    y = np.linalg.norm(atoms.get_forces(), axis=1)
    theirs, left, expected = x.copy(), np.arange(x.shape[1]), []
    for _ in range(15):
        theirs, index, left = FTSel.col_sel_by_fcorr(theirs, y, left)
        expected.append(index)
    assert by_correlation(x, y, 15) == expected


def test_the_first_feature_is_the_one_that_tells_the_force():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 6))
    y = 3 * x[:, 4] + 0.5 * x[:, 1] + 0.01 * rng.normal(size=200)
    assert by_correlation(x, y, 2) == [4, 1]
    x[:, 5] = x[:, 4] * 2 + 1e-3 * rng.normal(size=200)  # a duplicate of the first adds no information
    assert by_correlation(x, y, 2)[1] == 1


def test_the_larger_set_has_all_functions_of_the_large_one():
    for elements in (["Pt"], ["Cu", "Au"]):
        fewer, more = large(elements), larger(elements)
        assert fewer.keys() == more.keys() and all(function in more[name] for name in more for function in fewer[name])
    assert (len(large("Pt")["Pt"]), len(larger("Pt")["Pt"])) == (30, 46)


def test_large5_sees_the_angle_of_neighbours_that_are_farther_apart_than_the_cutoff():
    """Opposite neighbours at 2.7 Å are 5.4 Å apart, beyond a cutoff of 5 Å: no G4 of the atom between them depends on their angle."""
    straight, bent = (Atoms("Mo3", [(0, 0, 0), (2.7, 0, 0), (-2.7 * np.cos(angle), 2.7 * np.sin(angle), 0)]) for angle in (0.0, 0.3))
    assert min(bent.get_distance(1, 2), straight.get_distance(1, 2)) > 5.0
    for functions, changes in ((larger("Mo"), False), (large5("Mo"), True)):
        (x, y) = (fingerprints([atoms], functions, cutoff=5.0)[0][0] for atoms in (straight, bent))
        assert np.allclose(x, y, rtol=0, atol=SAME) != changes


def test_large5_is_large_with_as_many_g5():
    for elements in (["Pt"], ["Cu", "Au"]):
        fewer, more = large(elements), large5(elements)
        assert fewer.keys() == more.keys()
        for name, functions in more.items():
            assert functions[: len(fewer[name])] == fewer[name]
            assert {function["type"] for function in functions[len(fewer[name]) :]} == {"G5"}
            assert len(functions) == len(larger(elements)[name])


def test_there_are_78_candidates_and_the_papers_are_among_them():
    all_of_them = candidates(["Pt"])["Pt"]
    assert len(all_of_them) == 78
    assert sum(one["type"] == "G2" for one in all_of_them) == 60
    for one in paper20(["Pt"])["Pt"]:
        assert any({**one, "eta": 0} == {**other, "eta": 0} and np.isclose(one["eta"], other["eta"]) for other in all_of_them), one


@pytest.mark.parametrize("method", ["force_correlation", "cur", "fps"])
def test_features_come_from_the_candidates_for_each_element(method):
    alloy = bulk("Cu", cubic=True) * (2, 2, 2)
    alloy.symbols[::3] = "Au"
    alloy.rattle(0.1, seed=2)
    alloy.calc = EMT()
    few = candidates(["Cu", "Au"])
    few = {element: functions[::5] for element, functions in few.items()}
    chosen = choose_features([alloy], 7, few, method=method)
    assert set(chosen) == {"Cu", "Au"}
    for element, functions in chosen.items():
        assert len(functions) == 7
        assert all(function in few[element] for function in functions)
        assert len({str(function) for function in functions}) == 7


def test_images_are_told_apart_whatever_the_order_of_their_atoms(images):
    shuffled = [image[np.random.default_rng(5).permutation(len(image))] for image in images]
    mixed = [*images, *shuffled]
    for method in METHODS:
        chosen = choose_images(mixed, 8, method=method)
        assert len({i % len(images) for i in chosen}) == 8  # never an image and its own shuffled copy


def test_chosen_images_cover_better_than_the_first_ones(images):
    x = np.array([fingerprints([image])[0].mean(axis=0) for image in images])
    x = (x - x.mean(axis=0)) / x.std(axis=0)

    def radius(chosen):
        return np.linalg.norm(x[:, None] - x[list(chosen)], axis=2).min(axis=1).max()

    assert radius(choose_images(images, 8)) < radius(range(8))


def test_compositions_differ_even_where_surroundings_do_not():
    pure = bulk("Cu", cubic=True) * 2
    traces = [pure.copy() for _ in range(5)]
    traces[3].symbols[:16] = "Au"
    assert 3 in choose_images(traces, 2)


def test_chunks_are_chosen_by_their_central_atoms(pt260):
    duplicates = [0, 50, 100, 150, 200, 250]
    chunks = carve_chunks(pt260, duplicates * 3, 6.5)
    for method in METHODS:
        chosen = choose_chunks(chunks, 6, method=method)
        assert {i % 6 for i in chosen} == set(range(6))


def test_distinct_leaves_out_what_others_cover():
    x = np.array([[0.0, 0.0], [0.02, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.98]])
    kinds = np.zeros(5, dtype=int)
    assert distinct(x, kinds, [0, 1, 2, 3, 4], [], 0.1) == [0, 2, 3]
    assert distinct(x, kinds, [1, 0, 4, 2], [], 0.1) == [1, 4]  # the most important of duplicates
    assert distinct(x, kinds, [0, 1, 3], [2], 0.1) == [0, 3]
    assert distinct(x, kinds, [4, 3], [2], 0.1) == [3]  # what is known covers
    assert distinct(x, kinds, [2, 4], [2], 0.1) == [2]  # one that is known itself stays: it costs no label
    assert distinct(x, kinds, [4], [0, 2], 0.1) == [2]  # never nothing: the one that covers it
    assert distinct(x, np.array([0, 1, 0, 0, 1]), [0, 1, 2, 3, 4], [], 0.1) == [0, 1, 2, 3, 4]  # other elements
    assert distinct(x, kinds, [0, 1, 2, 3, 4], [], 1e-6) == [0, 1, 2, 3, 4]


def test_errors_name_the_value(images):
    with pytest.raises(ValueError, match=r"k is 99, but there are only \d+ images"):
        choose_images(images, 99)
    with pytest.raises(ValueError, match=r"method is 'best': it must be one of 'fps', 'cur'"):
        choose_images(images, 3, method="best")
    with pytest.raises(ValueError, match="k is 0: it must be an integer, at least 1"):
        choose_chunks(images, 0)
    with pytest.raises(ValueError, match=r"k is 70, but only \d+ of the 78 fingerprints of Pt vary"):
        choose_features(images, 70)
    with pytest.raises(ValueError, match=r"Image 0 \(Pt4\) has no forces"):
        choose_features([bulk("Pt", cubic=True)], 5)
    with pytest.raises(ValueError, match="at least one image"):
        choose_images([], 1)


def test_features_are_those_of_elements():
    assert g2x("Cu") == g2x(["Cu"]) and g2x("CuAu") == g2x(("Au", "Cu", "Au"))
    for nothing in ([], ["Cq"], "Plat"):
        with pytest.raises(ValueError, match="give chemical symbols"):
            g2x(nothing)


def test_fingerprints_of_centres_are_those_of_the_first_atoms():
    images = [bulk("Pt", cubic=True) * (n, 1, 2) for n in (1, 2)]
    for seed, image in enumerate(images):
        image.rattle(0.1, seed=seed)
    x, kinds, _ = fingerprints(images, cutoff=4.5)
    first = [0, len(images[0])]
    centre_x, centre_kinds, _ = fingerprints(images, cutoff=4.5, centres=True)
    np.testing.assert_allclose(centre_x, x[first], rtol=1e-12)
    assert (centre_kinds == kinds[first]).all()
