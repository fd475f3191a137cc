"""Amp's atom-centred feed-forward networks: layout of their parameters, random weights, inputs, and loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amp.nft.kernels.threads import available_cpus, run_threads
from amp.nft.kernels.training.columns import pack_images
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.layers import ACTIVATIONS, KIND, LAYER, Net
from amp.nft.kernels.training.loss import Problem, add_losses, make_scratch

NO_SCALING_BELOW = 1e-8  # Amp leaves an input alone whose range is not wider than this
WHITENING = 0.1  # power of the spread by which a direction of the inputs is divided: 1 would leave no correlation
WHITEN_FROM = 1e-6  # part of the mean variance below which a direction's own no longer counts


@dataclass(frozen=True)
class Layout:
    """Layout of the networks' weights in a vector of parameters, in the order of Amp.

    Element by element the layers' weights, each (n_in + 1, n_out) with the biases last; then element by element
    intercept and slope.

    Attributes
    ----------
    elements : tuple of str
        Sorted.
    sizes : tuple of tuple of int
        For each element the nodes of all layers: fingerprints, hidden layers, 1.
    activation : str
        'tanh', 'sigmoid' or 'linear'; of the last node too.
    """

    elements: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]
    activation: str

    @property
    def n_parameters(self) -> int:
        """Length of a vector of parameters."""
        return self._n_weights + 2 * len(self.elements)

    @property
    def _n_weights(self) -> int:
        return sum((n_in + 1) * n_out for sizes in self.sizes for n_in, n_out in itertools.pairwise(sizes))

    def layers(self, theta: np.ndarray) -> Iterator[list[np.ndarray]]:
        """Yield views of the weights of each element's layers.

        Parameters
        ----------
        theta : ndarray, shape (..., n_parameters)

        Yields
        ------
        list of ndarray, shape (..., n_in + 1, n_out)
        """
        start = 0
        for sizes in self.sizes:
            views = []
            for n_in, n_out in itertools.pairwise(sizes):
                stop = start + (n_in + 1) * n_out
                views.append(theta[..., start:stop].reshape(*theta.shape[:-1], n_in + 1, n_out))
                start = stop
            yield views

    def scalings(self, theta: np.ndarray) -> np.ndarray:
        """Return a view of intercept and slope of each element.

        Parameters
        ----------
        theta : ndarray, shape (..., n_parameters)

        Returns
        -------
        ndarray, shape (..., elements, 2)
        """
        return theta[..., self._n_weights :].reshape(*theta.shape[:-1], len(self.elements), 2)

    def net(self) -> Net:
        """Return the layout in the form of the kernels.

        Returns
        -------
        Net
        """
        kinds = np.zeros(len(self.sizes), KIND)
        layers = np.zeros((len(self.sizes), max(map(len, self.sizes)) - 1), LAYER)
        start = 0
        for k, sizes in enumerate(self.sizes):
            kinds[k] = len(sizes) - 1, sizes[0], sum(sizes[1:]), self._n_weights + 2 * k
            for number, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
                layers[k, number] = n_in, n_out, sum(sizes[1 : number + 1]), start, start + n_in * n_out
                start += (n_in + 1) * n_out
        return Net(ACTIVATIONS.index(self.activation), kinds, layers)


def draw_weights(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Draw parameters as Amp does: weights and biases uniform in ±sqrt(6 / (n_in + n_out)), scalings 0 and 1.

    Parameters
    ----------
    layout : Layout
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (parameters,)
    """
    theta = np.zeros(layout.n_parameters)
    for layer in itertools.chain.from_iterable(layout.layers(theta)):
        bound = np.sqrt(6.0 / (layer.shape[-2] - 1 + layer.shape[-1]))
        layer[:] = rng.uniform(-bound, bound, layer.shape)
    layout.scalings(theta)[..., 1] = 1.0
    return theta


Inputs = list[tuple[np.ndarray, np.ndarray]]  # per element the matrix and the shift that make inputs of fingerprints


