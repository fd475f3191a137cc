"""Compare the settings of a script with those of the run that it resumes."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from amp.nft.errors import RunStoreError
from amp.nft.run.store import as_json


def compare_settings(before: dict[str, Any], now: dict[str, Any], directory: Path) -> None:
    """Raise RunStoreError that shows the differences from the run that is in the directory."""
    now = json.loads(as_json(now))
    different = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if not different:
        return
    lines = [_difference(key, before.get(key), now.get(key)) for key in different]
    raise RunStoreError(
        f"{directory} holds a run with other settings:\n" + "\n".join(lines) + "\n"
        "Use the same settings to go on with it, or another label=, or move the directory away."
    )


def _difference(key: str, before: Any, now: Any) -> str:
    """Describe the old and new value of a setting; for texts, the lines that differ."""
    if key in ("target", "images"):
        return f"  {key}: these are not the structures that the run began with"
    if not (isinstance(before, str) and isinstance(now, str) and "\n" in before + now):
        return f"  {key}: was {before!r}, is {now!r}"
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), "was", "is", lineterm="", n=0)
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return "\n".join([f"  {key} (- was, + is):", *("    " + line for line in shown)])
