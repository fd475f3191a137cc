"""The out-of-bag stop: a member keeps its best parameters by the images that its sample lacks."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron

from amp.nft.amp_io import CalculatorSpec, write_amp
from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.records import MemberStep
from amp.nft.training import batched_fit
from amp.nft.training.out_of_bag import LONG_PATIENCE, PATIENCE, choose_judges

RADIUS = 5.0  # Å
NOISE = 0.1  # eV/Å, of each component of a chunk's label
SAME = 1e-6  # relative agreement of a model's error with its report
BETTER = 0.999  # smaller gains do not count as improvements
UNREACHABLE = {"energy_rmse": 1e-9, "energy_maxresid": None, "force_rmse": 1e-9, "force_maxresid": None}
NONE = dict.fromkeys(UNREACHABLE)


def label(atoms, noise=0.0, rng=None):
    atoms.calc = EMT()
    forces = atoms.get_forces() + (noise * rng.normal(size=(len(atoms), 3)) if noise else 0.0)
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces)
    return atoms


@pytest.fixture(scope="module")
def target():
    cluster = Octahedron("Cu", 4, cutoff=1)
    cluster.rattle(0.08, seed=4)
    return cluster


@pytest.fixture(scope="module")
def images(target):
    """Four cells and nineteen chunks with noisy labels; and which are chunks."""
    cells = [bulk("Cu", cubic=True), bulk("Cu", "bcc", 2.9, cubic=True), bulk("Cu") * (2, 2, 1), bulk("Cu", a=3.8) * (2, 1, 1)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.08, seed=seed)
    rng = np.random.default_rng(0)
    chunks = [label(chunk, NOISE, rng) for chunk in carve_chunks(target, range(0, 38, 2), RADIUS)]
    return [*map(label, cells), *chunks], np.array([False] * 4 + [True] * len(chunks))


def spec_of(**changes):
    settings = {
        "gs": g2x(["Cu"]), "elements": ("Cu",), "cutoff": {"name": "Cosine", "kwargs": {"Rc": RADIUS}},
        "hiddenlayers": (5, 4), "activation": "tanh", "energy_coefficient": 1.0, "force_coefficient": 0.04, "overfit": 0.0,
        "maxiter": 200, "convergence": NONE, "model": None,
    }  # fmt: skip
    return CalculatorSpec(**settings | changes)


def fit(images, weights, until="out-of-bag", spec=None, **options):
    images, chunk_i = images
    spec = spec or spec_of()
    fingerprints = Fingerprints(spec.gs, spec.cutoff)
    rows = [fingerprints.rows(image, 0 if chunk else None) for image, chunk in zip(images, chunk_i, strict=True)]
    x = np.concatenate([r.x for r in rows])
    labelled = LabelledImages(
        rows,
        energies=np.array([np.nan if c else i.get_potential_energy() for i, c in zip(images, chunk_i, strict=True)]),
        forces=[i.get_forces()[[0] if c else slice(None)] for i, c in zip(images, chunk_i, strict=True)],
        n_atoms=np.array([len(image) for image in images]),
    )
    fprange = {"Cu": np.column_stack([x.min(axis=0), x.max(axis=0)])}
    seeds = [[7, member] for member in range(len(weights))]
    return batched_fit.fit(spec, labelled, np.array(weights), fprange, seeds, until=until, chunk_i=chunk_i, **options)


@pytest.fixture(scope="module")
def weights(images):
    rng = np.random.default_rng(1)
    n = len(images[0])
    return np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(2)])


def centre_residuals(model, images, chosen):
    """Force residuals of the centres of these chunks, shape (chunks, 3)."""
    calculator = EnsembleCalculator([model])
    return np.array([calculator.get_forces(images[0][i])[0] - images[0][i].get_forces()[0] for i in np.flatnonzero(chosen)])


def test_a_member_reports_the_error_on_chunks_that_its_sample_lacks(images, weights):
    models, reports = fit(images, weights)
    for model, report, w in zip(models, reports, weights, strict=True):
        residuals = centre_residuals(model, images, images[1] & (w == 0))
        assert report.converged, report.message
        assert report.oob_force_rmse == pytest.approx(np.sqrt(np.mean(residuals**2)), rel=SAME)
        assert "out-of-bag minimum, step" in report.message


def test_no_other_step_of_the_descent_has_a_smaller_out_of_bag_error(images, weights):
    _, (report,) = fit(images, weights[:1])
    out = images[1] & (weights[0] == 0)
    for steps in range(0, report.steps + 1, 3):
        spec = spec_of(maxiter=steps, convergence=UNREACHABLE)
        (model,), _ = fit(images, weights[:1], "criteria", spec, retry_m=[False])
        assert np.sqrt(np.mean(centre_residuals(model, images, out) ** 2)) >= np.sqrt(BETTER) * report.oob_force_rmse * (1 - SAME)


def test_noisy_labels_are_overfitted_less(images, weights, target):
    """Errors on the whole target, whose true forces no member has seen."""
    truth = label(target.copy()).get_forces()

    def error(models):
        return np.linalg.norm(EnsembleCalculator(models).get_forces(target) - truth, axis=1).mean()

    tight = spec_of(convergence={**NONE, "energy_rmse": 0.001, "force_rmse": 0.005})
    assert error(fit(images, weights)[0]) < error(fit(images, weights, "criteria", tight)[0])


def test_the_result_does_not_depend_on_threads(images, weights):
    first, second = ([write_amp(model) for model in fit(images, weights, threads=threads)[0]] for threads in (1, 2))
    assert first == second


def test_the_display_shows_the_error_above_its_minimum(images, weights):
    seen: list[MemberStep] = []
    fit(images, weights[:1], watch=seen.append)
    assert seen[-1].state == "met"
    assert seen[-1].distance == 0.0
    assert all(step.distance >= 0.0 for step in seen)
    assert max(step.distance for step in seen) > 0.0


def test_the_number_of_steps_is_bounded_by_maxiter(images, weights):
    _, (report,) = fit(images, weights[:1], spec=spec_of(maxiter=3))
    assert (report.converged, report.steps) == (False, 3)
    assert "maxiter" in report.message


def test_a_sample_with_every_image_is_fitted_to_the_criteria(images):
    loose = spec_of(convergence={**NONE, "force_rmse": 0.3})
    _, (report,) = fit(images, [[1] * len(images[0])], spec=loose)
    assert report.converged, report.message
    assert np.isnan(report.oob_force_rmse)


def test_forces_are_trained_without_force_criteria(images, weights):
    spec = spec_of(force_coefficient=None, given_force_coefficient=0.04)
    assert fit(images, weights[:1], spec=spec)[1] == fit(images, weights[:1])[1]


def test_an_unknown_stop_is_refused(images, weights):
    with pytest.raises(ValueError, match="'criteria', 'out-of-bag'"):
        fit(images, weights, until="bag")


def test_chunks_judge_from_three_on():
    chunk_i, forces = [False, False, True, True, True, True], np.ones(6, dtype=int)
    judges = choose_judges([0, 1, 0, 0, 0, 1], chunk_i, forces)
    assert judges.images.tolist() == [False, False, True, True, True, False]
    judges = choose_judges([0, 1, 0, 0, 1, 1], chunk_i, forces)
    assert judges.images.tolist() == [True, False, True, True, False, False]
    assert choose_judges([1] * 6, chunk_i, forces) is None


def test_large_data_sets_are_judged_robustly_and_patiently():
    small, large = (choose_judges([0, 1], [False, False], np.array([size, size])) for size in (10, 1000))
    assert (small.robust, small.patience) == (True, PATIENCE)
    assert (large.robust, large.patience) == (True, LONG_PATIENCE)
    assert not choose_judges([0, 1], [True, False], np.array([1, 1000])).robust


def test_an_energy_stage_weighs_the_energies_against_the_forces_of_held_out_images():
    rng = np.random.default_rng(6)
    cells = [bulk("Cu", cubic=True, a=a) for a in rng.uniform(3.4, 3.9, 24)]
    for cell in cells:
        cell.rattle(0.3, rng=rng)
    data = [label(cell, NOISE, rng) for cell in cells], np.zeros(len(cells), dtype=bool)
    weights = [np.bincount(rng.integers(24, size=24), minlength=24)]
    out = [cell for cell, w in zip(data[0], weights[0], strict=True) if w == 0]

    def errors(**options):
        models, (report,) = fit(data, weights, **options)
        calculator = EnsembleCalculator(models)
        energy = np.mean([abs(calculator.get_potential_energy(a) - a.get_potential_energy()) / len(a) for a in out])
        return energy, np.mean([np.abs(calculator.get_forces(a) - a.get_forces()).mean() for a in out]), report

    energy, force, report = errors()
    staged_energy, staged_force, staged_report = errors(end_with_energies=True)
    assert staged_energy < energy
    assert staged_energy * staged_force**2 < energy * force**2
    assert staged_report.steps > report.steps
    assert staged_report.message.startswith(report.message.split(",")[0])


def test_without_energies_there_is_no_stage_on_all_images(images, weights):
    (chunks, chunk_i), models = images, fit(images, weights)[0]
    spec, only = spec_of(), [chunk for chunk, is_chunk in zip(chunks, chunk_i, strict=True) if is_chunk]
    fingerprints = Fingerprints(spec.gs, spec.cutoff)
    rows = [fingerprints.rows(chunk, 0) for chunk in only]
    labelled = LabelledImages(rows, np.full(len(only), np.nan), [chunk.get_forces()[[0]] for chunk in only], np.array(list(map(len, only))))
    _, ended = batched_fit.continue_on_all(spec, labelled, {"Cu": models[0].fprange["Cu"]}, models)
    assert [one.steps for one in ended] == [0] * len(models)


def test_without_held_out_energies_there_is_no_energy_stage(images, weights):
    plain, staged = (fit(images, weights, end_with_energies=stage) for stage in (False, True))
    assert plain[1] == staged[1]
    assert list(map(write_amp, plain[0])) == list(map(write_amp, staged[0]))