def scaled_inputs(fpranges: Iterable[np.ndarray]) -> Inputs:
    """Return Amp's inputs: each fingerprint scaled from its range to [-1, 1]; not scaled where the range is a point.

    Parameters
    ----------
    fpranges : iterable of ndarray, shape (features, 2)
        Of each element.

    Returns
    -------
    list of (ndarray, ndarray)
        Per element the matrix and the shift.
    """
    inputs = []
    for low, high in (np.asarray(fprange, dtype=float).T for fprange in fpranges):
        scaled = high - low > NO_SCALING_BELOW
        width = np.where(scaled, high - low, 1.0)
        inputs.append((np.diag(np.where(scaled, 2.0 / width, 1.0)), np.where(scaled, -1.0 - 2.0 * low / width, 0.0)))
    return inputs


def whitened_inputs(rows: Sequence[Any], inputs: Inputs, chosen: Sequence[np.ndarray] | None = None) -> Inputs:
    """Return inputs of zero mean whose spreads along the principal directions are made a little more equal, over the rows of all images.

    Fingerprints are nearly linearly dependent. Divided by the whole spread, the inputs are uncorrelated and fits are quick, but
    directions that hardly vary among the images count as much as those that vary most, and on other atoms the fits are rough:
    with 20 fingerprints and (10, 10) they need twice the chunks for the same true error. Not divided at all, fits are as smooth,
    but take more steps.

    Parameters
    ----------
    rows : sequence of Rows
    inputs : list of (ndarray, ndarray)
        Per element the matrix and the shift.
    chosen : sequence of ndarray of int, optional
        For each element the numbers of the fingerprints of which `inputs` are; the first ones if not given.

    Returns
    -------
    list of (ndarray, ndarray)
    """
    x, kind = np.concatenate([r.x for r in rows]), np.concatenate([r.kind for r in rows])
    result = []
    for k, (matrix, shift) in enumerate(inputs):
        columns = np.arange(len(shift)) if chosen is None else chosen[k]
        values = np.take(x[kind == k], columns, axis=1) @ matrix.T + shift
        if len(values) == 0:
            result.append((matrix, shift))
            continue
        mean = values.mean(axis=0)
        variances, axes = np.linalg.eigh((values - mean).T @ (values - mean) / len(values))
        spread = np.sqrt(np.maximum(variances, 0.0) + WHITEN_FROM * max(variances.mean(), NO_SCALING_BELOW))
        whiten = (axes / spread**WHITENING) @ axes.T
        result.append((whiten @ matrix, whiten @ (shift - mean)))
    return result


def change_inputs(theta: np.ndarray, layout: Layout, old: Inputs, new: Inputs) -> np.ndarray:
    """Return the parameters of the same functions of the fingerprints for other inputs.

    Parameters
    ----------
    theta : ndarray, shape (..., parameters)
    layout : Layout
    old, new : list of (ndarray, ndarray)
        Per element the matrix and the shift that make inputs of fingerprints.

    Returns
    -------
    ndarray, shape (..., parameters)
    """
    theta = np.array(theta, dtype=float)
    for (first, *_), (matrix, shift), (new_matrix, new_shift) in zip(layout.layers(theta), old, new, strict=True):
        weights = np.linalg.solve(new_matrix.T, matrix.T @ first[..., :-1, :])
        first[..., -1, :] += shift @ first[..., :-1, :] - new_shift @ weights
        first[..., :-1, :] = weights
    return theta


