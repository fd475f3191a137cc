"""Labels of runs and files as images: origin, trained forces, parents."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import write
from small_runs import CALC_TEXT, N, cells, cluster, run

from amp.nft.errors import InputError, RunStoreError
from amp.nft.fitting import fit
from amp.nft.inputs.structures import marked_atom
from amp.nft.interfaces import gather_labels


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_labels_of_a_run_train_as_in_the_run():
    al, _ = run(max_iterations=1)
    images = gather_labels(["al-training"])
    assert len(images) == len(cells()) + al.history[1].n_chunks
    assert [marked_atom(image) for image in images] == len(cells()) * [None] + al.history[1].n_chunks * [0]
    for image in images:
        again = image.copy()
        again.calc = EMT()
        np.testing.assert_allclose(image.get_forces(), again.get_forces(), atol=1e-9)
    _, _ = run(images=images, max_iterations=0, label="new")
    journal = Path("new-training/saved-info/journal.jsonl").read_text().splitlines()
    assert json.loads(journal[0])["settings"]["init_nft_ids"] == [[i, 0] for i in range(len(cells()), len(images))]
    (reports,) = {len(fit(images, n=N, calc_text=CALC_TEXT, valid=0.0, directory="fit").reports)}
    assert reports == N


def test_a_run_that_began_with_chunks_passes_them_on():
    run(max_iterations=1)
    run(images=gather_labels(["."]), max_iterations=0, label="new")
    images = gather_labels(["new-training"])
    assert [marked_atom(image) for image in images].count(0) == len(images) - len(cells()) > 0


def test_runs_of_two_parents_are_refused_unless_accepted():
    run(max_iterations=0)
    shifted = cells()
    for image in shifted:
        image.rattle(0.01, seed=1)
        image.calc = LennardJones(epsilon=0.1, sigma=2.0)
        image.get_forces()
    run(images=shifted, max_iterations=0, label="other", parent_calc=LennardJones(epsilon=0.1, sigma=2.0))
    with pytest.raises(InputError, match=r"the labels are of several parents \(al-training by EMT .*, other-training by LennardJones"):
        gather_labels(["al-training", "other-training"])
    assert len(gather_labels(["al-training", "other-training"], accept_parent=True)) == 2 * len(cells())


def test_contradictory_labels_of_one_geometry_are_refused():
    write("a.traj", cells())
    other = cells()
    for image in other:
        image.calc = LennardJones(epsilon=0.1, sigma=2.0)
        image.get_forces()
    write("b.traj", other)
    with pytest.raises(InputError, match="have the same geometry, and their labels differ"):
        gather_labels(["a.traj", "b.traj"])


def test_a_mark_that_no_atom_has_is_refused():
    image = cells()[0]
    image.info["nft_central_atom"] = len(image)
    with pytest.raises(InputError, match=f"nft_central_atom of an image with {len(image)} atoms is {len(image)}"):
        run(images=[image, *cells()[1:]])
    with pytest.raises(InputError, match="nft_central_atom of an image"):
        fit([image, *cells()[1:]])


def test_a_directory_without_a_run_and_a_target_without_labels(tmp_path):
    (tmp_path / "empty").mkdir()
    write("target.traj", cluster())
    with pytest.raises(RunStoreError, match="give the training directory of a run"):
        gather_labels(["empty"])
    with pytest.raises(InputError, match="has no energy or no forces"):
        gather_labels(["target.traj"])
