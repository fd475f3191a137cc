"""Ensembles of the robust method in use: relaxation, dynamics at 300 K, energies, against the parent. One command for each row:

    python benchmarks/in_use.py mg147 [--seeds 3] [--rounds 5] [--limit 0.35]

`refine` learns the target (rounds=0: the target alone). Its last ensemble relaxes the target, whose forces at the minimum the parent
computes; then runs Langevin dynamics at 300 K from there, which ends if the largest uncertainty passes the limit, with the parent's
forces on frames at equal intervals; then dynamics at constant energy for its drift. Printed for each seed: labels, errors of the mean
force (mean and largest over the atoms, eV/Å), the parent's largest force at the minimum, and the energy differences of the target and
the minimum, and of the minimum and the last frame. Results are kept in benchmarks/results/in_use.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from realparents import CALC_TEXT, DATA, ROWS, Row

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.labels.single_point import make_calculator
from amp.nft.refinement import Dynamics, Relaxation, refine

RESULTS = Path(__file__).parent / "results" / "in_use.jsonl"


@dataclass(frozen=True)
class Use:
    """Settings of the refinement of a row, and of its use."""

    row: Row
    iterations: int
    rounds: int
    limit: float  # of the uncertainty, eV/Å
    timestep: float  # fs
    fmax: float  # of the relaxation, eV/Å
    k: int = 14
    members: int = 6
    relaxing: int = 300
    exploring: int = 1000
    runs: int = 2


USES = {
    "pt260": Use(ROWS["pt260"], 2, 0, 0.1, 5.0, 0.01, members=10),
    "mg147": Use(ROWS["mg147"], 1, 5, 0.5, 3.0, 0.05),
    "h2o60": Use(ROWS["h2o60"], 1, 10, 3.0, 0.5, 0.05),
}


class Compared:
    """The parent's answers on frames, its time, and errors against them."""

    def __init__(self, parent: Any) -> None:
        self.parent, self.seconds = parent, 0.0

    def __call__(self, atoms: Atoms) -> dict[str, float]:
        """Return mean and largest error, largest true force, both energies, uncertainty and coverage."""
        found, delta, band = atoms.get_forces(), atoms.calc.results["forces_uncertainty"], atoms.calc.results["forces_error95"]
        begin = time.process_time()
        true = atoms.copy()
        true.set_constraint()
        true.calc = make_calculator(self.parent, "true")
        forces = true.get_forces()
        self.seconds += time.process_time() - begin
        error = np.linalg.norm(found - forces, axis=1)
        return {
            "mean": error.mean(), "max": error.max(), "force": np.linalg.norm(forces, axis=1).mean(),
            "fmax": np.linalg.norm(forces, axis=1).max(), "delta": delta.max(), "covered95": (error <= band).mean(),
            "energy": atoms.get_potential_energy(), "true_energy": true.get_potential_energy(),
        }  # fmt: skip


def relax(atoms: Atoms, use: Use, steps: int = 500) -> int:
    """Relax with the ensemble; the number of steps."""
    dyn = FIRE(atoms, logfile=os.devnull, maxstep=0.1)
    dyn.run(fmax=use.fmax, steps=steps)
    return dyn.nsteps


def dynamics(atoms: Atoms, use: Use, time_ps: float, frames: int, compare: Callable[[Atoms], dict[str, float]]) -> dict[str, Any]:
    """Run at 300 K, until the uncertainty passes the limit; errors on frames at equal intervals up to there."""
    rng = np.random.default_rng(1)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * np.sqrt(2 * 300.0 * units.kB * atoms.get_masses())[:, None])
    Stationary(atoms)
    dyn = Langevin(atoms, use.timestep * units.fs, temperature_K=300.0, friction=0.01 / units.fs, rng=rng, fixcm=False)
    steps, seen = round(1000 * time_ps / use.timestep), []
    interval, beyond = steps // frames, False
    for step in range(1, steps + 1):
        dyn.run(1)
        beyond = atoms.calc.results["forces_uncertainty"].max() > use.limit
        if step % interval == 0 or beyond:
            seen.append(compare(atoms))
        if beyond:
            break
    mean = {key: float(np.mean([one[key] for one in seen])) for key in ("mean", "force", "covered95")}
    return {
        "ps": step * use.timestep / 1000, "stopped": bool(beyond), "frames": len(seen), **mean, "max": max(one["max"] for one in seen),
        "last_frame": seen[-1], "worst_mean": max(one["mean"] for one in seen), "delta": max(one["delta"] for one in seen),
    }  # fmt: skip


def drift(atoms: Atoms, use: Use, time_ps: float) -> float:
    """Slope of the total energy without a thermostat, meV per atom and ps."""
    dyn, energies = VelocityVerlet(atoms, use.timestep * units.fs), []
    dyn.attach(lambda: energies.append(atoms.get_total_energy()), interval=1)
    dyn.run(round(1000 * time_ps / use.timestep))
    times = np.arange(len(energies)) * use.timestep / 1000
    return float(np.polyfit(times, energies, 1)[0] / len(atoms) * 1000)