def make_problem(
    layout: Layout,
    images: LabelledImages,
    fprange: dict[str, np.ndarray],
    inputs: Inputs | None = None,
    energy_coefficient: float = 1.0,
    force_coefficient: float | None = 0.04,
    overfit: float = 0.0,
    chosen: Sequence[np.ndarray] | None = None,
) -> Problem:
    """Arrange networks and labels for the kernels.

    A member's loss is the sum over images of the image's multiplicity in its sample, times

        energy_coefficient * energy_weight * (ΔE / n_atoms)² + force_coefficient / 3 * sum_f force_weight_f |ΔF_f|² / divisor.

    Parameters
    ----------
    layout : Layout
    images : LabelledImages
    fprange : dict of str to ndarray, shape (features, 2)
        Ranges of the fingerprints for Amp's scaling of its networks' inputs.
    inputs : list of (ndarray, ndarray), optional
        Inputs to use in place of Amp's; see :func:`change_inputs`.
    energy_coefficient, force_coefficient, overfit : float
        As in Amp's loss; no forces are trained if the second is None.
    chosen : sequence of ndarray of int, shape (inputs,), optional
        For each element the numbers of the fingerprints, ascending, that the networks use; all if not given.

    Returns
    -------
    Problem
    """
    if chosen is None:
        chosen = [np.arange(len(fprange[element])) for element in layout.elements]
    scaled = scaled_inputs(fprange[element][some] for element, some in zip(layout.elements, chosen, strict=True))
    inputs = scaled if inputs is None else inputs
    width = max(len(shift) for _, shift in inputs)
    restore = np.zeros((len(inputs), width, width))
    for k, ((matrix, shift), (amps, _)) in enumerate(zip(inputs, scaled, strict=True)):
        restore[k, : len(shift), : len(shift)] = np.linalg.solve(amps.T, matrix.T)
    energies, weights = np.asarray(images.energies, dtype=float), images.force_weights
    if weights is None:
        weights = [np.ones(len(f)) for f in images.forces]
    of_all, with_forces = _of_all(inputs, chosen), force_coefficient is not None
    return Problem(
        net=layout.net(),
        data=pack_images(images.rows, energies, images.n_atoms, of_all, with_forces, images.energy_weights, images.divisors),
        forces=np.concatenate([np.asarray(f, dtype=float).reshape(-1, 3) for f in images.forces]),
        force_weights=np.concatenate([np.asarray(w, dtype=float) for w in weights]),
        energy_coefficient=float(energy_coefficient),
        force_coefficient=float(force_coefficient or 0.0),
        overfit=float(overfit),
        restore=restore,
    )


def _of_all(inputs: Inputs, chosen: Sequence[np.ndarray]) -> Inputs:
    """Turn matrices for chosen fingerprints into those for all up to the last one chosen."""
    result = []
    for (matrix, shift), some in zip(inputs, chosen, strict=True):
        wide = np.zeros((len(shift), some[-1] + 1))
        wide[:, some] = matrix
        result.append((wide, shift))
    return result


def losses(
    problem: Problem, theta_mp: np.ndarray, weights_mi: np.ndarray, gradient: bool = True, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute Amp's loss of each member, and its gradient in the parameters.

    Parameters
    ----------
    problem : Problem
    theta_mp : ndarray, shape (members, parameters)
    weights_mi : ndarray of int, shape (members, images)
        Multiplicity of each image in each member's sample.
    gradient : bool
        Compute the gradients.
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    loss_m : ndarray, shape (members,)
    gradient_mp : ndarray, shape (members, parameters)
        That of the penalty alone if `gradient` is False.
    """
    theta_mp = np.ascontiguousarray(theta_mp, dtype=float)
    weights_mi = np.ascontiguousarray(weights_mi, dtype=np.int64)
    loss_m, gradient_mp = _penalties(problem, theta_mp)
    room = 1 + 3 * int((problem.data.images["last"] - problem.data.images["force"]).max())

    def work(members: np.ndarray) -> None:
        """Return a few members together."""
        part = slice(members[0], members[-1] + 1)
        add_losses(
            problem, theta_mp[part], weights_mi[part], make_scratch(problem), np.zeros(room), loss_m[part],
            gradient_mp[part].reshape(-1), gradient,
        )  # fmt: skip

    threads = min(available_cpus() if threads is None else threads, len(theta_mp))
    run_threads(work, np.array_split(np.arange(len(theta_mp)), threads), threads)
    return loss_m, gradient_mp


def _penalties(problem: Problem, theta_mp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of `overfit` in the losses and gradients."""
    loss_m, gradient_mp = np.zeros(len(theta_mp)), np.zeros_like(theta_mp)
    for layer, restore in zip(problem.net.layers[:, 0], problem.restore, strict=True):
        n_in, n_out = layer["n_in"], layer["n_out"]
        stretch, matrix = slice(layer["weight"], layer["bias"]), restore[:n_in, :n_in]
        weights = matrix @ theta_mp[:, stretch].reshape(-1, n_in, n_out)
        loss_m += problem.overfit * (weights**2).sum(axis=(1, 2))
        gradient_mp[:, stretch] = 2.0 * problem.overfit * (matrix.T @ weights).reshape(len(theta_mp), -1)
    return loss_m, gradient_mp
