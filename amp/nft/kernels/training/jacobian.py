"""Derivatives of the residuals in the parameters: row by row, or all rows times a vector."""

from __future__ import annotations

import numpy as np

from amp.nft.kernels.jit import inner, kernel
from amp.nft.kernels.training.loss import add_gradients, clear, fill_direction, fill_penalties, run_image


@inner
def count_residuals(image):
    """Return the number of residuals of an image."""
    return image.has_energy + 3 * (image.last - image.force)


@inner
def fill_image_rows(problem, theta, image, scratch, residual, k, jacobian, row, width):
    """Fill an image's residuals from k on, and their derivatives: rows of `width` numbers, which are zero before."""
    none, plain = np.int64(-1), 1.0 / image.n_atoms
    energy = run_image(problem, theta, image, scratch)
    if image.has_energy:
        clear(scratch.inputs)
        add_gradients(problem, theta, image, none, scratch, plain, 1.0, residual, k, jacobian, row * width, width)
        residual[k] = (energy - image.energy) * plain
        k += 1
        row += 1
    for f in range(image.force, image.last):
        for c in range(3):
            residual[k + c] = -problem.forces[f, c]
        add_gradients(problem, theta, image, f, scratch, 0.0, -1.0, residual, k, jacobian, row * width, width)
        k += 3
        row += 3


@inner
def fill_penalty_rows(problem, theta, residual, k, jacobian, row, width):
    """Fill the residuals of the penalty from k on, and their derivatives, which are zero before."""
    fill_penalties(problem, theta, residual, k)
    for kind in range(len(problem.net.kinds)):
        layer = problem.net.layers[kind, 0]
        for g in range(layer.n_in):
            for h in range(layer.n_out):
                for i in range(layer.n_in):
                    jacobian[row * width + layer.weight + i * layer.n_out + h] = problem.restore[kind, g, i]
                row += 1


@kernel
def fill_jacobian(problem, theta, weights, scratch, residual, jacobian, width):
    """Fill the residuals of a member and their derivatives: rows of `width` numbers, of which the first are the parameters'."""
    k = np.int64(0)
    clear(jacobian)
    for i in range(len(weights)):
        if weights[i] > 0:
            image = problem.data.images[i]
            fill_image_rows(problem, theta, image, scratch, residual, k, jacobian, k, width)
            k += count_residuals(image)
    if problem.overfit > 0.0:
        fill_penalty_rows(problem, theta, residual, k, jacobian, k, width)


@inner
def add_transposed(problem, theta, weights, scratch, factor, spare, out):
    """Add to `out` the derivatives of all residuals of a member, each times its factor."""
    k, zero, none, width = np.int64(0), np.int64(0), np.int64(-1), np.int64(len(out))
    for i in range(len(weights)):
        if weights[i] > 0:
            image = problem.data.images[i]
            run_image(problem, theta, image, scratch)
            fill_direction(problem, image, scratch, factor, k + image.has_energy)
            plain = factor[k] / image.n_atoms if image.has_energy else 0.0
            add_gradients(problem, theta, image, none, scratch, plain, 1.0, spare, zero, out, zero, width)
            k += count_residuals(image)
    if problem.overfit > 0.0:
        _add_penalties_transposed(problem, factor, k, out)


@inner
def _add_penalties_transposed(problem, factor, k, out):
    """Return the part of the penalty in `add_transposed`."""
    for kind in range(len(problem.net.kinds)):
        layer = problem.net.layers[kind, 0]
        for g in range(layer.n_in):
            for h in range(layer.n_out):
                for i in range(layer.n_in):
                    out[layer.weight + i * layer.n_out + h] += problem.restore[kind, g, i] * factor[k]
                k += 1
