"""Charts as SVG text that takes its text colour from the page; the legend is HTML, so that it wraps."""

from __future__ import annotations

import html
from collections.abc import Iterable

import numpy as np

from amp.nft.report.charts import INK, Axis, Chart, Guide, Panel, Series, limits, number, ticks

WIDTH, HEIGHT = 460.0, 290.0  # of a panel, in units in which text is 13 high
LABEL, RIGHT, TOP, BOTTOM = 20.0, 12.0, 12.0, 44.0  # width of the label of the vertical axis, and margins
BAR = 0.36  # half the height of a bar
CHARACTER = 7.6  # width of one in a number or name of an axis


class _Frame:
    """The area of a panel between its axes, and the place of each value in it."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        xs, ys = _extents(panel)
        self.x, self.y = limits(panel.x, xs, 0.0 if panel.y.names else None), limits(panel.y, ys, 0.0 if has_steps(panel) else None)
        if panel.y.names:
            self.y = (len(panel.y.names) - 0.5, -0.5)
        self.names = panel.y.names or tuple(map(number, ticks(panel.y, *self.y)))
        self.left = 12.0 + CHARACTER * max(map(len, self.names), default=0) + (LABEL if panel.y.label else 0.0)
        self.width, self.height = WIDTH - self.left - RIGHT, HEIGHT - TOP - BOTTOM

    def across(self, values: np.ndarray) -> np.ndarray:
        return self.left + self.width * _fraction(self.panel.x, self.x, values)

    def down(self, values: np.ndarray) -> np.ndarray:
        return TOP + self.height * (1.0 - _fraction(self.panel.y, self.y, values))


def has_steps(panel: Panel) -> bool:
    """Return True for a panel with a histogram, whose vertical axis begins at 0.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    bool
    """
    return any(part.kind == "steps" for part in panel.series)


def _fraction(axis: Axis, ends: tuple[float, float], values: np.ndarray) -> np.ndarray:
    values, (low, high) = np.asarray(values, dtype=float), ends
    if axis.log:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (np.log(values) - np.log(low)) / np.log(high / low)
    return (values - low) / (high - low)


def _extents(panel: Panel) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the data along both axes, with the guides."""
    xs = [part.x + part.y if part.kind == "bars" else part.x for part in panel.series]
    xs += [np.array([guide.at]) for guide in panel.guides if guide.where == "x"]
    ys = [part.y for part in panel.series if part.kind != "bars"]
    ys += [np.array([guide.at]) for guide in panel.guides if guide.where == "y"]
    return xs, ys


def chart_html(chart: Chart) -> str:
    """Return the panels of a chart and their legend.

    Parameters
    ----------
    chart : Chart

    Returns
    -------
    str
        HTML with one SVG for each panel.
    """
    panels = "".join(panel_svg(panel) for panel in chart.panels)
    return f'<div class="panels">{panels}</div>{_legend(chart)}'


def _legend(chart: Chart) -> str:
    parts: list[Series | Guide] = []
    for panel in chart.panels:
        parts += [*panel.series]
        parts += [*panel.guides]
    named = {part.name: part for part in parts if part.name}
    entries = "".join(f"<li>{_mark(part)}{html.escape(name)}</li>" for name, part in named.items())
    return f'<ul class="legend">{entries}</ul>' if entries else ""


def _mark(part: Series | Guide) -> str:
    kind = "guide" if isinstance(part, Guide) else part.kind
    return f'<i class="mark {kind}" style="color:{_ink(part.colour)}"></i>'


def _ink(colour: str) -> str:
    return "currentColor" if colour == INK else colour


def panel_svg(panel: Panel) -> str:
    """Return one panel as an SVG element.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    str
    """
    frame = _Frame(panel)
    parts = [_x_axis(frame), _y_axis(frame)]
    parts += [_guide(frame, guide) for guide in panel.guides] + [_drawn(frame, part) for part in panel.series]
    title = f'<text x="{frame.left:.0f}" y="0" class="title">{html.escape(panel.title)}</text>' if panel.title else ""
    top = -18 if panel.title else 0
    name = html.escape(f"{panel.y.label} against {panel.x.label}" if panel.y.label else panel.x.label, quote=True)
    return (
        f'<svg viewBox="0 {top} {WIDTH:.0f} {HEIGHT - top:.0f}" role="img" aria-label="{name}" font-size="13">{title}{"".join(parts)}</svg>'
    )


