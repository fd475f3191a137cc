"""The figures of a report, as matplotlib figures that are readable on white and on dark paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amp.nft.report.checks import Checks, Comparison
from amp.nft.report.pictures import draw_atoms
from amp.nft.run.history import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # of text and axes; a page replaces it by its own colour of text
BLUE, ORANGE, GREEN, PINK = "#4c8dd6", "#e08a2e", "#3fa46a", "#c85a9e"
GREY = "#8a8f98"
COLOURS = "viridis"
CRITERIA = ("energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid")
MOST_PICTURES = 3  # targets that are drawn, the most uncertain first
MOST_ATOMS = 300  # that are drawn alone
WIDE, SQUARE, PICTURE = (6.6, 3.4), (6.6, 4.6), (7.2, 3.3)


def draw_figures(run: Run, checks: Checks) -> Iterator[tuple[str, Figure]]:
    """Yield the figures for which the run has data.

    Parameters
    ----------
    run : Run
    checks : Checks

    Yields
    ------
    tuple of str and matplotlib Figure
        Its name, and the figure.
    """
    if not run.steps:
        return
    single: dict[str, Callable[[], Figure]] = {
        "uncertainty": lambda: uncertainty(run),
        "distribution": lambda: distribution(run),
        "chunks": lambda: chunks(run),
        "residuals": lambda: residuals(run),
    }
    if len(checks.trained) + len(checks.unseen):
        single["forces"] = lambda: forces(checks)
    if len(checks.unseen) or checks.target is not None:
        single["reliability"] = lambda: reliability(checks)
    with _style():
        for name, draw in single.items():
            yield name, draw()
        for number in most_uncertain(run):
            suffix = f"-{number}" if len(run.targets) > 1 else ""
            yield f"target{suffix}", target(run, number)
            yield f"sources{suffix}", sources(run, number)


def svg(figure: Figure) -> str:
    """Return a figure as SVG that takes its text color from the page.

    Parameters
    ----------
    figure : Figure

    Returns
    -------
    str
    """
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "amp.nft", "font.family": "sans-serif"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def save(figure: Figure, path: Path) -> None:
    """Write a figure to ``path.png`` and ``path.svg``, on white.

    Parameters
    ----------
    figure : Figure
    path : Path
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "amp.nft"}):
        figure.savefig(path.with_suffix(".png"), dpi=160, facecolor="white")
        figure.savefig(path.with_suffix(".svg"), facecolor="white", metadata={"Date": None})


def most_uncertain(run: Run) -> list[int]:
    """Return the numbers of the targets that are drawn: the most uncertain ones.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of int
    """
    largest = [part.max() for part in run.split(run.best.delta)] if run.targets else []
    return [int(number) for number in np.argsort(largest)[::-1][:MOST_PICTURES]]


# -- figures ---------------------------------------------------------------------------------------------------


def uncertainty(run: Run) -> Figure:
    """Draw the largest and mean uncertainty of each iteration.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Figure
    """
    figure, axes = _new(WIDE)
    iterations = [step.iteration for step in run.steps]
    axes.plot(iterations, [step.delta.max() for step in run.steps], "o-", color=ORANGE, label="largest on any atom")
    axes.plot(iterations, [step.delta.mean() for step in run.steps], "o-", color=BLUE, label="mean over the atoms")
    axes.plot(run.best.iteration, run.best.delta.max(), "o", ms=12, mfc="none", mec=ORANGE, label="best ensemble")
    stop = run.settings.get("stop_delta")
    if stop:
        axes.axhline(stop, color=GREEN, ls="--", label=f"stop_delta = {stop:g} eV/Å")
    axes.set(xlabel="iteration", ylabel="uncertainty δ (eV/Å)", yscale="log")
    _whole_numbers(axes)
    _plain_numbers(axes.yaxis)
    axes.legend()
    return figure


