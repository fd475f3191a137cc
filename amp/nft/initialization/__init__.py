"""Small bulk cells to begin with: crystals of several space groups, their cells relaxed, doubled and rattled."""

from amp.nft.initialization.images import Initialization, initial_images

__all__ = ["Initialization", "initial_images"]
