"""The whole Pt260 loop, and what Amp 1.0.1 itself would need for it. One command:

    python benchmarks/loop.py [--large] [--skip-amp]

Ours is run. Amp's is put together from pieces measured in the same run with its own code, its defects side-stepped: the fingerprint
derivatives of a chunk, one member's training on 12 bulk cells and 26 chunks with all fingerprints in memory (from files, as Amp
has it on one core, it does not take its first step within ten minutes), and one member's forces on the target. These are multiplied
by how often the loop that we ran needs them; training is counted as equally expensive with more chunks, so the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from data import bulk_images, pt260, training_set
from fit import amp_time, fit

from amp.nft.activelearner import NFT
from amp.nft.amp_io import read_calc_text, write_amp, write_ensemble

RESULTS = Path(__file__).parent / "results" / "loop.json"
MEMBERS, CHUNKS_OF_AMP = 10, 26
PAPER = 0.0039  # eV/Å, the paper's mean force error on Pt260
SETTINGS = {"small": ("g2x(['Pt'])", (5, 5)), "large": ("g2x(['Pt'], radial=16)", (10, 10))}
CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft import features

calc = Amp(descriptor=Gaussian(cutoff=6.5, Gs=features.{set}), model=NeuralNetwork(hiddenlayers={layers}),
           dblabel='../amp-db', cores=1)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000,
    convergence={{'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02}})
"""


def run_ours(calc_text: str, target: Atoms, seed: int) -> dict:
    """Return the loop with 20 retrainings; seconds, chunks, and the true errors of the best ensemble."""
    begin = time.perf_counter()
    al = NFT(threshold=-0.9, stop_delta=1e-9, max_iterations=20, steps_not_improved=99, seed=seed, log=os.devnull)
    al.run(bulk_images(20), target, n=MEMBERS, calc_text=calc_text, start_command="python run.py", parent_calc=EMT())
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "iterations": table(al, target)}


def table(al: NFT, target: Atoms) -> list[dict]:
    """Per iteration: chunks, uncertainty and true error of the mean force on every atom."""
    from amp.nft.calculator import EnsembleCalculator

    true = target.copy()
    true.calc = EMT()
    rows = []
    for entry in al.history:
        atoms = target.copy()
        atoms.calc = EnsembleCalculator(f"al.{entry.iteration}.ensemble")
        errors = np.linalg.norm(atoms.get_forces() - true.get_forces(), axis=1)
        missed = sum(not report.converged for report in entry.reports)
        rows.append({"iteration": entry.iteration, "chunks": entry.n_chunks, "delta_max": entry.delta_max,
                     "mean_error": errors.mean(), "max_error": errors.max(), "missed": missed})  # fmt: skip
    return rows


def measure_amp(target: Atoms, cap: float) -> dict:
    """Seconds of Amp's own pieces; the training of a member counts as `cap` if it takes longer."""
    from amp.descriptor.gaussian import Gaussian
    from amp.stats.bootstrap import BootStrap
    from amp.utilities import Logger, hash_images

    data = training_set(CHUNKS_OF_AMP)
    start, _, _ = fit(data, None, threads=2, maxiter=0)
    descriptor, chunk_seconds = Gaussian(Gs=data.spec.gs, cutoff=6.5), []
    for chunk in data.images[-3:]:
        begin = time.perf_counter()
        descriptor.calculate_fingerprints(hash_images([chunk]), calculate_derivatives=True)
        chunk_seconds.append(time.perf_counter() - begin)
    train = amp_time(data, 0, start[0], cap)
    write_ensemble("two.ensemble", [write_amp(model) for model in start[:2]])
    first, second = BootStrap(load="two.ensemble", log=Logger(None)).ensemble
    first.get_forces(target.copy())  # the fingerprints are kept for the second
    begin = time.perf_counter()
    second.get_forces(target.copy())
    return {"chunk": statistics.median(chunk_seconds), "train": train["seconds"], "converged": train["converged"],
            "target": time.perf_counter() - begin}  # fmt: skip


def amp_total(pieces: dict, rows: list[dict]) -> float:
    """Seconds that Amp would need for the loop whose rows these are."""
    trainings = len(rows)
    return rows[-1]["chunks"] * pieces["chunk"] + MEMBERS * trainings * (pieces["train"] + pieces["target"])


def main() -> None:
    """Run, print a table, write a JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="20 fingerprints and (10, 10) instead of 12 and (5, 5); ours alone")
    parser.add_argument("--skip-amp", action="store_true", help="ours alone")
    parser.add_argument("--cap", type=float, default=300.0, help="seconds that Amp's training of one member may take")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    features, layers = SETTINGS["large" if arguments.large else "small"]
    calc_text, target = CALC_TEXT.format(set=features, layers=layers), pt260()
    read_calc_text(calc_text)
    here = Path.cwd()
    runs = []
    for seed in range(arguments.repeats + 1):  # the first warms the caches
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            runs.append(run_ours(calc_text, target, max(seed - 1, 0)))
            os.chdir(here)
    runs = runs[1:]
    for row in runs[0]["iterations"]:
        print("{iteration:3d} {chunks:4d} chunks  delta_max {delta_max:8.4f}  true error mean {mean_error:.4f} "
              "max {max_error:.4f} eV/Å  {missed} members missed".format(**row))  # fmt: skip
    ours = statistics.median(run["seconds"] for run in runs)
    for run in runs:
        enough = next((row for row in run["iterations"] if row["mean_error"] <= PAPER), None)
        print(f"mean error of {PAPER} eV/Å or less from {enough['chunks']} chunks on" if enough else f"{PAPER} eV/Å not reached")
    print(f"{features} {layers}: {ours:.2f} s, median of {[round(run['seconds'], 2) for run in runs]}")
    result = {"features": features, "layers": layers, "ours": runs}
    if not (arguments.skip_amp or arguments.large):
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            pieces = measure_amp(target, arguments.cap)
            os.chdir(here)
        total = amp_total(pieces, runs[0]["iterations"])
        print(f"Amp's pieces: {pieces}\nAmp would need {total:.0f} s: ratio {total / ours:.0f}")
        result |= {"amp_pieces": pieces, "amp": total, "ratio": total / ours}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
