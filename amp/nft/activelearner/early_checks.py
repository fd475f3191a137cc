"""Checks of a run's arguments against each other, before any work starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from ase import Atoms

from amp.nft.activelearner.chunk_labels import Carving
from amp.nft.amp_io import CalculatorSpec
from amp.nft.calculator.baseline import Baseline
from amp.nft.chunks import Convergence, Correction, Gate
from amp.nft.chunks.termination import termination_name
from amp.nft.errors import InputError
from amp.nft.inputs import arguments
from amp.nft.labels.pool import check_label_options
from amp.nft.labels.single_point import Parent
from amp.nft.records import LabelOptions
from amp.nft.selection import distinct as distinct_atoms
from amp.nft.selection import fingerprints

FRACTION = 0.5  # eV/Å, from which on a threshold below 1 may be meant as a fraction
DistinctRule = Callable[[list[int], list[int]], list[int]]


def explain_threshold(threshold: float | None) -> None:
    """Warn if an uncertainty looks like a fraction; it is obeyed as it is.

    Parameters
    ----------
    threshold : float or None
        As for `amp.nft.activelearner.NFT`.
    """
    if threshold is not None and FRACTION <= threshold < 1:
        warnings.warn(
            f"threshold is {threshold:g}: this takes every atom above {threshold:g} eV/Å; for the top {100 * (1 - threshold):.3g} % write "
            f"{-threshold:g}.", UserWarning, stacklevel=3,
        )  # fmt: skip


def distinct_rule(distance: float | None, spec: CalculatorSpec | None, targets: list[Atoms]) -> DistinctRule | None:
    """Return the rule that skips chosen atoms with the environment of another atom.

    Parameters
    ----------
    distance : float or None
        Largest distance of equal environments; see `amp.nft.selection.distinct_atoms`.
    spec : CalculatorSpec or None
        None for a calculator that only Amp reads.
    targets : list of Atoms

    Returns
    -------
    callable or None
        None without a distance.

    Raises
    ------
    ValueError
        The calculator has no Gaussian fingerprints, or the distance is not above 0.
    """
    if distance is None:
        return None
    arguments.check_positive(distinct=distance)
    if spec is None:
        raise ValueError("distinct compares Gaussian fingerprints, but calc_text makes a calculator without them: use distinct=None.")
    x, kinds, _ = fingerprints(targets, spec.gs, spec.cutoff)
    return partial(distinct_atoms, x, kinds, distance=distance)


def check_correction(correction: Parent | None, gate: Gate | Convergence | None, carving: Carving) -> Gate | None:
    """Check a correction and its judgement before any work starts.

    Parameters
    ----------
    correction : ASE calculator, callable or None
    gate : Gate, Convergence or None
    carving : Carving

    Returns
    -------
    Gate or None
        The judgement, of this radius and termination if a Convergence is given.

    Raises
    ------
    InputError, TypeError
        For a gate without correction, or of another type, or a correction that is not a calculator.
    CorrectionError
        If the gate was not passed, or fixed point charges are to correct chunks that cut bonds.
    """
    if correction is None:
        if gate is not None:
            raise InputError("gate is given, and correction is not: give the cheap calculator that it judges, too.")
        return None
    check_label_options(LabelOptions(correction))
    if gate is not None and not isinstance(gate, Gate | Convergence):
        raise TypeError(f"gate is a {type(gate).__name__}: give what amp.nft.chunks.convergence(..., cheap=...) returns, or its gate.")
    if isinstance(gate, Convergence):
        gate = gate.gate(termination_name(carving.termination), carving.cutoff)
    if gate is not None:
        gate.raise_if_failed()
    known = Correction.of(carving.targets[0], correction, forces_nx=np.zeros((len(carving.targets[0]), 3)))
    if known.charges is not None:
        for chunk in carving.sample():
            known.check(chunk)
    return gate


def check_baseline(baseline: Parent | None, correction: Parent | None, spec: CalculatorSpec | None) -> Baseline:
    """Return the baseline of a run, or one that changes nothing.

    Parameters
    ----------
    baseline, correction : ASE calculator, callable or None
    spec : CalculatorSpec or None
        None for a calculator that only Amp reads.

    Returns
    -------
    Baseline

    Raises
    ------
    InputError
        It is not a calculator, is given with a correction, or no calculator of this package could add the members to it.
    """
    found = Baseline(baseline)
    if baseline is not None and correction is not None:
        raise InputError(
            f"correction and baseline = {found.name} are both given: a baseline itself adds its force in the target and subtracts that in "
            "the chunk. Remove one."
        )
    if baseline is not None and spec is None:
        raise InputError(
            f"baseline = {found.name} needs a calculator of Gaussian fingerprints and a neural network in calc_text: Amp alone cannot add "
            "other members to it."
        )
    return found


def compare_radii(cutoff: float, radius: float | None, log: Callable[[str], object]) -> None:
    """Warn if the radius of a chunk is smaller than the fingerprint cutoff.

    Parameters
    ----------
    cutoff : float
        Radius of a chunk, Å.
    radius : float or None
        Fingerprint cutoff, Å; None if not known.
    log : callable
        Takes a message.
    """
    if radius is None or cutoff >= radius:
        return
    message = (
        f"cutoff = {cutoff} Å is smaller than the fingerprint cutoff Rc = {radius} Å: the central atom of a chunk does "
        f"not even see all of its fingerprint neighbours. The model's force on an atom depends on atoms up to 2·Rc = "
        f"{2 * radius} Å away; use a chunk cutoff of at least {radius} Å, and larger if your parent can afford it."
    )
    warnings.warn(message, UserWarning, stacklevel=3)
    log(message)
