"""The network kernels against Amp's own loss, and against the laws of differentiation."""

import numpy as np
import pytest
from amp_reference import Reference
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.kernels.network import Layout, losses, make_problem

AMP = 1e-10  # relative agreement with Amp
DIFFERENCE = 1e-7  # of a derivative with a central finite difference, relative to the largest component


def label(atoms):
    atoms.calc = EMT()
    forces = atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces)
    return atoms


def cluster(symbols, seed):
    """A free cluster whose first atom is the centre."""
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
    problem = make_problem(layout, rows, np.array(energies), forces, n_atoms, ranges, **coefficients)
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
