"""Heat a platinum cluster to 900 K in LAMMPS for 20 ps, with and without learning where an uncertainty halts the dynamics.

The cluster has 55 atoms.  The script trains an ensemble, runs LAMMPS on two processes, or on those given (``python relearn.py 1``), prints
the errors of the forces against EMT along both trajectories, and draws them with the uncertainties into relearn.png.
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.io.lammpsdata import write_lammps_data
from structures import initial_images, pt55

STEP = 0.002  # ps
PROCESSES = sys.argv[1] if len(sys.argv) > 1 else "2"
INPUT = """
version = 1
system = {target = "target.traj", images = "images.traj@:"}
parent = {calculator = "ase.calculators.emt.EMT"}
chunks = {cutoff = 6.5}
ensemble = {members = 10, cutoff = 6.5, hiddenlayers = [5, 5]}
select = {fraction = 0.1}
stop = {delta = 0.02, max_iterations = 20, steps_not_improved = 2}
relearn = {rounds = 20, k = 10}
"""
DECK = """
units           metal
atom_style      atomic
atom_modify     map yes
boundary        f f f
read_data       target.data
labelmap        atom 1 Pt
pair_style      zero ${nft_cutoff}
pair_coeff      * *
fix             nft_d all property/atom d_delta
fix             nft all external pf/callback 1 1
fix_modify      nft energy yes virial yes
variable        dmax equal f_nft[1]
variable        step equal step
variable        temperature equal temp
fix             rows all print 10 "${step} ${dmax} ${temperature}" append NAME.txt screen no title ""
dump            path all custom 50 NAME.dump id type element x y z fx fy fz d_delta
dump_modify     path sort id element Pt
HALT
velocity        all create 300 1 loop geom
velocity        all zero angular
fix             md all nvt temp 300 900 0.1
timestep        0.002
thermo          500
thermo_style    custom step temp pe f_nft[1] f_nft[2]
run             10000
"""
HALT = "fix halt all halt 10 v_dmax > 0.3 error soft"


def dynamics(name: str, halt: str, *more: str) -> np.ndarray:
    """Run a deck, and return its rows: step, largest uncertainty, temperature."""
    Path(f"in.{name}").write_text(DECK.replace("NAME", name).replace("HALT", halt))
    mpirun = Path(sys.executable).with_name("mpirun")
    program = Path(sys.executable).with_name("amp-nft")
    subprocess.run([mpirun, "-n", PROCESSES, program, "lammps", "best.al.ensemble", f"in.{name}", *more, "-log", f"log.{name}"], check=True)
    return np.loadtxt(f"{name}.txt")


def errors(name: str) -> np.ndarray:
    """Return the true errors of the forces that moved the atoms: step, mean and largest error in each frame, eV/Å."""
    found = []
    for number, frame in enumerate(read(f"{name}.dump", ":", format="lammps-dump-text")):
        forces, frame.calc = frame.get_forces(), EMT()
        error = np.linalg.norm(forces - frame.get_forces(), axis=1)
        found.append((50 * number, error.mean(), error.max()))
    return np.array(found)


def main() -> None:
    """Train if needed, run both, print and draw."""
    target = pt55()
    write("target.traj", target)
    write("images.traj", initial_images(EMT()))
    Path("nft.toml").write_text(INPUT)
    program = Path(sys.executable).with_name("amp-nft")
    subprocess.run([program, "run", "nft.toml"], check=False)
    target.center(vacuum=30.0)
    write_lammps_data("target.data", target, specorder=["Pt"], masses=True)
    rows = {"without": dynamics("without", ""), "with": dynamics("with", HALT, "--relearn", "nft.toml")}
    truth = {name: errors(name) for name in rows}
    for name in rows:
        print(f"{name} relearning: {len(truth[name])} frames, mean force error {truth[name][:, 1].mean():.4f}, "
              f"largest {truth[name][:, 2].max():.3f} eV/Å; largest uncertainty {rows[name][:, 1].max():.3f} eV/Å.")  # fmt: skip
    draw(rows, truth)


def draw(rows: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
    """Draw uncertainties, true errors and halts."""
    _, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    for name, colour in (("without", "#c44e52"), ("with", "#4c72b0")):
        above.plot(rows[name][:, 0] * STEP, rows[name][:, 1], color=colour, lw=1, label=f"{name} relearning")
        below.plot(truth[name][:, 0] * STEP, truth[name][:, 2], color=colour, lw=1, marker=".", ms=3)
    for event in map(json.loads, Path("al-training/relearn/journal.jsonl").read_text().splitlines()):
        if event["event"] == "halted":
            above.axvline(event["step"] * STEP, color="grey", lw=0.6)
            below.axvline(event["step"] * STEP, color="grey", lw=0.6)
    above.axhline(0.3, color="grey", lw=0.8, ls="--")
    above.set(ylabel="largest uncertainty (eV/Å)", yscale="log", xscale="log", xlim=(10 * STEP, rows["with"][-1, 0] * STEP))
    below.set(ylabel="largest true error (eV/Å)", yscale="log", xlabel="time (ps)")
    above.legend(frameon=False)
    plt.savefig("relearn.png", dpi=110)


if __name__ == "__main__":
    main()
