"""Free clusters carved out of a target around an atom: terminations, size, label error."""

from amp.nft.chunks.carving import VACUUM, carve_chunk, carve_chunks
from amp.nft.chunks.convergence_table import Choice, Convergence, Estimate
from amp.nft.chunks.correction import Correction, Gate
from amp.nft.chunks.point_charges import PointCharges
from amp.nft.chunks.radius import convergence, growing_radii
from amp.nft.chunks.summary import TerminationSummary, charge_warning, check_magnetic_moments, summarise_terminations

__all__ = [
    "VACUUM", "Choice", "Convergence", "Correction", "Estimate", "Gate", "PointCharges", "TerminationSummary", "carve_chunk",
    "carve_chunks", "charge_warning", "check_magnetic_moments", "convergence", "growing_radii", "summarise_terminations",
]  # fmt: skip
