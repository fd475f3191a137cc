"""The network kernels against Amp's own loss, and against the laws of differentiation."""

from dataclasses import replace

import numpy as np
import pytest
from amp_reference import Reference
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from made_up import label_weights, made_up

from amp.nft.kernels.fingerprints.gaussian import Rows
from amp.nft.kernels.simd.linalg import padded
from amp.nft.kernels.training.jacobian import fill_jacobian
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.loss import fill_residuals, make_scratch
from amp.nft.kernels.training.network import (
    Layout,
    change_inputs,
    draw_weights,
    losses,
    make_problem,
    scaled_inputs,
)

AMP = 1e-10  # relative agreement with Amp
DIFFERENCE = 1e-7  # of a derivative with a central finite difference, relative to the largest component


def label(atoms):
    atoms.calc = EMT()
    forces = atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces)
    return atoms


def cluster(symbols, seed):
    """Return a free cluster whose first atom is the centre."""
    rng = np.random.default_rng(seed)
    block = bulk("Cu", cubic=True) * (3, 3, 3)
    near = np.argsort(np.linalg.norm(block.positions - block.positions[52], axis=1))[: len(symbols)]
    return label(Atoms(symbols, block.positions[near] + rng.normal(0.0, 0.1, (len(symbols), 3))))


def images_of(two_elements):
    """Two periodic cells, one of them of a single element, and two chunks."""
    other = "Pt" if two_elements else "Cu"
    cells = [bulk("Cu", cubic=True), bulk("Cu", "sc", 2.7) * (2, 1, 1)]
    cells[0].symbols[[1, 2]] = other
    for seed, cell in enumerate(cells):
        cell.rattle(0.1, seed=seed)
    chunks = [cluster([other] + ["Cu"] * 8, 2), cluster(["Cu"] * 5 + [other] * 6, 3)]
    return [*map(label, cells), *chunks]


def problem_of(reference, images, centres, **coefficients):
    """Our problem for the same images, each once."""
    fprange = reference.model.parameters.fprange
    elements = tuple(sorted(fprange))
    hidden = reference.model.parameters.hiddenlayers
    layout = Layout(elements, tuple((len(fprange[e]), *hidden[e], 1) for e in elements), reference.model.parameters.activation)
    rows = [reference.rows(*pair) for pair in zip(images, centres, strict=True)]
    energies = [i.get_potential_energy() if c is None else np.nan for i, c in zip(images, centres, strict=True)]
    forces = [i.get_forces()[slice(None) if c is None else [c]] for i, c in zip(images, centres, strict=True)]
    n_atoms = np.array([len(image) for image in images])
    ranges = {e: np.array(fprange[e]) for e in elements}
    problem = make_problem(layout, LabelledImages(rows, np.array(energies), forces, n_atoms), ranges, **coefficients)
    return layout, problem


def scaled(reference):
    """Amp's starting vector with slopes of a size at which forces matter, and the hidden layers' tanh bends."""
    vector = reference.model.vector.copy()
    vector[-2 * len(reference.elements) :] = [-0.5, 1.7, 0.3, 2.5][: 2 * len(reference.elements)]
    return vector


@pytest.mark.parametrize(
    ("two_elements", "activation", "hidden", "coefficients"),
    [
        (False, "tanh", (4, 3), {}),
        (True, "tanh", (5,), {"overfit": 0.01, "energy_coefficient": 3.0, "force_coefficient": 0.2}),
        (True, "sigmoid", (4, 3), {"overfit": 0.01}),
        (False, "linear", (3, 2, 2), {}),
        (False, "tanh", (9, 6), {"energy_coefficient": 0.0}),
    ],
)
@pytest.mark.parametrize("fortran", [True, False])
def test_loss_and_gradient_are_amps(tmp_path, two_elements, activation, hidden, coefficients, fortran):
    if not fortran and coefficients.get("overfit"):
        coefficients = coefficients | {"overfit": 0.0}  # Amp's Python takes its mask for indices
    images, centres, weights = images_of(two_elements), [None, None, 0, 0], [2, 1, 3, 1]
    repeated = [image for image, weight in zip(images, weights, strict=True) for _ in range(weight)]
    again = [centre for centre, weight in zip(centres, weights, strict=True) for _ in range(weight)]
    reference = Reference(tmp_path, repeated, again, hidden, activation, fortran, **coefficients)
    _, problem = problem_of(reference, images, centres, **coefficients)
    vector = scaled(reference)
    expected, slope, _ = reference.loss(vector)
    loss, gradient = losses(problem, vector[None], np.array([weights]))
    assert loss[0] == pytest.approx(expected, rel=AMP)
    assert gradient[0] == pytest.approx(slope, rel=AMP, abs=AMP * np.abs(slope).max())


