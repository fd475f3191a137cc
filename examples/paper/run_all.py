"""The whole of this directory, one script after the other, and the targets that it is held to.

python examples/paper/run_all.py [--seeds 5] [--small]
"""

import sys
import time

import ablations
import alloy
import learn
import numpy as np
import periodic
import relax
import reliability
import transfer
from workflow import PAPER_ERROR, chunks_to_reach, load, options, save

SCRIPTS = (learn, relax, transfer, reliability, periodic, alloy, ablations)


def main(seeds: int, small: bool) -> None:
    """Run all, then print the summary."""
    seconds = {}
    for script in SCRIPTS:
        begin = time.perf_counter()
        print(f"\n== {script.__name__}: {script.__doc__.splitlines()[0]}\n")
        script.main(seeds, small)
        seconds[script.__name__] = time.perf_counter() - begin
        sys.stdout.flush()
    rows = summary(sum(seconds.values()))
    save("summary", {"targets": rows, "seconds": seconds})
    print(f"\n{'':64s}{'paper':>8s}{'target':>10s}{'here':>8s}")
    for what, paper, target, value in rows:
        print(f"{what:64s}{paper:>8s}{target:>10s}{value:8.4g}")
    print("Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()))


def summary(seconds: float) -> list[tuple[str, str, str, float]]:
    """Means over the seeds beside the paper's values and the targets."""
    runs = load("learn")
    last = [run["iterations"][-1] for run in runs]

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in last]))

    fmax = {name: float(np.mean([run["emt_fmax"] for run in load(name)])) for name in ("relax", "transfer")}
    chunks = float(np.mean([chunks_to_reach(run["iterations"]) for run in runs]))
    return [
        (f"Pt260: chunks to a mean error of {PAPER_ERROR} eV/Å", "144", "<= 64", chunks),
        ("Pt260: largest uncertainty at the end, eV/Å", "0.019", "<= 0.015", mean("delta_max")),
        ("Pt260: largest true error at the end, eV/Å", "", "< delta", mean("max_error")),
        ("Pt260: fraction of atoms whose error is within their uncertainty", "", ">= 0.99", mean("covered")),
        ("Pt260: EMT's largest force at the ensemble's minimum, eV/Å", "0.048", "<= 0.03", fmax["relax"]),
        ("Pt1415: the same with the ensemble of Pt260, eV/Å", "0.049", "<= 0.04", fmax["transfer"]),
        ("all scripts, minutes", "days", "<= 15", seconds / 60),
    ]


if __name__ == "__main__":
    main(**vars(options(__doc__)))
