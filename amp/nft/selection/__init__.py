"""Choose few out of many: images, chunks and fingerprints that say most, and atoms with surroundings of their own."""

from amp.nft.selection.choose import choose_chunks, choose_features, choose_images
from amp.nft.selection.environments import distinct, fingerprints
from amp.nft.selection.log_det import by_log_det
from amp.nft.selection.rows import by_correlation, cur, farthest_points

__all__ = [
    "by_correlation", "by_log_det", "choose_chunks", "choose_features", "choose_images", "cur", "distinct", "farthest_points",
    "fingerprints",
]  # fmt: skip
