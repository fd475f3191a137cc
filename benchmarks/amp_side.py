"""Amp's own loss and optimiser on the data of the benchmarks.

Amp's fingerprint derivatives of hundreds of chunks take hours; here Amp is handed ours, which agree with its own to 1e-10, in the form
that it keeps them in. What is timed is its loss, in Fortran, and its optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.utilities import get_hash, hash_images
from ase import Atoms

from amp.nft.amp_io import AmpModel
from amp.nft.kernels.fingerprints.gaussian import Fingerprints


def as_amp_keeps_them(fingerprints: Fingerprints, image: Atoms) -> tuple[list, dict]:
    """Fingerprints and derivatives of one image as Amp's descriptor has them."""
    rows, symbols = fingerprints.rows(image), image.get_chemical_symbols()
    values = [(symbol, row.tolist()) for symbol, row in zip(symbols, rows.x, strict=True)]
    primes = {}
    for atom in range(len(image)):
        for entry in range(rows.force_start[atom], rows.force_start[atom + 1]):
            row = int(rows.force_row[entry])
            for axis in range(3):
                primes[atom, symbols[atom], row, symbols[row], axis] = rows.dx[entry, axis].tolist()
    return values, primes


class AmpSide:
    """Amp set up to train one member.

    Parameters
    ----------
    images, centres
        As in a training task: None for an image that is trained as a whole, else the atom whose force is.
    weights : sequence of int
        How often each image is in the member's sample.
    model : AmpModel
        Where the member starts.
    directory : Path
        Amp writes its files there.
    """

    def __init__(
        self,
        images: Sequence[Atoms],
        centres: Sequence[int | None],
        weights: Sequence[int],
        model: AmpModel,
        directory: Path,
        convergence: dict[str, float | None],
        until_converged: bool = False,
    ) -> None:
        fingerprints = Fingerprints(model.gs, model.cutoff)
        sample = [image for image, weight in zip(images, weights, strict=True) for _ in range(weight)]
        self.hashed = hash_images(sample)
        descriptor = Gaussian(Gs=model.gs, cutoff=model.cutoff["kwargs"]["Rc"], dblabel=str(directory / "db"))
        kept = {key: as_amp_keeps_them(fingerprints, image) for key, image in self.hashed.items()}
        descriptor.fingerprints = {key: values for key, (values, _) in kept.items()}
        descriptor.fingerprintprimes = {key: primes for key, (_, primes) in kept.items()}
        centre = {get_hash(image): c for image, c in zip(images, centres, strict=True)}
        # one entry per image: the Fortran loss takes the n-th entry's atom for the n-th image
        nft_ids = [("none", 0) if centre[key] is None else (key, centre[key]) for key in self.hashed]
        self.loss_function = LossFunction(
            convergence=convergence, nft_ids=nft_ids, weight_duplicates=True, log_losses=until_converged,
            raise_ConvergenceOccurred=until_converged,
        )  # fmt: skip
        self.network = NeuralNetwork(
            hiddenlayers=model.hiddenlayers,
            activation=model.activation,
            weights={e: {k: w.tolist() for k, w in enumerate(ws, start=1)} for e, ws in model.weights.items()},
            scalings={e: {"intercept": i, "slope": s} for e, (i, s) in model.scalings.items()},
            fprange={e: r.tolist() for e, r in model.fprange.items()},
            lossfunction=self.loss_function,
            checkpoints=None,
        )
        self.descriptor = descriptor
        self.amp = Amp(descriptor=descriptor, model=self.network, label=str(directory / "amp"), cores=1)
        self._fit(only_setup=True)

    def _fit(self, only_setup: bool) -> bool | None:
        log = self.amp._log
        return self.network.fit(self.hashed, self.descriptor, log, {"cores": 1, "envcommand": None}, only_setup=only_setup)

    def loss(self) -> tuple[float, np.ndarray]:
        """Loss and gradient at the start."""
        result = self.loss_function.get_loss(self.network.vector, lossprime=True)
        return result["loss"], np.array(result["dloss_dparameters"])

    def train(self) -> bool:
        """Let Amp's own optimiser run; whether it says that it converged."""
        return bool(self._fit(only_setup=False))
