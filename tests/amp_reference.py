"""Amp's own fingerprints and loss, as the reference of the tests of our kernels."""

import numpy as np
from amp import Amp
from amp.descriptor.gaussian import Gaussian, make_symmetry_functions
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.utilities import get_hash, hash_images

from amp.nft.kernels.fingerprints.gaussian import Rows

RADIUS = 4.0  # Å; Amp is slow
CRITERIA = {"energy_rmse": 0.001, "energy_maxresid": None, "force_rmse": 0.005, "force_maxresid": 0.02}


def symmetry_functions(elements):
    """Six functions for one element."""
    return make_symmetry_functions(elements=elements, type="G2", etas=[0.05, 2.0, 8.0]) + make_symmetry_functions(
        elements=elements, type="G4", etas=[0.005], zetas=[1.0, 4.0], gammas=[1.0]
    )


class Reference:
    """Amp's results for some images; with `centres` as in a TrainingTask, and images listed as often as they count."""

    def __init__(self, directory, images, centres, hidden=(4, 3), activation="tanh", fortran=True, gs=None, **loss):
        self.images, self.centres = images, centres
        elements = sorted({symbol for image in images for symbol in image.get_chemical_symbols()})
        gs = gs or {element: symmetry_functions(elements) for element in elements}
        self.hashed = hash_images(images)
        descriptor = Gaussian(Gs=gs, cutoff=RADIUS, fortran=True, dblabel=str(directory / "db"))
        descriptor.calculate_fingerprints(self.hashed, calculate_derivatives=True)
        nft_ids = self._nft_ids()
        model = NeuralNetwork(
            hiddenlayers={element: hidden for element in elements},
            activation=activation,
            fortran=fortran,
            lossfunction=LossFunction(
                convergence=CRITERIA,
                nft_ids=nft_ids,
                weight_duplicates=True,
                raise_ConvergenceOccurred=False,
                log_losses=False,
                **loss,
            ),
        )
        calculator = Amp(descriptor=descriptor, model=model, label=str(directory / "amp"), cores=1, logging=False)
        parallel = {"cores": 1, "envcommand": None}
        model.fit(self.hashed, descriptor, log=calculator._log, parallel=parallel, only_setup=True)
        self.gs, self.descriptor, self.model = gs, descriptor, model

    def _nft_ids(self):
        """Aligned with the hashed images: the Fortran loss takes the index of the n-th entry for the n-th image."""
        centre = {get_hash(image): centre for image, centre in zip(self.images, self.centres, strict=True)}
        if all(c is None for c in centre.values()):
            return None
        return [(key, centre[key]) if centre[key] is not None else ("pad", 0) for key in self.hashed]

    @property
    def elements(self):
        return tuple(sorted(self.gs))

    def rows(self, image, centre=None):
        """Amp's fingerprints and derivatives of one image."""
        key = get_hash(image)
        width = max(map(len, self.gs.values()))
        x, kind = np.zeros((len(image), width)), np.zeros(len(image), dtype=np.int64)
        for atom, (element, values) in enumerate(self.descriptor.fingerprints[key]):
            x[atom, : len(values)], kind[atom] = values, self.elements.index(element)
        primes = {}
        for (force, _, row, _, axis), values in self.descriptor.fingerprintprimes[key].items():
            primes.setdefault((force, row), np.zeros((3, width)))[axis, : len(values)] = values
        wanted = range(len(image)) if centre is None else [centre]
        entries = [[row for (force, row) in sorted(primes) if force == atom] for atom in wanted]
        used = np.arange(len(image)) if centre is None else np.array([centre, *(r for r in entries[0] if r != centre)])
        place = {atom: row for row, atom in enumerate(used)}
        dx = np.array([primes[atom, row] for atom, found in zip(wanted, entries, strict=True) for row in found])
        start = np.cumsum([0, *map(len, entries)])
        return Rows(x[used], kind[used], start, np.array([place[row] for found in entries for row in found]), dx)

    def loss(self, vector):
        """Amp's loss, its gradient, and the four measures it judges convergence by."""
        result = self.model.lossfunction.get_loss(vector, lossprime=True)
        n = len(self.hashed)
        measures = [
            np.sqrt(result["energy_loss"] / n), result["energy_maxresid"],
            np.sqrt(result["force_loss"] / n), result["force_maxresid"],
        ]  # fmt: skip
        return result["loss"], np.array(result["dloss_dparameters"]), np.array(measures)
