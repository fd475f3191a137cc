"""Out-of-bag calibration of a trained ensemble, by the images that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from amp.nft.amp_io import AmpModel
from amp.nft.kernels.threads import run_threads
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.loss import fill_residuals, make_scratch
from amp.nft.kernels.training.network import change_inputs, make_problem, scaled_inputs
from amp.nft.training.batched_fit import layout_of, pack
from amp.nft.uncertainty.calibration import OutOfBag, calibrate_out_of_bag

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Rows


def least_factor(images: Sequence[Atoms]) -> float:
    """Return the smallest factor of the band: 1 where forces of several chunks are trained on one target, as corrected ones are.

    A member that lacks a chunk knows most of its atoms from other chunks then. Where one of the few that lack it is far off, they look
    better calibrated than the whole ensemble is: on (H2O)60 a factor of 0.67 was found, and 1.15 needed.

    Parameters
    ----------
    images : sequence of Atoms
        Those whose forces calibrate.

    Returns
    -------
    float
    """
    return float(len({image.positions.tobytes() for image in images}) < len(images))


def calibrate(
    models: Sequence[AmpModel], rows: Sequence[Rows], known: Sequence[np.ndarray], weights_mi: np.ndarray, threads: int | None = None,
    least: float = 0.0,
) -> OutOfBag | None:  # fmt: skip
    """Calibrate the uncertainty of an ensemble out of bag.

    Parameters
    ----------
    models : sequence of AmpModel
        The members.
    rows : sequence of Rows
        Fingerprints of each image, with derivatives for the forces that calibrate.
    known : sequence of ndarray, shape (forces, 3)
        The labels of these forces, eV/Å.
    weights_mi : ndarray of int, shape (members, images)
        Multiplicity of each image in each member's bootstrap sample.
    threads : int, optional
        The result does not depend on it.
    least : float
        Smallest factor; see `least_factor`.

    Returns
    -------
    OutOfBag or None
        None if too few forces are out of the samples of two members.
    """
    weights_mn = np.repeat(weights_mi, [len(part) for part in known], axis=1)
    return calibrate_out_of_bag(member_forces(models, rows, known, threads), np.concatenate(known), weights_mn, least)


def spread(models: Sequence[AmpModel], rows: Sequence[Rows], known: Sequence[np.ndarray], threads: int | None = None) -> float:
    """Return the standard deviation of the members' forces, root mean square over the forces.

    Parameters
    ----------
    models, rows, known, threads : as there
        As for :func:`calibrate`.

    Returns
    -------
    float
        In eV/Å.
    """
    forces_mni = member_forces(models, rows, known, threads)
    return float(np.sqrt(forces_mni.var(axis=0, ddof=1).sum(axis=-1).mean()))


def member_forces(models: Sequence[AmpModel], rows: Sequence[Rows], known: Sequence[np.ndarray], threads: int | None = None) -> np.ndarray:
    """Return the forces of each member on atoms that have been fingerprinted.

    Parameters
    ----------
    models : sequence of AmpModel
        Members of one ensemble.
    rows : sequence of Rows
        Fingerprints of each image, with derivatives for the requested forces.
    known : sequence of ndarray, shape (forces, 3)
        Their labels, eV/Å.
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    ndarray, shape (members, forces, 3)
        In eV/Å, those of all images after each other.
    """
    layout, nan = layout_of(models[0], models[0].fprange), np.full(len(rows), np.nan)
    images = LabelledImages(rows, nan, known, np.ones(len(rows), dtype=int))
    problem = make_problem(layout, images, models[0].fprange)
    labels, every = np.concatenate(known), np.ones(len(rows), dtype=np.int64)
    inputs = [scaled_inputs(model.fprange[element] for element in layout.elements) for model in models]
    forces_mni = np.empty((len(models), *labels.shape))

    def work(member: int) -> None:
        theta = change_inputs(pack(models[member], layout), layout, inputs[member], inputs[0])
        residual = np.empty(labels.size)
        fill_residuals(problem, theta, every, make_scratch(problem), residual)
        forces_mni[member] = labels + residual.reshape(-1, 3)

    run_threads(work, range(len(models)), threads)
    return forces_mni
