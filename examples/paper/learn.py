"""Learn Pt260 from bulk cells and chunks, as in the paper, several times; the table of its iterations beside the paper's.

python examples/paper/learn.py [--seeds 5] [--small]
"""

from pathlib import Path
from typing import Any

import numpy as np
from workflow import (
    PAPER_ERROR,
    RESULTS,
    broad_images,
    chunks_to_reach,
    figure,
    for_each,
    learn,
    options,
    pt260,
    save,
    save_figure,
    spread,
)

# Zeng, Chen, Peterson (2022): chunks are printed there, uncertainties (eV/Å) read off a logarithmic plot but for the last
PAPER_CHUNKS = [0, 26, 51, 70, 87, 106, 114, 122, 127, 134, 144]
PAPER_DELTAS = [9.5, 7, 0.7, 0.2, 0.11, 0.04, 0.03, 0.03, 0.024, 0.022, 0.019]


def directory(seed: int) -> Path:
    """Return the directory of the run of a seed."""
    return RESULTS / f"pt260-{seed}"


def one(seed: int, small: bool) -> dict[str, Any]:
    """Run one seed."""
    return learn(directory(seed), pt260(small), broad_images(), seed)


def main(seeds: int, small: bool) -> None:
    """Run, print, plot."""
    runs = for_each(one, [(seed, small) for seed in range(seeds)])
    save("learn", runs)
    print("            ------- paper -------   --------------- here, mean over the seeds -----------------")
    print("iteration   chunks   largest delta   chunks   largest delta   mean error   max error   missed")
    longest = max(len(run["iterations"]) for run in runs)
    for k in range(max(longest, len(PAPER_CHUNKS))):
        line = f"{k:9d}   {PAPER_CHUNKS[k]:6d}   {PAPER_DELTAS[k]:13.3f}" if k < len(PAPER_CHUNKS) else " " * 34
        rows = [run["iterations"][k] for run in runs if k < len(run["iterations"])]
        if rows:
            chunks, delta, mean, largest, missed = (
                np.mean([row[key] for row in rows]) for key in ("chunks", "delta_max", "mean_error", "max_error", "missed")
            )
            line += f"   {chunks:6.1f}   {delta:13.4f}   {mean:10.4f}   {largest:9.4f}   {missed:6.1f}"
            line += "" if len(rows) == seeds else f"   ({len(rows)} of {seeds} runs)"
        print(line)
    last = [run["iterations"][-1] for run in runs]
    print(f"Chunks to reach a mean error of {PAPER_ERROR} eV/Å: {[chunks_to_reach(run['iterations']) for run in runs]}")
    for name, title in (("delta_max", "largest uncertainty"), ("mean_error", "mean error"), ("max_error", "largest error")):
        print(f"At the end, {title}: {spread([row[name] for row in last])} eV/Å")
    print(f"At the end, atoms whose error is within their uncertainty: {spread([row['covered'] for row in last])}")
    print(f"Seconds per run, with the others beside it: {spread([run['seconds'] for run in runs])}")
    plot(runs)


def plot(runs: list[dict[str, Any]]) -> None:
    """Uncertainty and error against the number of chunks."""
    fig, (left, right) = figure(2)
    left.semilogy(PAPER_CHUNKS, PAPER_DELTAS, "ks--", ms=4, lw=1, label="paper")
    for number, run in enumerate(runs):
        chunks = [row["chunks"] for row in run["iterations"]]
        left.semilogy(chunks, [row["delta_max"] for row in run["iterations"]], "C0o-", ms=3, lw=1, label=None if number else "here")
        for name, colour, label in (("max_error", "C1", "largest"), ("mean_error", "C0", "mean")):
            values = [row[name] for row in run["iterations"]]
            right.semilogy(chunks, values, f"{colour}o-", ms=3, lw=1, label=None if number else f"here, {label}")
    right.semilogy([144], [PAPER_ERROR], "ks", ms=4, label="paper, mean")
    left.set(xlabel="chunks", ylabel="largest uncertainty (eV/Å)")
    right.set(xlabel="chunks", ylabel="force error against EMT (eV/Å)")
    left.legend(frameon=False)
    right.legend(frameon=False)
    save_figure("learn", fig)


if __name__ == "__main__":
    main(**vars(options(__doc__)))
