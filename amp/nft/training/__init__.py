"""Train an ensemble: choose the trainer and draw the members' samples."""

from amp.nft.training.choose import Choice, choose_trainer, read_start, sample_weights

__all__ = ["Choice", "choose_trainer", "read_start", "sample_weights"]
