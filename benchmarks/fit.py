"""Time to the convergence criteria for an ensemble of ten, ours against Amp's own BFGS from the same start. One command:

    python benchmarks/fit.py [--amp-members N] [--cap SECONDS]

Criteria: energy_rmse 0.001 eV/atom, force_rmse 0.005 and force_maxresid 0.02 eV/Å; 12 fingerprints, hidden layers of 5 and 5, twelve
bulk cells of platinum and 26 chunks of Pt260. Ours also with no chunks, with 260, and with 26 more after a warm start. Amp trains a few
members with one core, its defects side-stepped and fingerprints at hand; their mean time counts for each of the
ten. It judges energies more leniently, by the mean over all images. A member that has not converged after the cap counts with the cap:
the ratio is then a lower bound.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from amp_side import AmpSide
from data import TrainingSet, training_set

from amp.nft.amp_io import AmpModel
from amp.nft.training import batched_fit

RESULTS = Path(__file__).parent / "results" / "fit.json"
ROUNDS = 5


def fit(data: TrainingSet, start: list[AmpModel] | None, threads: int, maxiter: int = 10_000):
    """Our fit of all members, and its wall time."""
    spec = replace(data.spec, maxiter=maxiter)
    seeds = [[0, member] for member in range(len(data.weights_mi))]
    begin = time.perf_counter()
    models, reports = batched_fit.fit(
        spec, data.labelled, data.weights_mi, data.fprange, seeds, start=start, threads=threads
    )  # fmt: skip
    return models, reports, time.perf_counter() - begin


def ours(data: TrainingSet, start: list[AmpModel] | None) -> dict[str, float]:
    """Median times of our fits on one thread and on two, and the outcomes."""
    fit(data, start, 1)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, measured in times.items():
            _, reports, seconds = fit(data, start, threads)
            measured.append(seconds)
    steps = [report.steps for report in reports]
    return {f"ours_{threads}_threads_s": statistics.median(measured) for threads, measured in times.items()} | {
        "converged": sum(report.converged for report in reports), "mean_steps": float(np.mean(steps)), "most_steps": max(steps)
    }  # fmt: skip


def amp_trains(data: TrainingSet, member: int, model: AmpModel, directory: Path, results: multiprocessing.Queue) -> None:
    """Amp's own training of one member; reports that it is set up, then how it ended."""
    amp = AmpSide(data.images, data.centres, data.weights_mi[member], model, directory, data.spec.convergence, True)
    results.put("set up")
    results.put(amp.train())


def amp_time(data: TrainingSet, member: int, model: AmpModel, cap: float) -> dict[str, float | bool | str]:
    """Wall time of Amp's training of one member, whether it converged within the cap, and the last line of its log."""
    results: multiprocessing.Queue = multiprocessing.Queue()
    with tempfile.TemporaryDirectory() as directory:
        process = multiprocessing.Process(target=amp_trains, args=(data, member, model, Path(directory), results))
        process.start()
        results.get()
        begin = time.perf_counter()
        try:
            converged = bool(results.get(timeout=cap))
        except queue.Empty:
            converged = False
        seconds = time.perf_counter() - begin
        process.kill()
        process.join()
        steps = [line for line in (Path(directory) / "amp-log.txt").read_text().splitlines() if " - " in line or " C" in line]
    return {"seconds": seconds, "converged": converged, "last": " ".join(steps[-1].split())}


def main() -> None:
    """Print a table and write it down."""
    parser = argparse.ArgumentParser(description="time to the convergence criteria")
    parser.add_argument("--amp-members", type=int, default=1)
    parser.add_argument("--cap", type=float, default=600.0)
    options = parser.parse_args()
    results = {}
    print(f"{'data':<26}{'1 thread, s':>12}{'2 threads, s':>14}{'converged':>11}{'steps: mean':>13}{'most':>6}")

    def show(name: str, row: dict[str, float]) -> None:
        results[name] = row
        print(f"{name:<26}{row['ours_1_threads_s']:>12.3f}{row['ours_2_threads_s']:>14.3f}{row['converged']:>11.0f}"
              f"{row['mean_steps']:>13.1f}{row['most_steps']:>6.0f}", flush=True)  # fmt: skip

    for n_chunks in (0, 26, 260):
        show(f"12 cells + {n_chunks} chunks", ours(training_set(n_chunks), None))
    show("warm start, 26 chunks more", ours(training_set(52), fit(training_set(26), None, 2)[0]))

    data = training_set(26)
    start, _, _ = fit(data, None, 2, maxiter=0)
    begun = results["26 chunks, same start"] = ours(data, start)
    begun["amp"] = [amp_time(data, member, start[member], options.cap) for member in range(options.amp_members)]
    for member, row in enumerate(begun["amp"]):
        print(f"Amp, member {member}: {row['seconds']:.0f} s, {'converged' if row['converged'] else 'not converged'}; {row['last']}")
    begun["amp_10_members_s"] = 10.0 * statistics.mean(row["seconds"] for row in begun["amp"])
    for threads in (1, 2):
        ratio = begun["amp_10_members_s"] / begun[f"ours_{threads}_threads_s"]
        print(f"ten members: Amp {begun['amp_10_members_s']:.0f} s, ours {begun[f'ours_{threads}_threads_s']:.3f} s on {threads} "
              f"thread(s): {ratio:.0f} times")  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
