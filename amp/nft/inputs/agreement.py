"""Labels of one geometry must agree: no potential can learn two energies or forces for the same atoms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

from amp.nft.errors import InputError

SAME = 1e-5  # Å, between two copies of one geometry; it changes forces by about a tenth of the tolerance
ENERGY = 1e-3  # eV per atom, between two labels of one geometry: convergence thresholds of the usual parents are tighter
FORCE = 1e-2  # eV/Å


def check_agreement(images: Sequence[Atoms], name: str = "images") -> None:
    """Raise InputError if two images have the same geometry and contradictory labels.

    Parameters
    ----------
    images : sequence of Atoms
        With energies and forces.
    name : str
        Name of the images in errors.
    """
    for i, j in same_geometries(images):
        a, b = images[min(i, j)], images[max(i, j)]
        energy = abs(a.get_potential_energy() - b.get_potential_energy())
        force = np.abs(a.get_forces(apply_constraint=False) - b.get_forces(apply_constraint=False)).max()
        if energy > ENERGY * len(a) or force > FORCE:
            raise InputError(
                f"{name}[{min(i, j)}] and {name}[{max(i, j)}] ({a.get_chemical_formula()}) have the same geometry, and their labels "
                f"differ by {energy:.3g} eV and up to {force:.3g} eV/Å: remove one, or label both with the same settings of the parent."
            )


def same_geometries(images: Sequence[Atoms]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images with the same atoms, places, cell and periodicity, in time almost linear in the images.

    Equal geometries have equal projections on any direction, so that they are neighbours once projections are sorted. Of
    more than two equal geometries, each is paired with the next.

    Parameters
    ----------
    images : sequence of Atoms

    Yields
    ------
    (int, int)
        Indices of the images.
    """
    groups = defaultdict(list)
    for i, image in enumerate(images):
        groups[image.numbers.tobytes(), image.pbc.tobytes()].append(i)
    for group in groups.values():
        x = np.array([np.concatenate([images[i].positions, images[i].cell.array], axis=None) for i in group])
        direction = np.random.default_rng(0).standard_normal(x.shape[1])
        projection = x @ (direction / np.linalg.norm(direction))
        order, window = np.argsort(projection, kind="stable"), SAME * np.sqrt(x.shape[1])
        for place, k in enumerate(order):
            for other in order[place + 1 :]:
                if projection[other] - projection[k] > window:
                    break
                if np.abs(x[other] - x[k]).max() <= SAME:
                    yield group[k], group[other]
                    break
