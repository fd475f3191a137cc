"""Train an ensemble: choose the trainer and draw the members' samples."""

from amp.nft.training.choose import Choice, choose_trainer, read_start, sample_weights
from amp.nft.training.command import Command

__all__ = ["Choice", "Command", "choose_trainer", "read_start", "sample_weights"]
