"""The fit of an ensemble: it meets its criteria, whatever the number of threads, and Amp reads what it made."""

from dataclasses import replace

import numpy as np
import pytest
from amp import Amp
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron

from amp.nft.amp_io import CalculatorSpec, write_amp
from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.training.descent import POLISH
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.training import batched_fit

RADIUS = 5.0  # Å
AMP = 1e-6  # agreement of Amp's predictions with what the report says, eV and eV/Å
PREDICTED = 1e-6  # relative agreement of reported residuals with those of the ensemble's forces
ROUNDING = 1e-9  # of the loss, where the inputs are scaled again
ROUNDED = 2e-3  # relative, of losses at the ends of two fits whose steps are rounded differently; 6e-4 with NumPy 1.26
CRITERIA = {"energy_rmse": 0.002, "energy_maxresid": None, "force_rmse": 0.02, "force_maxresid": 0.08}
WEAK = [{"type": "G2", "element": "Cu", "eta": 0.05, "offset": 0.0}, {"type": "G2", "element": "Cu", "eta": 4.0, "offset": 0.0}]


def label(atoms):
    atoms.calc = EMT()
    forces = atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces)
    return atoms


@pytest.fixture(scope="module")
def images():
    """Four small cells, and four chunks of a cluster; with their centres."""
    cells = [bulk("Cu", cubic=True), bulk("Cu", "bcc", 2.9, cubic=True), bulk("Cu") * (2, 2, 1), bulk("Cu", a=3.8) * (2, 1, 1)]
    cluster = Octahedron("Cu", 4, cutoff=1)
    for seed, atoms in enumerate([*cells, cluster]):
        atoms.rattle(0.08, seed=seed)
    chunks = carve_chunks(cluster, [0, 5, 11, 20], RADIUS)
    return [*map(label, cells), *map(label, chunks)], [None] * 4 + [0] * 4


def spec_of(gs=None, **changes):
    settings = {
        "gs": {"Cu": gs or g2x(["Cu"])["Cu"]}, "elements": ("Cu",), "cutoff": {"name": "Cosine", "kwargs": {"Rc": RADIUS}},
        "hiddenlayers": (5, 4), "activation": "tanh", "energy_coefficient": 1.0, "force_coefficient": 0.04, "overfit": 0.0,
        "maxiter": 500, "convergence": CRITERIA, "model": None,
    }  # fmt: skip
    return CalculatorSpec(**settings | changes)


def fit(images, spec, weights, start=None, widen=0.0, **of_labels):
    """Fit with our own fingerprints; `widen` adds to both ends of their ranges."""
    images, centres = images
    fingerprints = Fingerprints(spec.gs, spec.cutoff)
    rows = [fingerprints.rows(*pair) for pair in zip(images, centres, strict=True)]
    x = np.concatenate([r.x for r in rows])
    options = {name: of_labels.pop(name) for name in ("retry_m", "threads") if name in of_labels}
    labelled = LabelledImages(
        rows,
        energies=np.array([i.get_potential_energy() if c is None else np.nan for i, c in zip(images, centres, strict=True)]),
        forces=[i.get_forces()[slice(None) if c is None else [c]] for i, c in zip(images, centres, strict=True)],
        n_atoms=np.array([len(image) for image in images]),
        **of_labels,
    )
    fprange = {"Cu": np.column_stack([x.min(axis=0) - widen, x.max(axis=0) + widen])}
    return batched_fit.fit(spec, labelled, np.array(weights), fprange, [[7, m] for m in range(len(weights))], start=start, **options)


WEIGHTS = [[1, 1, 1, 1, 1, 1, 1, 1], [2, 0, 1, 1, 0, 3, 1, 0], [1, 1, 0, 2, 1, 1, 0, 2]]


@pytest.fixture(scope="module")
def fitted(images):
    return fit(images, spec_of(), WEIGHTS)


def test_every_member_meets_the_criteria(fitted):
    for report in fitted[1]:
        assert report.converged, report.message
        assert report.energy_rmse <= CRITERIA["energy_rmse"]
        assert report.force_rmse <= CRITERIA["force_rmse"]
        assert report.force_maxresid <= CRITERIA["force_maxresid"]


