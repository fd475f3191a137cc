"""The trained ensemble in use: an ASE calculator with uncertainties, and a monitor for dynamics and relaxations."""

from amp.nft.amp_io.card import read_card
from amp.nft.calculator.ase_calculator import EnsembleCalculator
from amp.nft.calculator.committee import Committee
from amp.nft.calculator.keep import keep
from amp.nft.calculator.members import load
from amp.nft.calculator.monitor import UncertaintyMonitor, UncertaintyStop
from amp.nft.calculator.relax import Relaxed, relax

__all__ = ["Committee", "EnsembleCalculator", "Relaxed", "UncertaintyMonitor", "UncertaintyStop", "keep", "load", "read_card", "relax"]
