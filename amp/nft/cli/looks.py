"""Commands that look at a run or an ensemble: ``status``, ``report``, ``plot``, ``info``."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amp.nft.errors import InputError

if TYPE_CHECKING:
    from amp.nft.run.status import Status


def status(options: Namespace) -> int:
    """Print the status of a run.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.run import read_status, show

    found = read_status(options.directory)
    if options.json:
        print(json.dumps(status_data(found), indent=1, ensure_ascii=False))
    else:
        show(found)
    return 0


def status_data(found: Status) -> dict[str, Any]:
    """Return a status as plain data; times in s, uncertainties and errors in eV/Å, null where a number is not known.

    Parameters
    ----------
    found : Status

    Returns
    -------
    dict
    """
    ending = found.state.ending
    return {
        "directory": str(found.directory),
        "phase": found.phase,
        "iteration": found.iteration,
        "max_iterations": found.settings.get("max_iterations"),
        "stop_delta": found.settings.get("stop_delta"),
        "converged": None if ending is None else ending.converged,
        "message": found.message or None,
        "chunks": found.n_chunks,
        "delta_max": found.deltas,
        "labels": {"requested": found.asked, "done": found.done, "failed": found.failed, "running": found.running},
        "last_failure": found.failure or None,
        "members": [{**vars(member), "loss": _finite(member.loss), "distance": _finite(member.distance)} for member in found.members],
        "driver": {"alive": found.alive, "text": found.driver},
        "elapsed": found.elapsed,
        "left": None if found.left is None else vars(found.left),
        "verdict": None if found.verdict is None else found.verdict.as_dict(),
    }


def report(options: Namespace) -> int:
    """Write the report of a run.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.inputs import importing_from
    from amp.nft.cli.paths import check_writable
    from amp.nft.report import report
    from amp.nft.run.status import find_run

    check_writable(options.output)
    with importing_from(find_run(options.directory).parents[1]):
        verdict = report(options.directory, options.output, figures=options.figures, truth=options.truth, forces_key=options.forces_key)
    print(f"{verdict.headline}\nWhat next: {verdict.advice}\n{options.output} is written.")
    return 0


def plot(options: Namespace) -> int:
    """Write the figures of a run, or the curve of metrics.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.inputs import importing_from
    from amp.nft.cli.paths import check_writable
    from amp.nft.report import write_figures
    from amp.nft.report.metrics_curve import draw_metrics
    from amp.nft.run.status import find_run

    tables = [source for source in options.sources if source.endswith(".csv")]
    if len(options.sources) > 1 and len(tables) < len(options.sources):
        raise InputError(f"{' '.join(options.sources)}: give one run, or one or several metrics.csv.")
    if tables:
        output = options.output or "metrics.png"
        check_writable(output)
        draw_metrics(tables).savefig(output, dpi=160)
        print(f"{output} is written.")
        return 0
    output = options.output or "figures"
    with importing_from(find_run(options.sources[0]).parents[1]):
        names = write_figures(options.sources[0], output)
    print(f"{output}: {', '.join(names)}, each as PNG and SVG.")
    return 0


def info(options: Namespace) -> int:
    """Print the content of an ensemble.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    found = ensemble_data(options.ensemble)
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    card = found.pop("card") or {}
    for name, value in {**found, **{f"card: {name}": value for name, value in card.items()}}.items():
        grid.add_row(name.replace("_", " "), Text(_words(value)))
    Console(highlight=False).print(grid)
    return 0


def ensemble_data(path: str) -> dict[str, Any]:
    """Return the content of an ensemble as plain data; lengths in Å.

    Parameters
    ----------
    path : str
        An ``.ensemble`` file, or a ``.committee``.

    Returns
    -------
    dict
    """
    from amp.nft.amp_io import read_card, read_ensemble
    from amp.nft.amp_io.baseline_data import described, stored_baseline
    from amp.nft.amp_io.committee_file import is_committee
    from amp.nft.calculator.ase_calculator import digest_of_models

    if is_committee(path):
        return _committee_data(path)
    models = read_ensemble(path)
    first = models[0]
    return {
        "file": path,
        "members": len(models),
        "elements": list(first.elements),
        "cutoff": first.cutoff["kwargs"]["Rc"],
        "cutoff_function": first.cutoff["name"],
        "fingerprints": {element: len(functions) for element, functions in first.gs.items()},
        "hidden_layers": {element: list(nodes) for element, nodes in first.hiddenlayers.items()},
        "activation": first.activation,
        "parameters_of_a_member": sum(layer.size for layers in first.weights.values() for layer in layers),
        "error95_factor": first.error95_factor,
        "digest": digest_of_models(models),
        **({} if (baseline := stored_baseline(models)) is None else {"baseline": described(baseline)}),
        "card": read_card(path),
    }


def _committee_data(path: str) -> dict[str, Any]:
    """Return the content of a committee; its files must be complete, and its calculator is not imported."""
    from amp.nft.amp_io.committee_file import read_index
    from amp.nft.amp_io.external import common_factor, read_external
    from amp.nft.calculator.members import digest_of_members

    index = read_index(path)
    members = [read_external(text) for text in index["members"]]
    for member in members:
        member.check(Path(path))
    card = index["card"] or {}
    first = members[0].loader
    return {
        "file": path,
        "members": len(members),
        "elements": card.get("elements"),
        "calculator": first.calculator,
        "argument": first.argument,
        "options": first.options,
        "models": [member.model for member in members],
        "trainer": card.get("trainer", {}).get("command"),
        "error95_factor": common_factor(members),
        "digest": digest_of_members(path),
        "card": index["card"],
    }


def _words(value: Any, inside: bool = False) -> str:
    """Return plain data in words; what is inside a dictionary in parentheses."""
    if isinstance(value, dict):
        words = ", ".join(f"{key.replace('_', ' ')} {_words(item, True)}" for key, item in value.items())
        return f"({words})" if inside else words
    if isinstance(value, list):
        return ("; " if any(isinstance(item, dict) for item in value) else ", ").join(_words(item) for item in value) or "none"
    return "not known" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
