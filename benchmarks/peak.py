"""Arithmetic rate of the kernels relative to that of the processor. One command:

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 python benchmarks/peak.py

The rate is that of NumPy's product of two matrices, measured in the same run on one thread. The kernels' operations are counted by
hand from what their formulas need (an addition, a product or a division is one), times how often: pairs of neighbours inside
the cutoff for a G4, rows and members for the networks. What is spent on pairs outside, on padding and on indices counts as nothing.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
from data import pt1415, training_set
from evaluate import HIDDEN, MEMBERS, ensemble, evaluate
from loss import seconds
from scipy.spatial.distance import pdist

from amp.nft.kernels.fingerprints.neighbors import find_neighbors
from amp.nft.kernels.prediction.evaluate import Evaluator
from amp.nft.kernels.training.network import draw_weights, losses, make_problem
from amp.nft.training.batched_fit import _layout

RESULTS = Path(__file__).parent / "results" / "peak.json"
RADIUS, FUNCTIONS = 6.5, 4  # Å; the G4 of Amp's default set
PER_PAIR = 90  # distance, series for Q and dQ/ds (12 coefficients), cosine and what `triplets._weigh` makes of them
PER_FUNCTION = 33  # `triplets._sum_gradients`
TANH = 35  # operations of `simd.tanh`


def matrix_rate(n: int = 1000) -> float:
    """Operations per second of NumPy's matrix product."""
    a, b = np.random.default_rng(0).normal(size=(2, n, n))
    return 2.0 * n**3 / seconds(lambda: a @ b, 20)


def evaluation() -> dict[str, float]:
    """Return forces of ten members on Pt1415 with Amp's default fingerprints, on one thread."""
    target = pt1415()
    evaluator = Evaluator(ensemble(target))
    found = find_neighbors(target.positions, np.zeros((3, 3)), np.zeros(3, dtype=bool), RADIUS)
    start, second = found.start, found.index
    inside = sum(int((pdist(target.positions[second[a:b]]) < RADIUS).sum()) for a, b in pairwise(start))
    weights = sum(a * b for a, b in zip((8, *HIDDEN), (*HIDDEN, 1), strict=True))
    pulls = len(second) * MEMBERS * 2 * (3 * FUNCTIONS + FUNCTIONS + 3)
    work = inside * (PER_PAIR + FUNCTIONS * PER_FUNCTION) + pulls + len(target) * MEMBERS * (4 * weights + sum(HIDDEN) * TANH)
    return {"operations": float(work), "seconds": seconds(lambda: evaluate(evaluator, target, 1), 20)}


def loss() -> dict[str, float]:
    """Loss and gradient of ten members on 12 cells and 260 chunks, on one thread."""
    data = training_set(260)
    layout = _layout(data.spec.resolved(["Pt"]), data.fprange)
    problem = make_problem(layout, data.labelled, data.fprange)
    theta = np.array([draw_weights(layout, np.random.default_rng(member)) for member in range(len(data.weights_mi))])
    sizes = layout.sizes[0]
    inputs, weights = sizes[0] * sizes[1], sum(a * b for a, b in pairwise(sizes))
    upper = weights - inputs
    # forward, backward, slopes of the inputs; then the tangents of both passes and two products for each weight
    per_row = 2 * (weights + upper + inputs) + 2 * (weights + upper) + 4 * weights + (sum(sizes[1:]) * (TANH + 10))
    times = (data.weights_mi > 0).sum(axis=0)
    work = sum(n * (len(row.x) * per_row + 12 * sizes[0] * len(row.force_row)) for n, row in zip(times, data.rows, strict=True))
    return {"operations": float(work), "seconds": seconds(lambda: losses(problem, theta, data.weights_mi, threads=1), 20)}


def main() -> None:
    """Print a table and write it down."""
    rate = matrix_rate()
    results = {"matrix_product": rate, "evaluation": evaluation(), "loss": loss()}
    print(f"matrix product: {rate / 1e9:.0f}·10⁹ operations per second")
    for name in ("evaluation", "loss"):
        row = results[name]
        row["rate"] = row["operations"] / row["seconds"]
        print(f"{name}: {row['operations'] / 1e6:.1f}·10⁶ operations in {1e3 * row['seconds']:.2f} ms, {row['rate'] / 1e9:.1f}·10⁹ per "
              f"second, {row['rate'] / rate:.0%} of that")  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
