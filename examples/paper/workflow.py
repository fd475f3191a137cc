"""Common parts of the scripts in this directory: settings, structures, one run of the loop, a relaxation, and the metric.

The metric is the length of the difference between the ensemble's mean force on an atom and EMT's in the whole target, which no
training used. Results go into paper-results/ in the working directory; an existing run is not repeated.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from ase.optimize import LBFGS

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.initialization import initial_images
from amp.nft.selection import choose_images

RESULTS = Path("paper-results")
PAPER_ERROR = 0.0039  # eV/Å: the paper's mean error, with 144 chunks
FMAX, STEPS = 0.01, 500  # of relaxations


@dataclass(frozen=True)
class Settings:
    """Settings of a run: fingerprints, networks, criteria of a member, and the radius of chunks.

    Energies in eV/atom, forces in eV/Å, radii in Å.
    """

    features: str = "g2x"
    fingerprint_cutoff: float = 5.5
    hidden: tuple[int, ...] = (10, 10)
    energy_rmse: float = 2e-4
    force_rmse: float = 1e-3
    force_maxresid: float = 4e-3
    overfit: float = 0.0
    maxiter: int = 60  # Levenberg-Marquardt steps; criteria not met by then are hardly met with five times as many
    chunk_cutoff: float = 6.5
    members: int = 10
    threshold: float = -0.9

    def calc_text(self, elements: list[str]) -> str:
        """Return the text that builds Amp's calculator."""
        return f"""
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft import features

calc = Amp(descriptor=Gaussian(cutoff={self.fingerprint_cutoff}, Gs=features.{self.features}({elements})),
           model=NeuralNetwork(hiddenlayers={self.hidden}), dblabel='../amp-db')
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, overfit={self.overfit}, maxiter={self.maxiter},
    convergence={{'energy_rmse': {self.energy_rmse}, 'force_rmse': {self.force_rmse}, 'force_maxresid': {self.force_maxresid}}})
"""


OURS = Settings()
PAPER = Settings(features="paper20", fingerprint_cutoff=6.5, energy_rmse=1e-3, force_rmse=5e-3, force_maxresid=2e-2, overfit=1e-3)


# -- structures ------------------------------------------------------------------------------------------------


def platinum(length: int, cut: int, seed: int) -> Atoms:
    """Return a truncated octahedron of the paper's lattice constant, rattled; plain Atoms, which can be carved."""
    cluster = Octahedron("Pt", length, cutoff=cut, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, cluster.positions)
    atoms.rattle(0.1, seed=seed)
    return atoms


def pt260(small: bool = False) -> Atoms:
    """Return the target of the paper; with `small`, 79 atoms to try the scripts on."""
    return platinum(5, 1, 42) if small else platinum(8, 3, 42)


def pt1415(small: bool = False) -> Atoms:
    """Return the target of the transfer; with `small`, 140 atoms."""
    return platinum(6, 1, 0) if small else platinum(15, 7, 0)


@cache
def paper_images() -> list[Atoms]:
    """Twenty bulk cells as the paper describes them: two space groups, displacements of 0.03 Å, farthest points."""
    images = cells("Pt", sgs=[225, 79], a0=4.0, minsep=2.65, posamp=0.03)
    return [images[i] for i in choose_images(images, 20)]


@cache
def broad_images(elements: tuple[str, ...] = ("Pt",), n: int = 20, a0: float = 4.0) -> list[Atoms]:
    """As many bulk cells of 1 to 32 atoms that differ more: a loosely packed lattice too, displacements of 0.15 Å."""
    images = cells(list(elements), sgs=[225, 79, 221], a0=a0, minsep=0.55 * a0, posamp=0.15)
    return [images[i] for i in choose_images(images, n)]


def cells(*arguments: Any, **settings: Any) -> list[Atoms]:
    """Return `initial_images` with EMT, in a directory of their own: several processes make them at once."""
    with tempfile.TemporaryDirectory() as directory:
        return initial_images(*arguments, parent_calc=EMT(), directory=directory, **settings)


# -- work ------------------------------------------------------------------------------------------------------


def learn(
    directory: Path, target: Atoms, images: list[Atoms], seed: int, settings: Settings = OURS, stop_delta: float = 0.015,
    iterations: int = 10,
) -> dict[str, Any]:  # fmt: skip
    """Run NFT in a separate directory; return the errors of each ensemble on the whole target."""
    directory.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with contextlib.chdir(directory):
        al = NFT(threshold=settings.threshold, stop_delta=stop_delta, max_iterations=iterations, steps_not_improved=4,
                 seed=seed, threads=1, log="nft.log")  # fmt: skip
        al.run(images, target, n=settings.members, calc_text=settings.calc_text(sorted(set(target.symbols))),
               start_command="python run.py", parent_calc=EMT(), cutoff=settings.chunk_cutoff)  # fmt: skip
    seconds = time.perf_counter() - begin
    rows = []
    for entry in al.history:
        delta, error = judge(directory / f"al.{entry.iteration}.ensemble", target)
        missed = sum(not report.converged for report in entry.reports)
        rows.append({"chunks": entry.n_chunks, "missed": missed, **figures(delta, error)})
    return {"seed": seed, "seconds": seconds, "reason": al.stop_reason.message, "iterations": rows}


