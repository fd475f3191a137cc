"""The data of the benchmarks: small bulk cells of platinum and chunks of Pt260, labelled with EMT."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron

from amp.nft.chunks import carve_chunks

# edges a and c in Å of body-centred tetragonal cells, from face-centred (c = sqrt(2) a) to body-centred cubic (c = a), repetitions:
# what space groups 225 and 79 give, 2 to 32 atoms, with the displacements below
CELLS = [
    (2.80, 3.96, (1, 1, 1)), (2.95, 3.55, (1, 1, 1)), (3.12, 3.12, (1, 1, 1)), (2.79, 3.95, (2, 1, 1)),
    (2.74, 3.88, (2, 2, 2)), (2.95, 3.50, (2, 2, 2)), (3.10, 3.20, (2, 2, 2)), (2.84, 4.02, (2, 2, 2)),
    (2.77, 3.92, (4, 2, 2)), (2.80, 3.96, (4, 2, 2)), (2.86, 4.05, (4, 2, 2)), (2.90, 3.70, (4, 2, 2)),
]  # fmt: skip


def label(atoms: Atoms) -> Atoms:
    """A copy with EMT's energy and forces."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    forces = atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces)
    return atoms


def bulk_images(n: int = len(CELLS), seed: int = 0) -> list[Atoms]:
    """Rattled cells of 2 to 32 atoms; beyond twelve, the same with other displacements."""
    rng = np.random.default_rng(seed)
    images = []
    for k in range(n):
        a, c, repetitions = CELLS[k % len(CELLS)]
        atoms = Atoms("Pt2", scaled_positions=[[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], cell=[a, a, c], pbc=True) * repetitions
        atoms.positions += rng.normal(0.0, 0.04 + 0.01 * (k % 6), atoms.positions.shape)
        images.append(label(atoms))
    return images


def pt260() -> Atoms:
    """The paper's truncated octahedron, rattled."""
    return _octahedron(8, 3, seed=42)


def pt1415() -> Atoms:
    """The paper's larger truncated octahedron, rattled."""
    return _octahedron(15, 7, seed=0)


def _octahedron(length: int, cut: int, seed: int) -> Atoms:
    cluster = Octahedron("Pt", length, cutoff=cut, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, np.array(cluster.positions))
    atoms.rattle(0.1, seed=seed)
    return atoms


def chunk_images(n: int, cutoff: float = 6.5) -> list[Atoms]:
    """Labelled chunks around the first of a fixed shuffle of Pt260's atoms, then of Pt1415's; the centre is atom 0."""
    rng = np.random.default_rng(1)
    chunks: list[Atoms] = []
    for target in (pt260(), pt1415()):
        order = rng.permutation(len(target))[: n - len(chunks)]
        chunks += carve_chunks(target, [int(i) for i in order], cutoff)
    return [label(chunk) for chunk in chunks]
