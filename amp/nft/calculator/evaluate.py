"""Uncertainty of a trained ensemble on a target."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from amp.nft import amp_io
from amp.nft.amp_io.external import is_external
from amp.nft.errors import UnsupportedModel
from amp.nft.uncertainty.forces import force_uncertainty


def target_uncertainty(texts: list[str], target: Atoms, dblabel: str, threads: int | None = None) -> np.ndarray:
    """Return the uncertainty of an ensemble about the force on each atom of a structure.

    Parameters
    ----------
    texts : list of str
        The members' ``.amp`` texts.
    target : Atoms
    dblabel : str
        Prefix of Amp's database files, where Amp itself must predict.
    threads : int, optional

    Returns
    -------
    ndarray, shape (atoms,)
        eV/Å, as `amp.nft.uncertainty.force_uncertainty` defines it.
    """
    return predict(texts, target, dblabel, threads)[1]


def predict(texts: list[str], target: Atoms, dblabel: str | None, threads: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean forces of an ensemble on a structure, and their uncertainty.

    Parameters
    ----------
    texts, target, dblabel, threads : as there
        As for `target_uncertainty`; without `dblabel` Amp itself does not predict.

    Returns
    -------
    forces : ndarray, shape (atoms, 3)
        eV/Å.
    uncertainty : ndarray, shape (atoms,)
        eV/Å.

    Raises
    ------
    UnsupportedModel
        There is no `dblabel`, and only Amp itself can predict.
    """
    try:
        models = [amp_io.read_amp(text) for text in texts]
    except UnsupportedModel:
        if dblabel is None or is_external(texts[0]):
            raise
        forces_mni = amp_io.forces_by_amp(texts, target, dblabel)
        return forces_mni.mean(axis=0), force_uncertainty(forces_mni)
    from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

    found = Evaluator(models).evaluate(target.positions, target.numbers, np.asarray(target.cell), target.pbc, threads=threads)
    return found.forces, found.forces_uncertainty


def error95_factor(texts: list[str]) -> float | None:
    """Return the factor on the uncertainty that covers 95 % of the out-of-bag errors, or None where it is not known.

    Parameters
    ----------
    texts : list of str
        The members' ``.amp`` texts.

    Returns
    -------
    float or None
    """
    try:
        return amp_io.read_amp(texts[0]).error95_factor
    except UnsupportedModel:
        return None
