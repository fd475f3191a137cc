"""Texts of Amp's bootstrap module, read from its source: importing it costs half a second, for scipy.stats."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path


def _strings(module: str) -> dict[str, str]:
    """Return the strings that a module assigns to names, without running it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"{module} has no source file: reinstall Amp (amp-atomistics, or amp-nft-amp).", name=module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found


_texts = _strings("amp.stats.bootstrap")
calc_text, headerlines, train_line, script = (_texts[name] for name in ("calc_text", "headerlines", "train_line", "script"))
