"""Where a run stands: shown in a terminal or a notebook while it runs, and told from its files on any other machine."""

from amp.nft.progress.display import Progress
from amp.nft.progress.screen import show
from amp.nft.progress.standing import Estimate, Standing, read_standing

__all__ = ["Estimate", "Progress", "Standing", "read_standing", "show"]
