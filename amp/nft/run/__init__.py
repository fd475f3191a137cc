"""A run on disk: its journal, state and history, a live display and a status screen."""

from amp.nft.errors import RunStoreError
from amp.nft.run.display import Progress
from amp.nft.run.screen import show
from amp.nft.run.state import Estimate, Standing, read_standing
from amp.nft.run.verdict import Verdict, judge, verdict_of

__all__ = ["Estimate", "Progress", "RunStoreError", "Standing", "Verdict", "judge", "read_standing", "show", "verdict_of"]
