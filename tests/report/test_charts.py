"""Charts: axes, thinning, SVG, errors by environment, the time of each part."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from ase.build import fcc111, molecule

from amp.nft.report.charts import BLUE, MOST_POINTS, Axis, Chart, Guide, Panel, limits, number, series, ticks
from amp.nft.report.checks import Checks
from amp.nft.report.comparison import NOTHING, compare, count_neighbors
from amp.nft.report.svg import chart_html, panel_svg
from amp.nft.report.tables import by_environment
from amp.nft.report.times import time_spent, unit_of


@pytest.mark.parametrize(
    ("axis", "low", "high", "expected"),
    [
        (Axis(""), 0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis("", whole=True), -0.1, 2.1, [0, 1, 2]),
        (Axis("", log=True), 0.009, 11.0, [0.01, 0.03, 0.1, 0.3, 1, 3, 10]),
        (Axis("", log=True), 0.05, 0.7, [0.05, 0.1, 0.2, 0.5]),
        (Axis("", log=True), 1e-7, 3.0, [1e-6, 1e-4, 1e-2, 1.0]),
        (Axis("", log=True), 2.1, 2.9, [2.2, 2.4, 2.6, 2.8]),
        (Axis("", names=("a", "b")), 1.5, -0.5, [0, 1]),
    ],
)
def test_ticks_are_round_numbers(axis, low, high, expected):
    np.testing.assert_allclose(ticks(axis, low, high), expected)


def test_numbers_are_short():
    assert [number(value) for value in (0.002, 30.0, 12000.0, 1e-6, 2e-4, -0.5)] == ["0.002", "30", "12000", "1e-6", "2e-4", "-0.5"]


@pytest.mark.parametrize("values", [[], [0.0], [3.0], [np.nan, np.inf], [-1.0, 5.0]])
@pytest.mark.parametrize("log", [False, True])
def test_axes_of_any_data_have_limits(values, log):
    low, high = limits(Axis("", log=log), [np.array(values)])
    assert low < high and np.isfinite([low, high]).all() and (low > 0 or not log)


def test_many_points_are_thinned_and_said_to_be():
    part = series("points", np.arange(3.0 * MOST_POINTS), np.arange(3.0 * MOST_POINTS), BLUE, "all")
    assert (
        len(part.x) == MOST_POINTS and part.x[-1] == 3 * MOST_POINTS - 1 and part.name == f"all ({MOST_POINTS} of {3 * MOST_POINTS} drawn)"
    )


def points_of(svg):
    (line,) = [path for path in ElementTree.fromstring(svg).iter("path") if path.get("class") == "dots"]
    return np.array(re.findall(r"M([-\d.]+) ([-\d.]+)", line.get("d")), dtype=float)


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_their_values_are(log):
    values = np.array([1.0, 10.0, 100.0])
    svg = panel_svg(
        Panel(Axis("x", log=log, limits=(1, 100)), Axis("y", log=log, limits=(1, 100)), (series("points", values, values, BLUE),))
    )
    across, down = points_of(svg).T
    share = (np.log(values) if log else values - 1) / (np.log(100) if log else 99)
    np.testing.assert_allclose((across - across[0]) / np.ptp(across), share, atol=1e-3)
    np.testing.assert_allclose((down[0] - down) / np.ptp(down), share, atol=1e-3)


def test_a_chart_is_well_formed_and_its_legend_names_each_series_once():
    some = series("line", [0, 1], [1, 2], BLUE, "a < b")
    chart = Chart(
        "c", "", "", (Panel(Axis("x & y"), Axis("y"), (some,), (Guide("y", 1.5, "line"),), "t"), Panel(Axis("x"), Axis("y"), (some,)))
    )
    text = chart_html(chart)
    ElementTree.fromstring(f"<div>{text}</div>")
    assert text.count("a &lt; b</li>") == 1 and text.count("line</li>") == 1


def test_neighbours_are_counted():
    np.testing.assert_array_equal(count_neighbors(molecule("H2O")), [2, 1, 1])
    slab = fcc111("Pt", (3, 3, 4), vacuum=8.0)
    counts = count_neighbors(slab)
    assert counts[0] == counts[-1] == 9 and counts[len(slab) // 2] == 12
    np.testing.assert_array_equal(count_neighbors(slab, [0, 18]), counts[[0, 18]])


def test_errors_are_listed_by_element_and_environment():
    zero = np.zeros((3, 3))
    some = compare(zero, zero + [1.0, 0, 0] * np.array([[0.1], [0.2], [0.6]]), np.ones(3), 0, [1, 1, 8], [1, 2, 2])
    rows = re.findall(r"<tr>(.*?)</tr>", by_environment(Checks(NOTHING, some)))[1:]
    assert [re.findall(r"<td>(.*?)</td>", row) for row in rows] == [
        ["H", "all", "2", "0.15", "0.2"], ["", "1 neighbour", "1", "0.1", "0.1"], ["", "2 neighbours", "1", "0.2", "0.2"],
        ["O", "2 neighbours", "1", "0.6", "0.6"],
    ]  # fmt: skip
    assert by_environment(Checks(NOTHING, NOTHING)) == ""


def test_time_between_two_starts_does_not_count():
    before = [("run", 0), ("start", 1), ("trained", 11), ("evaluated", 13), ("label", 14), ("interrupted", 15)]
    after = [("start", 1000), ("trained", 1005), ("evaluated", 1006), ("test-chosen", 1006), ("label", 1010), ("verdict", 1011)]
    spent = time_spent([{"event": name, "time": time} for name, time in [*before, *after, ("stopped", 1010)]])
    assert spent == {"training": 15, "uncertainty": 3, "labels": 1, "test": 5, "other": 1}
    assert [unit_of(seconds)[0] for seconds in (0.0, 100.0, 130.0, 9000.0)] == ["s", "s", "min", "h"]
