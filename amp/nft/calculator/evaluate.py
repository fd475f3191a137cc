"""Uncertainty of a trained ensemble on a target."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from amp.nft import amp_io
from amp.nft.errors import UnsupportedModel
from amp.nft.uncertainty.forces import force_uncertainty


def target_uncertainty(texts: list[str], target: Atoms, dblabel: str, threads: int | None = None) -> np.ndarray:
    """Uncertainty of an ensemble about the force on each atom of a structure.

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
    try:
        models = [amp_io.read_amp(text) for text in texts]
    except UnsupportedModel:
        return force_uncertainty(amp_io.forces_by_amp(texts, target, dblabel))
    from amp.nft.kernels.prediction.evaluate import Evaluator  # numba: only where it is needed

    evaluator = Evaluator(models)
    cell = np.asarray(target.cell)
    return evaluator.evaluate(target.positions, target.numbers, cell, target.pbc, threads=threads).forces_uncertainty
