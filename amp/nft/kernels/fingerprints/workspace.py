"""Buffers of one thread for one atom and its neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from amp.nft.kernels.fingerprints.tables import Tables
from amp.nft.kernels.simd import vectors as simd
from amp.nft.kernels.simd.vectors import LANES

RECORD = 8  # x, y, z, 1/r, r, P, L of a neighbour, in Å
BATCH = 128  # pairs (j, k) that are processed together, so that their arrays stay in the cache
BUFFER = 512  # for pairs
UNROLL = 4 * LANES  # values of a series worked on together, to hide the latency of its chain of additions


class Workspace(NamedTuple):
    """One centre and its neighbours, sorted by kind; everything is overwritten by the next centre."""

    atom: np.ndarray  # (neighbours,) which atom each neighbour is
    first: np.ndarray  # (kinds + 1,) first neighbour of each kind
    near: np.ndarray  # (4, neighbours) x / Rc, y / Rc, z / Rc, s = r² / Rc²
    record: np.ndarray  # (shapes, neighbours, RECORD)
    radial: np.ndarray  # (neighbours, radial slots) gradient of the G2: times (x, y, z)
    grad: np.ndarray  # (neighbours, vectors, 4, LANES) gradient of the G4 and G5 in rows 1 to 3; row 0 is scratch
    value: np.ndarray  # (slots,) the fingerprints
    dense: np.ndarray  # (neighbours,) s_jk of one j and every k
    run: np.ndarray  # (neighbours + 1, 3) runs of pairs: j, and where the run begins and ends
    other: np.ndarray  # (BUFFER,) k of each pair
    pairs: np.ndarray  # (7, BUFFER) c = cos(jik), s_jk = r_jk² / Rc², and the results of `_weigh`
    power: np.ndarray  # (BUFFER, LANES) 2**(1 - zeta) (1 + gamma c)**(zeta - 1) of one vector of functions


def make_workspace(tables: Tables, most_neighbors: int) -> Workspace:
    """Allocate buffers for one centre.

    Parameters
    ----------
    tables : Tables
    most_neighbors : int
        Largest number of neighbours.

    Returns
    -------
    Workspace
    """
    n = -(-max(most_neighbors, 1) // UNROLL) * UNROLL
    n_kinds = len(tables.kinds)
    radial, others = (int(tables.kinds[:, column].max()) for column in (4, 5))
    near, dense, pairs = simd.zeros(4, n), simd.zeros(n), simd.zeros(7, BUFFER)
    near[:], dense[:], pairs[:] = 0.5, 0.5, 0.5  # harmless in the lanes that no neighbour takes
    return Workspace(
        np.zeros(n, dtype=np.int64),
        np.zeros(n_kinds + 1, dtype=np.int64),
        near,
        simd.zeros(len(tables.shapes), n, RECORD),
        simd.zeros(n, radial),
        simd.zeros(n, others // LANES, 4, LANES),
        simd.zeros(radial + others),
        dense,
        np.zeros((n + 1, 3), dtype=np.int64),
        np.zeros(BUFFER, dtype=np.int64),
        pairs,
        simd.zeros(BUFFER, LANES),
    )
