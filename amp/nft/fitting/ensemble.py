"""A fitted ensemble: its members, how their fits ended, and its errors on images that no member has seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from amp.nft.amp_io import read_amp, read_texts, with_data, write_ensemble
from amp.nft.calculator import EnsembleCalculator
from amp.nft.records import MemberReport
from amp.nft.run.replay import report_of


@dataclass(frozen=True)
class Ensemble:
    """A fitted ensemble.

    Attributes
    ----------
    texts : list of str
        The members as ``.amp`` texts, which carry the out-of-bag factor and their reports under Amp's unused key ``nft``.
    validation_indices : list of int
        Images that no member was trained on, counted in the images that :func:`amp.nft.fitting.fit` was given, each once.
    """

    texts: list[str] = field(repr=False)  # long
    validation_indices: list[int] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ensemble:
        """Read an ensemble.

        Parameters
        ----------
        path : path
            An ``.ensemble`` file of :meth:`save`, of a run, or of Amp's ``BootStrap``.

        Returns
        -------
        Ensemble

        Raises
        ------
        AmpFileError, FileNotFoundError
            The file is missing or damaged.
        """
        texts = read_texts(path)
        return cls(texts, read_amp(texts[0]).nft.get("validation_indices", []))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.ensemble`` file, which plain Amp loads too.

        Parameters
        ----------
        path : path
        """
        write_ensemble(path, [with_data(text, validation_indices=self.validation_indices) for text in self.texts])

    @property
    def reports(self) -> list[MemberReport]:
        """Report on the fit of each member; empty for an ensemble of a run or of Amp."""
        stored = [read_amp(text).nft.get("report") for text in self.texts]
        return [report_of(data) for data in stored if data is not None]

    @property
    def card(self) -> dict[str, Any] | None:
        """Model card; see :func:`amp.nft.calculator.read_card`."""
        return read_amp(self.texts[0]).nft.get("card")

    @property
    def error95_factor(self) -> float | None:
        """Out-of-bag factor on the uncertainty for a 95 % band of the force error; None where it is not known."""
        return read_amp(self.texts[0]).error95_factor

    def calculator(self, **settings: Any) -> EnsembleCalculator:
        """Return an ASE calculator.

        Parameters
        ----------
        **settings : Any
            As for :class:`amp.nft.calculator.EnsembleCalculator`.

        Returns
        -------
        EnsembleCalculator
        """
        return EnsembleCalculator([read_amp(text) for text in self.texts], **settings)
