"""Labels under the names of other programs: keys that the user gives, and errors that name what a file has."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from small_runs import cells, run

from amp.nft.errors import InputError
from amp.nft.fitting import evaluate, fit
from amp.nft.inputs.structures import read_training_images

NAMES = [("REF_energy", "REF_forces"), ("energy_dft", "forces_dft"), ("dft_energy", "dft_forces"), ("DFT_Energy", "force")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def renamed(images, energy, forces):
    """Return copies without calculator, with their labels under other names."""
    result = []
    for image in images:
        copy = image.copy()
        copy.info |= {energy: image.get_potential_energy(), "config_type": "bulk"}
        copy.arrays[forces] = image.get_forces()
        result.append(copy)
    return result


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("suffix", ["extxyz", "xyz"])
def test_keys_of_others_are_named_and_read(names, suffix):
    images = cells()
    write(f"images.{suffix}", renamed(images, *names), format="extxyz")
    with pytest.raises(InputError) as caught:
        read_training_images(f"images.{suffix}")
    assert f"info: {names[0]}, config_type; arrays: {names[1]}" in str(caught.value)
    assert f"Give energy_key='{names[0]}' and forces_key='{names[1]}' (" in str(caught.value)
    found = read_training_images(f"images.{suffix}", *names)
    for image, copy in zip(images, found, strict=True):
        assert copy.get_potential_energy() == pytest.approx(image.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(copy.get_forces(), image.get_forces(), atol=1e-6)


def test_a_key_wins_over_the_result_of_a_calculator():
    image = cells()[0]
    image.info["REF_energy"] = 1.5
    assert read_training_images(image, "REF_energy")[0].get_potential_energy() == 1.5
    np.testing.assert_array_equal(read_training_images(image, "REF_energy")[0].get_forces(), image.get_forces())


def test_only_what_is_missing_is_asked_for():
    image = cells()[0]
    write("a.extxyz", image, columns=["symbols", "positions"])
    only = read_only("a.extxyz")
    only.arrays["REF_forces"] = image.get_forces()
    with pytest.raises(InputError, match=r"Give forces_key='REF_forces' \(") as caught:
        read_training_images(only)
    assert "energy_key=" not in str(caught.value)
    assert "ASE's results: energy" in str(caught.value)


def read_only(name):
    """Return an image that has its energy, and no forces."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read

    atoms = read(name)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    return atoms


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("none", "REF_forces"), "energy_key is 'none', which is not in its info"),
        (("REF_energy", "none"), "forces_key is 'none', which is not in its arrays"),
        (("config_type", "REF_forces"), "energy_key is 'config_type', which is not one number"),
        (("REF_energy", "magmoms"), "forces_key is 'magmoms', which is not three numbers for each atom"),
        ((1, "REF_forces"), "energy_key is 1: it must be a name in the file, such as 'REF_energy'"),
        (("REF_energy", ""), "forces_key is '': it must be a name in the file, such as 'REF_forces'"),
    ],
)
def test_a_wrong_key_is_an_error_that_lists_the_names(keys, text):
    (image,) = renamed(cells()[:1], "REF_energy", "REF_forces")
    image.set_initial_magnetic_moments(np.ones(len(image)))
    image.arrays["magmoms"] = np.ones(len(image))
    with pytest.raises(InputError) as caught:
        read_training_images(image, *keys)
    assert text in str(caught.value)


def test_an_image_without_any_label_gets_no_key():
    atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]], info={"energy_cutoff": "high", "source": "none"})
    with pytest.raises(InputError, match="Compute them with the parent calculator") as caught:
        read_training_images(atoms)
    assert "It has info: energy_cutoff, source." in str(caught.value)


def test_long_lists_are_cut():
    atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.5]], info={f"name{k}": k for k in range(40)})
    with pytest.raises(InputError, match="name11 and 28 more"):
        read_training_images(atoms)


def test_a_run_takes_the_keys_and_is_the_same_run():
    keys = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
    al, _ = run(images=renamed(cells(), "REF_energy", "REF_forces"), max_iterations=0, **keys)
    again, _ = run(max_iterations=0)  # resumes: the labels are the same
    assert again.history == al.history


def test_fit_and_evaluate_take_the_keys():
    images = []
    for seed in range(4):
        images.append(bulk("Cu", cubic=True))
        images[-1].rattle(0.1, seed=seed)
        images[-1].calc = EMT()
    keys = {"energy_key": "E_dft", "forces_key": "F_forces"}
    other = renamed(images, *keys.values())
    of_fit = {"n": 2, "hiddenlayers": (2,), "cutoff": 4.0, "calc_text": None, "valid": 0.0}
    ensemble = fit(other, directory="one", **of_fit, **keys)
    assert ensemble.texts == fit(images, directory="one", **of_fit).texts  # the same data set: nothing is fitted twice
    assert evaluate(ensemble, other, **keys).rows == evaluate(ensemble, images).rows
    with pytest.raises(InputError, match="has no energy or no forces"):
        evaluate(ensemble, other)
