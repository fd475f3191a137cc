"""Charts of a run: its uncertainty, its errors, the reliability of both, its cost."""

from __future__ import annotations

import numpy as np

from amp.nft.report.charts import BLUE, GREEN, GREY, INK, ORANGE, PINK, Axis, Chart, Guide, Panel, series
from amp.nft.report.checks import Checks
from amp.nft.report.comparison import Comparison
from amp.nft.report.times import PARTS, time_spent, unit_of
from amp.nft.run.history import Run
from amp.nft.run.metrics import metrics

CRITERIA = (("energy_rmse", GREEN), ("energy_maxresid", PINK), ("force_rmse", BLUE), ("force_maxresid", ORANGE))
BINS = 32
DELTA = "uncertainty δ (eV/Å)"


def draw_charts(run: Run, checks: Checks) -> list[Chart]:
    """Return the charts for which the run has data, in the order of the page.

    Parameters
    ----------
    run : Run
    checks : Checks

    Returns
    -------
    list of Chart
    """
    if not run.steps:
        return []
    charts = [uncertainty(run), distribution(run), learning(run, checks), forces(checks), reliability(checks), energies(checks)]
    charts += [label_error(checks), residuals(run), times(run)]
    return [chart for chart in charts if chart is not None]


def uncertainty(run: Run) -> Chart:
    """Draw the largest and mean uncertainty of each iteration.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Chart
    """
    iterations = [step.iteration for step in run.steps]
    drawn = (
        series("line", iterations, [step.delta.max() for step in run.steps], ORANGE, "largest on any atom"),
        series("line", iterations, [step.delta.mean() for step in run.steps], BLUE, "mean over the atoms"),
    )
    axes = Axis("iteration", whole=True), Axis(DELTA, log=True)
    return Chart(
        "uncertainty", "Uncertainty on the target after each training",
        "δ = 2.58 times the standard deviation of the members' force vectors on an atom. The run has converged when the largest is "
        f"below stop_delta. The best ensemble is that of iteration {run.best.iteration}. More chunks do not lower a curve that has "
        "levelled off above the line.",
        (Panel(*axes, drawn, _stop(run, "y")),),
    )  # fmt: skip


def learning(run: Run, checks: Checks) -> Chart | None:
    """Draw errors against the labels that were spent, and against their cost.

    Parameters
    ----------
    run : Run
    checks : Checks

    Returns
    -------
    Chart or None
        None for a single iteration.
    """
    rows = metrics(run.status.state)
    if len(rows) < 2:
        return None
    labels = np.array([row["labels"] for row in rows], dtype=float)
    cost = np.cumsum([row["train_s"] for row in rows]) + np.cumsum([0.0, *[row["label_s"] for row in rows[:-1]]])
    unit, size = unit_of(cost[-1])
    panels = []
    for x, axis in ((labels, Axis("chunks in the training set", whole=True)), (cost / size, Axis(f"training and labels so far ({unit})"))):
        new = [(place, checks.unseen.at(step.iteration).errors) for place, step in zip(x, run.steps, strict=False)]
        known = np.array([(place, errors.mean()) for place, errors in new if len(errors)]).reshape(-1, 2)
        drawn = [
            series("line", x, [row["delta_max"] for row in rows], ORANGE, "largest uncertainty δ on the target"),
            series("line", x, np.sqrt(3) * np.array([row["oob_force_rmse"] for row in rows]), PINK, "out-of-bag error (rms)"),
            series("line", known[:, 0], known[:, 1], BLUE, "mean error on the next chunks"),
            series("points", [x[run.best.iteration]], [checks.tested.errors.mean()], GREEN, "mean error on random test atoms")
            if len(checks.tested) and run.best.iteration < len(x) else None,
        ]  # fmt: skip
        panels.append(Panel(axis, Axis("force error (eV/Å)", log=True), tuple(part for part in drawn if part is not None and len(part.x))))
    return Chart(
        "learning", "Error against labels spent",
        "The next chunks are those that the ensemble requested: its most uncertain atoms, before it was trained on them. Their cost is the "
        "time of the trainings and of the parent's calculations, one after the other.",
        tuple(panels),
    )  # fmt: skip


