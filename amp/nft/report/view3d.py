"""Rotatable view of a target for plotly's script: spheres for small structures, points for large ones."""

from __future__ import annotations

import base64
import importlib.resources
from typing import Any

import numpy as np
from ase.data import covalent_radii

from amp.nft.report.figures import taken
from amp.nft.report.pictures import cell_edges
from amp.nft.run.history import Run

SPHERES = 1500  # atoms up to which they are drawn as spheres
FINE = 400  # and up to which these are smooth
SHADOW = "#8a8f98"
Trace = dict[str, Any]


def script() -> str:
    """Return plotly's script from its Python package, so that the page needs no network.

    Returns
    -------
    str
    """
    return (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def scene(run: Run, number: int) -> dict[str, Any]:
    """Return data and layout of the view of a target.

    Parameters
    ----------
    run : Run
    number : int
        Which target.

    Returns
    -------
    dict
        For ``Plotly.newPlot``, plain data.
    """
    atoms, delta, when = run.targets[number], run.split(run.best.delta)[number], taken(run)[number]
    rank = np.argsort(np.argsort(-delta, kind="stable"))
    parts = {"all atoms": rank >= 0, "most uncertain 10 %": rank < max(len(rank) // 10, 1)}
    if len(atoms) >= 1000:
        parts["most uncertain 1 %"] = rank < len(rank) // 100
    log = delta.min() > 0 and delta.max() > 30 * delta.min()
    shade = np.log10(delta) if log else delta
    bar = _bar("uncertainty δ (eV/Å)", shade, log)
    views = {name: _atoms(atoms, np.flatnonzero(mask), shade, delta, bar) for name, mask in parts.items()}
    if (when >= 0).any():
        bar = {"title": {"text": "chunk taken after iteration", "side": "right"}, "dtick": max(int(when.max()) // 8, 1), "len": 0.8}
        views["where chunks were taken"] = _atoms(atoms, np.flatnonzero(when >= 0), when.astype(float), delta, bar, low=0.0)
    return _assemble(views, _shadows(atoms), _edges(atoms), _distance(atoms))


def _distance(atoms: Any) -> float:
    """Return the distance from which all of a structure and its cell is visible, 1 for a round one; the page is twice as wide as high."""
    points = np.vstack([atoms.positions, *(end for edge in cell_edges(atoms) for end in edge)])
    extent = np.maximum(np.ptp(points, axis=0), 1.0)
    return max(1.0, float((extent / (2, 2, 1)).max() / np.cbrt(extent.prod())))


def _assemble(views: dict[str, list[Trace]], shadows: Trace, edges: list[Trace], distance: float) -> dict[str, Any]:
    """Collect the traces of all views, and a button for each."""
    names = list(views)
    traces = [*edges, {**shadows, "visible": False}]
    spans = {}
    for name in names:
        spans[name] = range(len(traces), len(traces) + len(views[name]))
        traces += [{**trace, "visible": name == names[0]} for trace in views[name]]
    buttons = []
    for name in names:
        visible = [True] * len(edges) + [name != names[0]] + [k in spans[name] for k in range(len(edges) + 1, len(traces))]
        buttons.append({"label": name, "method": "restyle", "args": ["visible", visible]})
    axis = {"visible": False, "showspikes": False}
    layout = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 0, "r": 0, "t": 44, "b": 0},
        "scene": {
            "xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "data",
            "camera": {"eye": {"x": 0.45 * distance, "y": -1.5 * distance, "z": 0.4 * distance}},
        },
        "showlegend": False,
        "updatemenus": [
            {"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom",
             "buttons": buttons, "pad": {"b": 6}, "font": {"color": "#333"}, "bgcolor": "#eee"}
        ],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _bar(title: str, shade: np.ndarray, log: bool) -> dict[str, Any]:
    """Return a colour bar; for a logarithm, its ticks are values, not logarithms."""
    bar: dict[str, Any] = {"title": {"text": title, "side": "right"}, "len": 0.8}
    if log:
        low, high = shade.min(), shade.max()
        ticks = [p + np.log10(m) for p in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        bar |= {"tickvals": ticks, "ticktext": [f"{10**tick:.2g}" for tick in ticks]}
    return bar


def _atoms(atoms: Any, chosen: np.ndarray, shade: np.ndarray, delta: np.ndarray, bar: dict, low: float | None = None) -> list[Trace]:
    """Return the trace of some atoms in colour."""
    colour: Trace = {
        "colorscale": "Viridis", "cmin": float(shade.min()) if low is None else low, "cmax": float(shade.max()),
        "colorbar": bar, "showscale": True,
    }  # fmt: skip
    if colour["cmax"] <= colour["cmin"]:
        colour["cmax"] = colour["cmin"] + 1.0
    points = atoms.positions[chosen]
    hover: Trace = {
        "type": "scatter3d", "mode": "markers", **_xyz(points), "customdata": _packed(delta[chosen]), "ids": None,
        "text": [f"{atoms.symbols[k]} {k}" for k in chosen],
        "hovertemplate": "%{text}<br>δ = %{customdata:.3g} eV/Å<extra></extra>",
    }  # fmt: skip
    del hover["ids"]
    if len(atoms) > SPHERES:
        size = np.clip(160.0 / len(atoms) ** (1 / 3), 2.5, 8.0) * (2.0 if len(chosen) < len(atoms) / 50 else 1.0)
        marker = {"size": float(size), "color": _packed(shade[chosen]), "line": {"width": 0}}
        return [{**hover, "marker": marker | colour}]
    corners, faces = _sphere(2 if len(atoms) <= FINE else 1)
    radii = 0.92 * covalent_radii[atoms.numbers[chosen]]
    vertices = (points[:, None] + radii[:, None, None] * corners).reshape(-1, 3)
    triangles = (faces + len(corners) * np.arange(len(points))[:, None, None]).reshape(-1, 3)
    mesh: Trace = {
        "type": "mesh3d", **_xyz(vertices), "intensity": _packed(np.repeat(shade[chosen], len(corners))),
        **{name: _packed(triangles[:, k], "i4") for k, name in enumerate("ijk")}, **colour, "hoverinfo": "skip",
        "lighting": {"ambient": 0.72, "diffuse": 0.5, "specular": 0.15, "roughness": 0.6, "fresnel": 0.1},
        "lightposition": {"x": 500, "y": -1500, "z": 1200},
    }  # fmt: skip
    return [mesh, {**hover, "marker": {"size": 10, "opacity": 0}}]


def _shadows(atoms: Any) -> Trace:
    """Return the trace of all atoms, faint."""
    size = float(np.clip(160.0 / len(atoms) ** (1 / 3), 1.5, 10.0))
    most = np.linspace(0, len(atoms) - 1, min(len(atoms), 20_000)).astype(int)
    return {
        "type": "scatter3d", "mode": "markers", **_xyz(atoms.positions[most]), "hoverinfo": "skip",
        "marker": {"size": size, "color": SHADOW, "opacity": 0.12 if len(atoms) < 5000 else 0.04, "line": {"width": 0}},
    }  # fmt: skip


def _edges(atoms: Any) -> list[Trace]:
    """Return the trace of the cell of a periodic structure."""
    lines = [np.array([start, end, [np.nan] * 3]) for start, end in cell_edges(atoms)]
    if not lines:
        return []
    points = [[None if np.isnan(x) else float(x) for x in row] for row in np.concatenate(lines)]
    columns = {name: [row[k] for row in points] for k, name in enumerate("xyz")}
    return [{"type": "scatter3d", "mode": "lines", **columns, "hoverinfo": "skip", "line": {"color": SHADOW, "width": 2}}]


def _xyz(points: np.ndarray) -> Trace:
    return {name: _packed(points[:, k]) for k, name in enumerate("xyz")}


def _packed(values: np.ndarray, kind: str = "f4") -> dict[str, str]:
    """Return an array in plotly's compact JSON form."""
    return {"dtype": kind, "bdata": base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode()}


def _sphere(times: int) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and triangles of an icosahedron whose faces are divided in four repeatedly; it looks like a sphere."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = np.array([np.roll(corner, shift) for shift in range(3) for corner in corners])
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = np.abs(distance - 2.0) < 1e-9
    faces = [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    mesh = points, np.array(faces)
    for _ in range(times):
        mesh = _outward(*_divide(*mesh))
    return mesh


def _divide(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide each triangle in four."""
    pairs = sorted({tuple(sorted(pair)) for face in faces.tolist() for pair in (face[:2], face[1:], face[::2])})
    middle = {pair: len(points) + k for k, pair in enumerate(pairs)}
    points = np.vstack([points, [(points[a] + points[b]) / 2 for a, b in pairs]])
    new = []
    for a, b, c in faces.tolist():
        ab, bc, ac = (middle[tuple(sorted(pair))] for pair in ((a, b), (b, c), (a, c)))
        new += [(a, ab, ac), (b, ab, bc), (c, ac, bc), (ab, bc, ac)]
    return points, np.array(new)


def _outward(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on the unit sphere, each triangle oriented with its normal outward."""
    points = points / np.linalg.norm(points, axis=1)[:, None]
    a, b, c = points[faces.T]
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points, faces
