"""Labelled structures with columns for the trainers of other programs: energies, forces, and which of them count."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from amp.nft.inputs.geometry import with_cell


def with_columns(
    atoms: Atoms, energy: float, forces_nx: np.ndarray, weights_n: np.ndarray, energy_weight: float, floor: float, sigma: float
) -> Atoms:
    """Return a copy of a structure with the columns of each trainer that reads extended XYZ files.

    Parameters
    ----------
    atoms : Atoms
    energy : float
        eV.
    forces_nx : ndarray, shape (atoms, 3)
        By the parent, eV/Å.
    weights_n : ndarray, shape (atoms,)
        Weight of each force, 0 to 1; 0: not trained.
    energy_weight : float
        0: not trained.
    floor : float
        The error at which the weight of a force is halved, eV/Å.
    sigma : float
        ``force_atom_sigma`` of a force of weight 1, eV/Å.

    Returns
    -------
    Atoms
        Columns ``REF_forces``, ``NFT_forces`` (nan where not trained), ``REF_forces_atomic_weights``, ``force_mask`` (True where not
        trained) and ``force_atom_sigma``; ``info`` has ``REF_energy``, ``NFT_energy`` and ``config_energy_weight``.

    Notes
    -----
    A weight w = floor² / (e² + floor²) stands for a label error e, so that ``force_atom_sigma`` is sqrt(sigma² + floor² (1/w - 1)).
    """
    found, trained = with_cell(atoms), weights_n > 0
    found.info = {
        "REF_energy": energy, "NFT_energy": energy if energy_weight else np.nan, "config_energy_weight": energy_weight,
    }  # fmt: skip
    errors = np.sqrt(sigma**2 + floor**2 * (1.0 / np.where(trained, weights_n, 1.0) - 1.0))
    for name, values in (
        ("REF_forces", forces_nx), ("NFT_forces", np.where(trained[:, None], forces_nx, np.nan)),
        ("REF_forces_atomic_weights", weights_n), ("force_mask", ~trained), ("force_atom_sigma", np.where(trained, errors, 1.0)),
    ):  # fmt: skip
        found.set_array(name, values)
    return found
