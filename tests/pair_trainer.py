"""A trainer of another program, for the tests: it fits a pair potential to the forces that count, and leaves its coefficients.

Each start adds a line to ``starts.txt``. The first start fails, or hangs, where the working directory has a file ``fail-<member>`` or
``hang-<member>``.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read
from ase.neighborlist import neighbor_list

DECAY = np.array([0.8, 1.4, 2.0, 2.8])  # 1/Å, of the functions exp(-d r) (1 - r/cutoff)²


class PairPotential(Calculator):
    """Sum over pairs of atoms of functions with given coefficients."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, coefficients, cutoff):
        super().__init__()
        self.coefficients, self.cutoff = np.array(coefficients), cutoff

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        energies, forces = functions(self.atoms, self.cutoff)
        self.results = {"energy": float(energies @ self.coefficients), "forces": forces @ self.coefficients}


def functions(atoms, cutoff):
    """Energies (functions,) and forces (atoms, 3, functions) of coefficients 1."""
    i, r, vectors = neighbor_list("idD", atoms, cutoff)
    decay, smooth = np.exp(-np.outer(r, DECAY)), (1 - r / cutoff)[:, None]
    slope = -decay * (DECAY * smooth**2 + 2 * smooth / cutoff)
    forces = np.zeros((len(atoms), 3, len(DECAY)))
    np.add.at(forces, i, (vectors / r[:, None])[:, :, None] * slope[:, None, :])
    return 0.5 * (decay * smooth**2).sum(axis=0), forces


def load(path, cutoff=5.0):
    return PairPotential(json.loads(Path(path).read_text()), cutoff)


def main():
    member = os.environ["NFT_MEMBER"]
    with open("starts.txt", "a") as file:
        file.write(f"{os.environ['NFT_ITERATION']} {member} {os.environ['NFT_SEED']}\n")
    for what in ("fail", "hang"):
        if Path(f"{what}-{member}").exists():
            print(f"This start is to {what}.", flush=True)
            Path(f"{what}-{member}").unlink()
            if what == "hang":
                time.sleep(600)
            sys.exit(3)
    rows, known = [], []
    for frame in read(os.environ["NFT_TRAIN"], ":"):
        used = ~frame.arrays["force_mask"]
        sigma = frame.arrays["force_atom_sigma"][used, None]
        rows.append((functions(frame, 5.0)[1][used] / sigma[:, :, None]).reshape(-1, len(DECAY)))
        known.append((frame.arrays["REF_forces"][used] / sigma).ravel())
    coefficients = np.linalg.lstsq(np.concatenate(rows), np.concatenate(known), rcond=1e-8)[0]
    Path(os.environ["NFT_MODEL"]).write_text(json.dumps(coefficients.tolist()))


if __name__ == "__main__":
    main()
