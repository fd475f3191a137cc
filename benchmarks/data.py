"""The data of the benchmarks: small bulk cells of platinum and chunks of Pt260, labelled with EMT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron

from amp.nft.amp_io import CalculatorSpec
from amp.nft.chunks import carve_chunks
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows
from amp.nft.kernels.training.labelled import LabelledImages

# edges a and c in Å of body-centred tetragonal cells, from face-centred (c = sqrt(2) a) to body-centred cubic (c = a), and
# repetitions: what space groups 225 and 79 give, 2 to 32 atoms, with the displacements below
CELLS = [
    (2.80, 3.96, (1, 1, 1)), (2.95, 3.55, (1, 1, 1)), (3.12, 3.12, (1, 1, 1)), (2.79, 3.95, (2, 1, 1)),
    (2.74, 3.88, (2, 2, 2)), (2.95, 3.50, (2, 2, 2)), (3.10, 3.20, (2, 2, 2)), (2.84, 4.02, (2, 2, 2)),
    (2.77, 3.92, (4, 2, 2)), (2.80, 3.96, (4, 2, 2)), (2.86, 4.05, (4, 2, 2)), (2.90, 3.70, (4, 2, 2)),
]  # fmt: skip


def label(atoms: Atoms) -> Atoms:
    """Return a copy with EMT's energy and forces."""
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
    """Return the paper's truncated octahedron, rattled."""
    return _octahedron(8, 3, seed=42)


def pt1415() -> Atoms:
    """Return the paper's larger truncated octahedron, rattled."""
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


@dataclass(frozen=True)
class TrainingSet:
    """Bulk cells and chunks as a trainer has them."""

    images: list[Atoms]
    centres: list[int | None]
    spec: CalculatorSpec
    rows: list[Rows]
    fprange: dict[str, np.ndarray]
    weights_mi: np.ndarray

    @property
    def labelled(self) -> LabelledImages:
        """Fingerprints and labels for a fit."""
        return LabelledImages(self.rows, self.energies, self.forces, np.array([len(image) for image in self.images]))

    @property
    def energies(self) -> np.ndarray:
        """Energies in eV, nan for chunks."""
        pairs = zip(self.images, self.centres, strict=True)
        return np.array([image.get_potential_energy() if centre is None else np.nan for image, centre in pairs])

    @property
    def forces(self) -> list[np.ndarray]:
        """The forces that are trained, in eV/Å."""
        pairs = zip(self.images, self.centres, strict=True)
        return [image.get_forces()[slice(None) if centre is None else [centre]] for image, centre in pairs]


def training_set(n_chunks: int, members: int = 10, hidden: tuple[int, ...] = (5, 5), seed: int = 5) -> TrainingSet:
    """Twelve cells and some chunks, with bootstrap samples of both; inputs ranged over these and Pt260."""
    cells, chunks = bulk_images(), chunk_images(n_chunks)
    spec = CalculatorSpec(
        gs=g2x(["Pt"]), elements=("Pt",), cutoff={"name": "Cosine", "kwargs": {"Rc": 6.5}}, hiddenlayers={"Pt": hidden},
        activation="tanh", energy_coefficient=1.0, force_coefficient=0.04, overfit=0.0, maxiter=10_000,
        convergence={"energy_rmse": 0.001, "energy_maxresid": None, "force_rmse": 0.005, "force_maxresid": 0.02}, model=None,
    )  # fmt: skip
    fingerprints = Fingerprints(spec.gs, spec.cutoff)
    rows = [fingerprints.rows(cell) for cell in cells] + [fingerprints.rows(chunk, 0) for chunk in chunks]
    x = np.concatenate([r.x for r in [*rows, fingerprints.rows(pt260())]])
    rng = np.random.default_rng(seed)
    weights = np.zeros((members, len(rows)), dtype=np.int64)
    for sample in weights:
        for part in (sample[: len(cells)], sample[len(cells) :]):
            if len(part):
                part += np.bincount(rng.integers(0, len(part), len(part)), minlength=len(part))
    fprange = {"Pt": np.column_stack([x.min(axis=0), x.max(axis=0)])}
    return TrainingSet(cells + chunks, [None] * len(cells) + [0] * len(chunks), spec, rows, fprange, weights)
