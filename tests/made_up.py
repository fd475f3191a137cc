"""Made-up training problems for the tests of the kernels: fingerprints and labels are random numbers."""

import numpy as np

from amp.nft.kernels.fingerprints.gaussian import Rows
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.network import Layout, draw_weights, scaled_inputs, whitened_inputs


def sparse_rows(seed):
    """Two images of two elements: a chunk's rows, and many atoms of which few are near each other."""
    rng = np.random.default_rng(seed)
    images = []
    for n_rows, forces in ((9, [range(9)]), (30, [rng.choice(30, n, replace=False) for n in (3, 8, 26, 30, 1)])):
        kind = rng.integers(0, 2, n_rows)
        x, entries = rng.normal(size=(n_rows, 6)), np.concatenate([np.array(near) for near in forces])
        x[kind == 1, 4:] = 0.0  # the second element has fewer fingerprints
        dx = rng.normal(size=(len(entries), 3, 6))
        dx[kind[entries] == 1, :, 4:] = 0.0
        images.append(Rows(x, kind, np.cumsum([0, *map(len, forces)]), entries, dx))
    return images


def made_up(activation="tanh", seed=0, hidden=(5, 4), copies=1, weights=None):
    """Arguments of a problem with listed and aligned pieces, Amp's inputs, whitened inputs, and parameters for Amp's."""
    rng = np.random.default_rng(seed)
    layout = Layout(("Cu", "Pt"), ((6, *hidden, 1), (4, 3, 1)), activation)
    rows = [image for copy in range(copies) for image in sparse_rows(seed + copy)]
    fprange = {"Cu": np.array([[-2.0, 2.0]] * 6), "Pt": np.array([[-1.0, 3.0], [0.5, 0.5], [-2.0, 2.0], [0.0, 1.0]])}
    amps = scaled_inputs(fprange[element] for element in layout.elements)
    forces = [rng.normal(size=(len(r.force_start) - 1, 3)) for r in rows]
    energies, n_atoms = np.tile([np.nan, 0.3], copies), np.tile([40, 30], copies)
    theta = draw_weights(layout, rng)
    layout.scalings(theta)[:] = [[0.2, 1.5], [-0.3, 0.7]]
    images = LabelledImages(rows, energies, forces, n_atoms, **weights or {})
    return (layout, images, fprange), amps, whitened_inputs(rows, amps), theta


def label_weights(seed=0, copies=1):
    """Weights of the labels of such a problem, one of them 0, and divisors."""
    rng = np.random.default_rng(seed)
    force_weights = [rng.uniform(0.05, 2.0, n) for n in (1, 5) * copies]
    force_weights[1][2] = 0.0
    divisors = np.tile([1.0, 2.5], copies)
    return {"force_weights": force_weights, "energy_weights": np.tile([5.0, 0.7], copies), "divisors": divisors}
