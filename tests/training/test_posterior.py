"""The posterior covariance of forces: a law of linear models, and less variance where there are labels."""

import numpy as np
import pytest
from small_runs import CALC_TEXT, cells, cluster

from amp.nft.amp_io import read_calc_text
from amp.nft.calculator.members import open_members
from amp.nft.chunks import carve_chunks
from amp.nft.records import ForceRows, TrainingTask
from amp.nft.selection import by_log_det
from amp.nft.training import posterior
from amp.nft.training.batched_trainer import BatchedTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set")


def trained(tmp_path, atoms):
    """Return a task with these chunks, its members and their calculator."""
    from ase.calculators.emt import EMT

    chunks = carve_chunks(cluster(), atoms, 5.0)
    for chunk in chunks:
        chunk.calc = EMT()
        chunk.get_forces()
    images, target = cells(), cluster()
    rows = [*[None] * len(images), *[ForceRows((0,), (1.0,))] * len(chunks)]
    rng = np.random.default_rng(0)
    weights = np.array([np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows)) for _ in range(3)])
    task = TrainingTask([*images, *chunks], rows, weights, None, 0, 0, targets=[target])
    spec = read_calc_text(CALC_TEXT, "", tmp_path).resolved(["Pt"])
    return task, BatchedTrainer(spec, threads=1, log=lambda message: None).train(task).texts, spec


def test_labelled_forces_have_less_variance(tmp_path):
    task, texts, spec = trained(tmp_path, [0, 1, 2, 3, 4, 5])
    found = posterior.force_covariance(task, texts, spec, range(len(cluster())))
    assert found.shape == (3, 3 * len(cluster()), 3 * len(cluster()))
    np.testing.assert_allclose(found, found.transpose(0, 2, 1), atol=1e-9 * found.max())
    assert np.linalg.eigvalsh(found).min() > -1e-9 * found.max()
    variance = np.diagonal(found, axis1=1, axis2=2).mean(axis=0).reshape(-1, 3).sum(axis=1)
    assert variance[:6].mean() < variance[6:].mean()
    assert open_members(texts, tmp_path, threads=1).predict(cluster()).forces.shape == (len(cluster()), 3)


def test_blocks_of_images_give_the_same_covariance(tmp_path, monkeypatch):
    task, texts, spec = trained(tmp_path, [0, 7])
    whole = posterior.force_covariance(task, texts, spec, [1, 5, 9])
    monkeypatch.setattr(posterior, "BLOCK", 1)
    np.testing.assert_allclose(posterior.force_covariance(task, texts, spec, [1, 5, 9]), whole, rtol=1e-6, atol=1e-9 * whole.max())


def test_the_log_determinant_avoids_what_is_known_already():
    rng = np.random.default_rng(0)
    one, other = 10.0 * rng.normal(size=(3, 8)), 5.0 * rng.normal(size=(3, 8))
    factors = np.concatenate([one, 0.99 * one, other])
    assert by_log_det((factors @ factors.T)[None], 2) == [0, 2]
    assert by_log_det((factors @ factors.T)[None], 9) == [0, 2, 1]


def test_each_choice_adds_most_to_the_log_determinant():
    factors = np.random.default_rng(1).normal(size=(15, 6))
    covariance = factors @ factors.T
    chosen: list[int] = []
    for _ in range(4):

        def gain(atom):
            at = np.concatenate([3 * a + np.arange(3) for a in [*chosen, atom]])
            return np.linalg.slogdet(np.eye(len(at)) + covariance[np.ix_(at, at)])[1]

        chosen.append(max((a for a in range(5) if a not in chosen), key=gain))
    assert by_log_det(covariance[None], 4) == chosen