def test_amp_predicts_what_the_report_says(fitted, images, tmp_path):
    models, reports = fitted
    (tmp_path / "member.amp").write_text(write_amp(models[0]))
    calculator = Amp.load(str(tmp_path / "member.amp"), label=str(tmp_path / "amp"), dblabel=str(tmp_path / "db"), logging=False)
    per_atom, residuals = [], []
    for image, centre in zip(*images, strict=True):
        copy = image.copy()
        copy.calc = calculator
        residual = copy.get_forces() - image.get_forces()
        residuals.append(residual if centre is None else residual[[centre]])
        if centre is None:
            per_atom.append((copy.get_potential_energy() - image.get_potential_energy()) / len(image))
    assert np.sqrt(np.mean(np.square(per_atom))) == pytest.approx(reports[0].energy_rmse, abs=AMP)
    assert np.abs(per_atom).max() == pytest.approx(reports[0].energy_maxresid, abs=AMP)
    assert np.abs(np.concatenate(residuals)).max() == pytest.approx(reports[0].force_maxresid, abs=AMP)
    mean_square = np.mean([np.mean(residual**2) for residual in residuals])
    assert np.sqrt(mean_square) == pytest.approx(reports[0].force_rmse, abs=AMP)


def test_the_result_does_not_depend_on_threads_or_companions(fitted, images):
    texts = [write_amp(model) for model in fitted[0]]
    assert [write_amp(model) for model in fit(images, spec_of(), WEIGHTS, threads=3)[0]] == texts
    assert [write_amp(model) for model in fit(images, spec_of(), WEIGHTS[:1], threads=1)[0]] == texts[:1]


def test_images_of_weight_zero_have_no_part(images):
    spec, weights = spec_of(maxiter=5), [[1, 1, 0, 1, 0, 1, 1, 1]]
    wrong = list(images[0])
    for i in (2, 4):
        wrong[i] = wrong[i].copy()
        wrong[i].calc = SinglePointCalculator(wrong[i], energy=1e3, forces=np.full((len(wrong[i]), 3), 50.0))
    right, changed = fit(images, spec, weights), fit((wrong, images[1]), spec, weights)
    assert write_amp(right[0][0]) == write_amp(changed[0][0])


def ones(images):
    """Weights of 1 for all trained forces."""
    return [np.ones(len(image) if centre is None else 1) for image, centre in zip(*images, strict=True)]


def test_weights_of_one_change_no_bit(fitted, images):
    weighted = fit(images, spec_of(), WEIGHTS, force_weights=ones(images), energy_weights=np.ones(8))
    assert [write_amp(model) for model in weighted[0]] == [write_amp(model) for model in fitted[0]]
    assert weighted[1] == fitted[1]


def test_forces_and_energies_of_weight_zero_have_no_part(images):
    spec, force_weights, energy_weights = spec_of(maxiter=5), ones(images), np.ones(8)
    force_weights[2][1], energy_weights[3] = 0.0, 0.0
    wrong = list(images[0])
    for i, (energy, atom) in {2: (0.0, 1), 3: (50.0, 0)}.items():
        forces = wrong[i].get_forces()
        forces[atom] += [0.0 if energy else 1e3] * 3
        calculator = SinglePointCalculator(wrong[i], energy=wrong[i].get_potential_energy() + energy, forces=forces)
        wrong[i] = wrong[i].copy()
        wrong[i].calc = calculator
    weights = {"force_weights": force_weights, "energy_weights": energy_weights}
    right, changed = fit(images, spec, WEIGHTS[:1], **weights), fit((wrong, images[1]), spec, WEIGHTS[:1], **weights)
    assert write_amp(right[0][0]) == write_amp(changed[0][0])


