"""A target that costs its parent much: Mg561 with GFN1-xTB, trained by chunks, and what one calculation of the whole costs. One command:

    python benchmarks/large_target.py [--iterations 2] [--shells 6] [--spots 4] [--radius 9] [--whole]

The parent's processor time for whole icosahedra of 2, 3 and 4 (with --whole all) shells gives an exponent, and with it the time for the
target. The target is learned from chunks alone. Some atoms are labelled in chunks of a larger radius, which no training and no test used:
the error of the ensemble there. With --whole the parent computes the target once: the true error of the mean force of all atoms.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.cluster import Icosahedron
from realparents import CALC_TEXT, xtb

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks

RESULTS = Path(__file__).parent / "results" / "large_target.json"
CUTOFF = 6.5
MEMBERS = 10


def icosahedron(shells: int) -> Atoms:
    """Return a rattled icosahedron of magnesium; four shells have 147 atoms."""
    cluster = Icosahedron("Mg", shells, latticeconstant=4.5)
    atoms = Atoms(cluster.symbols, np.array(cluster.positions))
    atoms.rattle(0.075, seed=42)
    return atoms


def label(atoms: Atoms) -> tuple[np.ndarray, float]:
    """Return the parent's forces, and its processor time in s."""
    atoms = atoms.copy()
    atoms.calc = xtb("label")
    begin = time.process_time()
    return atoms.get_forces(), time.process_time() - begin


def main() -> None:
    """Learn, check, and compare costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--shells", type=int, default=6)
    parser.add_argument("--spots", type=int, default=4)
    parser.add_argument("--radius", type=float, default=9.0, help="of the chunks around spots, Å")
    parser.add_argument("--whole", action="store_true", help="let the parent compute the whole target once")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".* outside the range of the training set")
    atoms, rng, found = icosahedron(options.shells), np.random.default_rng(1), {}
    sizes, seconds = [], []
    for shells in range(2, min(options.shells, 5)):
        whole = icosahedron(shells)
        sizes.append(len(whole))
        seconds.append(label(whole)[1])
        print(f"{len(whole)} atoms as a whole: {seconds[-1]:.1f} s of processor time", flush=True)
    exponent = float(np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2]))
    expected = seconds[-1] * (len(atoms) / sizes[-1]) ** exponent
    print(f"exponent of the last two {exponent:.2f}: {len(atoms)} atoms would cost {expected:.0f} s", flush=True)
    found |= {"sizes": sizes, "seconds": seconds, "exponent": exponent, "expected": expected, "atoms": len(atoms)}

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            found |= learn(atoms, options.iterations)
            atoms.calc = EnsembleCalculator("best.al.ensemble")
            forces, delta = atoms.get_forces(), atoms.calc.results["forces_uncertainty"]
            band = atoms.calc.results["forces_error95"]
        finally:
            os.chdir(here)
    chunk_times = [label(chunk)[1] for chunk in carve_chunks(atoms, rng.permutation(len(atoms))[:6].tolist(), CUTOFF)]
    spots = rng.permutation(len(atoms))[: options.spots].tolist()
    larger = [(chunk, *label(chunk)) for chunk in carve_chunks(atoms, spots, options.radius)]
    at_spots = [float(np.linalg.norm(force[0] - forces[spot])) for spot, (_, force, _) in zip(spots, larger, strict=True)]
    n_labels = found["labels"] + found["test_labels"]
    spent = n_labels * float(np.mean(chunk_times))
    found |= {"chunk_seconds": float(np.mean(chunk_times)), "spots": at_spots, "spot_seconds": [t for _, _, t in larger],
              "spot_atoms": [len(chunk) for chunk, _, _ in larger], "delta": float(delta.max())}  # fmt: skip
    print(f"{found['labels']} training and {found['test_labels']} test labels at {np.mean(chunk_times):.2f} s: {spent:.0f} s, and "
          f"{found['learned']:.0f} s of processor time for the whole run; {found['verdict']}", flush=True)  # fmt: skip
    print(f"spots in chunks of {options.radius} Å ({', '.join(str(n) for n in found['spot_atoms'])} atoms, "
          f"{sum(found['spot_seconds']):.0f} s): errors {', '.join(f'{e:.3f}' for e in at_spots)} eV/Å, bands "
          f"{', '.join(f'{band[spot]:.3f}' for spot in spots)}, forces "
          f"{', '.join(f'{np.linalg.norm(force[0]):.2f}' for _, force, _ in larger)}", flush=True)  # fmt: skip
    equal = sizes[-1] * (found["learned"] / seconds[-1]) ** (1 / exponent)
    print(f"the run costs as much as one calculation of the whole at {equal:.0f} atoms", flush=True)
    found["equal"] = equal
    if options.whole:
        true, took = label(atoms)
        error = np.linalg.norm(forces - true, axis=1)
        off = np.mean([np.linalg.norm(force[0] - true[spot]) for spot, (_, force, _) in zip(spots, larger, strict=True)])
        found |= {"whole": took, "spots_off": off, "mean": error.mean(), "max": error.max(), "covered95": (error <= band).mean(),
                  "force": np.linalg.norm(true, axis=1).mean()}  # fmt: skip
        print(f"the whole: {took:.0f} s; true error {error.mean():.4f} / {error.max():.3f} of {found['force']:.3f} eV/Å, the 95 % band "
              f"covers {found['covered95']:.2f}; the larger chunks are off by {off:.3f} in the mean", flush=True)  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1, default=float) + "\n")


def learn(atoms: Atoms, iterations: int) -> dict[str, Any]:
    """Run the robust method on the target; its labels, time and verdict."""
    begin = time.process_time()
    al = NFT(method="robust", stop_delta=1e-6, max_iterations=iterations, steps_not_improved=99, log=os.devnull)
    al.run(None, atoms, n=MEMBERS, calc_text=CALC_TEXT.format(cutoff=5.5, elements=["Mg"], radial=8, layers=(5, 5)),
           start_command="python run.py", parent_calc=xtb, cutoff=CUTOFF, test_labels=10, larger_labels=0, aim=0.05)  # fmt: skip
    assert al.verdict is not None
    return {"labels": al.history[-1].n_chunks, "test_labels": al.verdict.n_test, "learned": time.process_time() - begin,
            "verdict": str(al.verdict), "mean_bound": al.verdict.mean_bound}  # fmt: skip


if __name__ == "__main__":
    main()
