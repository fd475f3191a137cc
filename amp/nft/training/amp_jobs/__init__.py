"""Trainer ``jobs``: Amp's own training, one job per member through a start command, supervised."""

from amp.nft.errors import JobError
from amp.nft.training.amp_jobs.command import check_start_command
from amp.nft.training.amp_jobs.supervisor import AmpJobs
from amp.nft.training.amp_jobs.write_amp_files import leave_training_directory

__all__ = ["AmpJobs", "JobError", "check_start_command", "leave_training_directory"]
