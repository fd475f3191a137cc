"""Amp's atom-centred feed-forward networks: where their parameters are, how they start, and their loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from amp.nft.kernels.jit import available_cpus, run_threads
from amp.nft.kernels.lanes import scaling_of
from amp.nft.kernels.layers import ACTIVATIONS, KIND, LAYER, Net
from amp.nft.kernels.loss import Problem, add_losses, make_scratch


@dataclass(frozen=True)
class Layout:
    """Where each weight of the networks is in a vector of parameters, in the order of Amp.

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
        """Views of the weights of each element's layers, shapes (..., n_in + 1, n_out), from parameters (..., n_parameters)."""
        start = 0
        for sizes in self.sizes:
            views = []
            for n_in, n_out in itertools.pairwise(sizes):
                stop = start + (n_in + 1) * n_out
                views.append(theta[..., start:stop].reshape(*theta.shape[:-1], n_in + 1, n_out))
                start = stop
            yield views

    def scalings(self, theta: np.ndarray) -> np.ndarray:
        """View of intercept and slope of each element, shape (..., elements, 2)."""
        return theta[..., self._n_weights :].reshape(*theta.shape[:-1], len(self.elements), 2)

    def penalized(self) -> np.ndarray:
        """Which parameters Amp's `overfit` penalises: the weights of the first layers, biases left out."""
        mask = np.zeros(self.n_parameters, dtype=bool)
        for layers in self.layers(mask):
            layers[0][:-1] = True
        return mask

    def net(self) -> Net:
        """The same as the kernels want it."""
        kinds = np.zeros(len(self.sizes), KIND)
        layers = np.zeros((len(self.sizes), max(map(len, self.sizes)) - 1), LAYER)
        start = 0
        for k, sizes in enumerate(self.sizes):
            kinds[k] = len(sizes) - 1, sizes[0], sum(sizes[1:]), self._n_weights + 2 * k
            for l, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
                layers[k, l] = n_in, n_out, sum(sizes[1 : l + 1]), start, start + n_in * n_out
                start += (n_in + 1) * n_out
        return Net(ACTIVATIONS.index(self.activation), kinds, layers)


def draw_weights(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Parameters with weights and biases as Amp draws them, uniform in ±sqrt(6 / (n_in + n_out)); the scalings are 0 and 1."""
    theta = np.zeros(layout.n_parameters)
    for layer in itertools.chain.from_iterable(layout.layers(theta)):
        bound = np.sqrt(6.0 / (layer.shape[-2] - 1 + layer.shape[-1]))
        layer[:] = rng.uniform(-bound, bound, layer.shape)
    layout.scalings(theta)[..., 1] = 1.0
    return theta


def refresh_range(
    theta: np.ndarray, layout: Layout, old: dict[str, np.ndarray], new: dict[str, np.ndarray]
) -> np.ndarray:
    """Parameters of the same functions of the fingerprints, with the inputs scaled by other ranges.

    Parameters
    ----------
    theta : ndarray, shape (..., parameters)
    layout : Layout
    old, new : dict of str to ndarray, shape (features, 2)
        Smallest and largest value of each fingerprint, by element.

    Returns
    -------
    ndarray, shape (..., parameters)
    """
    theta = np.array(theta, dtype=float)
    for element, (first, *_) in zip(layout.elements, layout.layers(theta), strict=True):
        (factor, shift), (new_factor, new_shift) = (scaling_of(np.asarray(r[element], dtype=float)) for r in (old, new))
        weights = first[..., :-1, :]
        first[..., -1, :] += np.einsum("g,...gh->...h", shift - factor / new_factor * new_shift, weights)
        weights *= (factor / new_factor)[:, None]
    return theta


def losses(
    problem: Problem, theta_mp: np.ndarray, weights_mi: np.ndarray, gradient: bool = True, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Amp's loss of each member, and its gradient in the parameters.

    Parameters
    ----------
    problem : Problem
    theta_mp : ndarray, shape (members, parameters)
    weights_mi : ndarray of int, shape (members, images)
        How often each image counts for each member.
    gradient : bool
        False leaves the gradients out.
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
    loss_m, gradient_mp = theta_mp**2 @ problem.penalty, 2.0 * problem.penalty * theta_mp
    room = 1 + 3 * int((problem.data.images["last"] - problem.data.images["force"]).max())

    def work(members: np.ndarray) -> None:
        """A few members together."""
        part = slice(members[0], members[-1] + 1)
        add_losses(problem, theta_mp[part], weights_mi[part], make_scratch(problem), np.zeros(room), loss_m[part],
                   gradient_mp[part], gradient)

    threads = min(available_cpus() if threads is None else threads, len(theta_mp))
    run_threads(work, np.array_split(np.arange(len(theta_mp)), threads), threads)
    return loss_m, gradient_mp
