"""Free clusters carved out of a target around an atom: terminations, size, label error."""

from amp.nft.chunks.carving import VACUUM, carve_chunk, carve_chunks
from amp.nft.chunks.radius import Convergence, convergence
from amp.nft.chunks.summary import TerminationSummary, check_magnetic_moments, summarise_terminations

__all__ = [
    "VACUUM", "Convergence", "TerminationSummary", "carve_chunk", "carve_chunks", "check_magnetic_moments", "convergence",
    "summarise_terminations",
]  # fmt: skip
