"""Choose few out of many: the most informative images, chunks and fingerprints, and atoms with distinct environments."""

from amp.nft.selection.choose import choose_chunks, choose_features, choose_images
from amp.nft.selection.environments import distinct, fingerprints
from amp.nft.selection.log_det import by_log_det
from amp.nft.selection.rows import by_correlation, cur, farthest_points

__all__ = [
    "by_correlation", "by_log_det", "choose_chunks", "choose_features", "choose_images", "cur", "distinct", "farthest_points",
    "fingerprints",
]  # fmt: skip
