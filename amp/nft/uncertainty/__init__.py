"""Uncertainty of forces: its definition, the choice of atoms by it, its calibration, and bounds on errors."""

from amp.nft.uncertainty.calibration import (
    Bounds,
    Calibration,
    OutOfBag,
    bound_errors,
    calibrate,
    calibrate_out_of_bag,
    error95,
    error95_floor,
    is_label_error,
)
from amp.nft.uncertainty.forces import CONFIDENCE, check_threshold, force_uncertainty, select

__all__ = [
    "CONFIDENCE",
    "Bounds",
    "Calibration",
    "OutOfBag",
    "bound_errors",
    "calibrate",
    "calibrate_out_of_bag",
    "check_threshold",
    "error95",
    "error95_floor",
    "force_uncertainty",
    "is_label_error",
    "select",
]
