"""Scans of radii and terminations: estimates by law, recommendations on parents whose errors are known."""

from itertools import pairwise

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from amp.nft.chunks import carve_chunks, convergence, growing_radii
from amp.nft.chunks.estimate import mean_error
from amp.nft.errors import ChunkError, InputError, LabellingError

DRAWS = 400
VALID = 0.90  # of 95 % intervals of the mean of ten errors, which are skewed


def lennard_jones(epsilon=0.05):
    """Return a pair potential that reaches farther than small chunks."""
    return LennardJones(sigma=2.3, epsilon=epsilon, rc=9.0, smooth=True)


@pytest.fixture(scope="module")
def silica_like():
    """Return a free block of 64 atoms of two elements."""
    block = bulk("NaCl", "rocksalt", a=5.4, cubic=True) * (2, 2, 2)
    block.pbc = False
    block.rattle(0.2, seed=7)
    return block


def errors_of(rng, n):
    """Errors as chunks have them: a few large ones."""
    return rng.lognormal(mean=-3.0, sigma=0.6, size=n)


def test_intervals_contain_the_mean_of_all_atoms():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(DRAWS):
        everything = errors_of(rng, 200)
        found = mean_error(rng.choice(everything, 10, replace=False))
        hits += found.low <= everything.mean() <= found.high
        assert 0 < found.low < found.mean < found.high and found.n_atoms == 10
    assert hits / DRAWS >= VALID, hits


