"""Free clusters carved out of a target around an atom, and how large they must be."""

from amp.nft.chunks.carving import VACUUM, carve_chunk, carve_chunks
from amp.nft.chunks.radius import Convergence, convergence

__all__ = ["VACUUM", "Convergence", "carve_chunk", "carve_chunks", "convergence"]
