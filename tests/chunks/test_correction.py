"""Correction by a cheap calculator: exact where it is the parent, linear in between, refused where it cannot help."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.units import Bohr, Hartree

from amp.nft.chunks import Correction, Gate, PointCharges, carve_chunks
from amp.nft.chunks.correction import FEWEST, judge
from amp.nft.errors import ChunkError, CorrectionError, InputError, LabellingError

EXACT = 1e-9  # eV/Å
STEP, DIFFERENCES = 1e-4, 1e-6  # Å; eV/Å
WATER = {"O": -0.67, "H": 0.335}


def forces_of(calculator, atoms):
    copy = atoms.copy()
    copy.calc = calculator
    return copy.get_forces()


def water(n=12):
    rng = np.random.default_rng(0)
    target = Atoms()
    for place in list(np.ndindex(3, 3, 3))[:n]:
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(np.array(place) * 3.1)
        target += one
    return target


def lennard_jones(epsilon):
    return LennardJones(sigma=2.3, epsilon=epsilon, rc=8.0, smooth=True)


def test_the_parent_as_its_own_correction_gives_the_forces_in_the_target(pt260):
    correction = Correction.of(pt260, EMT())
    true = forces_of(EMT(), pt260)
    for chunk in carve_chunks(pt260, [0, 100, 200], 4.5):
        forces = forces_of(EMT(), chunk)
        corrected = correction.apply(chunk, forces, correction.label(chunk))
        np.testing.assert_allclose(corrected, true[chunk.arrays["target_index"]], atol=EXACT)


def test_an_error_shrinks_by_the_part_that_the_cheap_calculator_has(pt260):
    """With nine tenths of the parent's interaction, one tenth of the error is left on every atom."""
    correction = Correction.of(pt260, lennard_jones(0.09))
    true = forces_of(lennard_jones(0.10), pt260)
    for chunk in carve_chunks(pt260, [3, 120], 5.0):
        index = chunk.arrays["target_index"]
        plain = forces_of(lennard_jones(0.10), chunk)
        corrected = correction.apply(chunk, plain, correction.label(chunk))
        np.testing.assert_allclose(corrected - true[index], 0.1 * (plain - true[index]), atol=EXACT)


def test_caps_have_no_corrected_force():
    target = molecule("C60")
    chunk = carve_chunks(target, [0], 2.6, termination="hydrogen")[0]
    assert chunk.info["n_caps"] > 0
    corrected = Correction.of(target, EMT()).apply(chunk, np.zeros((len(chunk), 3)), np.zeros((len(chunk), 3)))
    assert (np.isnan(corrected).all(axis=1) == (chunk.arrays["target_index"] < 0)).all()


def test_the_gate_asks_for_a_smaller_mean_and_a_smaller_maximum_on_enough_atoms():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(FEWEST, 3))
    error = rng.normal(scale=0.1, size=true.shape)
    better = judge(true + error, true + 0.5 * error, true)
    assert better.passed and better.worse == 0 and better.corrected_max == pytest.approx(0.5 * better.plain_max)
    better.raise_if_failed()
    few = judge(true[1:] + error[1:], true[1:], true[1:])
    assert not few.passed and "at least 8 are needed" in str(few)
    spoiled = 0.5 * error
    spoiled[0] = 10 * np.abs(error).max()
    one_atom = judge(true + error, true + spoiled, true)
    assert not one_atom.passed and one_atom.worse == pytest.approx(1 / FEWEST)
    with pytest.raises(CorrectionError, match=r"Correction failed on 8 atoms: .* % of the atoms get worse\. Train without correction"):
        one_atom.raise_if_failed()
    unknown = error.copy()
    unknown[0] = np.nan
    assert judge(true + unknown, true, true).n_atoms == FEWEST - 1


def test_a_gate_survives_the_journal():
    gate = judge(np.ones((9, 3)), 0.5 * np.ones((9, 3)), np.zeros((9, 3)))
    assert Gate.from_dict(gate.as_dict()) == gate
    with pytest.raises(ChunkError, match="shapes"):
        judge(np.ones((9, 3)), np.ones((8, 3)), np.ones((9, 3)))
    with pytest.raises(ChunkError, match="No atom has a label"):
        judge(np.full((9, 3), np.nan), np.ones((9, 3)), np.ones((9, 3)))


def test_point_charges_obey_coulombs_law():
    pair = Atoms("OH", [[0, 0, 0], [0, 0, 2.5]], calculator=PointCharges({"O": -1.0, "H": 1.0}))
    assert pair.get_potential_energy() == pytest.approx(-Hartree * Bohr / 2.5)
    target = water(3)
    target.calc = PointCharges(WATER)
    forces = target.get_forces()
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=EXACT)
    for atom, axis in ((0, 0), (4, 1), (8, 2)):
        energies = []
        for step in (STEP, -STEP):
            moved = water(3)
            moved.positions[atom, axis] += step
            moved.calc = PointCharges(WATER)
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * STEP), abs=DIFFERENCES)


def test_point_charges_correct_whole_molecules():
    """A parent with Coulomb interactions of long range and others of short range."""
    target = water(27)
    parent = SumCalculator([PointCharges(WATER), LennardJones(sigma=1.5, epsilon=0.01, rc=4.0, smooth=True)])
    correction = Correction.of(target, PointCharges(WATER))
    true = forces_of(parent, target)
    chunk = carve_chunks(target, [39], 4.5, termination="molecules")[0]
    plain = forces_of(parent, chunk)
    corrected = correction.apply(chunk, plain, correction.label(chunk))
    off = [np.linalg.norm((forces - true[chunk.arrays["target_index"]])[0]) for forces in (plain, corrected)]
    assert off[1] < 0.1 * off[0]


def test_point_charges_are_refused_on_cut_bonds_and_ions():
    correction = Correction.of(water(), PointCharges(WATER))
    sphere = carve_chunks(water(), [0], 3.0)[0]
    with pytest.raises(CorrectionError, match="fixed point charges cannot correct the chunk around atom 0, whose surface cuts bonds"):
        correction.label(sphere)
    salt = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]]) + Atoms("NaCl", [[2.6, 0, 2.4], [2.6, 0, 0]])
    ions = Correction.of(salt, lambda directory: PointCharges({"Na": 1.0, "Cl": -1.0}))
    with pytest.raises(CorrectionError, match="separates ions"):
        ions.check(carve_chunks(salt, [0], 9.0)[0])


def test_a_cheap_calculator_that_fails_is_named():
    with pytest.raises(LabellingError, match="The cheap calculator EMT cannot label the target"):
        Correction.of(Atoms("Na2", [[0, 0, 0], [0, 0, 3.0]]), EMT())
    with pytest.raises((InputError, CalculationFailed), match="a charge for each element"):
        forces_of(PointCharges({"O": -1.0}), water(1))
