"""Uncertainty against true error, for the ensembles of learn.py, on atoms that none of their chunks was carved around.

python examples/paper/reliability.py [--seeds 5] [--small]
"""

from pathlib import Path

import numpy as np
from learn import directory
from scipy.special import gammainc
from workflow import figure, judge, load, options, pt260, save, save_figure, spread

from amp.nft.uncertainty import CONFIDENCE, calibrate


def unseen(run: Path, iteration: int, n_atoms: int) -> np.ndarray:
    """Atoms of the target that are no centre of a chunk of this iteration's training set."""
    chosen = [np.load(run / "al-training" / "saved-info" / f"indices_{k}.npy") for k in range(iteration)]
    return np.setdiff1d(np.arange(n_atoms), np.concatenate(chosen) if chosen else [])


def main(seeds: int, small: bool) -> None:
    """Print a calibration for each iteration, plot."""
    target = pt260(small)
    runs = load("learn")[:seeds]
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run in runs:
        for iteration in range(len(run["iterations"])):
            here = directory(run["seed"])
            delta, error = judge(here / f"al.{iteration}.ensemble", target)
            atoms = unseen(here, iteration, len(target))
            found.setdefault(iteration, []).append((delta[atoms], error[atoms]))
    print("iteration  runs  calibration factor   errors within delta   rank correlation   miscalibration area, then scaled by factor")
    rows = []
    for iteration, pairs in found.items():
        made = [calibrate(delta, error) for delta, error in pairs]
        ranks = [rank_correlation(delta, error) for delta, error in pairs]
        factors, covered = [one.factor for one in made], [one.coverage_before for one in made]
        areas = [[one.area_before, one.area_after] for one in made]
        rows.append({"iteration": iteration, "factor": factors, "covered": covered, "rank_correlation": ranks, "areas": areas})
        before, after = np.mean(areas, axis=0)
        print(f"{iteration:9d}{len(made):6d}   {spread(factors)}    {spread(covered)}    {spread(ranks)}      {before:.3f} {after:.3f}")
    save("reliability", rows)
    plot(found)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: whether the more uncertain atoms have the larger errors."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def plot(found: dict[int, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Every atom; and how many errors lie within the part of the distribution that should hold a given fraction."""
    fig, (left, right) = figure(2)
    for iteration, pairs in found.items():
        delta, error = (np.concatenate(part) for part in zip(*pairs, strict=True))
        left.loglog(delta, error, ".", ms=2, color=f"C{iteration}", label=f"iteration {iteration}", rasterized=True)
        variance = (delta / CONFIDENCE) ** 2 / 3.0
        quantiles = np.sort(gammainc(1.5, error**2 / (2.0 * variance)))
        right.plot(quantiles, np.linspace(0, 1, len(quantiles)), lw=1, color=f"C{iteration}")
    ends = np.array(left.get_xlim())
    left.plot(ends, ends, "k:", lw=1)
    right.plot([0, 1], [0, 1], "k:", lw=1)
    left.set(xlabel="uncertainty delta (eV/Å)", ylabel="true error (eV/Å)")
    right.set(xlabel="fraction of errors expected", ylabel="fraction found")
    left.legend(frameon=False, markerscale=4)
    save_figure("reliability", fig)


if __name__ == "__main__":
    main(**vars(options(__doc__)))
