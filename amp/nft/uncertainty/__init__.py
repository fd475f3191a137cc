"""Uncertainty of forces: its definition, the choice of atoms by it, and its calibration."""

from amp.nft.uncertainty.calibration import Calibration, calibrate
from amp.nft.uncertainty.forces import CONFIDENCE, check_threshold, force_uncertainty, select

__all__ = ["CONFIDENCE", "Calibration", "calibrate", "check_threshold", "force_uncertainty", "select"]
