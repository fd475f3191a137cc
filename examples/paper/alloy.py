"""Learn and relax a target of two elements: a particle of copper and gold, mixed at random, of 201 atoms.

python examples/paper/alloy.py [--seeds 5] [--small]
"""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.cluster import Octahedron
from relax import relax_with_ensembles
from workflow import RESULTS, broad_images, for_each, learn, learned, options, save


def particle(small: bool = False) -> Atoms:
    """Return a truncated octahedron, half of it gold, rattled; with `small`, 79 atoms."""
    cluster = Octahedron("Cu", 5 if small else 7, cutoff=1 if small else 2, latticeconstant=3.85)
    atoms = Atoms(cluster.symbols, cluster.positions)
    gold = np.random.default_rng(0).permutation(len(atoms))[: len(atoms) // 2]
    atoms.symbols[gold] = "Au"
    atoms.rattle(0.1, seed=42)
    return atoms


def directory(seed: int) -> Path:
    """Return the directory of the run of a seed."""
    return RESULTS / f"cuau-{seed}"


def one(seed: int, small: bool) -> dict[str, Any]:
    """Run one seed."""
    return learn(directory(seed), particle(small), broad_images(("Cu", "Au"), n=40, a0=3.6), seed)


def main(seeds: int, small: bool) -> None:
    """Learn, then relax."""
    runs = for_each(one, [(seed, small) for seed in range(seeds)])
    save("alloy", runs)
    learned("CuAu", runs)
    relax_with_ensembles("alloy-relax", particle(small), [directory(seed) for seed in range(seeds)])


if __name__ == "__main__":
    main(**vars(options(__doc__)))
