"""Charts and pictures of a run as PNG and SVG files, by Matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amp.nft.report.charts import GREY, INK, Axis, Chart, Panel
from amp.nft.report.pictures import draw_atoms, taken
from amp.nft.report.svg import BAR
from amp.nft.report.view3d import most_uncertain
from amp.nft.run.history import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "viridis"
MOST_ATOMS = 300  # that are drawn alone
PANEL, PICTURE = (4.2, 3.2), (7.2, 3.3)  # inches
STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GREY,
    "grid.alpha": 0.25, "grid.linewidth": 0.6, "legend.frameon": False, "lines.markersize": 4, "axes.axisbelow": True,
    "svg.hashsalt": "amp.nft",
}  # fmt: skip


def save_figures(run: Run, charts: Sequence[Chart], directory: Path) -> list[str]:
    """Write each chart, and pictures of the targets, on white.

    Parameters
    ----------
    run : Run
    charts : sequence of Chart
    directory : Path
        It is made if it does not exist.

    Returns
    -------
    list of str
        Names of the figures.
    """
    import matplotlib

    directory.mkdir(parents=True, exist_ok=True)
    names = []
    with matplotlib.rc_context(STYLE):
        for name, figure in _figures(run, charts):
            names.append(name)
            figure.savefig(directory / f"{name}.png", dpi=160, facecolor="white")
            figure.savefig(directory / f"{name}.svg", facecolor="white", metadata={"Date": None})
    return names


def _figures(run: Run, charts: Sequence[Chart]) -> Iterator[tuple[str, Figure]]:
    for chart in charts:
        yield chart.name, _draw(chart)
    for number in most_uncertain(run):
        suffix = f"-{number}" if len(run.targets) > 1 else ""
        yield f"target{suffix}", _target(run, number)
        yield f"sources{suffix}", _sources(run, number)


def _draw(chart: Chart) -> Figure:
    from matplotlib.figure import Figure

    n = len(chart.panels)
    figure = Figure(figsize=(PANEL[0] * n, PANEL[1]), layout="constrained")
    for axes, panel in zip(np.ravel(figure.subplots(1, n)), chart.panels, strict=True):
        _draw_panel(axes, panel)
    found = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    if found:
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 1 + n), fontsize="small")
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    for part in panel.series:
        label = {"label": part.name or None}
        if part.kind == "steps":
            axes.stairs(part.y, part.x, fill=True, color=part.colour, alpha=0.3, **label)
        elif part.kind == "bars":
            axes.barh(np.arange(len(part.x)), part.y, 2 * BAR, part.x, color=part.colour, **label)
        else:
            axes.plot(part.x, part.y, {"points": ".", "line": ".-", "curve": "-"}[part.kind], color=part.colour, **label)
    for guide in panel.guides:
        style = {"color": "black" if guide.colour == INK else guide.colour, "ls": "--", "lw": 1.0, "label": guide.name or None}
        if guide.where == "diagonal":
            axes.axline((1.0, 1.0), (2.0, 2.0), **style)
        else:
            (axes.axvline if guide.where == "x" else axes.axhline)(guide.at, **style)
    axes.set_title(panel.title)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        _set_axis(axes, name, axis)


def _set_axis(axes: Any, name: str, axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set(**{f"{name}label": axis.label, f"{name}scale": "log" if axis.log else "linear"})
    if axis.limits is not None:
        axes.set(**{f"{name}lim": axis.limits})
    of = getattr(axes, f"{name}axis")
    if axis.names:
        of.set_ticks(range(len(axis.names)), axis.names)
        of.set_inverted(True)
    elif axis.log:
        low, high = of.get_view_interval()
        of.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 2000 * low else (1,)))
        of.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        of.set_minor_formatter(NullFormatter())
    elif axis.whole:
        of.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _target(run: Run, number: int) -> Figure:
    """Draw a target coloured by uncertainty: all atoms, and the most uncertain ones alone."""
    import matplotlib

    delta = run.split(run.best.delta)[number]
    atoms, norm, colours = run.targets[number], _norm(delta), matplotlib.colormaps[COLOURS]
    figure, (left, right) = _pair()
    most = delta >= np.sort(delta)[-min(max(len(delta) // 10, 1), MOST_ATOMS)]
    draw_atoms(left, atoms, delta, np.ones(len(atoms), dtype=bool), colours, norm)
    draw_atoms(right, atoms, delta, most, colours, norm)
    left.set_title(f"all {len(atoms)} atoms")
    right.set_title(f"the {most.sum()} most uncertain")
    _colour_bar(figure, (left, right), colours, norm, "uncertainty δ (eV/Å)")
    return figure


def _sources(run: Run, number: int) -> Figure:
    """Draw the central atoms of chunks on a target, coloured by iteration."""
    import matplotlib
    from matplotlib.colors import Normalize

    atoms, when = run.targets[number], taken(run)[number]
    figure, (left, right) = _pair()
    norm, colours = Normalize(0, max(len(run.added) - 1, 1)), matplotlib.colormaps[COLOURS]
    draw_atoms(left, atoms, when, when >= 0, colours, norm)
    draw_atoms(right, atoms, when, when >= 0, colours, norm, behind=True)
    left.set_title(f"{(when >= 0).sum()} chunks, seen from the front")
    right.set_title("from behind")
    _colour_bar(figure, (left, right), colours, norm, "taken after iteration", whole=True)
    return figure


def _pair() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=PICTURE, layout="constrained")
    return figure, figure.subplots(1, 2)


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
