"""Callback of Lightning that ends a training of NequIP after a processor time."""

import time

from lightning.pytorch.callbacks import Callback


class CpuTimer(Callback):
    """Stop after the epoch in which the process has used a number of seconds, so that other work on the machine does not count."""

    def __init__(self, seconds):
        self.seconds = float(seconds)

    def on_validation_end(self, trainer, module):
        """Stop the trainer after the time."""
        if not trainer.sanity_checking and time.process_time() > self.seconds:
            trainer.should_stop = True
