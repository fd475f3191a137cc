"""Fit all members of an ensemble together, in this process."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from amp.nft.amp_io import AmpModel, CalculatorSpec
from amp.nft.errors import InputError
from amp.nft.kernels.threads import Threads
from amp.nft.kernels.training.descent import Fit, Rules, descend, distance
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.network import (
    Inputs,
    Layout,
    change_inputs,
    draw_weights,
    make_problem,
    scaled_inputs,
    whitened_inputs,
)
from amp.nft.records import MemberReport, MemberStep, Watch, unwatched
from amp.nft.training.checks import check_labels, check_weights
from amp.nft.training.null_inputs import Kept, collapse, describe_dropped, deserves_a_warning, expand, find_kept, reduced
from amp.nft.training.out_of_bag import UNTIL, Until, choose_judges, describe, energy_stage, stage_on_all_images

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Rows
    from amp.nft.kernels.training.loss import Problem

logger = logging.getLogger("amp.nft")

CRITERIA = ("energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid")
SLOPE = 30.0  # a first slope, in units of Amp's: half the spread of the energies per atom. Amp's own has to grow that much
LEAST_SLOPE = 1.0  # eV
NEAR = 0.3  # distance from the criteria below which another attempt may well meet them
ATTEMPTS = 3  # largest number of starts of a member
ALIKE = 0.3  # largest relative difference of distances of two attempts that stalled at the same limit


def fit(
    spec: CalculatorSpec,
    images: LabelledImages,
    weights_mi: np.ndarray,
    fprange: dict[str, np.ndarray],
    seeds: Sequence[Any],
    *,
    start: Sequence[AmpModel] | None = None,
    retry_m: Sequence[bool] | None = None,
    chunk_i: Sequence[bool] | np.ndarray | None = None,
    unlabelled: Sequence[Rows] = (),
    until: Until = "criteria",
    end_with_energies: bool = False,
    threads: int | None = None,
    watch: Watch = unwatched,
) -> tuple[list[AmpModel], list[MemberReport]]:
    """Fit an ensemble to labelled images.

    Each member is fitted by Levenberg-Marquardt until it meets the criteria, and a little further. One that stalls before begins
    again with new random weights, a bounded number of times; the attempt that came nearest is kept. With `until` 'out-of-bag' a
    member needs no criteria: it keeps the parameters of the smallest error on the images that its sample lacks. One whose sample
    contains every image is fitted as with 'criteria'.

    Parameters
    ----------
    spec : CalculatorSpec
        Calculator to fit, with its criteria.
    images : LabelledImages
        `Rows.kind` counts the sorted elements of `fprange`. Without `divisors`, the sum over the forces of an image is divided by
        their number if it has an energy, as in Amp, and by 1 for a chunk: each of its forces counts as the one force of a chunk
        does in Amp.
    weights_mi : ndarray of int, shape (members, images)
        Multiplicity of each image in each member's sample.
    fprange : dict of str to ndarray, shape (features, 2)
        Ranges of the fingerprints over everything that the members will see.
    seeds : sequence
        Of each member's random weights: seeds for :func:`numpy.random.default_rng`.
    start : sequence of AmpModel, optional
        The members to start from; None: from `spec.model` if there is one, else from random weights.
    retry_m : sequence of bool, optional
        Members that may begin again; all if not given.
    chunk_i : sequence of bool, optional
        Images that are chunks of a target: they judge first in the out-of-bag stop. None of them if not given.
    unlabelled : sequence of Rows
        Fingerprints of the targets, for the scaling of the inputs. Without them, directions in which the images hardly differ
        but the targets do would be magnified.
    until : {'criteria', 'out-of-bag'}
        When a member's fit ends. For 'out-of-bag', start from random weights: parameters that were fitted to another sample have
        seen the images that judge them.
    end_with_energies : bool
        End an out-of-bag fit with :func:`amp.nft.training.out_of_bag.energy_stage`.
    threads : int, optional
        The result does not depend on it.
    watch : callable
        Is called with a `MemberStep` of each member at each step, from the member's thread.

    Returns
    -------
    models : list of AmpModel
    reports : list of MemberReport

    Raises
    ------
    ValueError
        Labels or weights are missing, not finite, or do not fit together.
    """
    check_labels(images, weights_mi)
    if until not in UNTIL:
        raise InputError(f"until is {until!r}: it must be one of {', '.join(map(repr, UNTIL))}.")
    check_weights(images)
    images = _with_divisors(images)
    nets, criteria = _prepare(spec, images, fprange, unlabelled, until)
    layout, inputs, problem = nets.layout, nets.inputs, nets.problem
    if start is None and spec.model is not None:
        start = [spec.model] * len(weights_mi)
    scalings = [_first_scalings(layout, images, weights) for weights in weights_mi]
    tries: list[list[Fit]] = [[] for _ in weights_mi]
    retry_m = [True] * len(tries) if retry_m is None else retry_m
    n_forces_i = np.array([len(force) for force in images.forces]) * (nets.spec.force_coefficient is not None)
    chunk_i = np.zeros(len(images.rows), dtype=bool) if chunk_i is None else chunk_i
    shared = Threads(threads)
    judges_m = [choose_judges(w, chunk_i, n_forces_i) if until == "out-of-bag" else None for w in weights_mi]

    def work(member: int) -> None:
        """Run all attempts of a member."""
        rng, done, steps = np.random.default_rng(seeds[member]), tries[member], 0
        attempts = ATTEMPTS if retry_m[member] else 1
        while len(done) < attempts and (not done or done[-1].outcome == "stalled") and not _met_floor(done):
            if start is not None and not done:
                theta = nets.theta_of(start[member])
            else:
                theta = change_inputs(_random_start(layout, rng, scalings[member]), layout, nets.amps, inputs)
            tell, judges = partial(_tell, watch, member, steps), judges_m[member]
            rules = Rules(criteria if judges is None else np.full(4, np.inf), spec.maxiter - steps)
            held_out = None if judges is None else judges.over(problem)
            done.append(descend(problem, theta, weights_mi[member], rules, tell, held_out, shared))
            if judges is not None and end_with_energies:
                done[-1] = energy_stage(
                    problem, done[-1], weights_mi[member], judges, partial(_tell, watch, member, steps + done[-1].steps), shared
                )
            steps += done[-1].steps
        end = _best(done)
        how = "met" if _succeeded(end) else "missed"
        left = distance(end.measures, criteria, np.nan) if judges_m[member] is None else 0.0
        watch(MemberStep(member, how, steps, end.loss, left))

    shared.run(work, range(len(weights_mi)))
    reports = [_report(*those, criteria) for those in zip(range(len(tries)), tries, retry_m, strict=True)]
    return [nets.model_of(_best(done).theta) for done in tries], reports


def continue_on_all(
    spec: CalculatorSpec,
    images: LabelledImages,
    fprange: dict[str, np.ndarray],
    models: Sequence[AmpModel],
    *,
    unlabelled: Sequence[Rows] = (),
    threads: int | None = None,
) -> tuple[list[AmpModel], list[Fit]]:
    """Continue members on all images: :func:`amp.nft.training.out_of_bag.stage_on_all_images`.

    Parameters
    ----------
    spec, images, fprange : as there
        As for :func:`fit`.
    models : sequence of AmpModel
        Members that :func:`fit` made with `until` 'out-of-bag'.
    unlabelled, threads : as there
        As for :func:`fit`.

    Returns
    -------
    models : list of AmpModel
    fits : list of Fit
    """
    nets, _ = _prepare(spec, _with_divisors(images), fprange, unlabelled, "out-of-bag")
    shared, fits = Threads(threads), {}

    def work(member: int) -> None:
        fits[member] = stage_on_all_images(nets.problem, nets.theta_of(models[member]), threads=shared)

    shared.run(work, range(len(models)))
    ended = [fits[member] for member in range(len(models))]
    return [nets.model_of(fit.theta) for fit in ended], ended


@dataclass(frozen=True)
class _Networks:
    """Networks of the inputs that carry something, and their problem."""

    spec: CalculatorSpec
    fprange: dict[str, np.ndarray]
    whole: Layout
    layout: Layout
    kept: list[Kept]
    amps: Inputs
    inputs: Inputs
    problem: Problem

    def theta_of(self, model: AmpModel) -> np.ndarray:
        """Return the parameters of a model."""
        return change_inputs(*_collapsed(model, self.whole, self.layout, self.kept), self.inputs)

    def model_of(self, theta: np.ndarray) -> AmpModel:
        """Return the model with these parameters."""
        theta = change_inputs(theta, self.layout, self.inputs, self.amps)
        return unpack(expand(theta, self.layout, self.whole, self.kept), self.whole, self.spec, self.fprange)


def _prepare(
    spec: CalculatorSpec, images: LabelledImages, fprange: dict[str, np.ndarray], unlabelled: Sequence[Rows], until: Until
) -> tuple[_Networks, np.ndarray]:
    """Return the networks to fit to images with divisors, their problem, and the criteria."""
    spec, criteria = _trained(spec.resolved(sorted(fprange)), until)
    whole = layout_of(spec, fprange)
    kept = find_kept({element: spec.gs[element] for element in whole.elements}, [*images.rows, *unlabelled])
    if dropped := describe_dropped(whole.elements, kept):
        if deserves_a_warning(kept):
            warnings.warn(dropped, stacklevel=3)
        else:
            logger.debug(dropped)
    layout, chosen = reduced(whole, kept), [of_element.chosen for of_element in kept]
    amps = scaled_inputs(fprange[element][some] for element, some in zip(whole.elements, chosen, strict=True))
    inputs = whitened_inputs([*images.rows, *unlabelled], amps, chosen)
    problem = make_problem(
        layout, images, fprange, inputs, spec.energy_coefficient, spec.force_coefficient, spec.overfit, chosen
    )  # fmt: skip
    return _Networks(spec, fprange, whole, layout, kept, amps, inputs, problem), criteria


def _with_divisors(images: LabelledImages) -> LabelledImages:
    """Return the images with divisors of their forces and without energies of weight 0."""
    energies, divisors = images.energies, images.divisors
    if divisors is None:
        divisors = np.where(np.isnan(energies), 1, [max(len(f), 1) for f in images.forces])
    if images.energy_weights is not None:
        energies = np.where(np.asarray(images.energy_weights) > 0.0, energies, np.nan)
    return replace(images, energies=energies, divisors=divisors)


def _trained(spec: CalculatorSpec, until: Until) -> tuple[CalculatorSpec, np.ndarray]:
    """Return the specification without forces where Amp trains none, and its criteria, inf where not set."""
    asked = {name: spec.convergence.get(name) for name in CRITERIA}
    if until == "out-of-bag":
        if spec.force_coefficient is None:
            spec = replace(spec, force_coefficient=spec.given_force_coefficient)
    elif spec.force_coefficient is None or (asked["force_rmse"] is None and asked["force_maxresid"] is None):
        spec = replace(spec, force_coefficient=None)
        asked["force_rmse"] = asked["force_maxresid"] = None
    return spec, np.array([np.inf if limit is None else float(limit) for limit in asked.values()])


def _first_scalings(layout: Layout, images: LabelledImages, weights: np.ndarray) -> np.ndarray:
    """Return intercept and slope of each element: least-squares energies per atom, and 30 times half the range of the rest."""
    rows, energies = images.rows, images.energies
    used = np.flatnonzero(~np.isnan(energies) & (weights > 0))
    fractions = np.array([np.bincount(rows[i].kind, minlength=len(layout.elements)) / len(rows[i].kind) for i in used])
    per_atom = energies[used] / images.n_atoms[used]
    if len(used) == 0:
        return np.tile([0.0, LEAST_SLOPE], (len(layout.elements), 1))
    root = np.sqrt(weights[used])
    intercepts = np.linalg.lstsq(fractions * root[:, None], per_atom * root, rcond=None)[0]
    slope = max(SLOPE * np.ptp(per_atom - fractions @ intercepts) / 2.0, LEAST_SLOPE)
    if layout.activation == "sigmoid":  # its values lie around a half, not zero
        slope *= 2.0
        intercepts = intercepts - slope / 2.0
    return np.column_stack([intercepts, np.full(len(intercepts), 1.0 if layout.activation == "linear" else slope)])


def _random_start(layout: Layout, rng: np.random.Generator, scalings: np.ndarray) -> np.ndarray:
    """Draw weights as Amp does, those of the last layer smaller in proportion to the larger slope."""
    theta = draw_weights(layout, rng)
    for layers in layout.layers(theta):
        layers[-1][:] /= SLOPE
    layout.scalings(theta)[:] = scalings
    return theta


def _tell(watch: Watch, member: int, before: int, steps: int, loss: float, distance: float) -> None:
    """Report the progress of an attempt that began after the given number of steps."""
    watch(MemberStep(member, "training", before + steps, loss, distance))


def _succeeded(fit: Fit) -> bool:
    """Return True if a fit met its criteria or found its out-of-bag minimum."""
    return fit.outcome in ("converged", "level")


def _best(tries: Sequence[Fit]) -> Fit:
    """Return the attempt to keep."""
    return min(tries, key=lambda fit: (fit.outcome != "converged", fit.distance, fit.loss))


def _met_floor(tries: Sequence[Fit]) -> bool:
    """Return True if the last two attempts stalled equally far from the criteria."""
    last = [fit.distance for fit in tries[-2:] if fit.outcome == "stalled"]
    return len(last) == 2 and min(last) > NEAR and np.ptp(last) < ALIKE * max(last)


def _report(member: int, tries: Sequence[Fit], may_retry: bool, criteria: np.ndarray) -> MemberReport:
    """Return the report on a member."""
    best = _best(tries)
    steps = sum(fit.steps for fit in tries)
    where = f"{steps} steps" if len(tries) == 1 else f"{steps} steps, {len(tries)} attempts"
    missed = [
        f"{name} {value:.3g} (asked: {limit:.3g})"
        for name, value, limit in zip(CRITERIA, best.measures, criteria, strict=True)
        if value > limit
    ]
    if best.best_step >= 0:
        message = describe(best)
    elif best.outcome == "converged":
        message = f"converged; {where}"
    elif not np.isfinite(criteria).any():
        message = f"no criteria were set; stopped where the loss no longer fell; {where}"
    elif tries[-1].outcome == "exhausted":
        message = f"maxiter reached, where Amp calls a fit converged, with {', '.join(missed)}; {where}"
    else:
        message = f"stalled at {', '.join(missed)}; {where}"
        if _met_floor(tries) or not may_retry:
            how = "attempts end alike" if may_retry else "it stalled at the last training too"
            message += f"; {how}: the limit is in the fingerprints, the hidden layers or a penalty by overfit"
    measures = dict(zip(CRITERIA, map(float, best.measures), strict=True))
    report = MemberReport(member, _succeeded(best), steps, len(tries), best.loss, **measures, message=message)
    return replace(report, oob_force_rmse=float(best.held_out_rmse))


def layout_of(networks: CalculatorSpec | AmpModel, fprange: dict[str, np.ndarray]) -> Layout:
    """Return the layout of the parameters of networks.

    Parameters
    ----------
    networks : CalculatorSpec or AmpModel
        A specification has to be resolved: its layers are by element.
    fprange : dict of str to ndarray, shape (features, 2)

    Returns
    -------
    Layout
    """
    sizes = tuple((len(fprange[e]), *(n for n in networks.hiddenlayers[e] if n), 1) for e in sorted(fprange))
    return Layout(tuple(sorted(fprange)), sizes, networks.activation)


def pack(model: AmpModel, layout: Layout) -> np.ndarray:
    """Return the parameters of a model as a vector.

    Parameters
    ----------
    model : AmpModel
    layout : Layout

    Returns
    -------
    ndarray, shape (parameters,)

    Raises
    ------
    ValueError
        The model has other elements, layers or activation than the layout.
    """
    theta = np.zeros(layout.n_parameters)
    shapes = {e: [layer.shape for layer in layers] for e, layers in zip(layout.elements, layout.layers(theta), strict=True)}
    given = {e: [layer.shape for layer in model.weights[e]] for e in model.elements}
    if given != shapes or model.activation != layout.activation:
        raise ValueError(
            f"the model to start from has {model.activation} layers {given}, the calculator {layout.activation} layers "
            f"{shapes}: start from random weights, or with the calculator that the model was trained with."
        )
    for element, layers in zip(layout.elements, layout.layers(theta), strict=True):
        for layer, weights in zip(layers, model.weights[element], strict=True):
            layer[:] = weights
    layout.scalings(theta)[:] = [model.scalings[element] for element in layout.elements]
    return theta


def unpack(theta: np.ndarray, layout: Layout, spec: CalculatorSpec, fprange: dict[str, np.ndarray]) -> AmpModel:
    """Return the model with these parameters.

    Parameters
    ----------
    theta : ndarray, shape (parameters,)
    layout : Layout
    spec : CalculatorSpec
        Resolved: its symmetry functions and layers are by element.
    fprange : dict of str to ndarray, shape (features, 2)

    Returns
    -------
    AmpModel
    """
    layers = [[layer.copy() for layer in of_element] for of_element in layout.layers(theta)]
    return AmpModel(
        gs=spec.gs,
        cutoff=spec.cutoff,
        hiddenlayers={e: sizes[1:-1] for e, sizes in zip(layout.elements, layout.sizes, strict=True)},
        activation=layout.activation,
        weights=dict(zip(layout.elements, layers, strict=True)),
        scalings={e: (float(i), float(s)) for e, (i, s) in zip(layout.elements, layout.scalings(theta), strict=True)},
        fprange={e: np.array(fprange[e], dtype=float) for e in layout.elements},
    )


def _collapsed(model: AmpModel, whole: Layout, layout: Layout, kept: Sequence[Kept]) -> tuple[np.ndarray, Layout, Inputs]:
    """Return a model's parameters with the kept fingerprints only, their layout, and their inputs."""
    ranges = [np.asarray(model.fprange[element], dtype=float) for element in whole.elements]
    theta = collapse(pack(model, whole), whole, layout, kept, scaled_inputs(ranges))
    return theta, layout, scaled_inputs(some[of_element.chosen] for some, of_element in zip(ranges, kept, strict=True))
