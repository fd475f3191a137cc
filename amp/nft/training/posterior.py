"""Posterior covariance of an ensemble's forces, from the Jacobian of its training residuals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from amp.nft.amp_io import AmpModel, CalculatorSpec, read_amp
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.records import ForceRows, TrainingTask
from amp.nft.training.trained_labels import energy_weight, force_divisor, force_weights, trained_energy, trained_forces

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows
    from amp.nft.kernels.training.network import Inputs

MEMBERS = 3  # whose posteriors are averaged
BLOCK = 3_000_000  # numbers of a Jacobian that are in memory at a time, about
AMPS_FORCE_COEFFICIENT = 0.04
ROUNDS = 60  # of the evidence's fixed point


def force_covariance(task: TrainingTask, texts: Sequence[str], spec: CalculatorSpec, atoms: Sequence[int]) -> np.ndarray:
    """Return the posterior covariance of the forces on atoms of the targets, by some of the members.

    Parameters
    ----------
    task : TrainingTask
        The last training.
    texts : sequence of str
        The members that it made, as ``.amp`` texts.
    spec : CalculatorSpec
        With the coefficients of the loss.
    atoms : sequence of int
        Atoms of the targets, which are numbered from one to the next; ascending.

    Returns
    -------
    ndarray, shape (models, 3 atoms, 3 atoms)
        In units of the variance of a label of weight 1.

    Notes
    -----
    Laplace's approximation: the covariance of a member's parameters is the inverse of JᵀJ / s² + l, where J are the derivatives of the
    weighted training residuals; s² and l maximise the evidence (D. J. C. MacKay, Neural Computation 4, 415, 1992).
    """
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints  # numba: only where it is needed
    from amp.nft.kernels.training.network import scaled_inputs, whitened_inputs

    models = [read_amp(text) for text in texts[:MEMBERS]]
    fingerprints = Fingerprints(models[0].gs, models[0].cutoff)
    first = np.cumsum([0, *map(len, task.targets)])
    rows = [_rows(fingerprints, image, chosen) for image, chosen in _images(task)]
    asked = []
    for number, target in enumerate(task.targets):
        here = [int(atom - first[number]) for atom in atoms if first[number] <= atom < first[number + 1]]
        asked += [fingerprints.rows(target, here)] if here else []
    elements = sorted(models[0].fprange)
    inputs = whitened_inputs([*rows, *map(fingerprints.values, task.targets)], scaled_inputs(models[0].fprange[e] for e in elements))
    labels = [_labels(image, chosen, spec) for image, chosen in _images(task)]
    root = np.sqrt(_force_coefficient(spec) / 3.0)
    return np.array([_covariance(model, rows, labels, asked, inputs, root) for model in models])


def _images(task: TrainingTask) -> Iterator[tuple[Atoms, ForceRows | None]]:
    return zip(task.images, task.rows, strict=True)


def _rows(fingerprints: Fingerprints, image: Atoms, chosen: ForceRows | None) -> Rows:
    """Return the fingerprints of an image, with derivatives for its trained forces."""
    if chosen is None or not chosen.energy:
        return fingerprints.rows(image, None if chosen is None else chosen.atoms)
    return fingerprints.rows(image).some_forces(chosen.atoms)


def _force_coefficient(spec: CalculatorSpec) -> float:
    """Return the coefficient of forces in the loss, of a calculator without a force criterion too."""
    return float(spec.given_force_coefficient or spec.force_coefficient or AMPS_FORCE_COEFFICIENT)


def _labels(image: Atoms, chosen: ForceRows | None, spec: CalculatorSpec) -> tuple[float, np.ndarray, np.ndarray, int]:
    """Return an image's energy (nan: not trained), trained forces, roots of the residuals' weights in the loss, and atoms."""
    weights, divisor = force_weights(image, chosen), force_divisor(image, chosen)
    roots = np.repeat(np.sqrt(_force_coefficient(spec) / 3.0 * weights / divisor), 3)
    if of_energy := energy_weight(chosen):
        roots = np.append(np.sqrt(spec.energy_coefficient * of_energy), roots)
    return trained_energy(image, chosen), trained_forces(image, chosen), roots, len(image)


def _covariance(
    model: AmpModel, rows: Sequence[Rows], labels: Sequence[tuple], asked: Sequence[Rows], inputs: Inputs, root: float
) -> np.ndarray:
    """Return the covariance of the requested forces by one member; `root` is that of the weight of a force in the loss."""
    gram, square, count = np.zeros(()), 0.0, 0
    for some, theirs in _blocks(rows, labels, sum(weights.size for layers in model.weights.values() for weights in layers)):
        energies, forces, roots_i, n_atoms = zip(*theirs, strict=True)
        images = LabelledImages(some, np.array(energies), forces, np.array(n_atoms))
        jacobian, residual, theta = _jacobian(model, images, inputs)
        roots = np.concatenate(roots_i)
        jacobian, residual = jacobian * roots[:, None], residual * roots
        gram, square, count = gram + jacobian.T @ jacobian, square + float(residual @ residual), count + len(residual)
    values, axes = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    prior, variance = _evidence(values, square, count, float(theta @ theta))
    zeros = [np.zeros((len(some.force_start) - 1, 3)) for some in asked]
    asked_images = LabelledImages(asked, np.full(len(asked), np.nan), zeros, np.ones(len(asked), dtype=int))
    wanted, _, _ = _jacobian(model, asked_images, inputs)
    factors = (wanted @ axes) / np.sqrt(values / variance + prior) * (root / np.sqrt(variance))
    return factors @ factors.T


def _evidence(values: np.ndarray, square: float, count: int, length: float) -> tuple[float, float]:
    """Return precision of the prior and variance of the residuals that maximise the evidence."""
    prior, variance = 1.0, 1.0
    for _ in range(ROUNDS):
        determined = float((values / variance / (values / variance + prior)).sum())
        prior, variance = determined / length, max(square / max(count - determined, 1.0), np.finfo(float).tiny)
    return prior, variance


def _blocks(rows: Sequence[Rows], labels: Sequence[tuple], n_parameters: int) -> Iterator[tuple[list[Rows], list[tuple]]]:
    """Yield images in groups whose Jacobian fits into memory."""
    some: list[Rows] = []
    theirs: list[tuple] = []
    for row, label in zip(rows, labels, strict=True):
        if theirs and (sum(len(one[2]) for one in theirs) + len(label[2])) * n_parameters > BLOCK:
            yield some, theirs
            some, theirs = [], []
        some.append(row)
        theirs.append(label)
    yield some, theirs


def _jacobian(model: AmpModel, images: LabelledImages, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the derivatives of residuals in the parameters, the residuals, and the parameters, in the given inputs."""
    from amp.nft.kernels.simd.linalg import padded
    from amp.nft.kernels.training.jacobian import fill_jacobian
    from amp.nft.kernels.training.loss import make_scratch
    from amp.nft.kernels.training.network import change_inputs, make_problem, scaled_inputs
    from amp.nft.training.batched_fit import layout_of, pack

    layout = layout_of(model, model.fprange)
    problem = make_problem(layout, images, model.fprange, inputs)
    theta = change_inputs(pack(model, layout), layout, scaled_inputs(model.fprange[e] for e in layout.elements), inputs)
    count = int(np.isfinite(images.energies).sum()) + 3 * sum(map(len, images.forces))
    width = padded(layout.n_parameters)
    residual, jacobian = np.zeros(padded(count)), np.zeros(padded(count) * width)
    fill_jacobian(problem, theta, np.ones(len(images.rows), dtype=np.int64), make_scratch(problem), residual, jacobian, width)
    return jacobian.reshape(-1, width)[:count, : layout.n_parameters], residual[:count], theta
