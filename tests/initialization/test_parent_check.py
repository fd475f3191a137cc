"""First images against their parent: units, another parent, another zero of the energy, cells too small for its k-points."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.errors import LabellingError, ParentMismatch
from amp.nft.initialization import check_cell_size, check_cell_sizes, compare_with_parent, initial_images

EXACT = 1e-9  # eV, eV/Å: EMT twice


def stored(atoms, energy=1.0, force=1.0, shift=0.0):
    """Return a copy labelled by EMT, its energy and forces times a factor, its energy shifted per atom."""
    calculator = EMT()
    copy = atoms.copy()
    copy.calc = calculator
    values = energy * copy.get_potential_energy() + shift * len(copy), force * copy.get_forces()
    copy.calc = SinglePointCalculator(copy, energy=values[0], forces=values[1])
    return copy


def cluster(n=6):
    atoms = Atoms("Cu" * n, np.random.default_rng(0).permutation(np.array(list(np.ndindex(3, 3, 3)))[:n]) * 2.5)
    atoms.rattle(0.2, seed=n)
    return atoms


def cell():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_images_of_the_same_parent_agree():
    images = [stored(cell()), stored(cluster(8)), stored(cluster(6)), stored(bulk("Cu"))]
    found = compare_with_parent(images, EMT())
    assert found.image == 2 and found.agrees and found.causes() == ""
    assert abs(found.energy_difference) < EXACT and found.force_difference < EXACT
    found.raise_if_different()
    assert "images[2] (Cu6): stored energy" in str(found) and "EMT gives" in str(found)


def test_without_free_images_the_smallest_cell_with_forces_is_taken():
    images = [stored(bulk("Cu")), stored(cell() * (1, 1, 2)), stored(cell())]
    assert compare_with_parent(images, EMT()).image == 2
    assert compare_with_parent(images[:1], EMT()).agrees


@pytest.mark.parametrize(
    ("unit", "force"), [("Hartree/Bohr", 0.0194469), ("Rydberg/Bohr", 0.0388938), ("kcal/mol", 23.0605), ("opposite sign", -1.0)]
)  # fmt: skip
def test_other_units_are_recognised(unit, force):
    found = compare_with_parent([stored(cluster(), energy=abs(force), force=force)], EMT())
    with pytest.raises(ParentMismatch, match=f"proportional to the parent's, as in .*{unit}.*: convert energies to eV"):
        found.raise_if_different()


def test_another_parent_is_recognised():
    found = compare_with_parent([stored(cluster())], LennardJones(sigma=2.3, epsilon=0.4))
    assert not found.forces_agree
    with pytest.raises(ParentMismatch, match=r"LennardJones gives .* differ by up to .*Likely causes: another parent.*basis set") as error:
        found.raise_if_different()
    assert f"{found.force_difference:.3f}" in str(error.value)
    periodic = compare_with_parent([stored(cell())], LennardJones(sigma=2.3, epsilon=0.4))
    assert "k-points" in periodic.causes() and "Label all images with LennardJones" in periodic.causes()


def test_another_zero_of_the_energy_is_recognised():
    found = compare_with_parent([stored(cluster(), shift=3.0)], EMT())
    assert found.forces_agree and not found.energies_agree
    assert found.energy_difference == pytest.approx(-3.0)
    with pytest.raises(ParentMismatch, match="Forces agree and energies do not"):
        found.raise_if_different()


def test_a_parent_that_fails_is_named():
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=0.0, forces=np.ones((3, 3)))
    with pytest.raises(LabellingError, match=r"LennardJones|cannot label images\[0\] \(H2O\)"):
        compare_with_parent([water], Fails())


class Fails(EMT):
    """Does not converge."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        raise RuntimeError("SCF did not converge")


def test_cells_are_large_enough_for_a_parent_of_short_range():
    for atoms in (bulk("Cu"), cell(), cell() * (1, 2, 1)):
        found = check_cell_size(stored(atoms), EMT(), name="mine")
        assert found.agrees and abs(found.energy_difference) < EXACT and found.force_difference < EXACT
        assert atoms.cell.lengths()[found.axis] == pytest.approx(atoms.cell.lengths().min())
        assert str(found).endswith("large enough.")
    checks = check_cell_sizes([stored(cell() * (2, 1, 1)), stored(bulk("Cu")), stored(cluster()), stored(bulk("Pt"))], EMT())
    assert sorted(check.name for check in checks) == ["images[1] (Cu)", "images[3] (Pt)"]
    assert check_cell_sizes([stored(cluster())], EMT()) == []


def gamma_only(directory):
    """Return a density functional at one k-point."""
    from tblite.ase import TBLite

    return TBLite(method="GFN1-xTB", verbosity=0)


@pytest.mark.parents
def test_cells_too_small_for_one_k_point_are_refused(tmp_path):
    pytest.importorskip("tblite.ase")
    magnesium = bulk("Mg", "hcp", a=3.2, c=5.2)
    magnesium.calc = gamma_only("")
    found = check_cell_size(magnesium, gamma_only, tmp_path, name="Mg2")
    assert abs(found.energy_difference) > 0.1
    with pytest.raises(ParentMismatch, match=r"Mg2: doubled along axis 0, its energy differs by .* use more k-points, .*free clusters"):
        found.raise_if_different()


class AtOnePoint(EMT):
    """EMT whose energy per atom depends on the size of the cell, as too few k-points make it."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] += 0.02 * len(atoms) ** 2


def test_initial_images_refuse_or_report_such_cells():
    lines = []
    with pytest.raises(ParentMismatch, match="space group 225, Pt4: doubled along axis 0"):
        initial_images("Pt", [225], parent_calc=AtOnePoint(), n_rattled=0)
    assert initial_images("Pt", [225], parent_calc=AtOnePoint(), n_rattled=0, check_cells="warn", log=lines.append)
    assert any("The cell is too small for the parent's k-points" in line for line in lines)
    assert initial_images("Pt", [225], parent_calc=AtOnePoint(), n_rattled=0, check_cells=False)