def _x_axis(frame: _Frame) -> str:
    axis, bottom = frame.panel.x, TOP + frame.height
    at = ticks(axis, *frame.x)
    places = frame.across(np.array(at))
    lines = _path(f"M{x:.1f} {TOP}V{bottom:.1f}" for x in places)
    labels = "".join(
        f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{number(v)}</text>' for x, v in zip(places, at, strict=True)
    )
    middle = frame.left + frame.width / 2
    label = f'<text x="{middle:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(axis.label)}</text>'
    return f'<path class="grid" d="{lines}"/><path class="axis" d="M{frame.left:.1f} {bottom:.1f}h{frame.width:.1f}"/>{labels}{label}'


def _y_axis(frame: _Frame) -> str:
    axis, right = frame.panel.y, frame.left + frame.width
    at = ticks(axis, *sorted(frame.y))
    places = frame.down(np.array(at))
    lines = "" if axis.names else _path(f"M{frame.left:.1f} {y:.1f}H{right:.1f}" for y in places)
    labels = "".join(
        f'<text x="{frame.left - 7:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{html.escape(name)}</text>'
        for y, name in zip(places, frame.names, strict=True)
    )
    middle = TOP + frame.height / 2
    label = f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">{html.escape(axis.label)}</text>'
    return f'<path class="grid" d="{lines}"/><path class="axis" d="M{frame.left:.1f} {TOP}v{frame.height:.1f}"/>{labels}{label}'


def _guide(frame: _Frame, guide: Guide) -> str:
    left, right, top, bottom = frame.left, frame.left + frame.width, TOP, TOP + frame.height
    if guide.where == "diagonal":
        low, high = max(frame.x[0], frame.y[0]), min(frame.x[1], frame.y[1])
        (x, end), (y, to) = frame.across(np.array([low, high])), frame.down(np.array([low, high]))
        line = f"M{x:.1f} {y:.1f}L{end:.1f} {to:.1f}"
    elif guide.where == "x":
        line = f"M{float(frame.across(np.array(guide.at))):.1f} {top}V{bottom:.1f}"
    else:
        line = f"M{left:.1f} {float(frame.down(np.array(guide.at))):.1f}H{right:.1f}"
    return f'<path class="guide" stroke="{_ink(guide.colour)}" d="{line}"/>'


def _drawn(frame: _Frame, part: Series) -> str:
    colour = _ink(part.colour)
    if part.kind == "bars":
        return _bars(frame, part, colour)
    x, y = frame.across(part.x), frame.down(part.y)
    if part.kind == "steps":
        return _steps(frame, x, np.minimum(y, TOP + frame.height), colour)
    inside = np.isfinite(x) & np.isfinite(y)
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x[inside].tolist(), y[inside].tolist(), strict=True))
    line = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x[inside].tolist(), y[inside].tolist(), strict=True))
    drawn = "" if part.kind == "points" or not line else f'<path class="line" stroke="{colour}" d="M{line}"/>'
    if part.kind == "curve":
        return drawn
    return f'{drawn}<path class="{"dots many" if inside.sum() > 300 else "dots"}" stroke="{colour}" d="{dots}"/>'


def _steps(frame: _Frame, x: np.ndarray, y: np.ndarray, colour: str) -> str:
    """Draw a histogram: `y` lies between the neighbours of `x`."""
    tops = "".join(f"V{b:.1f}H{a:.1f}" for a, b in zip(x[1:].tolist(), y.tolist(), strict=True))
    line = f"M{x[0]:.1f} {TOP + frame.height:.1f}{tops}V{TOP + frame.height:.1f}"
    return f'<path fill="{colour}" fill-opacity="0.22" stroke="{colour}" d="{line}"/>'


def _bars(frame: _Frame, part: Series, colour: str) -> str:
    """Draw bars for the categories 0, 1, ..., each from `x` over the length `y`."""
    start, end = frame.across(part.x), frame.across(part.x + part.y)
    rows = np.arange(len(part.x))
    top, bottom = frame.down(rows - BAR), frame.down(rows + BAR)
    line = "".join(
        f"M{a:.1f} {t:.1f}H{b:.1f}V{d:.1f}H{a:.1f}z"
        for a, b, t, d in zip(start.tolist(), end.tolist(), top.tolist(), bottom.tolist(), strict=True) if b > a
    )  # fmt: skip
    return f'<path fill="{colour}" d="{line}"/>'


def _path(pieces: Iterable[str]) -> str:
    return "".join(pieces)
