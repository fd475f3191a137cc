"""Labels as training data of FLARE: extended XYZ files with ASE's forces, and a script that adds them to a sparse Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from amp.nft.interfaces.frames import SPLITS, Frame

SCRIPT = '''\
"""Train a sparse Gaussian process of FLARE: python flare_train.py

Only forces with a weight are trained. flare-otf with FakeDFT would train all forces of each frame: use this script.
"""

import numpy as np
from ase.io import iread, read

CUTOFF = {cutoff:g}  # Å
SPECIES = {species}


def single_atom_energies(frames):
    """Return energies of the elements that fit those of the frames best; 0 where no energy is trained."""
    known = [frame for frame in frames if "energy" in frame.calc.results]
    counts = np.array([[np.count_nonzero(frame.numbers == z) for z in SPECIES] for frame in known]).reshape(-1, len(SPECIES))
    energies = np.array([frame.calc.results["energy"] for frame in known])
    return dict(enumerate(np.linalg.lstsq(counts, energies, rcond=None)[0].tolist()))


def add_frames(sgp, path):
    """Add the trained forces of each frame; a force of weight w has 1/sqrt(w) times the noise of one of weight 1."""
    for frame in iread(path, ":"):
        weights, energy = frame.arrays["nft_weights"], frame.calc.results.get("energy")
        for weight in sorted(set(weights[weights > 0].tolist()), reverse=True):
            atoms = np.flatnonzero(weights == weight).tolist()
            sgp.update_db(
                frame, frame.get_forces(), custom_range=atoms, energy=energy, stress=None, mode="specific", update_qr=False,
                atom_indices=atoms, rel_f_noise=float(1 / np.sqrt(weight)),
            )
            energy = None  # once for each frame
    sgp.sparse_gp.update_matrices_QR()


if __name__ == "__main__":
    from flare.bffs.sgp import SGP_Wrapper
    from flare.bffs.sgp._C_flare import B2, NormalizedDotProduct

    kernel = NormalizedDotProduct(2.0, 2)
    descriptors = B2("chebyshev", "quadratic", [0.0, CUTOFF], [], [len(SPECIES), 8, 3])
    sgp = SGP_Wrapper(
        [kernel], [descriptors], CUTOFF, sigma_e=0.01, sigma_f={floor:.4g}, sigma_s=0.01, species_map=SPECIES, variance_type="local",
        single_atom_energies=single_atom_energies(read("flare-train.extxyz", ":")), stress_training=False, max_iterations=20,
        opt_method="L-BFGS-B", bounds=[(None, None), (1e-4, None), (1e-3, None), (None, None)],
    )
    add_frames(sgp, "flare-train.extxyz")
    sgp.train()
    sgp.write_model("flare.json")
'''


def write_flare(place: Path, frames: Sequence[Frame], numbers: Sequence[int], cutoff: float) -> dict[str, str]:
    """Write ``flare-train.extxyz`` and the like.

    Parameters
    ----------
    place : Path
        A directory.
    frames : sequence of Frame
    numbers : sequence of int
        Atomic numbers of all elements.
    cutoff : float
        Of the fingerprints, Å.

    Returns
    -------
    dict of str to str
        The script by its name.
    """
    for split in SPLITS:
        if some := [_labelled(frame) for frame in frames if frame.split == split]:
            write(place / f"flare-{split}.extxyz", some, format="extxyz")
    species = {int(number): kind for kind, number in enumerate(numbers)}
    return {"flare_train.py": SCRIPT.format(cutoff=cutoff, species=species, floor=frames[0].floor)}


def _labelled(frame: Frame) -> Atoms:
    """Return a structure with its forces, and its energy if that is trained, as results of a calculator."""
    atoms = frame.atoms.copy()
    atoms.info = {"config_type": frame.kind, "nft_target": frame.target, "nft_iteration": frame.iteration, "nft_radius": frame.radius}
    atoms.set_array("nft_weights", frame.weights_n)
    atoms.set_array("nft_target_index", frame.target_index_n)
    energy = {"energy": frame.energy} if frame.energy_weight else {}
    atoms.calc = SinglePointCalculator(atoms, forces=frame.forces_nx, **energy)
    return atoms
