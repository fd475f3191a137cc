"""The report as one HTML page without external files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from amp.nft.report import tables
from amp.nft.report.charts import Chart
from amp.nft.report.checks import Checks
from amp.nft.report.scripts import DRAW, PAGE, sphere
from amp.nft.report.svg import chart_html
from amp.nft.report.tables import text
from amp.nft.report.verdict import Verdict
from amp.nft.run.history import Run
from amp.nft.run.rounds import RoundRecord
from amp.nft.run.status import duration


def page(
    run: Run, verdict: Verdict, checks: Checks, charts: Sequence[Chart] = (), scenes: Mapping[int, Any] | None = None, plotly: str = "",
    rounds: Sequence[RoundRecord] = (), changes: Mapping[str, tuple[float, float]] | None = None,
) -> str:  # fmt: skip
    """Put a report together.

    Parameters
    ----------
    run : Run
    verdict : Verdict
    checks : Checks
    charts : sequence of Chart
    scenes : mapping of int to dict, optional
        Data of the view of each target.
    plotly : str
        Its script; empty if there are no scenes.
    rounds : sequence of RoundRecord
        Of the refinement that the run belongs to.
    changes : mapping of str to (float, float), optional
        Uncertainty on the new chunks of a round, by its label, before and after its training, eV/Å.

    Returns
    -------
    str
        HTML.
    """
    scenes = scenes or {}
    names = target_names(run, rounds)
    parts = [_verdict(run, verdict), _numbers(run), tables.held_out(run, checks, names)]
    parts.append(tables.refinement(run, rounds, dict(changes or {})))
    parts += [_scene(run, number, names[number], data) for number, data in scenes.items()]
    parts += [_chart(chart) for chart in charts]
    parts += [tables.by_environment(checks), tables.iterations(run), tables.members(run), tables.failures(run), tables.provenance(run)]
    data = f'<script type="application/json" id="sphere">{_json(sphere())}</script>'
    script = f"{data}<script>{plotly}</script><script>{DRAW}</script>" if scenes else ""
    return Template(PAGE).substitute(title=text(f"{run.name}: report"), body="\n".join(filter(None, parts)), script=script)


def target_names(run: Run, rounds: Sequence[RoundRecord]) -> list[str]:
    """Return the names of the targets: frames of a refinement by their explorer, others by their number.

    Parameters
    ----------
    run : Run
    rounds : sequence of RoundRecord

    Returns
    -------
    list of str
    """
    number = next((one.number for one in rounds if one.label == run.label), 0)
    frames = [f"Round {one.number}, {frame.name}" for one in rounds if one.number <= number for frame in one.frames]
    first = len(run.targets) - len(frames)
    if first < 1:
        frames, first = [], len(run.targets)
    return [*(["The target"] if first == 1 else [f"Target {number}" for number in range(first)]), *frames]


def _verdict(run: Run, verdict: Verdict) -> str:
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in verdict.reasons)
    return (
        f'<section class="verdict {verdict.grade}" id="verdict"><h1>{text(run.name)}</h1><p class="headline">{text(verdict.headline)}</p>'
        f'<ul>{reasons}</ul><p class="advice"><strong>What next:</strong> {text(verdict.advice)}</p></section>'
    )


def _numbers(run: Run) -> str:
    settings = run.settings
    numbers = [("iterations", len(run.steps)), ("labelled chunks", len(run.label_files)), ("members", settings.get("n", "?"))]
    if run.steps:
        numbers.insert(0, ("largest uncertainty, eV/Å", f"{run.best.delta.max():.3g}"))
        numbers.append(("atoms", len(run.best.delta)))
        numbers.append(("spent on training", duration(sum(step.seconds for step in run.steps))))
    if run.label_files:
        numbers.append(("spent on labels", duration(run.label_seconds)))
    cells = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in numbers)
    return f'<section class="numbers">{cells}</section>'


def _scene(run: Run, number: int, name: str, scene: Any) -> str:
    kinds, counts = np.unique(run.targets[number].numbers, return_counts=True)  # ASE's own formula takes a second for 100 000 atoms
    formula = Formula.from_dict({chemical_symbols[z]: int(n) for z, n in zip(kinds, counts, strict=True)}).format("hill")
    return (
        f'<figure class="wide"><figcaption><h2>{text(name)}: {text(formula)}, drag to rotate</h2></figcaption>'
        f'<form class="choices" data-for="scene-{number}" autocomplete="off"></form><div class="scene" id="scene-{number}"></div>'
        f'<script type="application/json" class="scene-data" data-for="scene-{number}">{_json(scene)}</script></figure>'
    )


def _chart(chart: Chart) -> str:
    wide = ' class="wide"' if len(chart.panels) > 1 else ""
    return (
        f'<figure{wide} id="figure-{chart.name}"><figcaption><h2>{text(chart.title)}</h2></figcaption>{chart_html(chart)}'
        f"<figcaption><p>{text(chart.caption)}</p></figcaption></figure>"
    )


def _json(thing: Any) -> str:
    """Return JSON that is valid inside a script element."""
    return json.dumps(thing, separators=(",", ":")).replace("<", "\\u003c")
