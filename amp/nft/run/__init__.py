"""A run on disk: its journal, state and history, a live display and a status screen."""

from amp.nft.errors import RunStoreError
from amp.nft.run.display import Progress
from amp.nft.run.screen import show
from amp.nft.run.status import Estimate, Status, read_status
from amp.nft.run.verdict import Verdict, judge, verdict_of

__all__ = ["Estimate", "Progress", "RunStoreError", "Status", "Verdict", "judge", "read_status", "show", "verdict_of"]