def test_all_forces_of_a_chunk_are_fitted_with_their_weights(images):
    """Each force of a chunk counts as one: the loss is the weighted sum, the criteria are of weighted residuals."""
    chunk = images[0][4]
    weight = np.linspace(1.0, 0.1, len(chunk))
    fingerprints = Fingerprints(spec_of().gs, spec_of().cutoff)
    rows = fingerprints.rows(chunk)
    models, (report,) = batched_fit.fit(
        spec_of(), LabelledImages([rows], np.array([np.nan]), [chunk.get_forces()], np.array([len(chunk)]), force_weights=[weight]),
        np.array([[2]]), {"Cu": np.column_stack([rows.x.min(axis=0), rows.x.max(axis=0)])}, [1],
    )  # fmt: skip
    atoms = chunk.copy()
    atoms.calc = EnsembleCalculator(models)
    residual = atoms.get_forces() - chunk.get_forces()
    squares = weight @ (residual**2).sum(axis=1)
    assert report.loss == pytest.approx(2 * 0.04 / 3 * squares, rel=PREDICTED)
    assert report.force_rmse == pytest.approx(np.sqrt(2 * squares / (3 * weight.sum())), rel=PREDICTED)
    assert report.force_maxresid == pytest.approx((np.sqrt(weight)[:, None] * np.abs(residual)).max(), rel=PREDICTED)


def test_weights_that_do_not_fit_the_labels_are_refused(images):
    short = ones(images)
    short[0] = np.ones(2)
    with pytest.raises(ValueError, match=r"force_weights\[0\]"):
        fit(images, spec_of(), WEIGHTS, force_weights=short)
    with pytest.raises(ValueError, match="energy_weights"):
        fit(images, spec_of(), WEIGHTS, energy_weights=np.full(8, -1.0))
    with pytest.raises(ValueError, match="divisors"):
        fit(images, spec_of(), WEIGHTS, divisors=np.zeros(8))


def with_null_functions():
    """Return the named set, its first G2 and first G4 again, and a function of an element that is not there."""
    gs = g2x(["Cu"])["Cu"]
    angular = next(g for g in gs if g["type"] == "G4")
    return [gs[0], *gs, {"type": "G2", "element": "Au", "eta": 1.0, "offset": 0.0}, dict(angular)]


def test_functions_that_carry_nothing_are_dropped_and_amp_reads_the_model(fitted, images, tmp_path):
    gs = with_null_functions()
    with pytest.warns(UserWarning, match=f"constant for Cu: {len(gs) - 2}; copies for Cu: 1, {len(gs) - 1};"):
        models, reports = fit(images, spec_of(gs), WEIGHTS)
    assert [report.loss for report in reports] == pytest.approx([report.loss for report in fitted[1]], rel=ROUNDED)
    first = models[0].weights["Cu"][0]
    assert not first[[1, len(gs) - 2, len(gs) - 1]].any()
    (tmp_path / "member.amp").write_text(write_amp(models[0]))
    atoms, ours = images[0][1].copy(), images[0][1].copy()
    atoms.calc = Amp.load(str(tmp_path / "member.amp"), label=str(tmp_path / "amp"), dblabel=str(tmp_path / "db"), logging=False)
    ours.calc = EnsembleCalculator(models[:1])
    assert atoms.get_potential_energy() == pytest.approx(ours.get_potential_energy(), abs=AMP)
    assert atoms.get_forces() == pytest.approx(ours.get_forces(), abs=AMP)


def test_a_start_with_weights_on_null_functions_is_the_same_function(fitted, images):
    """Weights of copies add up, constants go into the biases."""
    gs, rng = with_null_functions(), np.random.default_rng(0)
    with pytest.warns(UserWarning, match="carry nothing"):
        models, _ = fit(images, spec_of(gs, maxiter=0), WEIGHTS[:1])
        layers = [rng.uniform(-0.5, 0.5, layer.shape) for layer in models[0].weights["Cu"]]
        start = replace(models[0], weights={"Cu": layers})
        (again,), _ = fit(images, spec_of(gs, maxiter=0), WEIGHTS[:1], start=[start])
    forces = []
    for model in (start, again):
        atoms = images[0][1].copy()
        atoms.calc = EnsembleCalculator([model])
        forces.append(atoms.get_forces())
    assert np.abs(forces[0]).max() > 1e-3
    assert forces[1] == pytest.approx(forces[0], abs=1e-10)


