"""Fit all members of an ensemble: what is common to them once, then each from its own start to its own end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from amp.nft.amp_files import AmpModel, CalculatorSpec
from amp.nft.kernels.descent import Fit, Rules, descend
from amp.nft.kernels.gaussian import Rows
from amp.nft.kernels.jit import run_threads
from amp.nft.kernels.loss import Problem
from amp.nft.kernels.network import (
    Inputs,
    Layout,
    change_inputs,
    draw_weights,
    make_problem,
    refresh_range,
    scaled_inputs,
    whitened_inputs,
)
from amp.nft.reports import MemberReport

ATTEMPTS = 3  # starts of a member that does not meet its criteria, before its best one is kept
SLOPE = 30.0  # initial slope over half the range of the energies per atom: tanh at the output node stays nearly linear
SAME_FLOOR = 0.3  # attempts whose distances from the criteria differ by less than this fraction ended at the same floor
CRITERIA = ("energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid")


@dataclass(frozen=True)
class _Ensemble:
    """What all members share."""

    spec: CalculatorSpec
    layout: Layout
    problem: Problem
    rules: Rules
    fprange: dict[str, np.ndarray]
    inputs: Inputs  # what the networks see in the fit
    amps: Inputs  # what they see in Amp
    scalings: np.ndarray  # (elements, 2) of a new start


def fit(
    spec: CalculatorSpec,
    rows: Sequence[Rows],
    energies: np.ndarray,
    forces: Sequence[np.ndarray],
    n_atoms: np.ndarray,
    weights_mi: np.ndarray,
    start: Sequence[AmpModel] | None,
    fprange: dict[str, np.ndarray],
    seeds: Sequence[Sequence[int]],
    threads: int | None = None,
) -> tuple[list[AmpModel], list[MemberReport]]:
    """Fit every member to its bootstrap sample.

    Parameters
    ----------
    spec : CalculatorSpec
        Resolved for the elements of `fprange`.
    rows : sequence of Rows
        One per image.
    energies : ndarray, shape (images,)
        eV; nan for a chunk.
    forces : sequence of ndarray, shape (forces, 3)
        Of each image, eV/Å.
    n_atoms : ndarray of int, shape (images,)
    weights_mi : ndarray of int, shape (members, images)
        How often each image is in each sample.
    start : sequence of AmpModel, optional
        Where the members start; at random weights if not given.
    fprange : dict of str to ndarray, shape (features, 2)
        Ranges of the fingerprints, over all that the networks are to see.
    seeds : sequence of sequence of int
        Of each member's random weights.
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    models : list of AmpModel
    reports : list of MemberReport
    """
    ensemble = _prepare(spec, rows, energies, forces, n_atoms, fprange)
    fits: list[tuple[Fit, list[Fit]]] = [None] * len(weights_mi)  # type: ignore[list-item]

    def work(member: int) -> None:
        first = None if start is None else _theta_of(start[member], ensemble)
        fits[member] = _fit_member(ensemble, weights_mi[member], first, seeds[member])

    run_threads(work, range(len(weights_mi)), threads)
    models = [_model(best.theta, ensemble) for best, _ in fits]
    return models, [_report(member, best, tried, ensemble.rules) for member, (best, tried) in enumerate(fits)]


def _prepare(
    spec: CalculatorSpec,
    rows: Sequence[Rows],
    energies: np.ndarray,
    forces: Sequence[np.ndarray],
    n_atoms: np.ndarray,
    fprange: dict[str, np.ndarray],
) -> _Ensemble:
    elements = tuple(sorted(fprange))
    sizes = tuple((len(spec.gs[e]), *spec.hiddenlayers[e], 1) for e in elements)
    layout = Layout(elements, sizes, spec.activation)
    amps = scaled_inputs(fprange[e] for e in elements)
    inputs = whitened_inputs(rows, amps)
    problem = make_problem(
        layout, rows, energies, forces, n_atoms, fprange, inputs,
        spec.energy_coefficient, spec.force_coefficient, spec.overfit,
    )  # fmt: skip
    bounds = [np.inf if spec.convergence[name] is None else spec.convergence[name] for name in CRITERIA]
    rules = Rules(np.array(bounds), max_steps=spec.maxiter)
    return _Ensemble(spec, layout, problem, rules, fprange, inputs, amps, _first_scalings(rows, energies, len(elements)))


def _first_scalings(rows: Sequence[Rows], energies: np.ndarray, n_elements: int) -> np.ndarray:
    """Intercepts that fit the energies best as sums over the atoms; the slope from what they leave unexplained."""
    known = np.flatnonzero(np.isfinite(energies))
    scalings = np.column_stack([np.zeros(n_elements), np.full(n_elements, SLOPE)])
    if len(known) == 0:
        return scalings
    counts = np.array([np.bincount(rows[i].kind, minlength=n_elements) for i in known])
    atoms = counts.sum(axis=1)
    fractions, per_atom = counts / atoms[:, None], energies[known] / atoms
    scalings[:, 0] = np.linalg.lstsq(fractions, per_atom, rcond=None)[0]
    rest = per_atom - fractions @ scalings[:, 0]
    scalings[:, 1] = SLOPE * max(np.ptp(rest) / 2, 0.01)
    return scalings


def _fit_member(
    ensemble: _Ensemble, weights: np.ndarray, first: np.ndarray | None, seed: Sequence[int]
) -> tuple[Fit, list[Fit]]:
    """The best of a bounded number of attempts, and all of them."""
    tried: list[Fit] = []
    for attempt in range(ATTEMPTS):
        theta = first if first is not None and attempt == 0 else _random_theta(ensemble, [*seed, attempt])
        tried.append(descend(ensemble.problem, theta, weights, ensemble.rules))
        if tried[-1].outcome != "stalled":
            break
    return min(tried, key=lambda one: one.distance), tried


def _random_theta(ensemble: _Ensemble, seed: Sequence[int]) -> np.ndarray:
    """Weights as Amp draws them; those of the output node as much smaller as the slope is larger."""
    theta = draw_weights(ensemble.layout, np.random.default_rng(list(seed)))
    for layers in ensemble.layout.layers(theta):
        layers[-1][:] /= SLOPE
    ensemble.layout.scalings(theta)[:] = ensemble.scalings
    return theta


def _theta_of(model: AmpModel, ensemble: _Ensemble) -> np.ndarray:
    """A model's parameters for the inputs of this fit."""
    layout = ensemble.layout
    theta = np.zeros(layout.n_parameters)
    for element, layers in zip(layout.elements, layout.layers(theta), strict=True):
        for layer, given in zip(layers, model.weights[element], strict=True):
            layer[:] = given
    layout.scalings(theta)[:] = [model.scalings[element] for element in layout.elements]
    theta = refresh_range(theta, layout, model.fprange, ensemble.fprange)
    return change_inputs(theta, layout, ensemble.amps, ensemble.inputs)