def distribution(run: Run) -> Chart:
    """Draw the distribution of the uncertainty over the atoms, for the first, the middle and the best ensemble.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Chart
    """
    picked = {step.iteration: step for step in (run.steps[0], run.steps[len(run.steps) // 2], run.best)}
    edges = _log_edges(np.concatenate([step.delta for step in picked.values()]))
    drawn = [
        series(
            "steps", edges, np.histogram(step.delta, edges)[0], colour, f"iteration {iteration}" + (" (best)" if step is run.best else "")
        )
        for (iteration, step), colour in zip(sorted(picked.items()), (ORANGE, GREEN, BLUE), strict=False)
    ]
    return Chart(
        "distribution", "Distribution of the uncertainty over the atoms",
        "A long right tail means that few environments are still unknown; a narrow peak that no longer moves means that the fit, "
        "not a lack of chunks, sets the uncertainty.",
        (Panel(Axis(DELTA, log=True), Axis("atoms", whole=True), tuple(drawn), _stop(run, "x")),),
    )  # fmt: skip


def residuals(run: Run) -> Chart:
    """Draw the residuals of each member, relative to its criteria where they are known.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Chart
    """
    asked, reports = run.settings.get("criteria") or {}, run.best.reports
    drawn = []
    for name, colour in CRITERIA:
        limit = asked.get(name)
        if limit or (not asked and name.startswith("force")):
            values = np.array([getattr(report, name) for report in reports]) / (limit or 1.0)
            unit = "eV/atom" if name.startswith("energy") else "eV/Å"
            drawn.append(
                series("points", [report.member for report in reports], values, colour, f"{name}: {limit:g} {unit}" if limit else name)
            )
    missed = [report.member for report in reports if not report.converged]
    axes = Axis("member", whole=True), Axis("residual / criterion" if asked else "residual (eV/Å)", log=True)
    return Chart(
        "residuals", "Residuals of the members",
        "Residuals of the best ensemble's members on their own training samples"
        + (", divided by the criteria of calc_text. A value below the dashed line meets its criterion." if asked else ".")
        + (f" Members that did not converge: {', '.join(map(str, missed))}." if missed else " All members converged."),
        (Panel(*axes, tuple(drawn), (Guide("y", 1.0),) if asked else ()),),
    )  # fmt: skip


def forces(checks: Checks) -> Chart | None:
    """Draw predicted against labelled central forces, and the lengths of the errors.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Chart or None
        None where no force is known.
    """
    shown = [(checks.unseen, ORANGE, "chunks, before training on them"), (checks.trained, BLUE, "chunks, after training on them")]
    shown.append((checks.tested, GREEN, "random test atoms, never trained"))
    if checks.target is not None:
        shown.insert(0, (checks.target, GREY, "true forces, all atoms"))
    shown = [(some, colour, name) for some, colour, name in shown if len(some)]
    if not shown:
        return None
    limit = 1.05 * max(np.abs(values).max() for some, _, _ in shown for values in (some.known, some.predicted)) or 1.0
    parity = [series("points", some.known.ravel(), some.predicted.ravel(), colour, name) for some, colour, name in shown]
    edges = _log_edges(np.concatenate([some.errors for some, _, _ in shown]))
    lengths = [series("steps", edges, np.histogram(some.errors, edges)[0] / len(some), colour, name) for some, colour, name in shown]
    axes = Axis("labelled (eV/Å)", limits=(-limit, limit)), Axis("predicted (eV/Å)", limits=(-limit, limit))
    return Chart(
        "forces", "Predicted against labelled central forces",
        "Before: by the ensemble that requested the label; an independent test on its most uncertain atoms. After: by the best ensemble, "
        "which was trained on them. The labels are forces in chunks; the cutoff of the chunks sets their error.",
        (
            Panel(*axes, tuple(parity), (Guide("diagonal"),), "force components"),
            Panel(Axis("length of the error (eV/Å)", log=True), Axis("fraction"), tuple(lengths), title="lengths of the errors"),
        ),
    )  # fmt: skip


def reliability(checks: Checks) -> Chart | None:
    """Draw errors against predicted uncertainties.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Chart or None
        None where no force is known that was not trained on.
    """
    last = checks.unseen.iteration.max() if len(checks.unseen) else 0
    before, newest = (checks.unseen.where(mask) for mask in (checks.unseen.iteration < last, checks.unseen.iteration == last))
    shown = [(before, ORANGE, "earlier chunks"), (newest, BLUE, "last chunks"), (checks.tested, GREEN, "random test atoms")]
    if checks.target is not None:
        shown.insert(0, (checks.target, GREY, "all atoms of the target"))
    drawn = [series("points", some.delta, some.errors, colour, f"{name}: {_share(some)}") for some, colour, name in shown if len(some)]
    positive = [values[values > 0] for part in drawn for values in (part.x, part.y)]
    if not sum(map(len, positive)):
        return None
    both = np.concatenate(positive)
    ends = both.min() / 1.5, both.max() * 1.5
    axes = Axis("predicted " + DELTA, log=True, limits=ends), Axis("error (eV/Å)", log=True, limits=ends)
    return Chart(
        "reliability", "Reliability of the uncertainty",
        "Each point is a force that the ensemble was not trained on. Below the line the error is smaller than the predicted uncertainty; "
        "99 % of the points should be there. Once all members meet their criteria, points no longer follow the line: the uncertainty is "
        "then an upper bound, not a ranking.",
        (Panel(*axes, tuple(drawn), (Guide("diagonal"),)),),
    )  # fmt: skip


def energies(checks: Checks) -> Chart | None:
    """Draw predicted against labelled energies of the images.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Chart or None
        None where no image has a trained energy.
    """
    if not len(checks.energies):
        return None
    known, predicted = checks.energies.T
    error = np.abs(known - predicted)
    margin = 0.05 * np.ptp(checks.energies) or 0.5
    ends = float(checks.energies.min() - margin), float(checks.energies.max() + margin)
    axes = Axis("labelled energy (eV/atom)", limits=ends), Axis("predicted energy (eV/atom)", limits=ends)
    return Chart(
        "energies", "Energies of the images",
        f"{len(error)} images that the run began with, by the best ensemble, which was trained on them: mean error "
        f"{error.mean():.2g} eV/atom, {error.max():.2g} at most. This is no test of energies on the target.",
        (Panel(*axes, (series("points", known, predicted, BLUE),), (Guide("diagonal"),)),),
    )  # fmt: skip


def label_error(checks: Checks) -> Chart | None:
    """Draw the error of the labels against their depth in a chunk.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Chart or None
        None where it was not measured.
    """
    found, depths = checks.label_error, checks.depths[np.isfinite(checks.depths)]
    if found is None or not len(depths):
        return None
    x = np.linspace(checks.least_depth, max(depths.max(), checks.least_depth + 1.0), 60)
    guide = Guide("x", float(np.median(depths)), "depth of the central atoms (median)")
    return Chart(
        "labels", "Error of the labels themselves",
        f"A force in a chunk differs from that in the target, the more the nearer the surface of the chunk is. Estimated from the "
        f"differences between overlapping chunks on {found.n_atoms} atoms: about {found.at_centres(depths):.2g} eV/Å per component for "
        "central atoms. Errors that all chunks of one size share are not in it: larger chunks show these.",
        (Panel(Axis("depth below the surface of the chunk (Å)"), Axis("label error per component (eV/Å)", log=True),
               (series("curve", x, found.sigma(x), PINK, "from overlapping chunks"),), (guide,)),),
    )  # fmt: skip


def times(run: Run) -> Chart:
    """Draw the wall time of each part of the run.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Chart
    """
    spent = time_spent(run.record.events)
    unit, size = unit_of(max(spent.values()))
    names = tuple(name for name in PARTS if spent[name] > 0) or PARTS[:1]
    values = np.array([spent[name] for name in names]) / size
    return Chart(
        "times", "Where the time went",
        "Wall time of all starts of the run, without the time between them; the first training includes the compilation of kernels. "
        f"Labels may be made side by side: the parent was at work for {_words(run.label_seconds)} in all.",
        (Panel(Axis(f"wall time ({unit})"), Axis("", names=names), (series("bars", np.zeros(len(names)), values, BLUE),)),),
    )  # fmt: skip


# -- pieces ----------------------------------------------------------------------------------------------------


def _stop(run: Run, where: str) -> tuple[Guide, ...]:
    stop = run.settings.get("stop_delta")
    return (Guide("y" if where == "y" else "x", stop, f"stop_delta: {stop:g} eV/Å", GREEN if where == "y" else INK),) if stop else ()


def _log_edges(values: np.ndarray) -> np.ndarray:
    """Return the edges of bins that are equally wide on a logarithmic axis."""
    positive = values[values > 0]
    if not len(positive):
        return np.array([0.5, 1.0, 2.0])
    return np.geomspace(positive.min() / 1.1, positive.max() * 1.1, BINS + 1)


def _share(some: Comparison) -> str:
    return f"{int(some.covered.sum())} of {len(some)} below the line"


def _words(seconds: float) -> str:
    unit, size = unit_of(seconds)
    return f"{seconds / size:.2g} {unit}"
