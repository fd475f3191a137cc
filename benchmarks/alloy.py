"""A whole run of two elements: a rattled Au cluster, a third of it Cu, by EMT. One command:

    python benchmarks/alloy.py [--seeds 1]

44 functions for each element, hidden layers of 10 and 10, ten members, ten retrainings; first images are cells of Au, Cu and mixtures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from data import label

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator

RESULTS = Path(__file__).parent / "results" / "alloy.json"
CALC_TEXT = """
from itertools import combinations_with_replacement

from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork

G2 = [(eta, 0.0) for eta in (.05, .43, 2.6, 4, 16, 40, 80)] + [(eta, 2.0) for eta in (.43, 4.8, 30)]
functions = [{'type': 'G2', 'element': e, 'eta': eta, 'offset': offset} for e in ('Au', 'Cu') for eta, offset in G2]
functions += [{'type': 'G4', 'elements': list(pair), 'eta': eta, 'zeta': zeta, 'gamma': gamma}
              for pair in combinations_with_replacement(('Au', 'Cu'), 2)
              for eta in (.005, 1.0) for zeta in (1.0, 4.0) for gamma in (1.0, -1.0)]
calc = Amp(descriptor=Gaussian(cutoff=6.5, Gs={'Au': functions, 'Cu': functions}), model=NeuralNetwork(hiddenlayers=(10, 10)),
           dblabel='../amp-db', cores=1)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000, convergence={'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02})
"""


def cells(seed: int = 0) -> list[Atoms]:
    """Stretched and rattled cells of Au, Cu and mixtures."""
    rng, found = np.random.default_rng(seed), []
    for fraction, a in ((0.0, 4.07), (1.0, 3.62), (0.25, 3.96), (0.5, 3.85), (0.75, 3.73)):
        for stretch in (0.94, 1.0, 1.06):
            cell = bulk("Au", a=a * stretch, cubic=True) * (2, 2, 1)
            cell.symbols[rng.random(len(cell)) < fraction] = "Cu"
            cell.rattle(0.1, rng=rng)
            found.append(label(cell))
    return found


def target() -> Atoms:
    """Return the cluster."""
    atoms = Atoms(Octahedron("Au", 7, cutoff=2, latticeconstant=4.07))
    rng = np.random.default_rng(1)
    atoms.symbols[rng.permutation(len(atoms))[: len(atoms) // 3]] = "Cu"
    atoms.rattle(0.1, rng=rng)
    return atoms


def run(seed: int) -> dict[str, float]:
    """Return time, chunks and true errors of a run."""
    cluster, begin = target(), time.perf_counter()
    learner = NFT(threshold=-0.9, stop_delta=0.02, max_iterations=10, steps_not_improved=99, seed=seed, log="log.txt")
    learner.run(cells(), cluster, n=10, calc_text=CALC_TEXT, start_command="python run.py", parent_calc=EMT())
    spent = time.perf_counter() - begin
    true = cluster.copy()
    true.calc, cluster.calc = EMT(), EnsembleCalculator("best.al.ensemble")
    errors = np.linalg.norm(cluster.get_forces() - true.get_forces(), axis=1)
    last = learner.history[-1]
    return {"s": spent, "atoms": len(cluster), "retrainings": last.iteration, "chunks": last.n_chunks, "delta_max": float(last.delta_max),
            "mean_error": float(errors.mean()), "max_error": float(errors.max())}  # fmt: skip


def main() -> None:
    """Print a line for each seed, and write all down."""
    parser = argparse.ArgumentParser(description="a whole run of two elements")
    parser.add_argument("--seeds", type=int, default=1)
    rows = []
    for seed in range(parser.parse_args().seeds):
        with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
            rows.append(run(seed))
            if "KEEP" in os.environ:
                print(Path("log.txt").read_text())
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    print(f"median {statistics.median(row['s'] for row in rows):.1f} s")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
