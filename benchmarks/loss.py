"""Loss and gradient of an ensemble of ten, ours against Amp's Fortran, on the same data and weights. One command:

    python benchmarks/loss.py [chunks ...]

Twelve bulk cells of platinum, and chunks of Pt260 (beyond 260 also of Pt1415), 12 fingerprints, hidden layers of 5 and 5. Amp evaluates
one member at a time, with one core, on that member's bootstrap sample: two members are timed, in turn with ours, and count for ten.
Fingerprints are at hand on both sides.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from amp_side import AmpSide
from data import TrainingSet, training_set

from amp.nft.kernels.training.network import Layout, draw_weights, losses, make_problem
from amp.nft.training.batched_fit import unpack

RESULTS = Path(__file__).parent / "results" / "loss.json"
CHUNKS = (26, 260, 1000)
AMP_MEMBERS, ROUNDS, REPEATS = 2, 5, 20


def seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def starts(data: TrainingSet, layout: Layout) -> np.ndarray:
    """Weights as Amp draws them, with a slope at which they matter."""
    theta_mp = np.array([draw_weights(layout, np.random.default_rng(member)) for member in range(len(data.weights_mi))])
    layout.scalings(theta_mp)[..., 1] = 3.0
    return theta_mp


def compare(n_chunks: int, directory: Path) -> dict[str, float]:
    """Return the times of both, and their difference."""
    data = training_set(n_chunks)
    layout = Layout(("Pt",), ((12, 5, 5, 1),), "tanh")
    problem = make_problem(layout, data.labelled, data.fprange)
    theta_mp = starts(data, layout)
    ours: dict[int, list[float]] = {1: [], 2: []}
    theirs, difference = [], 0.0
    for threads in ours:
        loss_m, gradient_mp = losses(problem, theta_mp, data.weights_mi, threads=threads)
    for member in range(AMP_MEMBERS):
        model = unpack(theta_mp[member], layout, data.spec, data.fprange)
        amp = AmpSide(data.images, data.centres, data.weights_mi[member], model, directory, data.spec.convergence)
        loss, gradient = amp.loss()
        difference = max(difference, abs(loss_m[member] / loss - 1.0), np.abs(gradient_mp[member] / gradient - 1.0).max())
        for _ in range(ROUNDS):
            theirs.append(seconds(amp.loss))
            for threads, times in ours.items():
                times.append(seconds(lambda n=threads: losses(problem, theta_mp, data.weights_mi, threads=n), REPEATS))
    return {"amp_10_members_s": 10.0 * statistics.median(theirs), "difference": float(difference)} | {
        f"ours_{threads}_threads_s": statistics.median(times) for threads, times in ours.items()
    }


def main() -> None:
    """Print a table and write it down."""
    results = {}
    print(f"{'chunks':<8}{'Amp x 10, s':>12}{'1 thread, ms':>14}{'ratio':>8}{'2 threads, ms':>15}{'ratio':>8}{'difference':>12}")
    for n_chunks in map(int, sys.argv[1:] or CHUNKS):
        with tempfile.TemporaryDirectory() as directory:
            row = results[str(n_chunks)] = compare(n_chunks, Path(directory))
        one, two, amp = row["ours_1_threads_s"], row["ours_2_threads_s"], row["amp_10_members_s"]
        print(f"{n_chunks:<8}{amp:>12.3f}{1e3 * one:>14.2f}{amp / one:>8.0f}{1e3 * two:>15.2f}{amp / two:>8.0f}"
              f"{row['difference']:>12.1e}", flush=True)  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