def judge(ensemble: Any, target: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty and true error of the force on each atom, eV/Å; the ensemble is a file or models."""
    atoms, true = target.copy(), target.copy()
    atoms.calc, true.calc = EnsembleCalculator(ensemble, threads=1), EMT()
    errors = np.linalg.norm(atoms.get_forces() - true.get_forces(), axis=1)
    return atoms.calc.results["forces_uncertainty"], errors


def figures(delta: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Return the numbers of the tables."""
    return {"delta_max": float(delta.max()), "mean_error": float(error.mean()), "max_error": float(error.max()),
            "covered": float((error <= delta).mean())}  # fmt: skip


def relax(ensemble: Path, start: Atoms) -> dict[str, Any]:
    """Relax with the ensemble and record its uncertainty; evaluate the minimum with EMT."""
    atoms = start.copy()
    atoms.calc = EnsembleCalculator(ensemble, threads=1)
    deltas: list[float] = []
    dyn = LBFGS(atoms, logfile=None)
    dyn.attach(lambda: deltas.append(float(atoms.calc.results["forces_uncertainty"].max())))
    dyn.run(fmax=FMAX, steps=STEPS)
    delta, error = judge(ensemble, atoms)
    atoms.calc = EMT()
    return {
        "steps": dyn.nsteps, "deltas": deltas, "positions": atoms.positions.tolist(), "energy": atoms.get_potential_energy(),
        "emt_fmax": float(np.linalg.norm(atoms.get_forces(), axis=1).max()), **figures(delta, error),
    }  # fmt: skip


def relax_with_emt(start: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and positions (Å) of EMT's own minimum."""
    atoms = start.copy()
    atoms.calc = EMT()
    LBFGS(atoms, logfile=None).run(fmax=FMAX, steps=STEPS)
    return atoms.get_potential_energy(), atoms.positions


def for_each(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    """Return results of ``function(*call)`` for each call, one process for each processor core."""
    workers = min(len(os.sched_getaffinity(0)), len(calls))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(function, *call) for call in calls]]


# -- reports ---------------------------------------------------------------------------------------------------


def options(description: str | None, only: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of all scripts; `only` lists the selectable parts of a script."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--small", action="store_true", help="smaller structures, to try the scripts")
    if only:
        parser.add_argument("--only", nargs="+", choices=only, metavar="NAME", help="of " + ", ".join(map(repr, only)))
    return parser.parse_args()


def save(name: str, data: Any) -> None:
    """Write results as JSON."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


def load(name: str) -> Any:
    """Results of another script."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: run {Path(__file__).with_name(name + '.py')} first.")
    return json.loads(path.read_text())


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


def learned(name: str, runs: list[dict[str, Any]]) -> None:
    """Print, iteration by iteration, means over the runs that came so far."""
    print(f"{name}: iteration, runs, chunks, members that missed their criteria; largest uncertainty, mean and largest error, eV/Å")
    for k in range(max(len(run["iterations"]) for run in runs)):
        rows = [run["iterations"][k] for run in runs if k < len(run["iterations"])]
        chunks, missed, delta, mean, largest = (
            np.mean([row[key] for row in rows]) for key in ("chunks", "missed", "delta_max", "mean_error", "max_error")
        )
        print(f"{k:4d}{len(rows):4d}{chunks:8.1f}{missed:6.1f}{delta:10.4f}{mean:10.4f}{largest:10.4f}")
    print(f"At the end, atoms whose error is within their uncertainty: {spread([run['iterations'][-1]['covered'] for run in runs])}")


def chunks_to_reach(rows: list[dict[str, Any]], error: float = PAPER_ERROR) -> float:
    """Chunks of the first ensemble whose mean error is at most this; nan if there is none."""
    return next((float(row["chunks"]) for row in rows if row["mean_error"] <= error), np.nan)


def figure(columns: int = 1, rows: int = 1, **kwargs: Any) -> tuple[Any, Any]:
    """Return a figure and its axes, without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "amp.nft"})
    return plt.subplots(rows, columns, figsize=(3.6 * columns, 2.9 * rows), layout="constrained", **kwargs)


def save_figure(name: str, fig: Any) -> None:
    """Write a picture; without a date, so that the same data give the same file."""
    RESULTS.mkdir(exist_ok=True)
    fig.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    fig.savefig(RESULTS / f"{name}.png", dpi=110)