def test_a_warm_start_is_the_same_function_in_another_range(fitted, images):
    models, reports = fit(images, spec_of(maxiter=0), WEIGHTS, start=fitted[0], widen=0.5)
    for old, new, report in zip(fitted[1], reports, models and reports, strict=True):
        assert report.steps == 0
        assert new.force_maxresid == pytest.approx(old.force_maxresid, rel=1e-9)
    assert not np.allclose(models[0].weights["Cu"][0], fitted[0][0].weights["Cu"][0])


def test_a_fit_goes_on_past_its_criteria_and_never_leaves_them(fitted, images):
    """From a start that meets them, by fewer steps than would make another fit."""
    _, reports = fit(images, spec_of(), WEIGHTS, start=fitted[0])
    for old, new in zip(fitted[1], reports, strict=True):
        assert new.converged, new.message
        assert new.loss <= old.loss * (1 + ROUNDING)
        assert new.steps <= POLISH + 1
    assert sum(report.loss for report in reports) < 0.9 * sum(report.loss for report in fitted[1])


def test_a_member_that_may_not_begin_again_does_not(images):
    _, reports = fit(images, spec_of(WEAK, maxiter=10_000), WEIGHTS[:2], retry_m=[False, True])
    assert reports[0].attempts == 1
    assert "stalled at the last training too: the limit" in reports[0].message
    assert reports[1].attempts > 1


def test_weak_fingerprints_are_called_the_limit(images):
    _, (report,) = fit(images, spec_of(WEAK, maxiter=10_000), WEIGHTS[:1])
    assert not report.converged
    assert report.attempts > 1
    assert "limit" in report.message
    assert report.force_rmse > CRITERIA["force_rmse"]


def test_maxiter_ends_a_fit(images):
    _, reports = fit(images, spec_of(maxiter=3), WEIGHTS)
    for report in reports:
        assert (report.converged, report.steps, report.attempts) == (False, 3, 1)
        assert "maxiter" in report.message


def test_overfit_keeps_the_first_weights_small(images):
    free, bound = (fit(images, spec_of(overfit=overfit, maxiter=30), WEIGHTS[:1])[0][0] for overfit in (0.0, 1e-3))
    assert np.abs(bound.weights["Cu"][0][:-1]).max() < np.abs(free.weights["Cu"][0][:-1]).max()


def test_without_force_criteria_only_energies_are_fitted(images):
    criteria = {"energy_rmse": 1e-4, "energy_maxresid": None, "force_rmse": None, "force_maxresid": None}
    _, (report,) = fit(images, spec_of(convergence=criteria), WEIGHTS[:1])
    assert report.converged, report.message
    assert report.force_rmse == 0.0


def test_more_parameters_than_residuals(images):
    few = (images[0][:2], images[1][:2])
    _, (report,) = fit(few, spec_of(hiddenlayers=(20, 10)), [[1, 1]])
    assert report.converged, report.message


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_other_activations(images, activation):
    loose = {"energy_rmse": 0.02, "energy_maxresid": 0.05, "force_rmse": 0.4, "force_maxresid": None}
    _, (report,) = fit(images, spec_of(activation=activation, convergence=loose), WEIGHTS[:1])
    assert report.converged, report.message


def test_what_does_not_fit_together_is_refused(images):
    with pytest.raises(ValueError, match="no image of weight above 0"):
        fit(images, spec_of(), [WEIGHTS[0], [0] * 8])
    with pytest.raises(ValueError, match="weights for 7"):
        fit(images, spec_of(), [WEIGHTS[0][:7]])
    broken = images[0][0].copy()
    broken.calc = SinglePointCalculator(broken, energy=0.0, forces=np.full((len(broken), 3), np.nan))
    with pytest.raises(ValueError, match="forces of image 0"):
        fit(([broken, *images[0][1:]], images[1]), spec_of(), WEIGHTS[:1])


def test_a_start_of_another_shape_is_refused(fitted, images):
    with pytest.raises(ValueError, match="start from random weights"):
        fit(images, spec_of(hiddenlayers=(3,)), WEIGHTS, start=fitted[0])
