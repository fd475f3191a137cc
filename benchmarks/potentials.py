"""Models of other programs, and ours, in the loop on targets with known forces. One command for each row:

    uv run --group trainers python benchmarks/potentials.py pt260 --potential ours gap [--iterations 2] [--members 4]
    uv run --with nequip python benchmarks/potentials.py pt260 --potential nequip --members 2

Each potential chooses its own atoms, in batches of the same size, by the uncertainty of its own members (``method="robust"``). Printed
after each training: labels, mean and largest error of the mean force over all atoms of the target (eV/Å), and seconds of one training
(all members). The start of a process is counted, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read
from realparents import CALC_TEXT, DATA, ROWS

from amp.nft.activelearner import NFT
from amp.nft.calculator import load
from amp.nft.run.history import read_run
from amp.nft.training import Command

INPUT = Path(__file__).parent / "potentials_input"
RESULTS = Path(__file__).parent / "results" / "potentials.jsonl"
# errors of energies and forces, descriptors, error of an exact force. Pt260: the best of some 25 trials by the error on the target, with
# the labels of a run of ours. Water: the best of 24 by labels that were held out (potentials_tune.py)
GAP = {
    "pt260": ("0.001 0.01", "soap cutoff=5.5 l_max=0 n_max=10 atom_sigma=0.5 zeta=4 delta=1.0 n_sparse=500 covariance_type=dot_product "
              "sparse_method=cur_points", 0.01),
    "h2o60": ("1.0 0.05", "distance_2b cutoff=4.0 covariance_type=ard_se delta=10.0 theta_uniform=0.5 n_sparse=30 : soap cutoff=3.0 "
              "l_max=4 n_max=8 atom_sigma=0.4 zeta=4 delta=0.3 n_sparse=400 covariance_type=dot_product sparse_method=cur_points", 0.05),
}  # fmt: skip
# NequIP: learning rate, order of the spherical harmonics, features, cutoff (Å); water: the better of two by labels that were held out
NEQUIP = {"pt260": ("0.01", "1", "16", "5.5"), "h2o60": ("0.01", "1", "32", "4.0")}
NEQUIP_NAMES = ("NEQUIP_RATE", "NEQUIP_LMAX", "NEQUIP_FEATURES", "NEQUIP_CUTOFF")


def trainer(potential: str, row: str, seconds: int) -> Any:
    """Return the trainer of a potential for a target."""
    if potential == "ours":
        return "batched"
    if potential == "gap":
        errors, model, sigma = GAP[row]
        os.environ |= {"GAP_SIGMA": errors, "GAP_MODEL": model}
        return Command(f"bash {INPUT}/gap.sh", "quippy.potential.Potential", "gap.xml", "param_filename", sigma=sigma)
    elements = sorted(set(ROWS[row].target()[0].symbols))
    os.environ |= {
        "NEQUIP_INPUT": str(INPUT), "NEQUIP_SECONDS": str(seconds),
        "NEQUIP_ELEMENTS": f"[{','.join(elements)}]", **dict(zip(NEQUIP_NAMES, NEQUIP[row], strict=True)),
    }  # fmt: skip
    return Command(f"bash {INPUT}/nequip.sh", f"{INPUT}/load_nequip.py:load", "model.ckpt", retries=0)


def run(name: str, potential: str, members: int, iterations: int, seconds: int, seed: int) -> None:
    """Learn a target by one potential, and print its errors after each training."""
    row = ROWS[name]
    atoms, true = row.target()
    text = CALC_TEXT.format(cutoff=row.fingerprint_cutoff, elements=sorted(set(atoms.symbols)), radial=row.radial, layers=row.layers)
    images = None if row.images is None else read(DATA / f"{row.images}.extxyz", ":")
    al = NFT(method="robust", trainer=trainer(potential, name, seconds), stop_delta=1e-6, max_iterations=iterations,
             steps_not_improved=99, seed=seed, log="log.txt", threads=1)  # fmt: skip
    al.run(images, atoms, n=members, calc_text=text, start_command="python run.py", parent_calc=row.parent, cutoff=row.cutoff,
           test_labels=0, larger_labels=0)  # fmt: skip
    for step in read_run(".").steps:
        calc = load(f"al.{step.iteration}.ensemble" if potential == "ours" else f"al.{step.iteration}.committee")
        with contextlib.suppress(UserWarning):
            error = np.linalg.norm(calc.get_property("forces", atoms) - true, axis=1)
        covered = float(np.mean(error <= calc.results["forces_uncertainty"]))
        found = {"labels": step.n_chunks, "mean": error.mean(), "max": error.max(), "covered": covered, "seconds": step.seconds}
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "a") as file:
            print(json.dumps({"row": name, "potential": potential, "members": members, "seed": seed, **found}, default=float), file=file)
        print(f"{name} {potential}, {members} members: {step.n_chunks} labels, error {error.mean():.4f} / {error.max():.3f} eV/Å, "
              f"covered {covered:.2f}, trained in {step.seconds:.0f} s", flush=True)  # fmt: skip


def main() -> None:
    """Run the potentials on one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=GAP)
    parser.add_argument("--potential", nargs="+", choices=["ours", "gap", "nequip"], default=["ours", "gap"])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=420, help="processor time of one training of NequIP")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="directory for the runs, which are temporary without it")
    options = parser.parse_args()
    for potential in options.potential:
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) if options.keep is None else (options.keep / f"{options.row}-{potential}-{options.seed}").absolute()
            place.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(place):
                run(options.row, potential, options.members, options.iterations, options.seconds, options.seed)


if __name__ == "__main__":
    main()