def residuals_of(problem, theta, weights):
    """Residuals of one member, with the penalty's."""
    residual = np.zeros(200)
    fill_residuals(problem, theta, weights, make_scratch(problem), residual)
    return residual


def central_difference(function, theta, step=1e-5):
    """Return derivatives of a vector-valued function, one column per parameter."""
    columns = []
    for p in range(len(theta)):
        ahead, behind = theta.copy(), theta.copy()
        ahead[p] += step
        behind[p] -= step
        columns.append((function(ahead) - function(behind)) / (2.0 * step))
    return np.array(columns).T


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_jacobian_is_the_derivative_of_the_residuals(activation):
    arguments, amps, whitened, theta = made_up(activation)
    problem = make_problem(*arguments, whitened, overfit=0.1)
    theta, weights = change_inputs(theta, arguments[0], amps, whitened), np.array([1, 2])
    assert (problem.data.pieces["row"] >= 0).any()
    assert (problem.data.pieces["row"] < 0).any()
    count, width = 3 + 1 + 15 + 6 * 5 + 4 * 3, padded(len(theta))
    jacobian, residual = np.zeros(200 * width), np.zeros(200)
    fill_jacobian(problem, theta, weights, make_scratch(problem), residual, jacobian, width)
    expected = central_difference(lambda t: residuals_of(problem, t, weights), theta)[:count]
    found = jacobian.reshape(200, width)[:count, : len(theta)]
    assert residual == pytest.approx(residuals_of(problem, theta, weights), abs=1e-13)
    assert found == pytest.approx(expected, abs=DIFFERENCE * np.abs(expected).max())
    assert not jacobian.reshape(200, width)[:, len(theta) :].any()


def test_gradient_is_the_derivative_of_the_loss():
    arguments, _, _, theta = made_up()
    problem = make_problem(*arguments, overfit=0.1, energy_coefficient=2.0, force_coefficient=0.3)
    weights = np.array([[1, 2]])
    _, gradient = losses(problem, theta[None], weights)
    expected = central_difference(lambda t: losses(problem, t[None], weights, gradient=False)[0], theta)[0]
    assert gradient[0] == pytest.approx(expected, abs=DIFFERENCE * np.abs(expected).max())


def test_loss_is_the_sum_of_squared_residuals_in_any_inputs():
    arguments, amps, whitened, theta = made_up()
    weights, settings = np.array([3, 2]), {"overfit": 0.1, "energy_coefficient": 2.0, "force_coefficient": 0.3}
    plain, white = make_problem(*arguments, **settings), make_problem(*arguments, whitened, **settings)
    residual = residuals_of(white, change_inputs(theta, arguments[0], amps, whitened), weights)
    factor = np.concatenate([[3 * 0.3 / 3] * 3, [2 * 2.0], [2 * 0.3 / 15] * 15, [0.1] * (6 * 5 + 4 * 3)])
    assert losses(plain, theta[None], weights[None])[0][0] == pytest.approx(factor @ residual[: len(factor)] ** 2, rel=AMP)


def test_each_label_counts_with_its_weight():
    weights = label_weights()
    arguments, _, _, theta = made_up(weights=weights)
    problem, boot = make_problem(*arguments, force_coefficient=0.3), np.array([3, 2])
    residual = residuals_of(problem, theta, boot)[:19]
    chunk, image = (np.repeat(w, 3) for w in weights["force_weights"])
    factor = np.concatenate([3 * 0.3 / 3 * chunk, [2 * 0.7], 2 * 0.3 / (3 * 2.5) * image])
    assert losses(problem, theta[None], boot[None])[0][0] == pytest.approx(factor @ residual**2, rel=AMP)
    _, gradient = losses(problem, theta[None], boot[None])
    expected = central_difference(lambda t: losses(problem, t[None], boot[None], gradient=False)[0], theta)[0]
    assert gradient[0] == pytest.approx(expected, abs=DIFFERENCE * np.abs(expected).max())


