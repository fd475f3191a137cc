"""Checks of a run's arguments against each other, before any work starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

from ase import Atoms

from amp.nft.activelearner.method import Method
from amp.nft.amp_io import CalculatorSpec
from amp.nft.initialization.parent_check import compare_with_parent
from amp.nft.inputs import arguments
from amp.nft.labels.single_point import Parent
from amp.nft.selection import distinct as distinct_atoms
from amp.nft.selection import fingerprints

DistinctRule = Callable[[list[int], list[int]], list[int]]


def distinct_rule(distance: float | None, spec: CalculatorSpec | None, targets: list[Atoms]) -> DistinctRule | None:
    """Return the rule that skips chosen atoms with the environment of another; ValueError if they cannot be compared."""
    if distance is None:
        return None
    arguments.check_positive(distinct=distance)
    if spec is None:
        raise ValueError("distinct compares Gaussian fingerprints, but calc_text makes a calculator without them: use distinct=None.")
    x, kinds, _ = fingerprints(targets, spec.gs, spec.cutoff)
    return partial(distinct_atoms, x, kinds, distance=distance)


def compare_radii(cutoff: float, radius: float | None, log: Callable[[str], object]) -> None:
    """Warn where a chunk is smaller than the fingerprint cutoff."""
    if radius is None or cutoff >= radius:
        return
    message = (
        f"cutoff = {cutoff} Å is smaller than the fingerprint cutoff Rc = {radius} Å: the central atom of a chunk does "
        f"not even see all of its fingerprint neighbours. The model's force on an atom depends on atoms up to 2·Rc = "
        f"{2 * radius} Å away; use a chunk cutoff of at least {radius} Å, and larger if your parent can afford it."
    )
    warnings.warn(message, UserWarning, stacklevel=3)
    log(message)


def check_parent_of_images(method: Method, images: list[Atoms], parent: Parent, log: Callable[[str], object]) -> None:
    """Let the parent label one image again; raise ParentMismatch, or warn, if the label differs from the stored one."""
    if method.check_parent is False:
        return
    comparison = compare_with_parent(images, parent)
    if method.check_parent == "error":
        comparison.raise_if_different()
    elif not comparison.agrees:
        warnings.warn(str(comparison), UserWarning, stacklevel=4)
    log(str(comparison))
