"""All kernels against a plain NumPy reference, on the same small cluster of two elements, and prediction on one of three."""

import itertools

import numpy as np
import numpy_reference as reference
import pytest
from ase import Atoms

from amp.nft.amp_io import AmpModel
from amp.nft.calculator import EnsembleCalculator
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.loss import fill_residuals, make_scratch
from amp.nft.kernels.training.network import Layout, make_problem
from amp.nft.training.batched_fit import pack

ROUNDING = 1e-11  # absolute, of fingerprints, energies in eV and forces in eV/Å
CUTOFF = {"name": "Cosine", "kwargs": {"Rc": 4.5}}
GS = {
    "Au": [
        {"type": "G2", "element": "Au", "eta": 0.4, "offset": 0.0},
        {"type": "G2", "element": "Cu", "eta": 6.0, "offset": 2.0},
        {"type": "G4", "elements": ["Au", "Cu"], "eta": 0.005, "gamma": -1.0, "zeta": 4.0},
    ],
    "Cu": [
        {"type": "G2", "element": "Cu", "eta": 2.6, "offset": 0.0},
        {"type": "G4", "elements": ["Cu", "Cu"], "eta": 0.1, "gamma": 1.0, "zeta": 1.0},
        {"type": "G4", "elements": ["Cu", "Au"], "eta": 0.01, "gamma": 1.0, "zeta": 2.0},
        {"type": "G4", "elements": ["Au", "Au"], "eta": 0.05, "gamma": -1.0, "zeta": 1.0},
    ],
}


@pytest.fixture(scope="module")
def atoms():
    """Nine atoms of a distorted cubic lattice."""
    grid = 2.6 * np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:9]
    return Atoms("AuCuCuAuCuCuAuCuAu", grid + np.random.default_rng(0).uniform(-0.3, 0.3, (9, 3)))


@pytest.fixture(scope="module")
def model(atoms):
    """Random networks of different shapes."""
    rng = np.random.default_rng(1)
    x = reference.fingerprints(GS, 4.5, list(atoms.symbols), atoms.positions)
    shapes = {"Au": [(4, 5), (6, 1)], "Cu": [(5, 4), (5, 3), (4, 1)]}
    ranges = {}
    for element in GS:
        values = np.array([x[i] for i, symbol in enumerate(atoms.symbols) if symbol == element])
        ranges[element] = np.column_stack([values.min(axis=0) - 0.1, values.max(axis=0) + 0.2])
    return AmpModel(
        gs=GS, cutoff=CUTOFF, hiddenlayers={"Au": (5,), "Cu": (4, 3)}, activation="tanh",
        weights={element: [rng.uniform(-1.0, 1.0, shape) for shape in of_element] for element, of_element in shapes.items()},
        scalings={"Au": (-0.5, 1.5), "Cu": (0.3, 2.5)}, fprange=ranges,
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(atoms, model):
    """Energy and forces of the reference."""
    symbols = list(atoms.symbols)
    return reference.energy(model, symbols, atoms.positions), reference.forces(model, symbols, atoms.positions)


def test_fingerprints_are_the_references(atoms):
    fingerprints = Fingerprints(GS, CUTOFF)
    found = fingerprints.values(atoms).x
    for values, row, symbol in zip(
        reference.fingerprints(GS, 4.5, list(atoms.symbols), atoms.positions), found, atoms.symbols, strict=True
    ):
        assert row[: len(GS[symbol])] == pytest.approx(values, abs=ROUNDING)


def test_prediction_is_the_references(atoms, model, expected):
    atoms = atoms.copy()
    atoms.calc = EnsembleCalculator([model])
    assert atoms.get_potential_energy() == pytest.approx(expected[0], abs=ROUNDING)
    assert np.abs(expected[1]).max() > 0.1
    assert not atoms.calc.results["extrapolating"].any()
    assert atoms.get_forces() == pytest.approx(expected[1], abs=ROUNDING)


def test_prediction_for_three_elements_is_the_references(atoms):
    """With three, the functions that see a neighbour are not next to each other."""
    atoms, rng, elements = atoms.copy(), np.random.default_rng(2), ("Ag", "Au", "Cu")
    atoms.symbols[[0, 4, 7]] = "Ag"
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    functions = [{"type": "G2", "element": element, "eta": 0.4, "offset": 0.0} for element in elements]
    functions += [{"type": "G4", "elements": list(pair), "eta": 0.01, "gamma": -1.0, "zeta": 2.0} for pair in pairs]
    gs = {"Ag": functions, "Au": functions[1:], "Cu": functions[::-1]}
    model = AmpModel(
        gs=gs, cutoff=CUTOFF, hiddenlayers=dict.fromkeys(elements, (3,)), activation="tanh",
        weights={element: [rng.uniform(-1.0, 1.0, shape) for shape in ((len(gs[element]) + 1, 3), (4, 1))] for element in elements},
        scalings=dict.fromkeys(elements, (0.1, 1.5)),
        fprange={element: np.tile([-0.1, 4.0], (len(gs[element]), 1)) for element in elements},
    )  # fmt: skip
    atoms.calc = EnsembleCalculator([model])
    forces = reference.forces(model, list(atoms.symbols), atoms.positions)
    assert np.abs(forces).max() > 0.1
    assert atoms.get_forces() == pytest.approx(forces, abs=ROUNDING)


def test_residuals_of_training_are_the_references(atoms, model, expected):
    """With labels of zero the residuals are the predictions."""
    layout = Layout(("Au", "Cu"), ((3, 5, 1), (4, 4, 3, 1)), "tanh")
    rows, n = [Fingerprints(GS, CUTOFF).rows(atoms)], len(atoms)
    images = LabelledImages(rows, np.zeros(1), [np.zeros((n, 3))], np.array([n]))
    problem = make_problem(layout, images, model.fprange)
    residual = np.zeros(1 + 3 * n)
    fill_residuals(problem, pack(model, layout), np.array([1]), make_scratch(problem), residual)
    assert n * residual[0] == pytest.approx(expected[0], abs=ROUNDING)
    assert residual[1:].reshape(n, 3) == pytest.approx(expected[1], abs=ROUNDING)
