"""The nearsighted force-training protocol of Zeng, Chen and Peterson, J. Chem. Phys. 156, 064104 (2022)."""

from amp.stats.bootstrap import calc_text, headerlines, train_line

from amp.nft.activelearner.learner import NFT, start_command

__all__ = ["NFT", "calc_text", "headerlines", "start_command", "train_line"]
