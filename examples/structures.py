"""Structures of the examples: bulk cells as first images, and platinum clusters as targets; no download is needed."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron, Octahedron


def labelled(atoms: Atoms, parent: BaseCalculator) -> Atoms:
    """Return the image with its energy and forces, as ASE's readers and writers keep them."""
    atoms.calc = parent
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


# lattice constant over distance of nearest neighbours, and the repeats of a small and a large cell
LATTICES = {
    "fcc": (2**0.5, (1, 1, 1), (2, 2, 2)),
    "bcc": (2 / 3**0.5, (1, 1, 1), (2, 2, 2)),
    "sc": (1.0, (1, 1, 2), (2, 2, 2)),
    "diamond": (4 / 3**0.5, (1, 1, 1), (2, 2, 1)),
}


def initial_images(parent: BaseCalculator, symbol: str = "Pt", bond: float = 2.8, seed: int = 1) -> list[Atoms]:
    """Twenty rattled bulk cells of 2 to 32 atoms: four lattices, from crowded to loosely packed."""
    rng = np.random.default_rng(seed)
    images = []
    for lattice, (edge, small, large) in LATTICES.items():
        for strain, repeat in ((0.93, small), (1.0, small), (1.07, small), (0.97, large), (1.03, large)):
            cell = bulk(symbol, lattice, a=edge * bond * strain, cubic=True) * repeat
            cell.positions += rng.normal(scale=0.08, size=cell.positions.shape)
            images.append(labelled(cell, parent))
    return images


def _plain(cluster: Atoms, stdev: float, seed: int) -> Atoms:
    """ASE's cluster objects cannot be sliced and copied; a plain, rattled copy can."""
    atoms = Atoms(cluster.symbols, cluster.positions)
    atoms.rattle(stdev, seed=seed)
    return atoms


def pt55() -> Atoms:
    """Return an icosahedron of 55 atoms."""
    return _plain(Icosahedron("Pt", 3, latticeconstant=3.99), 0.1, 42)


def pt260() -> Atoms:
    """Return the truncated octahedron of 260 atoms of the paper."""
    return _plain(Octahedron("Pt", 8, cutoff=3, latticeconstant=3.99), 0.1, 42)
