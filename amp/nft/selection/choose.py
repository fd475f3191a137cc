"""Choose images, chunks and fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.features import SymmetryFunctions, candidates
from amp.nft.selection.environments import apart, fingerprints, scaled
from amp.nft.selection.rows import METHODS, by_correlation

FEATURE_METHODS = ("force_correlation", *METHODS)
LEAST_VARIANCE = 1e-3  # a fingerprint that varies less is as good as constant; Amp's value


def choose_features(
    images: Sequence[Atoms],
    k: int,
    Gs: SymmetryFunctions | None = None,
    *,
    method: str = "force_correlation",
    cutoff: float | dict[str, Any] = 6.5,
) -> SymmetryFunctions:
    """Choose fingerprints, for each element by itself.

    Parameters
    ----------
    images : sequence of Atoms
        Images that contain all elements; with forces for ``'force_correlation'``.
    k : int
        Number of functions to choose for each element.
    Gs : dict of str to list of dict, optional
        To choose from, as Amp writes them; the 78 of `amp.nft.features.candidates` if not given.
    method : 'force_correlation', 'cur' or 'fps'
        - ``'force_correlation'``: one after the other, that which correlates most with the magnitude of the force on
          its atom, after the part that those before it explain is removed.
        - ``'cur'``: that which has most of the leading singular vector, likewise; only positions enter.
        - ``'fps'``: that which is farthest from those before it, as vectors over the atoms.
    cutoff : float or dict
        Radius of the cosine cutoff, Å, or Amp's ``{'name': ..., 'kwargs': ...}``.

    Returns
    -------
    dict of str to list of dict
        The chosen functions, the most informative first.

    Raises
    ------
    ValueError
        If an element has fewer than `k` fingerprints that vary, or the images have no forces.

    Notes
    -----
    The correlation is that of Amp (``amp.preprocess.feature_selection``), made for the work of C. Zeng, X. Chen,
    A. A. Peterson, J. Chem. Phys. 156, 064104 (2022). CUR and farthest points are scikit-matter's: G. Imbalzano et al.,
    J. Chem. Phys. 148, 241730 (2018).
    """
    images = _checked(images, k, method, FEATURE_METHODS)
    if Gs is None:
        Gs = candidates({symbol for image in images for symbol in image.symbols})
    x, kinds, elements = fingerprints(images, Gs, cutoff)
    force = np.linalg.norm(_forces(images), axis=1) if method == "force_correlation" else np.zeros(len(x))
    chosen = {}
    for kind, element in enumerate(elements):
        here = kinds == kind
        of_element = x[here, : len(Gs[element])]
        varying = np.flatnonzero(of_element.var(axis=0) > LEAST_VARIANCE)
        if len(varying) < k:
            raise ValueError(
                f"k is {k}, but only {len(varying)} of the {len(Gs[element])} fingerprints of {element} vary over the images "
                f"(variance above {LEAST_VARIANCE:g}): choose fewer, or give more images or fingerprints."
            )
        columns = _robust(of_element[:, varying])
        if method == "force_correlation":
            order = by_correlation(columns, force[here], k)
        else:
            order = METHODS[method](columns.T, k)
        chosen[element] = [dict(Gs[element][varying[i]]) for i in order]
    return chosen


def choose_images(
    images: Sequence[Atoms],
    k: int,
    Gs: SymmetryFunctions | None = None,
    *,
    method: str = "fps",
    cutoff: float | dict[str, Any] = 6.5,
) -> list[int]:
    """Choose images that differ.

    Parameters
    ----------
    images : sequence of Atoms
    k : int
        Number to choose.
    Gs : dict of str to list of dict, optional
        Fingerprints that distinguish images; those of `amp.nft.features.g2x` if not given.
    method : 'fps' or 'cur'
    cutoff : float or dict
        As for `choose_features`.

    Returns
    -------
    list of int
        Their indices in `images`, in the order of selection.

    Raises
    ------
    ValueError
        If there are fewer than `k` images, or the method is not one of these.

    Notes
    -----
    An image is described by the means and standard deviations of its scaled fingerprints, for each element, and by its
    composition, so that neither the order nor the number of its atoms matters.
    """
    images = _checked(images, k, method, METHODS, of="images")
    x, kinds, elements = fingerprints(images, Gs, cutoff)
    x = scaled(x, kinds)
    first = np.cumsum([0, *map(len, images[:-1])])
    parts = []
    for kind in range(len(elements)):
        here = (kinds == kind)[:, None]
        number = np.add.reduceat(here.astype(float), first)
        mean = np.add.reduceat(x * here, first) / np.maximum(number, 1.0)
        square = np.add.reduceat(x**2 * here, first) / np.maximum(number, 1.0)
        share = number / np.array([[len(image)] for image in images])
        parts += [share, mean, np.sqrt(np.maximum(square - mean**2, 0.0))]
    return METHODS[method](np.hstack(parts), k)


def choose_chunks(
    chunks: Sequence[Atoms],
    k: int,
    Gs: SymmetryFunctions | None = None,
    *,
    method: str = "cur",
    cutoff: float | dict[str, Any] = 6.5,
) -> list[int]:
    """Choose chunks whose central atoms have different environments.

    Parameters
    ----------
    chunks : sequence of Atoms
        The central atom of each is atom 0.
    k, Gs, method, cutoff : as there
        As for `choose_images`.

    Returns
    -------
    list of int
        Their indices in `chunks`, in the order of selection.

    Raises
    ------
    ValueError
        If there are fewer than `k` chunks, or the method is not one of these.
    """
    chunks = _checked(chunks, k, method, METHODS, of="chunks")
    x, kinds, elements = fingerprints(chunks, Gs, cutoff, centres=True)
    return METHODS[method](apart(scaled(x, kinds), kinds, len(elements)), k)


def _robust(x: np.ndarray) -> np.ndarray:
    """Scale columns to median 0 and quartiles 1 apart."""
    low, middle, high = np.percentile(x, [25, 50, 75], axis=0)
    return (x - middle) / np.where(high > low, high - low, 1.0)


def _checked(images: Sequence[Atoms], k: int, method: str, methods: Iterable[str], of: str | None = None) -> list[Atoms]:
    """Return the images; ValueError if there are too few or the method is unknown."""
    images = list(images)
    if method not in methods:
        raise ValueError(f"method is {method!r}: it must be one of {', '.join(map(repr, methods))}.")
    if not images or not all(isinstance(image, Atoms) and len(image) for image in images):
        raise ValueError("Give at least one image, each an ase.Atoms with at least one atom.")
    if not (isinstance(k, int | np.integer) and k >= 1):
        raise ValueError(f"k is {k!r}: it must be an integer, at least 1.")
    if of is not None and k > len(images):
        raise ValueError(f"k is {k}, but there are only {len(images)} {of}: choose no more than that.")
    return images


def _forces(images: list[Atoms]) -> np.ndarray:
    """Return the forces on all atoms of all images, eV/Å."""
    for number, image in enumerate(images):
        if image.calc is None:
            raise ValueError(
                f"Image {number} ({image.get_chemical_formula()}) has no forces, which method='force_correlation' needs: "
                "label it with the parent calculator, or take method='cur'."
            )
    return np.concatenate([image.get_forces(apply_constraint=False) for image in images])