def _model(theta: np.ndarray, ensemble: _Ensemble) -> AmpModel:
    """Parameters for the inputs of this fit as a model of Amp's."""
    spec, layout = ensemble.spec, ensemble.layout
    theta = change_inputs(theta, layout, ensemble.inputs, ensemble.amps)
    pairs = zip(layout.elements, layout.scalings(theta), strict=True)
    return AmpModel(
        gs=spec.gs,
        cutoff=spec.cutoff,
        hiddenlayers=spec.hiddenlayers,
        activation=spec.activation,
        weights={e: [layer.copy() for layer in layers] for e, layers in zip(layout.elements, layout.layers(theta), strict=True)},
        scalings={element: (float(intercept), float(slope)) for element, (intercept, slope) in pairs},
        fprange=ensemble.fprange,
    )


def _report(member: int, best: Fit, tried: list[Fit], rules: Rules) -> MemberReport:
    return MemberReport(
        member, best.outcome == "converged", sum(one.steps for one in tried), len(tried), best.loss,
        *map(float, best.measures), message=_message(best, tried, rules),
    )  # fmt: skip


def _message(best: Fit, tried: list[Fit], rules: Rules) -> str:
    """Nothing for a member that meets its criteria; else by how much it does not, and why."""
    if best.outcome == "converged":
        return ""
    missed = [
        f"{name} {value:.4g} (asked: {bound:.4g})"
        for name, value, bound in zip(CRITERIA, best.measures, rules.criteria, strict=True)
        if value > bound
    ]
    text = ", ".join(missed) or "no criterion asked"
    if best.outcome == "exhausted":
        return f"{text} after maxiter = {rules.max_steps} steps"
    distances = [one.distance for one in tried]
    if len(tried) > 1 and max(distances) - min(distances) < SAME_FLOOR * max(distances):
        return f"{text}; {len(tried)} attempts end at the same floor: the fingerprints are the limit, give more or narrower ones"
    return f"{text}; the best of {len(tried)} attempts"
