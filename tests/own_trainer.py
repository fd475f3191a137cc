"""Amp's networks as models of another program, for the tests: fit one member to the exported data, and leave it in a file."""

import os

import numpy as np
from ase.io import read

from amp.nft.fitting import fit


def main():
    frames, trained = read(os.environ["NFT_TRAIN"], ":"), []
    for frame in frames:
        weights = np.where(frame.arrays["force_mask"], 0.0, frame.arrays["REF_forces_atomic_weights"])
        trained.append(weights if frame.info["config_type"] == "nft_chunk" else None)
        frame.info.setdefault("REF_energy", 0.0)  # not trained
    found = fit(
        frames, n=1, valid=0.0, cutoff=4.5, hiddenlayers=(4,), forces=trained, seed=int(os.environ["NFT_SEED"]), threads=1,
        energy_key="REF_energy", forces_key="REF_forces", directory="fit", log=print,
    )  # fmt: skip
    found.save(os.environ["NFT_MODEL"])


if __name__ == "__main__":
    os.chdir(os.path.dirname(os.path.dirname(os.environ["NFT_MODEL"])))
    main()
