"""Settings of other programs, chosen by labels that are held out: no force of the target itself is used. One command for each program:

    python benchmarks/potentials.py h2o60 --potential ours --iterations 1 --keep runs
    uv run --group trainers python benchmarks/potentials_tune.py runs/h2o60-ours-0 gap [--labels 20] [--valid 0.25]
    uv run --with nequip python benchmarks/potentials_tune.py runs/h2o60-ours-0 nequip --seconds 180

The labels are the first ones of a run of ours. The forces on a fraction of the target's atoms are held out, in all chunks. One member is
trained on the others with each setting. Printed: its error on the forces that are held out, weighted as in the training, and on those of
central atoms alone (root of the mean square of a component, eV/Å), and seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.io import write
from potentials import NEQUIP_NAMES, trainer

from amp.nft.amp_io.external import Loader
from amp.nft.inputs.geometry import with_cell
from amp.nft.interfaces.frames import Frame, read_frames
from amp.nft.run.history import read_run
from amp.nft.training.columns import with_columns

PAIR = "distance_2b cutoff=4.0 covariance_type=ard_se delta={} theta_uniform={} n_sparse=30 : "
SOAP = "soap cutoff={} l_max={} n_max={} atom_sigma={} zeta=4 delta={} n_sparse={} covariance_type=dot_product sparse_method=cur_points"
# errors of energies and forces, 2-body (delta, width; none: without it), SOAP (cutoff, l_max, n_max, atom_sigma, delta, n_sparse)
GAP = [
    (f"{energy} {force}", (PAIR.format(*pair) if pair else "") + SOAP.format(*soap))
    for energy, force, pair, soap in (
        (0.005, 0.05, (2.0, 0.5), (4.0, 4, 8, 0.4, 1.0, 400)),
        (1.0, 0.05, (2.0, 0.5), (4.0, 4, 8, 0.4, 1.0, 400)),
        (1.0, 0.05, (2.0, 0.5), (4.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 1.0), (4.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (3.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (5.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (4.0, 2, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (4.0, 4, 8, 0.6, 0.1, 400)),
        (1.0, 0.02, (10.0, 0.5), (4.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (4.0, 4, 8, 0.4, 0.1, 1000)),
        (1.0, 0.05, (10.0, 0.3), (4.0, 4, 8, 0.4, 0.02, 400)),
        (1.0, 0.1, (10.0, 0.5), (4.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (2.5, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (3.0, 4, 8, 0.4, 0.3, 400)),
        (1.0, 0.05, (10.0, 0.5), (3.0, 4, 8, 0.6, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (3.0, 2, 8, 0.4, 0.1, 400)),
        (1.0, 0.02, (10.0, 0.5), (3.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.3), (3.0, 4, 8, 0.4, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.5), (3.0, 6, 10, 0.5, 0.1, 1000)),
        (1.0, 0.05, (50.0, 1.0), (3.0, 4, 8, 0.5, 0.1, 400)),
        (1.0, 0.05, (10.0, 0.3), (3.0, 4, 8, 0.4, 0.3, 400)),
        (1.0, 0.05, (10.0, 0.3), (3.0, 4, 8, 0.4, 1.0, 400)),
        (1.0, 0.05, (10.0, 0.3), (3.5, 4, 8, 0.4, 0.3, 400)),
        (1.0, 0.05, (10.0, 0.3), (3.0, 4, 8, 0.4, 0.3, 1000)),
    )
]
METAL = "soap cutoff={} l_max={} n_max=10 atom_sigma={} zeta={} delta={} n_sparse={} covariance_type=dot_product sparse_method=cur_points"
WIDE = "distance_2b cutoff=5.5 covariance_type=ard_se delta=1.0 theta_uniform=1.0 n_sparse=30 : "
# errors of energies and forces, 2-body, SOAP (cutoff, l_max, atom_sigma, zeta, delta, n_sparse)
GAP_METAL = [
    (errors, pair + METAL.format(*soap))
    for errors, pair, soap in (
        ("0.001 0.01", "", (5.5, 0, 0.5, 4, 1.0, 500)),
        ("0.01 0.01", "", (5.5, 0, 0.5, 4, 1.0, 500)),
        ("1.0 0.01", "", (5.5, 0, 0.5, 4, 1.0, 500)),
        ("0.01 0.01", WIDE, (5.5, 0, 0.5, 4, 0.3, 500)),
        ("0.01 0.001", WIDE, (5.5, 0, 0.5, 4, 0.3, 500)),
        ("0.001 0.01", "", (5.5, 0, 0.5, 2, 1.0, 500)),
        ("0.001 0.01", "", (5.5, 0, 0.5, 1, 10.0, 500)),
        ("0.001 0.01", "", (5.5, 0, 0.8, 2, 10.0, 500)),
        ("0.001 0.01", "", (6.5, 0, 0.5, 2, 1.0, 500)),
        ("0.001 0.01", "", (5.5, 2, 0.5, 2, 1.0, 500)),
        ("0.001 0.002", "", (5.5, 0, 0.5, 4, 10.0, 500)),
    )
]
# learning rate, order of the spherical harmonics, features, cutoff
NEQUIP = [("0.01", "1", "16", "5.0"), ("0.005", "1", "16", "4.0"), ("0.01", "1", "32", "4.0"), ("0.01", "2", "16", "4.0")]


def frames(run: Path, labels: int, valid: float) -> tuple[list[Frame], list[Frame]]:
    """Return the images and the first labels of a run, those that are trained and those that are held out."""
    found = read_frames(read_run(run), valid)
    images, chunks = [one for one in found if one.target < 0], [one for one in found if one.target >= 0]
    chunks = sorted(chunks, key=lambda frame: frame.iteration)[:labels]
    return images + [one for one in chunks if one.split == "train"], [one for one in chunks if one.split == "valid"]


def extended(frame: Frame, sigma: float) -> object:
    """Return a frame with the columns of the trainers."""
    return with_columns(frame.atoms, frame.energy, frame.forces_nx, frame.weights_n, frame.energy_weight, frame.floor, sigma)


def error(calculator: object, valid: list[Frame]) -> tuple[float, float]:
    """Return the error on forces that are held out: weighted, and of central atoms alone."""
    squares, weights = [], []
    for frame in valid:
        forces = calculator.get_property("forces", with_cell(frame.atoms))
        squares.append(((forces - frame.forces_nx) ** 2).mean(axis=1))
        weights.append(frame.weights_n)
    central = np.mean([one[0] for one in squares])
    return float(np.sqrt(np.average(np.concatenate(squares), weights=np.concatenate(weights)))), float(np.sqrt(central))


def main() -> None:
    """Train one member with each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("potential", choices=["gap", "nequip"])
    parser.add_argument("--row", choices=["h2o60", "pt260"], default="h2o60")
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--valid", type=float, default=0.25)
    parser.add_argument("--seconds", type=int, default=180, help="processor time of one training of NequIP")
    parser.add_argument("--settings", type=int, nargs="+", help="numbers of settings")
    options = parser.parse_args()
    train, valid = frames(options.run, options.labels, options.valid)
    print(f"{len(train)} chunks train, {len(valid)} are held out", flush=True)
    several = (GAP if options.row == "h2o60" else GAP_METAL) if options.potential == "gap" else NEQUIP
    for number in options.settings or range(len(several)):
        setting = several[number]
        sigma = float(setting[0].split()[1]) if options.potential == "gap" else 0.05
        command = trainer(options.potential, options.row, options.seconds)
        if options.potential == "gap":
            os.environ |= {"GAP_SIGMA": setting[0], "GAP_MODEL": setting[1]}
        else:
            os.environ |= dict(zip(NEQUIP_NAMES, setting, strict=True))
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            paths = {
                "NFT_TRAIN": f"{scratch}/train.extxyz",
                "NFT_VALID": f"{scratch}/valid.extxyz",
                "NFT_MODEL": f"{scratch}/{command.model}",
            }
            for name, some in (("NFT_TRAIN", train), ("NFT_VALID", valid)):
                write(paths[name], [extended(frame, sigma) for frame in some], format="extxyz")
            done = subprocess.run(command.command, shell=True, env={**os.environ, **paths, "NFT_SEED": "1"}, capture_output=True, text=True)
            if done.returncode:
                print(f"{number} {setting}: failed: {done.stdout[-500:]}{done.stderr[-1500:]}", flush=True)
                continue
            seconds = time.perf_counter() - begin
            name = command.name_of_calculator
            weighted, central = error(Loader(name, command.argument).load(paths["NFT_MODEL"]), valid)
        print(f"{number} {setting}: {weighted:.4f}, central {central:.4f} eV/Å, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
