"""First images: small bulk cells and free clusters; checks that the parent gives their labels and that cells are large enough."""

from amp.nft.initialization.images import Initialization, initial_images
from amp.nft.initialization.parent_check import (
    CellCheck,
    ParentComparison,
    check_cell_size,
    check_cell_sizes,
    compare_with_parent,
)

__all__ = [
    "CellCheck", "Initialization", "ParentComparison", "check_cell_size", "check_cell_sizes", "compare_with_parent", "initial_images",
]  # fmt: skip
