"""Charts as plain data, from which `svg` draws a page and `matplotlib_files` draws files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

BLUE, ORANGE, GREEN, PINK, GREY = "#4c8dd6", "#e08a2e", "#3fa46a", "#c85a9e", "#8a8f98"
INK = "ink"  # the colour of the text
MOST_POINTS = 4000  # of a series that are drawn; more are thinned evenly


@dataclass(frozen=True)
class Axis:
    """Axis of a panel: label, scale, and limits where the data do not set them; `names` are the ticks of categories 0, 1, ..."""

    label: str
    log: bool = False
    whole: bool = False
    limits: tuple[float, float] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """Points, a line with points, steps of a histogram between edges, or horizontal bars from `x` over the length `y`.

    `y` of steps has one value less than `x`. An empty name is not in the legend.
    """

    kind: Literal["points", "line", "curve", "steps", "bars"]
    x: np.ndarray
    y: np.ndarray
    colour: str
    name: str = ""

    def thinned(self) -> Series:
        """Return the series with at most `MOST_POINTS` points, which are evenly chosen; its name says so.

        Returns
        -------
        Series
        """
        if self.kind != "points" or len(self.x) <= MOST_POINTS:
            return self
        kept = np.linspace(0, len(self.x) - 1, MOST_POINTS).astype(int)
        return Series(self.kind, self.x[kept], self.y[kept], self.colour, f"{self.name} ({MOST_POINTS} of {len(self.x)} drawn)")


@dataclass(frozen=True)
class Guide:
    """Dashed line at x, at y, or with y = x."""

    where: Literal["x", "y", "diagonal"]
    at: float = 0.0
    name: str = ""
    colour: str = INK


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    guides: tuple[Guide, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """Panels next to each other that share a legend, with a title and a sentence on what they show."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...] = field(default=())


def series(kind: Literal["points", "line", "curve", "steps", "bars"], x: ArrayLike, y: ArrayLike, colour: str, name: str = "") -> Series:
    """Return a series of finite points, thinned where there are too many.

    Parameters
    ----------
    kind : str
        As for `Series`.
    x, y : array_like
    colour, name : str

    Returns
    -------
    Series
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if kind not in ("steps", "bars"):
        finite = np.isfinite(xs) & np.isfinite(ys)
        xs, ys = xs[finite], ys[finite]
    return Series(kind, xs, ys, colour, name).thinned()


def limits(axis: Axis, values: Sequence[np.ndarray], least: float | None = None) -> tuple[float, float]:
    """Return the limits of an axis: around the data, with a margin.

    Parameters
    ----------
    axis : Axis
    values : sequence of ndarray
        Data along it.
    least : float, optional
        A value that linear axes include.

    Returns
    -------
    tuple of float
        The lower one is below the upper one, and above 0 on a logarithmic axis.
    """
    if axis.limits is not None:
        return axis.limits
    data = np.concatenate([np.ravel(part) for part in values]) if values else np.zeros(0)
    data = data[np.isfinite(data) & ((data > 0) | (not axis.log))]
    if not len(data):
        return (0.1, 1.0) if axis.log else (0.0, 1.0)
    low, high = float(data.min()), float(data.max())
    if axis.log:
        return (low / 1.25, high * 1.25) if high < 1.0001 * low else (low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    if least is not None:
        low, high = min(low, least), max(high, least)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.5
    return (low if low == least else low - margin), high + margin


def ticks(axis: Axis, low: float, high: float) -> list[float]:
    """Return the values at which an axis has a number.

    Parameters
    ----------
    axis : Axis
    low, high : float
        Its limits.

    Returns
    -------
    list of float
        Two or more where the limits allow.
    """
    if axis.names:
        return list(map(float, range(len(axis.names))))
    if axis.log:
        return _log_ticks(low, high)
    step = _step((high - low) / 5)
    if axis.whole:
        step = max(round(step), 1)
    first = int(np.ceil(low / step - 1e-9))
    return [round(k * step, 12) for k in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is at least as large."""
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors, skip in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 4)):
        found = [factor * 10.0**power for power in decades if power % skip == 0 for factor in factors]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(found) <= 7:
            break
    return found if len(found) >= 2 else ticks(Axis(""), low, high)  # less than a factor of ten or so


def number(value: float) -> str:
    """Return a number of an axis: 0.002, 0.5, 30, 12000, 1e-6.

    Parameters
    ----------
    value : float

    Returns
    -------
    str
    """
    if abs(value) < 1e6 and float(value).is_integer():
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"