def test_weights_of_one_change_no_bit():
    units = {"force_weights": [np.ones(1), np.ones(5)], "energy_weights": np.ones(2), "divisors": np.array([1, 5])}
    theta = made_up()[-1]
    plain, unit = (losses(make_problem(*made_up(weights=weights)[0]), theta[None], np.array([[3, 2]])) for weights in ({}, units))
    assert (plain[0] == unit[0]).all()
    assert (plain[1] == unit[1]).all()


def test_an_energy_of_weight_zero_is_not_trained():
    arguments, _, _, theta = made_up()
    layout, images, ranges = arguments
    without = make_problem(layout, replace(images, energies=np.full(2, np.nan)), ranges)
    zero = make_problem(layout, replace(images, energy_weights=np.zeros(2)), ranges)
    first, second = (losses(problem, theta[None], np.array([[3, 2]])) for problem in (without, zero))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_losses_of_members_do_not_depend_on_threads():
    arguments, _, _, theta = made_up()
    problem, rng = make_problem(*arguments), np.random.default_rng(3)
    theta_mp, weights_mi = theta * rng.uniform(0.5, 1.5, (5, 1)), rng.integers(0, 3, (5, 2))
    one, three = (losses(problem, theta_mp, weights_mi, threads=threads) for threads in (1, 3))
    assert (one[0] == three[0]).all()
    assert (one[1] == three[1]).all()


def test_permuting_rows_changes_nothing():
    arguments, _, _, theta = made_up()
    layout, images, ranges = arguments
    order = [np.random.default_rng(4).permutation(len(r.x)) for r in images.rows]
    pairs = zip(images.rows, order, strict=True)
    shuffled = replace(images, rows=[Rows(r.x[o], r.kind[o], r.force_start, np.argsort(o)[r.force_row], r.dx) for r, o in pairs])
    first, second = (residuals_of(make_problem(layout, some, ranges), theta, np.array([1, 1])) for some in (images, shuffled))
    assert first == pytest.approx(second, abs=1e-12)


def test_changed_ranges_leave_the_functions_as_they_were():
    arguments, _, _, theta = made_up()
    layout, images, old = arguments
    new = {"Cu": old["Cu"] + [-0.4, 1.3], "Pt": np.array([[-1.5, 2.0], [-0.5, 4.0], [7.0, 7.0], [-2.0, 8.0]])}
    inputs = [list(scaled_inputs(ranges[element] for element in layout.elements)) for ranges in (old, new)]
    changed, weights = change_inputs(theta, layout, *inputs), np.array([1, 1])
    before = residuals_of(make_problem(layout, images, old), theta, weights)
    after = residuals_of(make_problem(layout, images, new), changed, weights)
    assert not np.allclose(theta, changed)
    assert after == pytest.approx(before, abs=AMP * np.abs(before).max())
    both = change_inputs(np.array([theta, 2.0 * theta]), layout, *inputs)
    assert both[0] == pytest.approx(changed, rel=1e-14)


def test_parameters_are_in_amps_order(tmp_path):
    images = images_of(True)[:1]
    reference = Reference(tmp_path, images, [None], (4, 3))
    layout, _ = problem_of(reference, images, [None])
    vector = reference.model.vector
    for element, layers in zip(layout.elements, layout.layers(vector), strict=True):
        for number, layer in enumerate(layers, start=1):
            assert (layer == np.array(reference.model.parameters.weights[element][number])).all()
    for element, (intercept, slope) in zip(layout.elements, layout.scalings(vector), strict=True):
        assert reference.model.parameters.scalings[element] == {"intercept": intercept, "slope": slope}


def test_random_weights_are_drawn_as_amp_draws_them():
    layout = Layout(("Pt",), ((12, 100, 1),), "tanh")
    ((first, second),) = layout.layers(draw_weights(layout, np.random.default_rng(0)))
    for layer, bound in ((first, np.sqrt(6 / 112)), (second, np.sqrt(6 / 101))):
        assert np.abs(layer).max() <= bound
        assert np.abs(layer).max() > 0.95 * bound
        assert layer.mean() == pytest.approx(0.0, abs=0.2 * bound)
