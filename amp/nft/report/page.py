"""The report as one HTML page without external files."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

from amp.nft.report.verdict import Verdict
from amp.nft.run.history import Run
from amp.nft.run.status import duration

CAPTIONS = {
    "uncertainty": (
        "Uncertainty on the target after each training",
        "δ = 2.58 times the standard deviation of the members' force vectors on an atom, eV/Å. The run has converged when the "
        "largest is below stop_delta. More chunks do not lower a curve that has levelled off above it.",
    ),
    "distribution": (
        "Distribution of the uncertainty over the atoms",
        "A long right tail means that few environments are still unknown; a narrow peak that no longer moves means that the fit, "
        "not a lack of chunks, sets the uncertainty.",
    ),
    "chunks": ("Chunks", "Chunks labelled around the most uncertain atoms after each iteration."),
    "residuals": (
        "Residuals of the members",
        "Residuals of the best ensemble's members on their own training samples, divided by the criteria of calc_text. A value "
        "below the dashed line meets its criterion.",
    ),
    "forces": (
        "Predicted against labelled central forces",
        "Orange: by the ensemble that requested the label, before it was trained on it; an independent test on its most uncertain "
        "atoms. Blue: by the best ensemble, which was trained on them. The labels are forces in chunks; the cutoff of the chunks "
        "sets their error.",
    ),
    "reliability": (
        "Reliability of the uncertainty",
        "Each point is a force that was not trained on. Below the line the error is smaller than the predicted uncertainty; 99 % of "
        "the points should be there. Once all members meet their criteria, points no longer follow the line: the uncertainty is then "
        "an upper bound, not a ranking.",
    ),
    "target": ("The target, coloured by uncertainty", "Best ensemble. Colours are perceptually uniform (viridis)."),
    "sources": ("Places of the chunks", "Central atoms of the chunks, coloured by the iteration after which each was labelled."),
}


def page(run: Run, verdict: Verdict, figures: Mapping[str, str], scenes: Mapping[int, Any], plotly: str) -> str:
    """Put a report together.

    Parameters
    ----------
    run : Run
    verdict : Verdict
    figures : mapping of str to str
        SVG by name.
    scenes : mapping of int to dict
        Data for plotly's view of each target.
    plotly : str
        Its script; empty if there are no scenes.

    Returns
    -------
    str
        HTML.
    """
    parts = [_verdict(run, verdict), _numbers(run)]
    for number, scene in scenes.items():
        parts.append(_scene(run, number, scene))
    parts += [_figure(name, svg, len(run.targets) > 1) for name, svg in figures.items()]
    parts += [_iterations(run), _members(run), _failures(run), _settings(run)]
    script = f"<script>{plotly}</script><script>{_DRAW}</script>" if scenes else ""
    return Template(_PAGE).substitute(title=_text(f"{run.name}: report"), body="\n".join(parts), script=script)


def _verdict(run: Run, verdict: Verdict) -> str:
    reasons = "".join(f"<li>{_text(reason)}</li>" for reason in verdict.reasons)
    return (
        f'<section class="verdict {verdict.grade}" id="verdict"><h1>{_text(run.name)}</h1><p class="headline">{_text(verdict.headline)}</p>'
        f'<ul>{reasons}</ul><p class="advice"><strong>What next:</strong> {_text(verdict.advice)}</p></section>'
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
    cells = "".join(f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for name, value in numbers)
    return f'<section class="numbers">{cells}</section>'


def _scene(run: Run, number: int, scene: Any) -> str:
    target = run.targets[number]
    name = f"Target {number}" if len(run.targets) > 1 else "The target"
    return (
        f'<figure class="wide"><figcaption><h2>{name}: {_text(target.get_chemical_formula())}, drag to rotate</h2></figcaption>'
        f'<div class="scene" id="scene-{number}"></div>'
        f'<script type="application/json" class="scene-data" data-for="scene-{number}">{_json(scene)}</script></figure>'
    )


def _figure(name: str, svg: str, several: bool) -> str:
    kind, _, number = name.partition("-")
    title, caption = CAPTIONS[kind]
    title += f" (target {number})" if several and number else ""
    return (
        f'<figure id="figure-{name}"><figcaption><h2>{_text(title)}</h2></figcaption>{svg}'
        f"<figcaption><p>{_text(caption)}</p></figcaption></figure>"
    )


def _iterations(run: Run) -> str:
    rows = [
        (step.iteration, step.n_chunks, f"{step.delta.max():.4g}", f"{step.delta.mean():.4g}",
         f"{sum(report.converged for report in step.reports)} of {len(step.reports)}", duration(step.seconds))
        for step in run.steps
    ]  # fmt: skip
    heads = ("iteration", "chunks", "largest δ (eV/Å)", "mean δ (eV/Å)", "members that met their criteria", "training")
    return _section("Iterations", _table(heads, rows)) if rows else ""


def _members(run: Run) -> str:
    if not run.steps:
        return ""
    rows = [
        (report.member, "yes" if report.converged else "no", f"{report.energy_rmse:.3g}", f"{report.force_rmse:.3g}",
         f"{report.force_maxresid:.3g}", report.message)
        for report in run.best.reports
    ]  # fmt: skip
    heads = ("member", "met its criteria", "energy rmse (eV/atom)", "force rmse (eV/Å)", "largest force residual (eV/Å)", "result")
    return _section(f"Members of the best ensemble (iteration {run.best.iteration})", _table(heads, rows))


def _failures(run: Run) -> str:
    if not run.failures:
        return _section("Labels that failed", "<p>None.</p>") if run.label_files else ""
    rows = [(failure.atom, failure.kind, failure.message, failure.attempts) for failure in run.failures]
    return _section("Labels that failed", _table(("atom", "kind", "reason", "attempts"), rows))


def _settings(run: Run) -> str:
    shown = dict(run.settings)
    calc_text = shown.pop("calc_text", "")
    versions = shown.pop("versions", {})
    shown.pop("process", None)
    started = run.starts if run.starts != 1 else "once"
    rows = [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(shown.items())] + [("started", started)]
    parts = [_table(("setting", "value"), rows), "<h3>Versions</h3>", _table(("package", "version"), versions.items())]
    if calc_text:
        parts.append(f"<h3>calc_text</h3><pre>{_text(calc_text.strip())}</pre>")
    return _section("Settings, seeds and versions", "".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(thing: Any) -> str:
    return html.escape(str(thing))


def _json(thing: Any) -> str:
    """Return JSON that is valid inside a script element."""
    return json.dumps(thing, separators=(",", ":")).replace("<", "\\u003c")


_DRAW = """
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function ink() { return {"font.color": getComputedStyle(document.body).color}; }
for (const data of document.querySelectorAll("script.scene-data")) {
  const place = document.getElementById(data.dataset.for), scene = JSON.parse(data.textContent);
  scene.layout.font = {color: getComputedStyle(document.body).color};
  Plotly.newPlot(place, scene.data, scene.layout, {responsive: true, displaylogo: false}).catch(
    error => { place.textContent = "This browser shows no WebGL (" + error + "): see the still pictures below."; });
  dark.addEventListener("change", () => Plotly.relayout(place, ink()));
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --fg: #1c2127; --soft: #5c6670; --bg: #fbfbfa; --card: #ffffff; --line: #e2e4e8;
  --good: #2e8b57; --caution: #c77f1a; --bad: #c0433a; --none: #6b7480; }
@media (prefers-color-scheme: dark) { :root { --fg: #e4e7eb; --soft: #a3acb8; --bg: #15181c; --card: #1d2126; --line: #343a42;
  --good: #55b983; --caution: #e0a44a; --bad: #e5776f; --none: #98a2ae; } }
body { margin: 0 auto; padding: 1.2rem; max-width: 76rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 1rem; }
section, figure { margin: 0; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  min-width: 0; }
section, .wide { grid-column: 1 / -1; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); }
h2 { margin: 0 0 .4rem; font-size: 1.05rem; } h3 { margin: 1rem 0 .3rem; font-size: .95rem; }
.verdict { border-left: .5rem solid var(--none); }
.good { border-left-color: var(--good); } .caution { border-left-color: var(--caution); } .bad { border-left-color: var(--bad); }
.headline { margin: .2rem 0 .6rem; font-size: 1.35rem; font-weight: 600; line-height: 1.3; }
.verdict ul { margin: 0 0 .6rem; padding-left: 1.2rem; } .advice { margin: 0; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem 2rem; } .numbers div { display: flex; flex-direction: column; }
.numbers b { font-size: 1.25rem; } .numbers span, figcaption p { color: var(--soft); font-size: .88rem; }
figcaption p { margin: .4rem 0 0; }
figure svg { width: 100%; height: auto; color: var(--fg); } figure svg text { font-family: inherit; }
.scene { height: 32rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; overflow-wrap: normal; }
pre { overflow-x: auto; font-size: .82rem; }
@media print { body { display: block; } section, figure { break-inside: avoid; margin-bottom: 1rem; } }
</style>
</head>
<body>
$body
$script
</body>
</html>
"""
