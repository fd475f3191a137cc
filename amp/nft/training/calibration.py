"""Out-of-bag calibration of a trained ensemble, by the images that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from ase import Atoms

from amp.nft.amp_io import AmpModel, read_amp, with_data
from amp.nft.records import TrainingTask
from amp.nft.uncertainty.calibration import OutOfBag, calibrate_out_of_bag


def calibrating_atoms(task: TrainingTask) -> list[Sequence[int]]:
    """Choose the atoms whose labels calibrate: central atoms of chunks, or all atoms of a data set without a target.

    Parameters
    ----------
    task : TrainingTask

    Returns
    -------
    list of sequence of int
        Of each image; empty for the first images of a run, which say little about its target.
    """
    if task.targets or any(rows is not None for rows in task.rows):
        return [() if rows is None else rows.atoms[:1] for rows in task.rows]  # the central atom comes first
    return [range(len(image)) for image in task.images]


def calibrate_ensemble(
    models: Sequence[AmpModel],
    images: Sequence[Atoms],
    atoms_i: Sequence[Sequence[int]],
    weights_mi: np.ndarray,
    threads: int | None = None,
) -> OutOfBag | None:
    """Calibrate the uncertainty of an ensemble out of bag: for chunks of a target and for data sets.

    Parameters
    ----------
    models : sequence of AmpModel
        The members.
    images : sequence of Atoms
        Labelled training images.
    atoms_i : sequence of sequence of int
        Of each image the atoms whose forces calibrate.
    weights_mi : ndarray of int, shape (members, images)
        How often each image is in each member's bootstrap sample.
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    OutOfBag or None
        None if too few forces are out of the samples of two members.
    """
    from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

    used = [i for i, atoms in enumerate(atoms_i) if len(atoms)]
    if not used or len(models) < 2:
        return None
    evaluator, forces, known = Evaluator(list(models)), [], []
    for i in used:
        image, cell = images[i], np.asarray(images[i].cell)
        found = evaluator.evaluate(image.positions, image.numbers, cell, image.pbc, forces_ensemble=True, threads=threads)
        assert found.forces_mni is not None
        forces.append(found.forces_mni[:, list(atoms_i[i])])
        known.append(image.get_forces(apply_constraint=False)[list(atoms_i[i])])
    weights_mn = np.repeat(weights_mi[:, used], [len(part) for part in known], axis=1)
    return calibrate_out_of_bag(np.concatenate(forces, axis=1), np.concatenate(known), weights_mn)


def calibrate_texts(
    texts: list[str], images: Sequence[Atoms], atoms_i: Sequence[Sequence[int]], weights_mi: np.ndarray, threads: int | None = None
) -> list[str]:
    """Return the members with their out-of-bag calibration, where enough labels are out of their samples.

    Parameters
    ----------
    texts : list of str
        The members' ``.amp`` texts.
    images, atoms_i, weights_mi, threads
        As for :func:`calibrate_ensemble`.

    Returns
    -------
    list of str
    """
    found = calibrate_ensemble([read_amp(text) for text in texts], images, atoms_i, weights_mi, threads)
    return texts if found is None else [with_data(text, out_of_bag=asdict(found)) for text in texts]
