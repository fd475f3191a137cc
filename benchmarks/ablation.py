"""Defaults of the robust method against other values, on targets whose true forces are known. One command for each table:

    python benchmarks/ablation.py floor [--rows pt147 mg147] [--seeds 2]      floor of the weights, in mean forces of the labels
    python benchmarks/ablation.py patience                                    steps without improvement that end a member
    python benchmarks/ablation.py radius                                      radius of the chunks, Å
    python benchmarks/ablation.py batch                                       the most uncertain atoms, or a spread batch
    python benchmarks/ablation.py bounds                                      random labels of the test: validity and width of the bounds

Members are five, not tested in the run. Printed for each row and value: median over the seeds of the mean and of the largest true error
of the mean force, eV/Å, and of the coverage of the 95 % band; for bounds, over 400 draws, the fraction of valid bounds on the mean and
on the largest error, and their medians in units of the true ones. Results are kept in benchmarks/results/ablation.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import realparents
from realparents import ROWS, Row

from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks, label_error
from amp.nft.labels.single_point import make_calculator
from amp.nft.training import out_of_bag
from amp.nft.uncertainty.calibration import bound_errors
from amp.nft.uncertainty.forces import CONFIDENCE

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"
TUNED = ["pt147", "pt147-noise", "cu211", "mg147", "h2o60"]
LEFT_OUT = ["ni111", "si35h36"]  # no default was chosen by these
VALUES: dict[str, list[Any]] = {
    "floor": [0.05, 0.1, 0.2, 0.4],
    "patience": [8, 15, 30],
    "radius": [5.0, 5.75, 6.5, 8.0],
    "batch": ["top", "spread"],
    "bounds": [5, 10, 20],
}
SYSTEMS = {
    "floor": TUNED + LEFT_OUT, "patience": TUNED + LEFT_OUT, "radius": ["pt147", "cu211", "ni111", "mg147"],
    "batch": ["cu211", "ni111", "mg147"], "bounds": ["pt147", "cu211", "ni111", "mg147"],
}  # fmt: skip
DRAWS = 400
MEMBERS = 5


def learn(row: Row, seed: int, batch: str = "top") -> dict[str, Any]:
    """Learn a row's target in this directory; the errors."""
    return realparents.run(row, "robust", seed, row.iterations, 0, 0.05, batch, MEMBERS)


def with_value(table: str, name: str, seed: int, value: Any) -> dict[str, Any]:
    """Learn a row with one value changed."""
    row = ROWS[name]
    label_error.FLOOR_FRACTION = value if table == "floor" else 0.1
    out_of_bag.PATIENCE = value if table == "patience" else 15
    if table == "radius":
        row = replace(row, cutoff=value)
    return learn(row, seed, value if table == "batch" else "top")


def bounds(name: str, seed: int) -> list[dict[str, Any]]:
    """Draw random labels of a trained target many times; how often the bounds hold, and how wide they are."""
    row = ROWS[name]
    found = learn(row, seed)
    atoms, true = row.target()
    atoms.calc = EnsembleCalculator("best.al.ensemble")
    forces, delta = atoms.get_forces(), atoms.calc.results["forces_uncertainty"]
    error = np.linalg.norm(forces - true, axis=1)
    chunks = carve_chunks(atoms, range(len(atoms)), row.cutoff, termination="auto")
    labels = np.empty_like(forces)
    for number, chunk in enumerate(chunks):
        chunk.calc = make_calculator(row.parent, "label")
        labels[number] = chunk.get_forces()[0]
    against = np.linalg.norm(forces - labels, axis=1)
    rng, kept = np.random.default_rng(seed), []
    for k in VALUES["bounds"]:
        draws = []
        for _ in range(DRAWS):
            some = rng.permutation(len(atoms))[:k]
            one = bound_errors(against[some], delta[some] / CONFIDENCE, delta / CONFIDENCE, 0.0)
            draws.append((one.mean >= error.mean(), one.max >= error.max(), one.mean / error.mean(), one.max / error.max()))
        valid_mean, valid_max, mean, largest = np.array(draws).T
        kept.append({**found, "value": k, "valid_mean": valid_mean.mean(), "valid_max": valid_max.mean(),
                     "times_mean": np.median(mean), "times_max": np.median(largest)})  # fmt: skip
    return kept


def main() -> None:
    """Run one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=VALUES)
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".* outside the range of the training set")
    RESULTS.parent.mkdir(exist_ok=True)
    for name in options.rows or SYSTEMS[options.table]:
        kept: dict[Any, list[dict[str, Any]]] = {value: [] for value in VALUES[options.table]}
        for seed in range(options.seeds):
            for value in [None] if options.table == "bounds" else VALUES[options.table]:
                here = Path.cwd()
                with tempfile.TemporaryDirectory() as scratch:
                    os.chdir(scratch)
                    try:
                        if value is None:
                            found = bounds(name, seed)
                        else:
                            found = [{"value": value, **with_value(options.table, name, seed, value)}]
                    finally:
                        os.chdir(here)
                for one in found:
                    kept[one["value"]].append(one)
                    with open(RESULTS, "a") as file:
                        file.write(json.dumps({"table": options.table, "row": name, "seed": seed, **one}, default=float) + "\n")
        for value, results in kept.items():
            print(f"{options.table} {name}{' (left out)' if name in LEFT_OUT else ''} {value}: {line(results)}", flush=True)


def line(results: list[dict[str, Any]]) -> str:
    """Return medians in words."""
    names = ("labels", "mean", "max", "covered95", "seconds", "valid_mean", "valid_max", "times_mean", "times_max")
    median = {name: float(np.median([one[name] for one in results])) for name in names if name in results[0]}
    if "valid_mean" in median:
        return (
            f"bounds valid in {median['valid_mean']:.3f} / {median['valid_max']:.3f} of the draws, {median['times_mean']:.2f} / "
            f"{median['times_max']:.2f} times the true mean {median['mean']:.4f} / largest error {median['max']:.3f}"
        )
    return (
        f"{median['labels']:.0f} labels, error {median['mean']:.4f} / {median['max']:.3f}, band {median['covered95']:.2f}, "
        f"{median['seconds']:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
