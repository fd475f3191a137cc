"""Fingerprints that carry nothing: constants, and copies of others. The fit drops them; models keep them with weight 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from amp.nft.kernels.training.network import NO_SCALING_BELOW, Inputs, Layout

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Rows


@dataclass(frozen=True)
class Kept:
    """Fingerprints of one element that the fit uses.

    Attributes
    ----------
    chosen : ndarray of int, shape (kept,)
        Their numbers, ascending.
    same : ndarray of int, shape (features,)
        For each fingerprint the position in `chosen` of the one that it equals; -1 for a constant.
    value : ndarray, shape (features,)
        The first value of each, which a constant always has.
    """

    chosen: np.ndarray
    same: np.ndarray
    value: np.ndarray

    @property
    def complete(self) -> bool:
        """Nothing is dropped."""
        return len(self.chosen) == len(self.same)


def find_kept(gs: dict[str, Any], rows: Sequence[Rows]) -> list[Kept]:
    """Find the fingerprints that carry something.

    A fingerprint is constant if neither its values nor its derivatives say anything about any of the images. It is a copy if
    the same symmetry function precedes it. At least one is kept of each element.

    Parameters
    ----------
    gs : dict of str to list of dict
        Symmetry functions of each element.
    rows : sequence of Rows
        Fingerprints of all images; `Rows.kind` counts the sorted elements of `gs`.

    Returns
    -------
    list of Kept
        One for each element, sorted.
    """
    x, kind = np.concatenate([r.x for r in rows]), np.concatenate([r.kind for r in rows])
    result = []
    for k, element in enumerate(sorted(gs)):
        functions, values = [_identity(g) for g in gs[element]], x[kind == k, : len(gs[element])]
        constant = np.zeros(len(functions), dtype=bool)
        if len(values):
            constant = np.ptp(values, axis=0) <= NO_SCALING_BELOW
            constant[constant] = ~_moves(rows, k, np.flatnonzero(constant))
        if constant.all():
            constant[0] = False
        first = [functions.index(function) for function in functions]
        chosen = [i for i in range(len(functions)) if first[i] == i and not constant[i]]
        same = np.array([-1 if constant[f] else chosen.index(f) for f in first])
        result.append(Kept(np.array(chosen), same, values[0] if len(values) else np.zeros(len(functions))))
    return result


def _identity(g: dict[str, Any]) -> tuple:
    """Return the key that entries of the same symmetry function share."""
    elements = tuple(sorted(g["elements"])) if "elements" in g else g["element"]
    return g["type"], elements, g["eta"], g.get("offset", 0.0), g.get("gamma"), g.get("zeta")


def _moves(rows: Sequence[Rows], kind: int, features: np.ndarray) -> np.ndarray:
    """Return True for each fingerprint of an element that has a derivative."""
    moves = np.zeros(len(features), dtype=bool)
    for r in rows if len(features) else ():
        dx = r.dx[r.kind[r.force_row] == kind][..., features]
        moves |= (np.abs(dx) > NO_SCALING_BELOW).any(axis=(0, 1))
    return moves


def deserves_a_warning(kept: Sequence[Kept]) -> bool:
    """Return True if fingerprints are dropped for another reason than a reach too short for any atom of these images.

    Parameters
    ----------
    kept : sequence of Kept

    Returns
    -------
    bool
        True if a copy is dropped, or a constant other than 0.
    """
    for of_element in kept:
        constant = of_element.same < 0
        n_copies = len(of_element.same) - constant.sum() - len(of_element.chosen)
        if n_copies or (np.abs(of_element.value[constant]) > NO_SCALING_BELOW).any():
            return True
    return False


def describe_dropped(elements: Sequence[str], kept: Sequence[Kept]) -> str:
    """Name the fingerprints that are dropped.

    Parameters
    ----------
    elements : sequence of str
    kept : sequence of Kept
        One per element.

    Returns
    -------
    str
        Empty if none is.
    """
    parts = []
    for element, of_element in zip(elements, kept, strict=True):
        constant = np.flatnonzero(of_element.same < 0)
        copies = [i for i, same in enumerate(of_element.same) if same >= 0 and of_element.chosen[same] != i]
        for name, which in (("constant", constant), ("copies", copies)):
            if len(which):
                parts.append(f"{name} for {element}: {', '.join(map(str, which))}")
    if not parts:
        return ""
    named = "; ".join(parts)
    return f"Symmetry functions that carry nothing are not trained ({named}; counted from 0); they stay in the model with weight 0."


def reduced(layout: Layout, kept: Sequence[Kept]) -> Layout:
    """Return the layout of networks of the kept fingerprints.

    Parameters
    ----------
    layout : Layout
    kept : sequence of Kept

    Returns
    -------
    Layout
    """
    return replace(layout, sizes=tuple((len(k.chosen), *sizes[1:]) for sizes, k in zip(layout.sizes, kept, strict=True)))


def collapse(theta: np.ndarray, whole: Layout, layout: Layout, kept: Sequence[Kept], amps: Inputs) -> np.ndarray:
    """Return the parameters of the same functions of the kept fingerprints.

    Parameters
    ----------
    theta : ndarray, shape (parameters of `whole`,)
    whole, layout : Layout
        Of all fingerprints, and of those kept.
    kept : sequence of Kept
    amps : list of (ndarray, ndarray)
        Amp's inputs of all fingerprints.

    Returns
    -------
    ndarray, shape (parameters of `layout`,)
    """
    result = np.zeros(layout.n_parameters)
    layers = zip(whole.layers(theta), layout.layers(result), kept, amps, strict=True)
    for (first, *upper), (new_first, *new_upper), of_element, (matrix, shift) in layers:
        same, chosen, scale = of_element.same, of_element.chosen, np.diag(matrix)
        slopes = scale[:, None] * first[:-1]
        constant, total = same < 0, np.zeros((len(chosen), first.shape[1]))
        np.add.at(total, same[~constant], slopes[~constant])
        new_first[:-1] = total / scale[chosen, None]
        fixed = first[-1] + shift @ first[:-1] + of_element.value[constant] @ slopes[constant]
        new_first[-1] = fixed - shift[chosen] @ new_first[:-1]
        for new, old in zip(new_upper, upper, strict=True):
            new[:] = old
    layout.scalings(result)[:] = whole.scalings(theta)
    return result


def expand(theta: np.ndarray, layout: Layout, whole: Layout, kept: Sequence[Kept]) -> np.ndarray:
    """Return the parameters with weight 0 for dropped fingerprints; the reverse of :func:`collapse` in Amp's inputs.

    Parameters
    ----------
    theta : ndarray, shape (parameters of `layout`,)
    layout, whole : Layout
        Of the kept fingerprints, and of all.
    kept : sequence of Kept

    Returns
    -------
    ndarray, shape (parameters of `whole`,)
    """
    result = np.zeros(whole.n_parameters)
    for (first, *upper), (new_first, *new_upper), of_element in zip(layout.layers(theta), whole.layers(result), kept, strict=True):
        new_first[of_element.chosen] = first[:-1]
        new_first[-1] = first[-1]
        for new, old in zip(new_upper, upper, strict=True):
            new[:] = old
    whole.scalings(result)[:] = layout.scalings(theta)
    return result
