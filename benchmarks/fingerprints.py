"""Fingerprint derivatives of one 79-atom chunk, ours against Amp's own. One command:

    python benchmarks/fingerprints.py

Ours: the rows that the loss needs of a chunk, those of its central atom and of that atom's neighbours, differentiated in the
centre's position. Amp: what it computes of a chunk, neighbour list, fingerprints and all derivatives, with its Fortran modules.
Both from Atoms to arrays, in this process, with caches warm; ours also all rows, which is the same amount of results as Amp's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from amp import fmodules  # noqa: F401 - without Fortran this comparison would flatter us
from amp.descriptor.gaussian import (
    FingerprintCalculator,
    FingerprintPrimeCalculator,
    NeighborlistCalculator,
    make_default_symmetry_functions,
)
from ase import Atoms
from data import pt260
from loss import seconds

from amp.nft.chunks import carve_chunks
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints

RESULTS = Path(__file__).parent / "results" / "fingerprints.json"
CUTOFF = {"name": "Cosine", "kwargs": {"Rc": 6.5}}
REPEATS = 300


def largest_chunk(radius: float = 6.5) -> Atoms:
    """Return the chunk of Pt260 with most atoms: 79."""
    target = pt260()
    return max(carve_chunks(target, range(len(target)), radius), key=len)


def microseconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call; the first is left out."""
    function()
    return 1e6 * seconds(function, repeats)


def amp_pipeline(chunk: Atoms, gs: dict) -> dict:
    """Amp's derivatives, by (moved atom, its element, row, its element, axis)."""
    lists = {"key": NeighborlistCalculator(CUTOFF["kwargs"]["Rc"]).calculate(chunk, "key")}
    FingerprintCalculator(lists, gs, CUTOFF, True).calculate(chunk, "key")
    return FingerprintPrimeCalculator(lists, gs, CUTOFF, True).calculate(chunk, "key")


def compare(chunk: Atoms, gs: dict) -> dict:
    """Return times of both, and their largest difference."""
    ours = Fingerprints(gs, CUTOFF)
    found: dict = {}
    theirs = microseconds(lambda: found.update(amp_pipeline(chunk, gs)), 1)
    rows = ours.rows(chunk, 0)
    central = microseconds(lambda: ours.rows(chunk, 0), REPEATS)
    everything = microseconds(lambda: ours.rows(chunk), REPEATS // 5)
    near = np.flatnonzero(np.linalg.norm(chunk.positions - chunk.positions[0], axis=1) <= CUTOFF["kwargs"]["Rc"])
    difference = max(
        abs(rows.dx[place, axis] - found[0, "Pt", int(row), "Pt", axis]).max()
        for place, row in enumerate(near) for axis in range(3)
    )  # fmt: skip
    return {"amp_us": theirs, "central_us": central, "all_us": everything, "difference": float(difference)}


def main() -> None:
    """Print a table and write it down."""
    chunk = largest_chunk()
    results = {"atoms": len(chunk)}
    print(f"{len(chunk)} atoms; largest difference of a derivative in 1/Å\n")
    print(f"{'fingerprints':<14}{'Amp, s':>10}{'centre, ms':>12}{'ratio':>10}{'all rows, ms':>14}{'ratio':>10}{'difference':>12}")
    sets = {"Amp's default": make_default_symmetry_functions(["Pt"]), "g2x": {"Pt": g2x(["Pt"])["Pt"]}}
    for name, gs in sets.items():
        row = results[name] = compare(chunk, gs)
        print(f"{name:<14}{row['amp_us'] / 1e6:>10.2f}{row['central_us'] / 1e3:>12.3f}"
              f"{row['amp_us'] / row['central_us']:>10.0f}{row['all_us'] / 1e3:>14.3f}"
              f"{row['amp_us'] / row['all_us']:>10.0f}{row['difference']:>12.1e}")  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
