"""Labels that `distinct` saves on Pt260: how many it takes to reach a true error, with and without. One command:

    python benchmarks/distinct.py [--seeds 3] [--distances 0.02 0.05] [--errors 0.01 0.0075]

Each run has ten members of (5, 5) neurons on the twelve g2x fingerprints, and takes the most uncertain tenth of the atoms at each
of twelve retrainings. An error is the mean over all 260 atoms of the difference of the mean force from EMT's, eV/Å.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from ase.calculators.emt import EMT
from data import bulk_images, pt260
from loop import CALC_TEXT, table

from amp.nft.activelearner import NFT

RESULTS = Path(__file__).parent / "results" / "distinct.json"
RETRAININGS = 12


def run(seed: int, distance: float | None) -> list[dict]:
    """Chunks and true errors of each iteration of one run."""
    target = pt260()
    al = NFT(threshold=-0.9, stop_delta=1e-9, max_iterations=RETRAININGS, steps_not_improved=99, seed=seed, log=os.devnull)
    al.run(bulk_images(20), target, n=10, calc_text=CALC_TEXT.format(set="g2x(['Pt'])", layers=(5, 5)), start_command="python run.py",
           parent_calc=EMT(), distinct=distance)  # fmt: skip
    return table(al, target)


def labels_to_reach(rows: list[dict], error: float) -> float:
    """Chunks of the first iteration whose mean error is not above `error`; nan if there is none."""
    return next((row["chunks"] for row in rows if row["mean_error"] <= error), np.nan)


def main() -> None:
    """Run all, print a table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distances", type=float, nargs="+", default=[0.02, 0.035, 0.05])
    parser.add_argument("--errors", type=float, nargs="+", default=[0.01, 0.0075])
    wanted = parser.parse_args()
    results = []
    print("distinct  " + "".join(f"  labels to {error:g} eV/Å" for error in wanted.errors) + "   at the end: labels  mean error")
    for distance in [None, *wanted.distances]:
        runs = []
        for seed in range(wanted.seeds):
            with tempfile.TemporaryDirectory() as scratch:
                before = os.getcwd()
                os.chdir(scratch)
                try:
                    runs.append(run(seed, distance))
                finally:
                    os.chdir(before)
        reached = [[labels_to_reach(rows, error) for rows in runs] for error in wanted.errors]
        ends = f"{np.mean([rows[-1]['chunks'] for rows in runs]):19.0f}  {np.mean([rows[-1]['mean_error'] for rows in runs]):10.4f}"
        print(f"{distance!s:>8}  " + "".join(f"{'  '.join(f'{n:.0f}' for n in some):>22}" for some in reached) + ends, flush=True)
        results.append({"distinct": distance, "runs": runs})
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"errors": wanted.errors, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
