"""The baseline of an ensemble as a pair style of LAMMPS, which adds its energy, forces and virial to those of the fix."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amp.nft.amp_io import AmpModel
from amp.nft.amp_io.baseline_data import described, stored_baseline
from amp.nft.errors import InputError, UnsupportedModel

_STYLE = re.compile(r"\bstyle\s*=\s*(\S+)")
_HYBRID = ("hybrid", "hybrid/overlay", "hybrid/scaled")


def check_pair_styles(lmp: Any, models: Sequence[AmpModel], named: str | None) -> None:
    """Check that LAMMPS computes the baseline to which members add.

    Parameters
    ----------
    lmp : lammps.lammps
        All processes call this together.
    models : sequence of AmpModel
    named : str or None
        Pair style that gives the baseline, as the user says; the commands of a baseline that is itself LAMMPS say it without.

    Raises
    ------
    InputError
        The members need a baseline and no pair style is named, or it is not the pair style of this instance; or they need none.
    """
    stored = stored_baseline(models)
    if stored is None:
        if named is not None:
            raise InputError(f"baseline pair style {named!r}: this ensemble was trained without a baseline. Use `pair_style zero`.")
        return
    needed = _styles(stored["identity"]) if named is None else {named}
    if not needed:
        raise InputError(
            f"this ensemble adds to the baseline {described(stored)}, which LAMMPS does not compute by itself. If a pair style gives the "
            "same energy and forces, use `pair_style hybrid/overlay zero ${nft_cutoff} STYLE ...` and name it (--baseline-pair STYLE)."
        )
    present = pair_styles(lmp)
    if missing := sorted(needed - present):
        raise InputError(
            f"this ensemble adds to the baseline {described(stored)}, and the pair style {missing[0]} is not in the deck, which has "
            f"{', '.join(sorted(present)) or 'none'}: write `pair_style hybrid/overlay zero ${{nft_cutoff}} {missing[0]} ...`."
        )


def refuse_baseline(models: Sequence[AmpModel], where: str) -> None:
    """Raise UnsupportedModel for members that add to a baseline, which a format cannot express.

    Parameters
    ----------
    models : sequence of AmpModel
    where : str
        The format.
    """
    if (stored := stored_baseline(models)) is not None:
        raise UnsupportedModel(
            f"this ensemble adds to the baseline {described(stored)}, which {where} cannot express: its networks contain the remainder "
            "alone. Train without a baseline to export it."
        )


def pair_styles(lmp: Any) -> set[str]:
    """Return the pair styles of an instance, those of a hybrid one by one.

    Parameters
    ----------
    lmp : lammps.lammps

    Returns
    -------
    set of str
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "info")
        lmp.command(f"info system out overwrite {path}")
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    comm = lmp.get_mpi_comm() if lmp.has_mpi_support else None
    text = text if comm is None else comm.bcast(text)  # the first process wrote it
    line = next((line for line in text.splitlines() if "types =" in line), "")
    style = _STYLE.search(line)
    parts = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("Hybrid sub-styles")), [])
    return set(parts) or ({style[1]} if style else set())


def _styles(identity: dict[str, Any]) -> set[str]:
    """Return the pair styles in the commands of a baseline that is LAMMPS; empty for any other."""
    commands = identity.get("parameters", {}).get("lmpcmds") or []
    words: list[str] = next((command.split()[1:] for command in commands if command.split()[:1] == ["pair_style"]), [])
    if not words:
        return set()
    if words[0] not in _HYBRID:
        return {words[0]}
    named = [command.split()[3] for command in commands if command.split()[:1] == ["pair_coeff"] and len(command.split()) > 3]
    return set(named) - {"none"}
