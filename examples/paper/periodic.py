"""Learn and relax a periodic target: a stepped copper surface, Cu(211), of 216 atoms.

python examples/paper/periodic.py [--seeds 5] [--small]
"""

from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import fcc211
from relax import relax_with_ensembles
from workflow import RESULTS, broad_images, for_each, learn, learned, options, save


def stepped(small: bool = False) -> Atoms:
    """Three steps of a slab four layers thick, rattled; with `small`, one narrow step."""
    slab = fcc211("Cu", (3, 4, 4) if small else (9, 6, 4), a=3.61, vacuum=8.0)
    atoms = Atoms(slab.symbols, slab.positions, cell=slab.cell, pbc=slab.pbc)
    atoms.rattle(0.1, seed=42)
    return atoms


def directory(seed: int) -> Path:
    """Return the directory of the run of a seed."""
    return RESULTS / f"cu211-{seed}"


def one(seed: int, small: bool) -> dict[str, Any]:
    """Run one seed."""
    return learn(directory(seed), stepped(small), broad_images(("Cu",), a0=3.6), seed)


def main(seeds: int, small: bool) -> None:
    """Learn, then relax."""
    runs = for_each(one, [(seed, small) for seed in range(seeds)])
    save("periodic", runs)
    learned("Cu(211)", runs)
    relax_with_ensembles("periodic-relax", stepped(small), [directory(seed) for seed in range(seeds)])


if __name__ == "__main__":
    main(**vars(options(__doc__)))
