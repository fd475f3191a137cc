"""The nearsighted force-training protocol of Zeng, Chen and Peterson, J. Chem. Phys. 156, 064104 (2022)."""

from amp.nft.activelearner.learner import NFT, start_command
from amp.nft.amp_io.bootstrap_texts import calc_text, headerlines, train_line

__all__ = ["NFT", "calc_text", "headerlines", "start_command", "train_line"]
