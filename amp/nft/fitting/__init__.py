"""Train an ensemble on a data set, without a target, and evaluate it."""

from amp.nft.fitting.ensemble import Ensemble
from amp.nft.fitting.evaluation import Errors, Table, evaluate
from amp.nft.fitting.fit_ensemble import fit

__all__ = ["Ensemble", "Errors", "Table", "evaluate", "fit"]
