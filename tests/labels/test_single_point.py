"""Labels: good ones are the parent's own numbers, bad ones never get through."""

from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from amp.nft.labels.single_point import Label, LabelFailure, check_parent, labelled, parent_name, single_point


class Spoiled(Calculator):
    """EMT, spoiled in one way."""

    implemented_properties = ("energy", "forces")

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil
        self.converged = spoil != "unconverged"

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.spoil == "raises":
            raise RuntimeError("SCF failed")
        copy = atoms.copy()
        copy.calc = EMT()
        forces = copy.get_forces()
        if self.spoil == "nan":
            forces[0, 0] = np.nan
        if self.spoil == "short":
            forces = forces[:-1]
        if self.spoil == "absurd":
            forces[0, 0] = 1e9
        self.results = {"energy": copy.get_potential_energy(), "forces": forces}


@pytest.fixture
def image():
    atoms = bulk("Pt", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_a_function_that_returns_no_calculator_is_told_so(image, tmp_path):
    failure = single_point(lambda directory: None, image, tmp_path / "0")
    assert isinstance(failure, LabelFailure)
    assert "parent_calc returned None: a function f(directory) must return an ASE calculator" in failure.message


def test_a_label_is_what_the_parent_says_and_nothing_of_the_callers_changes(image, tmp_path):
    parent = EMT()
    before = image.copy()
    label = single_point(parent, image, tmp_path / "0")
    assert isinstance(label, Label)
    assert image == before and image.calc is None
    assert parent.results == {} and parent.atoms is None
    image.calc = EMT()
    assert label.energy == image.get_potential_energy()
    np.testing.assert_array_equal(label.forces, image.get_forces())
    np.testing.assert_array_equal(labelled(before, label).get_forces(), label.forces)
    assert not (tmp_path / "0").exists()


def test_a_factory_gets_a_directory_of_its_own(image, tmp_path):
    seen = []

    def parent(directory):
        seen.append(directory)
        return EMT()

    for k in range(2):
        assert isinstance(single_point(parent, image, tmp_path / str(k)), Label)
    assert seen == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert parent_name(parent).endswith("parent")
    assert parent_name(EMT()) == "EMT"
    assert parent_name(partial(parent)) == parent_name(parent)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("raises", "RuntimeError: SCF failed"),
        ("nan", "not finite"),
        ("short", "shape"),
        ("absurd", "beyond"),
        ("unconverged", "did not converge"),
    ],
)
def test_bad_labels_are_failures_that_say_why(image, tmp_path, spoil, says):
    failure = single_point(Spoiled(spoil), image, tmp_path)
    assert isinstance(failure, LabelFailure)
    assert says in str(failure)
    if spoil == "raises":
        assert "Traceback" in failure.traceback


@pytest.mark.parametrize("parent", [None, "emt", EMT])
def test_what_is_no_parent(parent):
    with pytest.raises(TypeError, match="parent_calc is"):
        check_parent(parent)
