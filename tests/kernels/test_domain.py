"""An ensemble on parts of a structure, with ghosts around them, against the whole."""

import itertools

import numpy as np
import pytest
from ase.geometry import complete_cell
from lammps_cases import models, structures

from amp.nft.kernels.prediction.domain import Domain
from amp.nft.kernels.prediction.evaluate import Evaluator

ROUNDING = 1e-11
SKIN = 0.4


def with_images(atoms, reach):
    """Return positions and indices of all images of atoms within a reach of the cell."""
    cell = complete_cell(atoms.cell.array)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    turns = [
        range(-int(-(-reach // height)), int(-(-reach // height)) + 1) if on else (0,)
        for height, on in zip(heights, atoms.pbc, strict=True)
    ]
    shifts = np.array([[a, b, c] for a in turns[0] for b in turns[1] for c in turns[2]])
    positions = (atoms.positions[None] + (shifts @ cell)[:, None]).reshape(-1, 3)
    return positions, np.tile(np.arange(len(atoms)), len(shifts)), np.repeat((shifts == 0).all(axis=1), len(atoms))


def parts(atoms, evaluator, n):
    """Return domains that own slices of a structure along x, with the atoms and ghosts of each."""
    reach = evaluator.fingerprints.radius + SKIN
    positions, index, own = with_images(atoms, reach)
    edges = np.quantile(atoms.positions[:, 0], np.linspace(0, 1, n + 1))
    edges[-1] += 1.0
    kinds = evaluator.fingerprints.kinds(atoms.numbers)
    for low, high in itertools.pairwise(edges):
        mine = own & (positions[:, 0] >= low) & (positions[:, 0] < high)
        around = ~mine & (positions[:, 0] >= low - reach) & (positions[:, 0] <= high + reach)
        chosen = np.concatenate([np.flatnonzero(mine), np.flatnonzero(around)])
        domain = Domain(evaluator, positions[chosen], kinds[index[chosen]], int(mine.sum()), SKIN)
        yield domain, positions[chosen], index[chosen]


@pytest.mark.parametrize("name", ["periodic", "triclinic", "small", "slab", "free"])
@pytest.mark.parametrize("n", [1, 3])
def test_parts_add_up_to_the_whole(name, n):
    atoms, evaluator = structures()[name], Evaluator(models())
    whole = evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, stress=True, threads=1)
    domains = list(parts(atoms, evaluator, n))
    home = np.zeros((len(atoms), 3, evaluator.n_members))
    energy, virial = 0.0, np.zeros((3, 3))
    for domain, positions, index in domains:
        domain.evaluate(positions, stress=True)
        n_atoms = len(domain.energy_i)
        home += domain.ghost_forces(index[n_atoms:], len(atoms))
        np.testing.assert_allclose(domain.energy_i, whole.energies_mi.mean(axis=0)[index[:n_atoms]], atol=ROUNDING)
        np.testing.assert_array_equal(domain.outside_i, whole.extrapolating[index[:n_atoms]])
        energy, virial = energy + domain.energy_i.sum(), virial + domain.virial_ab
    assert energy == pytest.approx(whole.energy_m.mean(), abs=1e-9)
    np.testing.assert_allclose(virial, whole.virial_mab.mean(axis=0), atol=1e-9)
    for domain, _, index in domains:
        mine = index[: len(domain.energy_i)]
        domain.add_forces(home[mine], np.arange(len(mine)))
        forces, uncertainty = domain.summary()
        np.testing.assert_allclose(forces, whole.forces[mine], atol=ROUNDING)
        np.testing.assert_allclose(uncertainty, whole.forces_uncertainty[mine], atol=ROUNDING)


def test_lists_hold_until_an_atom_has_moved_half_the_skin():
    atoms, evaluator = structures()["free"], Evaluator(models())
    ((domain, positions, _),) = parts(atoms, evaluator, 1)
    moved = positions + np.random.default_rng(0).uniform(-0.1, 0.1, positions.shape)
    assert domain.holds(moved)
    domain.evaluate(moved, stress=False)
    whole = evaluator.evaluate(moved, atoms.numbers, atoms.cell.array, atoms.pbc, threads=1)
    np.testing.assert_allclose(domain.summary().forces, whole.forces, atol=ROUNDING)
    assert np.isnan(domain.virial_ab).all()
    moved[3] += 0.2
    assert not domain.holds(moved)


def test_a_domain_without_atoms():
    evaluator = Evaluator(models())
    for ghosts in (0, 5):
        domain = Domain(evaluator, np.arange(3.0 * ghosts).reshape(-1, 3), np.zeros(ghosts, dtype=int), 0, SKIN)
        domain.evaluate(np.arange(3.0 * ghosts).reshape(-1, 3), stress=True)
        assert not domain.ghost_forces(np.zeros(ghosts, dtype=int), 1).any()
        assert domain.summary().forces.shape == (0, 3)
        assert not domain.virial_ab.any()
