"""Read and write Amp's files, calculators and log."""

from amp.nft.amp_io.calc_text import QUEUE_VARIABLES, CalculatorSpec, read_calc_text, spec_of
from amp.nft.amp_io.calc_text_of import calc_text_of, text_of_settings
from amp.nft.amp_io.card import read_card, with_card, without_card
from amp.nft.amp_io.ensemble_file import forces_by_amp, read_ensemble, read_texts, write_ensemble
from amp.nft.amp_io.literal import parse_literal
from amp.nft.amp_io.model import AmpModel, check_text, read_amp, with_data, write_amp
from amp.nft.errors import AmpFileError, UnsupportedModel

__all__ = [
    "QUEUE_VARIABLES",
    "AmpFileError",
    "AmpModel",
    "CalculatorSpec",
    "UnsupportedModel",
    "calc_text_of",
    "check_text",
    "forces_by_amp",
    "parse_literal",
    "read_amp",
    "read_calc_text",
    "read_card",
    "read_ensemble",
    "read_texts",
    "spec_of",
    "text_of_settings",
    "with_card",
    "with_data",
    "without_card",
    "write_amp",
    "write_ensemble",
]