def test_proportional_errors_of_a_cheap_calculator_sharpen_the_estimate():
    rng = np.random.default_rng(1)
    off = []
    for _ in range(DRAWS // 4):
        cheap = errors_of(rng, 200)
        everything = 2.0 * cheap * rng.normal(1.0, 0.05, 200)
        chosen = rng.choice(200, 8, replace=False)
        plain, sharp = mean_error(everything[chosen]), mean_error(everything[chosen], cheap[chosen], cheap.mean())
        assert sharp.high - sharp.low < plain.high - plain.low
        off.append([abs(one.mean - everything.mean()) for one in (plain, sharp)])
    assert np.mean(off, axis=0)[1] < 0.3 * np.mean(off, axis=0)[0]
    unrelated = mean_error(everything[chosen], rng.uniform(size=8), 0.5)
    assert unrelated.mean == plain.mean  # of no use, so not used


def test_no_error_is_shown_as_nothing():
    exact = mean_error(np.full(5, 1e-13))
    assert str(exact) == "<0.0001 (<0.0001 to <0.0001), largest <0.0001"
    assert str(mean_error(np.array([0.1, np.nan]))) == "too few labels"
    assert np.isnan(mean_error(np.array([0.1])).mean)


@pytest.mark.parametrize("target", [bulk("Cu", cubic=True) * 2, bulk("Si", cubic=True), molecule("C60")], ids=["metal", "periodic", "free"])
def test_chosen_radii_let_chunks_grow(target):
    radii = growing_radii(target)
    sizes = [np.mean([len(chunk) for chunk in carve_chunks(target, range(len(target)), radius)]) for radius in radii]
    assert 2 <= len(radii) <= 4 and (np.diff(radii) > 0).all()
    assert all(larger >= 1.5 * smaller for smaller, larger in pairwise(sizes))


def test_a_scan_of_terminations_recommends_the_smallest_adequate_chunks(silica_like):
    found = convergence(silica_like, lennard_jones(), [3.5, 5.0, 7.0], 12, terminations=["sphere", "molecules"], reference="target")
    assert found.terminations == ("sphere", "molecules") and found.errors_tra.shape == (2, 3, 12)
    means = found.errors_tra[0].mean(axis=1)
    assert means[0] > means[-1]
    tolerance = (means[1] + means[2]) / 2
    choice = found.choice(tolerance)
    assert choice.adequate and choice.radius == 7.0 and choice.sentence.startswith("Use termination 'sphere' at 7 Å")
    assert choice.estimate.mean == pytest.approx(means[2])
    assert set(found.atoms[found.atoms % 2 == 0] % 2) | {1} == {0, 1} and len(set(silica_like.numbers[found.atoms])) == 2
    lines = str(found).splitlines()
    assert len(lines) == 2 + 2 * 3 and lines[2].startswith("sphere") and lines[-1].startswith("molecules")


def test_no_chunk_stands_for_the_target_where_errors_stay_large(silica_like):
    found = convergence(silica_like, lennard_jones(), [3.5, 4.5], 8, reference="target")
    choice = found.choice(1e-6)
    assert not choice.adequate and choice.radius == 4.5
    assert choice.sentence.startswith(
        "No chunk up to 4.5 Å, of a target of 64 atoms, stands for the target within 1e-06 eV/Å. Best: termination 'sphere' at 4.5 Å"
    )


def test_against_the_largest_radius_the_upper_end_is_doubled(silica_like):
    radii = [4.0, 5.5, 8.0]
    chunks = convergence(silica_like, lennard_jones(), radii, 8)
    known = convergence(silica_like, lennard_jones(), radii, chunks.atoms, reference=chunks_forces(silica_like, 8.0))
    one, other = chunks.estimate("sphere", 4.0), known.estimate("sphere", 4.0)
    assert one.mean == pytest.approx(other.mean) and one.low == pytest.approx(other.low)
    assert one.high == pytest.approx(2 * other.high)
    assert "reference" in str(chunks) and chunks.choice(10.0).radius == 4.0


def chunks_forces(target, radius):
    forces = []
    for chunk in carve_chunks(target, range(len(target)), radius):
        chunk.calc = lennard_jones()
        forces.append(chunk.get_forces()[0])
    return np.array(forces)


def test_a_cheap_calculator_sees_every_atom_and_chooses_those_of_the_parent(silica_like):
    """A parent 1.25 times as strong as the cheap calculator has 1.25 times its errors."""
    radii = [3.5, 5.0, 8.0]
    found = convergence(silica_like, lennard_jones(0.05), radii, 10, cheap=lennard_jones(0.04), reference="target")
    assert found.cheap.errors_trn.shape == (1, 3, 64)
    np.testing.assert_allclose(found.errors_tra, 1.25 * found.cheap.errors_trn[:, :, found.atoms], rtol=1e-6, atol=1e-9)
    estimate = found.estimate("sphere", 3.5)
    assert estimate.mean == pytest.approx(1.25 * found.cheap.errors_trn[0, 0].mean(), rel=1e-6)
    assert estimate.high - estimate.low < 1e-5
    for element in np.unique(silica_like.numbers):
        of_element = silica_like.numbers == element
        drawn = found.cheap.errors_trn[0, 0][found.atoms[of_element[found.atoms]]]
        everything = found.cheap.errors_trn[0, 0][of_element]
        assert np.ptp(drawn) > 0.6 * np.ptp(everything)
    assert "rank correlation of 1.00" in str(found)
    gate = found.gate("sphere", 3.5)
    assert gate.passed and gate.corrected_mean < gate.plain_mean
    with pytest.raises(ChunkError, match="radius below the largest"):
        found.gate("sphere", 8.0)
    with pytest.raises(ChunkError, match=r"'auto' at 3.5 Å was not scanned: .*sphere at \[3.5, 5.0, 8.0\] Å"):
        found.estimate("auto", 3.5)


class Wild(LennardJones):
    """Some chunks come out with an absurd force, as unconverged electrons give it."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if len(atoms) < 20:
            self.results["forces"] = self.results["forces"] + 100.0


def test_absurd_forces_are_failures_and_too_many_of_them_rule_a_radius_out(silica_like):
    lines = []
    wild = Wild(sigma=2.3, epsilon=0.05, rc=9.0, smooth=True)
    found = convergence(silica_like, wild, [3.0, 7.0], 8, reference="target", log=lines.append)
    failed = np.isnan(found.errors_ra[0])
    assert failed.sum() == len(lines) > 1 and "is above 50 eV/Å" in lines[0]
    assert found.choice(1e6).radius == 7.0
    nothing = convergence(silica_like, wild, [2.9, 3.0, 7.0], 8, log=lines.append)
    assert nothing.reference == "sphere chunks of 7 Å"


def test_steps_that_add_few_atoms_are_named(pt260):
    assert "Chunks grow by less than 1.5 times from 6 to 6.5 Å" in str(convergence(pt260, EMT(), [6.0, 6.5], 3))


def test_arguments_are_checked_first(silica_like):
    with pytest.raises(ChunkError, match="termination = 'round'"):
        convergence(silica_like, EMT(), [5.0, 6.0], terminations=["sphere", "round"])
    with pytest.raises(InputError, match="terminations is empty"):
        convergence(silica_like, EMT(), [5.0, 6.0], terminations=[])
    with pytest.raises(LabellingError, match="The cheap calculator cannot label the whole target"):
        convergence(silica_like, lennard_jones(), [5.0, 6.0], cheap=EMT())  # EMT has no sodium
