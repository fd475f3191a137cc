"""Curve of the metrics of runs: uncertainty and training error against the labels that were spent."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amp.nft.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {  # columns of metrics.csv that are drawn: label and style
    "delta_max": ("largest uncertainty", "-o"),
    "delta_mean": ("mean uncertainty", "--s"),
    "force_rmse": ("force residual of the training", ":^"),
}


def draw_metrics(tables: Sequence[str | os.PathLike[str]]) -> Figure:
    """Draw the ``metrics.csv`` of one run, or of several in one figure.

    Parameters
    ----------
    tables : sequence of path
        Files as a run writes them into its training directory.

    Returns
    -------
    matplotlib Figure
        Uncertainties and residuals, eV/Å, against the labels in the training set.

    Raises
    ------
    InputError
        A file is not such a table, or has no finished iteration.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, path in enumerate(tables):
        columns = read_metrics(path)
        for name, (label, style) in CURVES.items():
            x, y = columns["labels"], columns[name]
            known = np.isfinite(y) & (y > 0)
            if known.any():
                text = label if len(tables) == 1 else f"{Path(path).parent}: {label}"
                axes.plot(x[known], y[known], style, color=f"C{number}", markersize=4, label=text)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="labels in the training set", ylabel="eV/Å", yscale="log")
    axes.legend()
    return figure


def read_metrics(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a table of metrics.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to ndarray
        Columns by name; nan where a number is not known.

    Raises
    ------
    InputError
        It is not such a table, or has no finished iteration.
    """
    name = os.fspath(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or []
        if missing := [column for column in ("labels", *CURVES) if column not in names]:
            raise InputError(f"{name} has no column {', '.join(missing)}: give the metrics.csv of a training directory.")
        columns = {column: np.array([float(row[column] or "nan") for row in rows]) for column in names}
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is not a table of metrics ({error}): give the metrics.csv of a training directory.") from error
    if not rows:
        raise InputError(f"{name} has no finished iteration yet.")
    return columns
