"""Tables of the report, as HTML."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from amp.nft.amp_io.committee_file import INDEX, is_committee
from amp.nft.calculator.members import best_path
from amp.nft.report.checks import Checks
from amp.nft.report.comparison import MOST, Comparison
from amp.nft.run.history import Run
from amp.nft.run.journal import JOURNAL
from amp.nft.run.rounds import RoundRecord
from amp.nft.run.status import duration
from amp.nft.run.verdict import how_to_test
from amp.nft.system import files

FEW = 5  # random labels that bound an error loosely
LARGEST = 2**30  # bytes of a file whose hash is shown
NOT_SETTINGS = ("calc_text", "versions", "process", "identity", "notes", "targets", "images", "criteria", "label_identity", "crc")


def text(thing: Any) -> str:
    """Return a thing as text that is safe in HTML.

    Parameters
    ----------
    thing : object

    Returns
    -------
    str
    """
    return html.escape(str(thing))


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Return a table that scrolls where it is too wide.

    Parameters
    ----------
    heads : sequence of str
    rows : iterable of sequences
    kind : str
        'long' breaks the words of the last column, 'words' keeps columns of text wide.

    Returns
    -------
    str
    """
    head = "".join(f"<th>{_unit(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_unit(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _unit(thing: Any) -> str:
    """Return a text in which no line breaks within a unit."""
    return text(thing).replace("eV/", "eV/\u2060")


def section(title: str, body: str, name: str = "") -> str:
    """Return a section with a heading; nothing if it has no body.

    Parameters
    ----------
    title, body : str
    name : str
        Its id.

    Returns
    -------
    str
    """
    mark = f' id="{name}"' if name else ""
    return f"<section{mark}><h2>{text(title)}</h2>{body}</section>" if body else ""


def held_out(run: Run, checks: Checks, names: Sequence[str]) -> str:
    """Return the test of the best ensemble on atoms drawn at random.

    Parameters
    ----------
    run : Run
    checks : Checks
    names : sequence of str
        Of the targets.

    Returns
    -------
    str
    """
    some, title = checks.tested, "Test on atoms drawn at random"
    if not run.steps:
        return ""
    if not len(some):
        advice = how_to_test(run.status.state.untrained)
        words = "None: this run has no labels of random atoms, so nothing here says how large its errors on the target are. "
        return section(title, f"<p>{text(f'{words}{advice[0].upper()}{advice[1:]}.')}</p>", "test")
    heads = ["atom", "environment", "labelled force (eV/Å)", "error (eV/Å)", "uncertainty δ (eV/Å)"]
    rows = [
        [place(run, atom, names), environment(number, count), f"{np.linalg.norm(known):.3g}", f"{error:.3g}", f"{delta:.3g}"]
        for atom, number, count, known, error, delta in zip(
            some.atoms.tolist(), some.numbers, some.neighbors, some.known, some.errors, some.delta, strict=True
        )
    ]
    count = "One label" if len(some) == 1 else f"{len(some)} labels"
    words = (
        f"{count} that no ensemble was trained on, against the best ensemble (iteration {run.best.iteration}): error "
        f"{some.errors.mean():.3g} eV/Å on average, {some.errors.max():.3g} at most."
    )
    untrained = run.status.state.untrained
    if len(some) < FEW:
        more = f": {how_to_test(untrained)}" if untrained is None or untrained > len(some) else ""
        words += f" So few labels bound the error loosely{more}."
    if checks.differences:
        differences = checks.differences
        heads.append("difference in a larger chunk (eV/Å)")
        rows = [
            [*row, f"{differences[atom]:.3g}" if atom in differences else ""] for row, atom in zip(rows, some.atoms.tolist(), strict=True)
        ]
        words += f" The labels differ by {np.mean(list(differences.values())):.3g} eV/Å on average from those in larger chunks."
    return section(title, f"<p>{text(words)}</p>{table(heads, rows)}", "test")


def by_environment(checks: Checks) -> str:
    """Return the errors by element and by number of neighbours.

    Parameters
    ----------
    checks : Checks

    Returns
    -------
    str
    """
    sets = [("next chunks", checks.unseen), ("random test", checks.tested)]
    if checks.target is not None:
        sets.append(("all atoms", checks.target))
    sets = [(name, some) for name, some in sets if len(some)]
    if not sets:
        return ""
    everything = {(int(z), int(n)) for _, some in sets for z, n in zip(some.numbers, some.neighbors, strict=True)}
    rows = []
    for z in sorted({z for z, _ in everything}):
        rows.append([chemical_symbols[z], "all", *_errors(sets, z, None)])
        classes = sorted(n for other, n in everything if other == z)
        if len(classes) > 1:
            rows += [["", _neighbors(n), *_errors(sets, z, n)] for n in classes]
        else:
            rows[-1][1] = _neighbors(classes[0])
    heads = ["element", "environment", *(f"{name}: {what}" for name, _ in sets for what in ("number", "mean", "largest"))]
    words = (
        "Lengths of the force errors, eV/Å. Next chunks: central atoms of chunks, by the ensemble that requested them, before it was "
        "trained on them. An environment is the number of neighbours closer than 1.25 times the sum of the covalent radii."
    )
    return section("Errors by element and environment", f"<p>{text(words)}</p>{table(heads, rows)}", "environments")


def _errors(sets: Sequence[tuple[str, Comparison]], z: int, n: int | None) -> list[str]:
    cells = []
    for _, some in sets:
        errors = some.errors[(some.numbers == z) & (True if n is None else some.neighbors == n)]
        cells += [str(len(errors)), f"{errors.mean():.3g}", f"{errors.max():.3g}"] if len(errors) else ["0", "", ""]
    return cells


def _neighbors(n: int) -> str:
    return f"{n} or more neighbours" if n == MOST else "1 neighbour" if n == 1 else f"{n} neighbours"


def environment(number: int, count: int) -> str:
    """Return the environment of an atom in words.

    Parameters
    ----------
    number, count : int
        Atomic number, and number of neighbours.

    Returns
    -------
    str
    """
    return f"{chemical_symbols[number]}, {_neighbors(int(count))}"


def place(run: Run, atom: int, names: Sequence[str]) -> str:
    """Return the index of an atom in its target, with the target if there are several.

    Parameters
    ----------
    run : Run
    atom : int
        Among the atoms of all targets.
    names : sequence of str
        Of the targets.

    Returns
    -------
    str
    """
    number, first = run.target_of(atom)
    return f"{atom - first} ({names[number]})" if len(names) > 1 else str(atom)


def refinement(run: Run, rounds: Sequence[RoundRecord], changes: dict[str, tuple[float, float]]) -> str:
    """Return the rounds of the refinement that a run belongs to.

    Parameters
    ----------
    run : Run
    rounds : sequence of RoundRecord
    changes : dict of str to (float, float)
        By label: largest uncertainty on the new chunks of a round before and after its training, eV/Å.

    Returns
    -------
    str
    """
    if not rounds:
        return ""
    rows, lines = [], []
    for one in rounds:
        name = f"{one.number}: {one.label}" + (" (this report)" if one.label == run.label else "")
        tested = one.state.verdict
        n_test = 0 if tested is None else int(tested.get("n_test", 0))
        verdict = f"{tested['state']}, {n_test} random labels" if tested is not None and n_test else "not tested"
        learned = "{:.3g} before and {:.3g} after on its chunks".format(*changes[one.label]) if one.label in changes else ""
        rows.append(
            (name, one.work or "the run that is refined", "; ".join(filter(None, (one.uncertainty, learned))), one.outcome, verdict)
        )
        lines += [f"<li>Round {one.number}: {text(frame)}.</li>" for frame in one.frames]
    heads = ("round", "explored and labelled", "largest uncertainty (eV/Å)", "outcome", "test")
    frames = f'<h3>Frames that became targets</h3><ul class="plain">{"".join(lines)}</ul>' if lines else ""
    return section("Refinement", table(heads, rows, "words") + frames, "refinement")


def iterations(run: Run) -> str:
    """Return the iterations.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
    """
    rows = [
        (step.iteration, step.n_chunks, f"{step.delta.max():.4g}", f"{step.delta.mean():.4g}",
         f"{sum(report.converged for report in step.reports)} of {len(step.reports)}", duration(step.seconds))
        for step in run.steps
    ]  # fmt: skip
    heads = ("iteration", "chunks", "largest δ (eV/Å)", "mean δ (eV/Å)", "members that converged", "training")
    return section("Iterations", table(heads, rows) if rows else "")


def members(run: Run) -> str:
    """Return the members of the best ensemble.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
    """
    if not run.steps:
        return ""
    rows = [
        (report.member, "yes" if report.converged else "no", f"{report.energy_rmse:.3g}", f"{report.force_rmse:.3g}",
         f"{report.force_maxresid:.3g}", report.message)
        for report in run.best.reports
    ]  # fmt: skip
    heads = ("member", "converged", "energy rmse (eV/atom)", "force rmse (eV/Å)", "largest force residual (eV/Å)", "result")
    return section(f"Members of the best ensemble (iteration {run.best.iteration})", table(heads, rows, "words"))


def failures(run: Run) -> str:
    """Return the labels that failed.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
    """
    if not run.failures:
        return section("Labels that failed", "<p>None.</p>") if run.label_files else ""
    rows = [(failure.atom, failure.kind, failure.message, failure.attempts) for failure in run.failures]
    return section("Labels that failed", table(("atom", "kind", "reason", "attempts"), rows, "words"))


def provenance(run: Run) -> str:
    """Return settings, versions, hashes and the texts that the run began with.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
    """
    settings = run.settings
    shown = {name: value for name, value in settings.items() if name not in NOT_SETTINGS}
    started = f"{run.starts} times" if run.starts != 1 else "once"
    rows = [(name, _plain(value)) for name, value in sorted(shown.items())] + [("started", started)]
    identity = json.dumps(settings.get("identity") or settings.get("parent", "?"), indent=1, ensure_ascii=False)
    parts = [
        "<h3>Versions</h3>", table(("package", "version"), dict(settings.get("versions") or {}).items()),
        "<h3>Files and structures</h3>", table(("what", "hash (sha256)"), _hashes(run), "long"),
        "<h3>Parent</h3>", f"<pre>{text(identity)}</pre>",
        "<h3>Settings</h3>", table(("setting", "value"), rows, "long"),
    ]  # fmt: skip
    if calc_text := str(settings.get("calc_text", "")).strip():
        parts.append(f"<h3>calc_text</h3><pre>{text(calc_text)}</pre>")
    for name, value in (settings.get("notes") or {}).items():
        parts.append(f"<h3>{text(str(name).replace('_', ' '))}</h3><pre>{text(_plain(value))}</pre>")
    return section("Provenance", "".join(parts), "provenance")


def _hashes(run: Run) -> list[tuple[str, str]]:
    """Return names and hashes of the files and structures of a run; those that cannot be read are skipped."""
    directory = run.record.directory
    best = best_path(str(directory.parents[1] / run.label))
    paths = {JOURNAL: directory / JOURNAL, best.name: best}
    if is_committee(best):  # the index has the hashes of the models
        paths = {JOURNAL: directory / JOURNAL, f"{best.name}/{INDEX}": best / INDEX}
    rows = []
    for name, path in paths.items():
        try:
            rows.append((name, hashlib.sha256(files.read(path, LARGEST)).hexdigest()))
        except OSError:
            continue
    for what in ("target", "image"):
        digests = run.settings.get(f"{what}s") or []
        rows += [(f"{what} {number}" if len(digests) > 1 else what, str(digest)) for number, digest in enumerate(digests[:20])]
    return rows


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
