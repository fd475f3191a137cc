"""One row of numbers for each iteration of a run, for plots and other programs."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from amp.nft.run.state import RunState

COLUMNS = (
    "iteration", "labels", "delta_max", "delta_mean", "energy_rmse", "force_rmse", "force_maxresid", "oob_force_rmse",
    "converged_members", "members", "train_s", "label_s",
)  # fmt: skip


def metrics(state: RunState) -> list[dict[str, Any]]:
    """Return the rows of the evaluated iterations.

    Parameters
    ----------
    state : RunState

    Returns
    -------
    list of dict
        With the keys `COLUMNS`: ``labels`` in the training set; uncertainties on the target (eV/Å); residuals of the training, mean over
        the members (``force_maxresid``: the largest), eV/atom and eV/Å; seconds of the training, and of the labels that were made after it.
    """
    rows = []
    for number, iteration in enumerate(state.iterations):
        if iteration.trained is None or iteration.evaluated is None:
            continue
        reports = iteration.trained.reports
        values = [
            number,
            iteration.trained.chunks,
            iteration.evaluated.delta_max,
            iteration.evaluated.delta_mean,
            *(float(np.mean([getattr(report, name) for report in reports])) for name in ("energy_rmse", "force_rmse")),
            max(report.force_maxresid for report in reports),
            float(np.mean([report.oob_force_rmse for report in reports])),
            sum(report.converged for report in reports),
            len(reports),
            iteration.trained.seconds,
            sum(state.labels[atom].seconds for atom in iteration.labelled if atom in state.labels),
        ]
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def metrics_csv(state: RunState) -> str:
    """Return the rows as CSV with a header; a number that is not known is empty.

    Parameters
    ----------
    state : RunState

    Returns
    -------
    str
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in metrics(state):
        writer.writerow(_shown(value) for value in row.values())
    return text.getvalue()


def _shown(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.6g}"
