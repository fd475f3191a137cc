"""Identity of a run: every atom of its images and targets counts, and noise in the last digits does not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from small_runs import cells, cluster, run

from amp.nft.activelearner.identity import ATOL, difference, digest
from amp.nft.errors import InputError, RunStoreError
from amp.nft.inputs.agreement import ENERGY, FORCE, check_agreement, same_geometries

NOISE = 1e-12  # Å, eV, eV/Å: sums in another order
CHANGE = 100 * ATOL


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def labelled(atoms, energy=0.0, forces=0.0):
    """Return a copy with its label, changed by these amounts."""
    copy, known = atoms.copy(), atoms.calc.results  # also where the atoms were moved since
    copy.calc = SinglePointCalculator(copy, energy=known["energy"] + energy, forces=known["forces"] + forces)
    return copy


def changed(atoms, what):
    """Return a copy that differs in one thing."""
    forces = np.zeros((len(atoms), 3))
    if what == "energy":
        return labelled(atoms, energy=CHANGE)
    if what == "one force":
        forces[2, 1] = CHANGE
        return labelled(atoms, forces=forces)
    if what == "signs of forces":
        return labelled(atoms, forces=-2 * atoms.get_forces())
    if what == "forces of two atoms exchanged":
        forces[[0, 1]] = atoms.get_forces()[[1, 0]] - atoms.get_forces()[[0, 1]]
        return labelled(atoms, forces=forces)
    copy = labelled(atoms)
    change = {
        "position": lambda: copy.positions.__setitem__((1, 2), copy.positions[1, 2] + CHANGE),
        "cell": lambda: copy.set_cell(copy.cell.array + CHANGE * np.eye(3)),
        "periodicity": lambda: copy.set_pbc((True, True, False)),
        "charge": lambda: copy.set_initial_charges([0.5] + [0.0] * (len(copy) - 1)),
        "magnetic moment": lambda: copy.set_initial_magnetic_moments([0.0] * (len(copy) - 1) + [1.0]),
        "mass": lambda: copy.set_masses([2.0] * len(copy)),
        "tag": lambda: copy.set_tags([1] * len(copy)),
        "element": lambda: copy.symbols.__setitem__(0, "Au"),
    }
    change[what]()
    return copy


CHANGES = [
    "energy", "one force", "signs of forces", "forces of two atoms exchanged", "position", "cell", "periodicity", "charge",
    "magnetic moment", "mass", "tag", "element",
]  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_of_an_image_changes_its_digest_and_is_named(what):
    image = labelled(cells()[0])
    other = changed(image, what)
    assert digest(image) != digest(other)
    assert difference(image, other) is not None


def test_the_order_of_atoms_counts():
    image = labelled(cells()[0])
    assert digest(image) != digest(labelled(image)[::-1])
    assert difference(image, image[::-1]) is not None


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_noise_in_the_last_digits_is_no_difference(scale):
    rng, image = np.random.default_rng(0), labelled(cells()[0])
    noisy = labelled(image, NOISE * scale, NOISE * scale * rng.standard_normal((len(image), 3)))
    noisy.positions += NOISE * scale * rng.standard_normal((len(image), 3))
    assert difference(image, noisy) is None


def test_a_run_resumes_with_images_of_other_last_digits_and_refuses_others_with_their_names():
    images = [labelled(image) for image in cells()]
    for image in images:  # at the edge between two rounded values
        image.positions = np.round(image.positions / ATOL) * ATOL + ATOL / 2
    images = [labelled(image) for image in images]
    run(max_iterations=0, images=images)
    noisy = [labelled(image) for image in images]
    for image in noisy:
        image.positions -= NOISE
    noisy = [labelled(image) for image in noisy]
    assert any(digest(a) != digest(b) for a, b in zip(images, noisy, strict=True))
    run(max_iterations=0, images=noisy)
    with pytest.raises(RunStoreError, match=r"  images\[2\] \(Pt\d+\): energy was .*, is .* eV\n"):
        run(max_iterations=0, images=[*images[:2], changed(images[2], "energy"), *images[3:]])
    with pytest.raises(RunStoreError, match=r"  images\[0\] \(Pt4\): force of atom 2 was \[.*\], is \[.*\] eV/Å\n"):
        run(max_iterations=0, images=[changed(images[0], "one force"), *images[1:]])
    with pytest.raises(RunStoreError, match=r"  images: was 4 structures, is 3"):
        run(max_iterations=0, images=images[1:])
    target = cluster()
    target.set_initial_magnetic_moments([1.0] * len(target))
    with pytest.raises(RunStoreError, match=r"  target_image\[0\] \(Pt\d+\): magnetic moment of atom 0 was \[0\.\], is \[1\.\]"):
        run(max_iterations=0, images=images, target_image=target)


# -- contradictory labels ----------------------------------------------------------------------------------------


def test_contradictory_labels_of_one_geometry_are_refused_by_name():
    images = [labelled(image) for image in cells()]
    for changes in ({"energy": 2 * ENERGY * len(images[1])}, {"forces": 2 * FORCE}):
        with pytest.raises(InputError, match=r"images\[1\] and images\[4\] \(Pt4\) have the same geometry, and their labels differ"):
            run(images=[*images, labelled(images[1], **changes)], max_iterations=0)
    check_agreement([*images, labelled(images[1], 0.5 * ENERGY, 0.5 * FORCE)])


def test_equal_geometries_are_found_among_many():
    rng = np.random.default_rng(0)
    images = [bulk("Pt", cubic=True) * (2, 1, 1) for _ in range(300)]
    for image in images:
        image.positions += rng.normal(0.0, 0.1, image.positions.shape)
    copies = {290: 3, 291: 250, 292: 3}
    for copy, original in copies.items():
        images[copy] = images[original].copy()
        images[copy].positions += 1e-9
    images.append(Atoms("Pt"))
    found = {frozenset(pair) for pair in same_geometries(images)}
    assert found == {frozenset((3, 290)), frozenset((290, 292)), frozenset((250, 291))} or found == {
        frozenset((3, 290)), frozenset((3, 292)), frozenset((250, 291))
    } or found == {frozenset((3, 292)), frozenset((290, 292)), frozenset((250, 291))}  # fmt: skip


def test_a_moved_atom_or_a_changed_cell_changes_the_geometry():
    image = labelled(cells()[0])
    moved, strained = image.copy(), image.copy()
    moved.positions[0, 0] += 1e-3
    strained.set_cell(image.cell.array * 1.001)
    for atoms in (moved, strained):
        atoms.calc = EMT()
        atoms.get_forces()
    check_agreement([image, labelled(moved), labelled(strained)])
