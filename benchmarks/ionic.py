"""Label errors of ionic targets by the element of the central atom, with GFN1-xTB at 300 K: ``python benchmarks/ionic.py [CaO ...]``.

A neutral chunk around a cation has too many anions, whose electrons are missing, and one around an anion too many cations. Printed for
each: the mean error of the central force, and its part that pulls cations outwards and anions inwards, or the reverse (eV/Å).
"""

from __future__ import annotations

import argparse

import numpy as np
from ase import Atoms
from ase.build import bulk
from realparents import target, xtb

from amp.nft.chunks import carve_chunks

LATTICES = {"CaO": 4.8, "LiF": 4.03, "NaCl": 5.64}  # Å; MgO is the target of realparents.py
CUTOFF = 6.5 / 4.21  # radius of a chunk in lattice constants
CHUNKS = 10  # of each element


def rocksalt(name: str) -> tuple[Atoms, np.ndarray, float]:
    """Return a rattled block of 100 atoms, the parent's forces, and the radius of its chunks."""
    if name == "MgO":
        return *target("Mg50O50"), 6.5
    a = LATTICES[name]
    crystal = bulk(name, "rocksalt", a=a, cubic=True) * (3, 3, 3)
    inside = (crystal.positions < np.array([2.3, 2.3, 1.8]) * a).all(axis=1)
    atoms = Atoms(crystal.symbols[inside], crystal.positions[inside])
    atoms.rattle(0.1, seed=1)
    true = atoms.copy()
    true.calc = xtb(".")
    return atoms, true.get_forces(), CUTOFF * a


def main() -> None:
    """Print the errors of each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=["MgO", *LATTICES], help="MgO, CaO, LiF or NaCl; all if not given")
    for name in parser.parse_args().targets:
        atoms, true, radius = rocksalt(name)
        outwards = atoms.positions - atoms.positions.mean(axis=0)
        outwards /= np.linalg.norm(outwards, axis=1)[:, None]
        cation = atoms.symbols[0] if atoms.symbols[0] not in ("O", "F", "Cl") else atoms.symbols[1]
        sign = np.where(atoms.symbols == cation, 1.0, -1.0)
        rng = np.random.default_rng(0)
        for element in dict.fromkeys([cation, *atoms.symbols]):
            errors, failed = [], 0
            for chunk in carve_chunks(atoms, rng.permutation(np.flatnonzero(atoms.symbols == element))[:CHUNKS], radius):
                chunk.calc = xtb(".")
                try:
                    forces = chunk.get_forces()
                except Exception:  # tblite: no convergence
                    failed += 1
                    continue
                atom = chunk.arrays["target_index"][0]
                off = forces[0] - true[atom]
                errors.append((np.linalg.norm(off), sign[atom] * off @ outwards[atom]))
            mean, radial = np.mean(errors, axis=0)
            force = np.linalg.norm(true, axis=1).mean()
            print(
                f"{name}, mean force {force:.2f}, chunks of {radius:.2f} Å around {element}: error {mean:.3f}, radial part {radial:.3f}; "
                f"{failed} of {CHUNKS} failed",
                flush=True,
            )


if __name__ == "__main__":
    main()
