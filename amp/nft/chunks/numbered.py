"""Chunks of several targets, whose atoms are numbered from one target to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from amp.nft.chunks.carving import carve_chunks
from amp.nft.chunks.termination import Termination


def carve_numbered(
    targets: Sequence[Atoms], atoms: Sequence[int], cutoff: float, *, termination: Termination = "sphere", min_atoms: int | None = None
) -> dict[int, Atoms]:
    """Carve chunks around atoms that are numbered from one target to the next.

    Parameters
    ----------
    targets : sequence of Atoms
    atoms : sequence of int
        Those that no target has are skipped.
    cutoff : float
        Radius of a chunk, Å.
    termination, min_atoms : as there
        As for `carve_chunks`.

    Returns
    -------
    dict of int to Atoms
        In the order of the targets. With several targets, ``info['target_image']`` is the number of the chunk's target.
    """
    first = np.cumsum([0, *map(len, targets)])
    chunks: dict[int, Atoms] = {}
    for number, target in enumerate(targets):
        here = [atom for atom in atoms if first[number] <= atom < first[number + 1]]
        carved = carve_chunks(target, [atom - first[number] for atom in here], cutoff, termination=termination, min_atoms=min_atoms)
        chunks |= zip(here, carved, strict=True)
        if len(targets) > 1:
            for chunk in carved:
                chunk.info["target_image"] = number
    return chunks
