"""Trainer ``jobs``: Amp's own training, one job per member through a start command, supervised."""

from amp.nft.amp_jobs.command import check_start_command
from amp.nft.amp_jobs.leave import leave_training_directory
from amp.nft.amp_jobs.supervisor import AmpJobs, JobError

__all__ = ["AmpJobs", "JobError", "check_start_command", "leave_training_directory"]