def run(use: Use, seed: int, time_ps: float, frames: int) -> dict[str, Any]:
    """Learn by refinement, and use the result."""
    row = use.row
    atoms, _ = row.target()
    text = CALC_TEXT.format(cutoff=row.fingerprint_cutoff, elements=sorted(set(atoms.symbols)), radial=row.radial, layers=row.layers)
    images = None if row.images is None else read(DATA / f"{row.images}.extxyz", ":")
    al = NFT(method="robust", stop_delta=1e-6, max_iterations=use.iterations, steps_not_improved=99, seed=seed, log="log.txt")
    begin = time.process_time()
    explore = [Relaxation(use.fmax, steps=use.relaxing, maxstep=0.1, optimizer=FIRE)]
    explore += [Dynamics(timestep=use.timestep, steps=use.exploring, seed=number) for number in range(use.runs)]
    rounds = refine(al, images, atoms, rounds=use.rounds, k=use.k, limit=use.limit, explore=explore, n=use.members, calc_text=text,
                    start_command="python run.py", parent_calc=row.parent, cutoff=row.cutoff, test_labels=0, larger_labels=0)  # fmt: skip
    print("\n".join(map(str, rounds[-1].frames)), flush=True)
    compare = Compared(row.parent)
    learned, found = time.process_time() - begin, atoms.copy()
    found.calc = EnsembleCalculator(rounds[-1].ensemble)
    start = compare(found)
    steps = relax(found, use)
    relaxed, minimum = compare(found), found.copy()
    minimum.calc = EnsembleCalculator(rounds[-1].ensemble)
    md = dynamics(found, use, time_ps, frames, compare)
    last = md.pop("last_frame")
    slope = np.nan if md["stopped"] else drift(found, use, min(time_ps, 2.0))
    differences = [(b["energy"] - a["energy"], b["true_energy"] - a["true_energy"]) for a, b in ((start, relaxed), (relaxed, last))]
    return {
        "labels": rounds[-1].history[-1].n_chunks, "target": start, "steps": steps, "relaxed": relaxed, "dynamics": md, "drift": slope,
        "differences": differences, "learned": learned, "parent": compare.seconds, "seconds": time.process_time() - begin,
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """Return one result in words."""
    target, relaxed, md = found["target"], found["relaxed"], found["dynamics"]
    (to_minimum, true_to_minimum), (to_frame, true_to_frame) = found["differences"]
    ended = "stopped by the uncertainty at" if md["stopped"] else "ran for"
    return (
        f"{found['labels']} labels: error on the target {target['mean']:.4f} / {target['max']:.3f}; minimum after {found['steps']} steps "
        f"{relaxed['mean']:.4f} / {relaxed['max']:.3f}, the parent's fmax {relaxed['fmax']:.3f}, uncertainty {relaxed['delta']:.3f}; "
        f"dynamics {ended} {md['ps']:.2f} ps, {md['frames']} frames {md['mean']:.4f} (worst {md['worst_mean']:.4f}) / {md['max']:.3f} of "
        f"{md['force']:.2f}, uncertainty {md['delta']:.3f}, 95 % band covers {md['covered95']:.2f}; drift "
        f"{found['drift']:.4f} meV/atom/ps; energy to the minimum {to_minimum:.3f} (parent {true_to_minimum:.3f}) eV, to the last frame "
        f"{to_frame:.3f} "
        f"({true_to_frame:.3f}) eV; {found['learned']:.0f} s to learn, {found['parent']:.0f} s of the parent, "
        f"{found['seconds']:.0f} s in all"
    )


def main() -> None:
    """Run one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=USES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--limit", type=float, help="of the uncertainty, eV/Å")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--members", type=int)
    parser.add_argument("--time", type=float, default=5.0, help="of the dynamics, ps")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="directory for the runs, which resume there")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep = options.keep.absolute()
    changes = {key: value for key in ("rounds", "limit", "iterations", "members") if (value := getattr(options, key)) is not None}
    use = replace(USES[options.row], **changes)
    warnings.filterwarnings("ignore", message=".* outside the range of the training set")
    RESULTS.parent.mkdir(exist_ok=True)
    for seed in options.seeds:
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as scratch:
            kept = scratch if options.keep is None else options.keep / f"{options.row}-{seed}"
            os.makedirs(kept, exist_ok=True)
            os.chdir(kept)
            try:
                found = run(use, seed, options.time, options.frames)
            finally:
                os.chdir(here)
        with open(RESULTS, "a") as file:
            file.write(json.dumps({"row": options.row, "seed": seed, **changes, **found}, default=float) + "\n")
        print(f"{options.row} seed {seed}: {line(found)}", flush=True)


if __name__ == "__main__":
    main()
