"""The whole Pt260 loop, and what Amp 1.0.1 itself would need for it. One command:

    python benchmarks/loop.py [--large] [--skip-amp]

Ours is run. Amp's is put together from pieces measured in the same run with its own code (Fortran modules where they are
there, its `nft_indices` defect side-stepped): the fingerprint derivatives of a chunk, one member's training on bulk cells
and 26 chunks, and one member's forces on the target. These are multiplied by how often the loop that we ran needs them;
training is taken as no dearer with more chunks, so the ratio is a lower bound.
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
from data import bulk_images, chunk_images, pt260

from amp.nft.activelearner import NFT
from amp.nft.amp_files import read_calc_text

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
    """The loop with 20 retrainings; seconds, chunks, and the true errors of the best ensemble."""
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


def measure_amp(calc_text: str, target: Atoms, cap: float) -> dict:
    """Seconds of Amp's own pieces; training is stopped after `cap` seconds, which then count as its time."""
    from amp.utilities import TrainingConvergenceError, get_hash, hash_images

    images, chunks = bulk_images(20), chunk_images(CHUNKS_OF_AMP)
    names: dict = {}
    exec(calc_text, names)
    calc = names["calc"]
    for image in [*images, target]:  # not part of a retraining's cost
        calc.descriptor.calculate_fingerprints(hash_images([image]), calculate_derivatives=image is not target)
    chunk_seconds = []
    for chunk in chunks:
        begin = time.perf_counter()
        calc.descriptor.calculate_fingerprints(hash_images([chunk]), calculate_derivatives=True)
        chunk_seconds.append(time.perf_counter() - begin)
    hashes = {get_hash(chunk) for chunk in chunks}
    loss = calc.model.lossfunction
    loss.parameters["nft_ids"] = [(h, 0) if h in hashes else ("pad", 0) for h in hash_images(images + chunks)]
    stop_after(calc, cap)
    begin = time.perf_counter()
    try:
        calc.train(images + chunks)
    except (TimeoutError, TrainingConvergenceError):
        pass
    train_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    calc.get_forces(target)
    return {"chunk": statistics.median(chunk_seconds), "train": train_seconds, "train_steps": loss._step,
            "target": time.perf_counter() - begin}  # fmt: skip


def stop_after(calc: object, cap: float) -> None:
    """Let the observer that Amp calls at each step end a training that takes too long."""
    end = time.perf_counter() + cap
    evaluate = calc.model.lossfunction.get_loss

    def get_loss(*args: object, **kwargs: object) -> object:
        if time.perf_counter() > end:
            raise TimeoutError
        return evaluate(*args, **kwargs)

    calc.model.lossfunction.get_loss = get_loss


def amp_total(pieces: dict, rows: list[dict]) -> float:
    """Seconds that Amp would need for the loop whose rows these are."""
    trainings = len(rows)
    return rows[-1]["chunks"] * pieces["chunk"] + MEMBERS * trainings * (pieces["train"] + pieces["target"])


def main() -> None:
    """Run, print a table, write a JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="20 fingerprints and (10, 10) instead of 12 and (5, 5)")
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
    if not arguments.skip_amp:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            pieces = measure_amp(calc_text.replace("../amp-db", "amp-db"), target, arguments.cap)
            os.chdir(here)
        total = amp_total(pieces, runs[0]["iterations"])
        print(f"Amp's pieces: {pieces}\nAmp would need {total:.0f} s: ratio {total / ours:.0f}")
        result |= {"amp_pieces": pieces, "amp": total, "ratio": total / ours}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
