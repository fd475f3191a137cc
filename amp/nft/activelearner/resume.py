"""Compare the settings of a script with those of the run that it resumes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amp.nft.errors import RunStoreError
from amp.nft.run.journal import as_json, from_json

STRUCTURES = ("images", "targets")  # settings with digests


def compare_settings(before: dict[str, Any], now: dict[str, Any], directory: Path, structures: Sequence[str] = ()) -> None:
    """Raise RunStoreError if a run began with other settings.

    Parameters
    ----------
    before, now : dict
        Settings of the run in the directory, and as they are given now.
    directory : Path
    structures : sequence of str
        One line for each structure that differs: digests alone do not tell.
    """
    now = from_json(as_json(now))
    different = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key) and key not in STRUCTURES]
    if not different and not structures:
        return
    lines = [*structures, *(_difference(key, before.get(key), now.get(key)) for key in different)]
    raise RunStoreError(
        f"{directory} contains a run with other settings:\n" + "\n".join(lines) + "\n"
        "Use the same settings to resume it, or another label=, or move the directory away."
    )


def _difference(key: str, before: Any, now: Any) -> str:
    """Describe the old and new value of a setting; for texts, the lines that differ."""
    if not (isinstance(before, str) and isinstance(now, str) and "\n" in before + now):
        return f"  {key}: was {before!r}, is {now!r}"
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), "was", "is", lineterm="", n=0)
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return "\n".join([f"  {key} (- was, + is):", *("    " + line for line in shown)])