def distribution(run: Run) -> Figure:
    """Draw the distribution of the uncertainty over the atoms, for the first, the middle and the best ensemble.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Figure
    """
    figure, axes = _new(WIDE)
    picked = {step.iteration: step for step in (run.steps[0], run.steps[len(run.steps) // 2], run.best)}
    everything = np.concatenate([step.delta for step in picked.values()])
    edges = _log_edges(everything, 40)
    for (iteration, step), colour in zip(sorted(picked.items()), (ORANGE, GREEN, BLUE), strict=False):
        name = f"iteration {iteration}" + (" (best)" if step is run.best else "")
        axes.hist(step.delta, edges, histtype="stepfilled", color=colour, alpha=0.35)
        axes.hist(step.delta, edges, histtype="step", color=colour, label=name)
    if stop := run.settings.get("stop_delta"):
        axes.axvline(stop, color=INK, ls="--", label="stop_delta")
    axes.set(xlabel="uncertainty δ (eV/Å)", ylabel="atoms", xscale="log")
    _plain_numbers(axes.xaxis)
    axes.legend()
    return figure


def chunks(run: Run) -> Figure:
    """Draw the number of chunks added after each iteration.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Figure
    """
    figure, axes = _new(WIDE)
    new = [len(atoms) for atoms in run.new_atoms]
    again = [len(set(atoms)) - number for atoms, number in zip(run.added, new, strict=True)]
    iterations = np.arange(len(new))
    axes.bar(iterations, new, color=BLUE, label="new chunks")
    axes.bar(iterations, again, bottom=new, color=GREY, alpha=0.5, label="chosen again, no new label needed")
    axes.plot(iterations, np.cumsum(new), "o-", color=ORANGE, label="in the training set")
    if not new:
        axes.text(0.5, 0.5, "no chunks yet", transform=axes.transAxes, ha="center")
    axes.set(xlabel="after iteration", ylabel="chunks")
    _whole_numbers(axes)
    if new:
        axes.legend()
    return figure


def residuals(run: Run) -> Figure:
    """Draw the residuals of each member, relative to its criteria where they are known.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Figure
    """
    figure, axes = _new(WIDE)
    asked = run.settings.get("criteria") or {}
    reports = run.best.reports
    members = [report.member for report in reports]
    for name, colour, mark in zip(CRITERIA, (GREEN, PINK, BLUE, ORANGE), "^vos", strict=True):
        limit = asked.get(name)
        if limit or (not asked and name.startswith("force")):
            values = np.array([getattr(report, name) for report in reports]) / (limit or 1.0)
            unit = "eV/atom" if name.startswith("energy") else "eV/Å"
            axes.plot(members, values, mark, color=colour, label=f"{name}, criterion {limit:g} {unit}" if limit else f"{name} (eV/Å)")
    for report in reports:
        if not report.converged:
            axes.axvspan(report.member - 0.4, report.member + 0.4, color=ORANGE, alpha=0.15, lw=0)
    if asked:
        axes.axhline(1.0, color=INK, ls="--", lw=1)
    axes.set(xlabel="member (shaded: missed its criteria)", ylabel="residual / criterion" if asked else "residual")
    axes.set_ylim(bottom=0.0)
    _whole_numbers(axes)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def forces(checks: Checks) -> Figure:
    """Draw predicted against labelled central forces, and the lengths of the errors.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Figure
    """
    figure, (left, right) = _new((6.6, 3.3), 2)
    named = [("unseen", checks.unseen, ORANGE, "before it was trained on"), ("trained", checks.trained, BLUE, "trained on")]
    shown = [(some, colour, text) for _, some, colour, text in named if len(some)]
    if checks.target is not None:
        shown.insert(0, (checks.target, GREY, "true forces, all atoms"))
    for some, colour, text in shown:
        dense = len(some) > 2000
        left.plot(some.known.ravel(), some.predicted.ravel(), ".", ms=3, color=colour, label=text, rasterized=dense)
    limit = 1.05 * max(np.abs(some.known).max() for some, _, _ in shown)
    left.plot([-limit, limit], [-limit, limit], color=INK, lw=0.8)
    left.set(xlabel="labelled (eV/Å)", ylabel="predicted (eV/Å)", xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    left.set_title("force components")
    edges = _log_edges(np.concatenate([some.errors for some, _, _ in shown]), 30)
    for some, colour, text in shown:
        weights = np.full(len(some), 1.0 / len(some))
        right.hist(some.errors, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.35)
        right.hist(some.errors, edges, weights=weights, histtype="step", color=colour, label=text)
    right.set(xlabel="error (eV/Å)", ylabel="fraction", xscale="log", title="length of the error")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def reliability(checks: Checks) -> Figure:
    """Draw errors against predicted uncertainties.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    Figure
    """
    import matplotlib

    figure, axes = _new(SQUARE)
    parts = [part for part in (checks.unseen, checks.target) if part is not None and len(part)]
    values = np.concatenate([np.concatenate([part.delta, part.errors]) for part in parts])
    low, high = values[values > 0].min() / 1.5, values.max() * 1.5
    if checks.target is not None:
        some = checks.target
        axes.plot(some.delta, some.errors, ".", ms=4, alpha=0.6, color=GREY, rasterized=len(some) > 2000,
                  label=f"all atoms of the target ({some.coverage:.1%} below)")  # fmt: skip
    colours = matplotlib.colormaps[COLOURS]
    iterations = sorted(set(checks.unseen.iteration.tolist()))
    for k, iteration in enumerate(iterations):
        some = checks.unseen.at(iteration)
        name = f"labels after iteration {iteration} ({_share(some)} below)" if len(iterations) <= 6 or iteration == iterations[-1] else None
        axes.plot(some.delta, some.errors, "o", ms=4.5, color=colours(0.3 + 0.65 * k / max(len(iterations) - 1, 1)),
                  mec=GREY, mew=0.3, label=name)  # fmt: skip
    axes.plot([low, high], [low, high], color=INK, lw=0.8)
    axes.set(xlabel="predicted uncertainty δ (eV/Å)", ylabel="error (eV/Å)", xscale="log", yscale="log",
             xlim=(low, high), ylim=(low, high))  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        _plain_numbers(axis)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def target(run: Run, number: int) -> Figure:
    """Draw a target colored by uncertainty: all atoms, and the most uncertain ones alone.

    Parameters
    ----------
    run : Run
    number : int
        Of the target.

    Returns
    -------
    Figure
    """
    import matplotlib

    delta = run.split(run.best.delta)[number]
    atoms, norm = run.targets[number], _norm(delta)
    colours = matplotlib.colormaps[COLOURS]
    figure, (left, right) = _new(PICTURE, 2)
    most = delta >= np.sort(delta)[-min(max(len(delta) // 10, 1), MOST_ATOMS)]
    draw_atoms(left, atoms, delta, np.ones(len(atoms), dtype=bool), colours, norm)
    draw_atoms(right, atoms, delta, most, colours, norm)
    left.set_title(f"all {len(atoms)} atoms")
    right.set_title(f"the {most.sum()} most uncertain")
    _colour_bar(figure, (left, right), colours, norm, "uncertainty δ (eV/Å)")
    return figure


def sources(run: Run, number: int) -> Figure:
    """Draw the central atoms of chunks on a target, colored by iteration.

    Parameters
    ----------
    run : Run
    number : int
        Of the target.

    Returns
    -------
    Figure
    """
    import matplotlib
    from matplotlib.colors import Normalize

    atoms, when = run.targets[number], taken(run)[number]
    figure, (left, right) = _new(PICTURE, 2)
    norm, colours = Normalize(0, max(len(run.added) - 1, 1)), matplotlib.colormaps[COLOURS]
    draw_atoms(left, atoms, when, when >= 0, colours, norm)
    draw_atoms(right, atoms, when, when >= 0, colours, norm, behind=True)
    left.set_title(f"{(when >= 0).sum()} chunks, seen from the front")
    right.set_title("from behind")
    _colour_bar(figure, (left, right), colours, norm, "taken after iteration", whole=True)
    return figure


def taken(run: Run) -> list[np.ndarray]:
    """Return for each atom the iteration after which its chunk was added.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of ndarray of int, shape (atoms,)
        One array per target; -1 for an atom without a chunk.
    """
    when = np.full(len(run.best.delta), -1)
    for iteration, atoms in enumerate(run.new_atoms):
        when[atoms] = iteration
    return run.split(when)


# -- pieces ----------------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    ink: dict[Any, Any] = {key: INK for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")}
    settings = ink | {
        "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.color": GREY, "grid.alpha": 0.25, "grid.linewidth": 0.6, "legend.frameon": False, "lines.markersize": 5,
        "figure.constrained_layout.use": True, "axes.axisbelow": True,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def _new(size: tuple[float, float], columns: int = 1) -> tuple[Figure, Any]:
    """Return a figure without a window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, columns)


def _norm(values: np.ndarray) -> Any:
    """Scale colours by the logarithm where values spread over more than a factor of thirty."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(values.min()), float(values.max())
    if low > 0 and high > 30 * low:
        return LogNorm(low, high)
    return Normalize(0.0, high if high > 0 else 1.0)


def _colour_bar(figure: Figure, axes: Any, colours: Any, norm: Any, text: str, whole: bool = False) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, shrink=0.85, pad=0.02, label=text)
    bar.outline.set_visible(False)
    if whole:
        bar.locator = MaxNLocator(integer=True)
    elif isinstance(norm, LogNorm):
        bar.locator, bar.formatter = LogLocator(subs=(1, 2, 5)), FuncFormatter(lambda value, _: f"{value:.3g}")
        bar.minorticks_off()
    bar.update_ticks()


def _whole_numbers(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _plain_numbers(axis: Any) -> None:
    """Put plain numbers on a logarithmic axis, between the powers of ten too where these are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 2000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def _log_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of bins that are equally wide on a logarithmic axis."""
    positive = values[values > 0]
    if not len(positive):
        return np.array([0.5, 1.0, 2.0])
    return np.geomspace(positive.min() / 1.1, positive.max() * 1.1, bins + 1)


def _share(some: Comparison) -> str:
    return f"{int((some.errors <= some.delta).sum())} of {len(some)}"
