"""Wall time of the parts of a run, from the times of its events."""

from __future__ import annotations

from collections.abc import Iterable

from amp.nft.run.journal import Event

PARTS = ("training", "uncertainty", "labels", "test", "other")
_PART = {"trained": "training", "evaluated": "uncertainty", "verdict": "test"} | dict.fromkeys(
    ("label", "larger-label", "cheap-label", "larger-cheap-label", "cheap-target", "label-retried", "label-failed", "gate"), "labels"
)
UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def time_spent(events: Iterable[Event]) -> dict[str, float]:
    """Return the wall time of each part of a run; time between the end of a driver and the next start does not count.

    Parameters
    ----------
    events : iterable of dict
        The journal.

    Returns
    -------
    dict of str to float
        Seconds by part: `PARTS`. Kernels are compiled within the training.
    """
    spent = dict.fromkeys(PARTS, 0.0)
    before, testing = None, False
    for event in events:
        name, now = event["event"], float(event["time"])
        if name in ("run", "start"):
            before, testing = now, False
            continue
        if before is not None:
            part = _PART.get(name, "other")
            spent["test" if testing and part == "labels" else part] += max(now - before, 0.0)
        testing = testing or name == "test-chosen"
        before = now
    return spent


def unit_of(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time is shown, and its size.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
        'h', 'min' or 's'.
    float
        In seconds.
    """
    return next(((name, size) for name, size in UNITS if seconds >= 2 * size), UNITS[-1])
