"""One screen that shows the status of a run."""

from __future__ import annotations

import math
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

from amp.nft.records import MemberStep
from amp.nft.run.rounds import read_rounds
from amp.nft.run.status import Status, duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ROWS = 12  # members that are listed
LAST = 8  # uncertainties that are listed
STYLES = {"green": "green", "amber": "yellow", "grey": "bright_black", "red": "red"}  # of a verdict's color


def show(status: Status, file: IO[str] | None = None) -> None:
    """Print the status of a run.

    Parameters
    ----------
    status : Status
    file : text stream, optional
        Standard output if not given.
    """
    from rich.console import Console

    Console(file=file, highlight=False).print(view(status, elsewhere=True))


def view(status: Status, *, elsewhere: bool = False) -> RenderableType:
    """Return the objects that rich prints.

    Parameters
    ----------
    status : Status
    elsewhere : bool
        Say who the driver is, too.

    Returns
    -------
    rich renderable
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _rows(status, elsewhere):
        grid.add_row(name, Text(value))
    if status.verdict is not None:
        grid.add_row("verdict", Text(str(status.verdict), style=STYLES[status.verdict.color]))
    parts: list[RenderableType] = [grid]
    unfinished = [member for member in status.members if member.state not in ("met", "missed")]
    if unfinished:
        parts.append(_members(unfinished))
    return Group(*parts)


def _rows(status: Status, elsewhere: bool) -> list[tuple[str, str]]:
    """Return names and texts, top first."""
    settings = status.settings
    rows = [(status.directory.name, _subject(settings))]
    most = settings.get("max_iterations")
    rows.append(("iteration", f"{status.iteration}" + (f" of at most {most}" if most is not None else "") + f": {_doing(status)}"))
    rows.append(("uncertainty", _uncertainty(status)))
    if status.members:
        rows.append(("members", _count(status.members)))
    if status.asked:
        rows.append(("labels", _labels(status)))
    if status.failure:
        rows.append(("", f"last failure: {status.failure}"))
    rows.append(("time", f"{duration(status.elapsed)} since the last start; {_left(status)}"))
    if elsewhere:
        rows.append(("driver", status.driver))
    rounds = [one for one in read_rounds(status.directory) if one.number] if elsewhere else []
    if status.message and not any(one.record.directory == status.directory.resolve() / "saved-info" for one in rounds):
        rows.append(("outcome", status.message))
    return rows + [(one.label, f"round {one.number}: {one.work}. {one.outcome}") for one in rounds]


def _subject(settings: dict[str, Any]) -> str:
    atoms = settings.get("target_atoms", [])
    what = f"target of {atoms[0]} atoms" if len(atoms) == 1 else f"{len(atoms)} targets of {sum(atoms)} atoms"
    return f"{what}, {settings.get('n', '?')} members, parent {settings.get('parent', '?')}, trainer {settings.get('trainer', '?')}"


def _doing(status: Status) -> str:
    images = f"{status.settings.get('n_images', '?')} images and {status.n_chunks} chunks"
    return {
        "training": f"training on {images}",
        "evaluating": "computing the uncertainty on each atom of the target",
        "labelling": "labelling chunks around the most uncertain atoms",
        "finished": f"finished, with {images}",
        "interrupted": f"interrupted, with {images}",
    }[status.phase]


def _uncertainty(status: Status) -> str:
    """Return the decrease of the uncertainty, and its goal."""
    stop = status.settings.get("stop_delta")
    goal = "" if stop is None else f"; stop below {stop:g}"
    if not status.deltas:
        return f"not known yet{goal} eV/Å"
    before = "… → " if len(status.deltas) > LAST else ""
    return before + " → ".join(f"{delta:.3g}" for delta in status.deltas[-LAST:]) + f"{goal} eV/Å (largest on any atom)"


def _count(members: list[MemberStep]) -> str:
    """Count the members in each state."""
    words = {"met": "met their criteria", "missed": "missed them"}
    counts = Counter(member.state for member in members)
    states = ("met", "missed", "training", "queued", "waiting")
    return ", ".join(f"{counts[state]} {words.get(state, state)}" for state in states if counts[state])


def _labels(status: Status) -> str:
    parts = [f"{status.done} of {status.asked} done", f"{status.failed} failed", f"{status.running} running"]
    return ", ".join(parts)


def _left(status: Status) -> str:
    """Return the time left, where an estimate is possible."""
    if status.message:
        return "ended"
    if status.alive is False:
        return "stopped: rerun the script to resume"
    if status.left is not None:
        plural = "" if status.left.iterations == 1 else "s"
        return (
            f"about {duration(status.left.seconds)} left ({status.left.iterations} iteration{plural}), if the uncertainty falls as before"
        )
    return "no estimate of the time left " + ("yet" if len(status.deltas) < 4 else "(the uncertainty does not fall)")


def _members(members: list[MemberStep]) -> Table:
    """Return the table of the unfinished members."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("member", "state", "steps", "loss", "times above goal"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for member in members[:ROWS]:
        loss = "" if math.isnan(member.loss) else f"{member.loss:.3g}"
        table.add_row(str(member.member), member.state, str(member.steps or ""), loss, _factor(member.distance))
    if len(members) > ROWS:
        table.add_row("…", f"and {len(members) - ROWS} more", "", "", "")
    return table


def _factor(distance: float) -> str:
    """Return a distance as a factor: of the residuals over their criteria, or of the out-of-bag error over its minimum."""
    return "" if math.isnan(distance) else f"× {math.exp(min(distance, 700.0)):.3g}"
