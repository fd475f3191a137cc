"""Relax Pt260 with the ensembles of learn.py, and evaluate the minimum with EMT.

python examples/paper/relax.py [--seeds 5] [--small]
"""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from learn import directory
from workflow import figure, for_each, load, options, pt260, relax, relax_with_emt, save, save_figure, spread


def main(seeds: int, small: bool) -> None:
    """Relax, print, plot."""
    load("learn")
    relax_with_ensembles("relax", pt260(small), [directory(seed) for seed in range(seeds)], "0.048", "0.035 on the way")


def relax_with_ensembles(
    name: str, start: Atoms, directories: list[Path], paper_fmax: str = "none", paper_delta: str = "none"
) -> list[dict[str, Any]]:
    """Relax a structure with the best ensemble of each directory, and with EMT itself; print and plot the results."""
    energy, positions = relax_with_emt(start)
    runs = for_each(relax, [(path / "best.al.ensemble", start) for path in directories])
    for run in runs:
        run["above_emt_minimum"] = run.pop("energy") - energy
        run["rms_distance"] = float(np.sqrt(((run.pop("positions") - positions) ** 2).sum(axis=1).mean()))
        run["delta_on_the_way"], run["delta_at_the_end"] = max(run["deltas"]), run["deltas"][-1]
    save(name, runs)
    print(f"{start.get_chemical_formula()}, relaxed with {len(runs)} ensembles; steps {[run['steps'] for run in runs]}")
    for key, title in (
        ("emt_fmax", f"EMT's largest force at the minimum, eV/Å (paper: {paper_fmax})"),
        ("delta_on_the_way", f"largest uncertainty on the way, eV/Å (paper: {paper_delta})"),
        ("delta_at_the_end", "largest uncertainty at the minimum, eV/Å"),
        ("mean_error", "mean force error there, eV/Å"),
        ("max_error", "largest force error there, eV/Å"),
        ("above_emt_minimum", "energy above that of EMT's own minimum, eV"),
        ("rms_distance", "distance from EMT's own minimum, rms over atoms, Å"),
    ):
        print(f"  {spread([run[key] for run in runs])}  {title}")
    plot(name, runs)
    return runs


def plot(name: str, runs: list[dict[str, Any]]) -> None:
    """Uncertainty on the way down."""
    fig, axes = figure()
    for run in runs:
        axes.semilogy(run["deltas"], "C0-", lw=1)
    axes.set(xlabel="step of the relaxation", ylabel="largest uncertainty (eV/Å)")
    save_figure(name, fig)


if __name__ == "__main__":
    main(**vars(options(__doc__)))
