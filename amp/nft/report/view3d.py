"""Data of the rotatable view of a target, from which the script of the page makes plotly's traces."""

from __future__ import annotations

import base64
import importlib.resources
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from amp.nft.report.pictures import cell_edges, taken
from amp.nft.run.history import Run

RADIUS = 0.92  # of a sphere, times the covalent radius
MOST_VIEWS = 3  # targets that are shown, the most uncertain first


def script() -> str:
    """Return plotly's script from its Python package, so that the page needs no network.

    Returns
    -------
    str
    """
    return (importlib.resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def most_uncertain(run: Run) -> list[int]:
    """Return the numbers of the targets that are shown: the most uncertain ones.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of int
    """
    largest = [part.max() for part in run.split(run.best.delta)] if run.targets and run.steps else []
    return [int(number) for number in np.argsort(largest)[::-1][:MOST_VIEWS]]


def scene(run: Run, number: int, errors: np.ndarray | None = None) -> dict[str, Any]:
    """Return the data of the view of a target.

    Parameters
    ----------
    run : Run
    number : int
        Which target.
    errors : ndarray, shape (atoms of all targets,), optional
        Lengths of the true force errors, eV/Å.

    Returns
    -------
    dict
        Plain data. ``values`` has an array per atom for each way to colour; ``elements`` has symbol, colour and radius (Å) by place in
        ``kind``.
    """
    atoms, numbers = run.targets[number], np.unique(run.targets[number].numbers)
    values = {"uncertainty δ (eV/Å)": run.split(run.best.delta)[number]}
    if errors is not None:
        values["true error (eV/Å)"] = run.split(errors)[number]
    when = taken(run)[number]
    return {
        "n": len(atoms),
        "x": [packed(atoms.positions[:, k]) for k in range(3)],
        "kind": packed(np.searchsorted(numbers, atoms.numbers), "u1"),
        "elements": [
            {"symbol": chemical_symbols[z], "colour": _hex(jmol_colors[z]), "radius": RADIUS * float(covalent_radii[z])} for z in numbers
        ],
        "values": {name: packed(array) for name, array in values.items()},
        "taken": packed(when, "i2") if (when >= 0).any() else None,
        "edges": [[start.tolist(), end.tolist()] for start, end in cell_edges(atoms)],
        "distance": _distance(atoms),
    }


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour)


def _distance(atoms: Any) -> float:
    """Return the distance from which all of a structure and its cell is visible, 1 for a round one; the page is twice as wide as high."""
    points = np.vstack([atoms.positions, *(end for edge in cell_edges(atoms) for end in edge)])
    extent = np.maximum(np.ptp(points, axis=0), 1.0)
    return max(1.0, float((extent / (2, 2, 1)).max() / np.cbrt(extent.prod())))


def packed(values: np.ndarray, kind: str = "f4") -> str:
    """Return an array as base64 of its little-endian bytes.

    Parameters
    ----------
    values : ndarray
    kind : str
        NumPy's name of the type.

    Returns
    -------
    str
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode()
