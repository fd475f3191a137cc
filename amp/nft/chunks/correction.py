"""Subtractive correction: a cheap calculator supplies the part of the force that comes from beyond a chunk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.chunks.bonds import BondGraph
from amp.nft.chunks.point_charges import PointCharges
from amp.nft.errors import ChunkError, CorrectionError, LabellingError
from amp.nft.labels.gate import Label
from amp.nft.labels.single_point import Parent, make_calculator, parent_name, single_point

FEWEST = 8  # atoms on which a correction is judged
_NEUTRAL = 1e-6  # e


@dataclass(frozen=True)
class Gate:
    """Judgement of a correction: errors at a small radius against the parent's force at a larger one, eV/Å.

    Attributes
    ----------
    n_atoms : int
        Central atoms with all three labels.
    plain_mean, plain_max : float
        Of the parent's forces in the smaller chunks.
    corrected_mean, corrected_max : float
        Of the corrected ones.
    worse : float
        Fraction of atoms that the correction moves away from the larger radius.
    """

    n_atoms: int
    plain_mean: float
    plain_max: float
    corrected_mean: float
    corrected_max: float
    worse: float

    @property
    def passed(self) -> bool:
        """True if at least 8 atoms were judged, and mean and largest error are smaller with the correction."""
        return self.n_atoms >= FEWEST and self.corrected_mean < self.plain_mean and self.corrected_max < self.plain_max

    def as_dict(self) -> dict[str, float]:
        """Return plain data for a journal.

        Returns
        -------
        dict
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Gate:
        """Return the gate that `as_dict` described.

        Parameters
        ----------
        data : mapping

        Returns
        -------
        Gate
        """
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})

    def raise_if_failed(self) -> None:
        """Raise CorrectionError unless the gate is passed."""
        if not self.passed:
            raise CorrectionError(f"{self} Train without correction, or with another cheap calculator.")

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        rule = f"; at least {FEWEST} are needed" if self.n_atoms < FEWEST else ""
        return (
            f"Correction {verdict} on {self.n_atoms} atoms{rule}: against the larger radius the mean error goes from "
            f"{self.plain_mean:.3g} to {self.corrected_mean:.3g} eV/Å, the largest from {self.plain_max:.3g} to "
            f"{self.corrected_max:.3g} eV/Å; {100 * self.worse:.0f} % of the atoms get worse."
        )


def judge(plain_ax: np.ndarray, corrected_ax: np.ndarray, larger_ax: np.ndarray) -> Gate:
    """Judge a correction by its effect on central forces.

    Parameters
    ----------
    plain_ax : ndarray, shape (atoms, 3)
        The parent's forces on central atoms of small chunks, eV/Å; nan where there is no label.
    corrected_ax : ndarray, shape (atoms, 3)
        The same, corrected.
    larger_ax : ndarray, shape (atoms, 3)
        The parent's forces in larger chunks.

    Returns
    -------
    Gate

    Raises
    ------
    ChunkError
        If the shapes differ, or no atom has all three.
    """
    if not np.shape(plain_ax) == np.shape(corrected_ax) == np.shape(larger_ax):
        raise ChunkError(f"Forces have shapes {np.shape(plain_ax)}, {np.shape(corrected_ax)}, {np.shape(larger_ax)}: give the same atoms.")
    plain, corrected = (np.linalg.norm(np.subtract(one, larger_ax), axis=1) for one in (plain_ax, corrected_ax))
    known = np.isfinite(plain) & np.isfinite(corrected)
    if not known.any():
        raise ChunkError("No atom has a label at both radii and of the cheap calculator: the correction cannot be judged.")
    plain, corrected = plain[known], corrected[known]
    return Gate(
        int(known.sum()), float(plain.mean()), float(plain.max()), float(corrected.mean()), float(corrected.max()),
        float((corrected > plain).mean()),
    )  # fmt: skip


@dataclass(frozen=True)
class Correction:
    """Forces of a cheap calculator in a target, and in its chunks: F = F_parent(chunk) + F_cheap(target) - F_cheap(chunk).

    The corrected forces estimate those in the target: train them in the environment of the target, not of the chunk.

    Attributes
    ----------
    cheap : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator.
    target_forces_nx : ndarray, shape (target atoms, 3)
        Its forces in the target, eV/Å.
    charges : dict or None
        Charge of each element, e, if it is a `PointCharges`, which serves for whole molecules only.
    """

    cheap: Parent
    target_forces_nx: np.ndarray
    charges: dict[str, float] | None = None

    @classmethod
    def of(
        cls, target: Atoms, cheap: Parent, directory: str | os.PathLike[str] | None = None, *, forces_nx: np.ndarray | None = None
    ) -> Correction:
        """Make the correction of a target, with one label by the cheap calculator.

        Parameters
        ----------
        target : Atoms
        cheap : ASE calculator, or callable
        directory : path, optional
            Where its files go; a temporary one if not given.
        forces_nx : ndarray, shape (target atoms, 3), optional
            Its forces in the target, eV/Å, if they are known: it labels nothing then.

        Returns
        -------
        Correction

        Raises
        ------
        LabellingError
            If it cannot label the target.
        """
        with tempfile.TemporaryDirectory() as scratch:
            calculator = make_calculator(cheap, scratch)
        charges = dict(calculator.parameters["charges"]) if isinstance(calculator, PointCharges) else None
        if forces_nx is None:
            forces_nx = _label(cheap, target, directory, "the target").forces
        return cls(cheap, forces_nx, charges)

    def apply(self, chunk: Atoms, parent_ax: np.ndarray, cheap_ax: np.ndarray) -> np.ndarray:
        """Correct the forces of a chunk.

        Parameters
        ----------
        chunk : Atoms
            As `carve_chunks` makes it.
        parent_ax, cheap_ax : ndarray, shape (atoms, 3)
            Forces of both calculators in it, eV/Å.

        Returns
        -------
        ndarray, shape (atoms, 3)
            Nan on caps, which the target lacks.

        Raises
        ------
        CorrectionError
            For fixed point charges where the surface of the chunk cuts bonds.
        """
        self.check(chunk)
        index = chunk.arrays["target_index"]
        corrected = np.asarray(parent_ax) + self.target_forces_nx[index] - np.asarray(cheap_ax)
        corrected[index < 0] = np.nan
        return corrected

    def label(self, chunk: Atoms, directory: str | os.PathLike[str] | None = None) -> np.ndarray:
        """Return the cheap calculator's forces in a chunk.

        Parameters
        ----------
        chunk : Atoms
        directory : path, optional
            Where its files go; a temporary one if not given.

        Returns
        -------
        ndarray, shape (atoms, 3)
            In eV/Å.

        Raises
        ------
        LabellingError
            If it cannot label the chunk.
        """
        self.check(chunk)
        return _label(self.cheap, chunk, directory, f"the chunk around atom {chunk.info.get('target_atom')}").forces

    def check(self, chunk: Atoms) -> None:
        """Raise CorrectionError for fixed point charges where the surface of a chunk cuts bonds, or separates ions.

        Parameters
        ----------
        chunk : Atoms
        """
        if self.charges is not None and not _has_whole_molecules(chunk, self.charges):
            raise CorrectionError(
                f"correction = {parent_name(self.cheap)}: fixed point charges cannot correct the chunk around atom "
                f"{chunk.info.get('target_atom')}, whose surface cuts bonds or separates ions. Use them for whole neutral molecules "
                "(termination='molecules'), else a cheap electronic calculator."
            )


def _has_whole_molecules(chunk: Atoms, charges: Mapping[str, float]) -> bool:
    """Return True if a chunk consists of molecules, without caps, whose charges sum to zero."""
    whole = not chunk.info.get("n_caps") and set(BondGraph(chunk).kinds) <= {"molecule", "unbonded"}
    return whole and abs(sum(charges.get(symbol, 0.0) for symbol in chunk.symbols)) < _NEUTRAL


def _label(cheap: Parent, atoms: Atoms, directory: str | os.PathLike[str] | None, name: str) -> Label:
    with tempfile.TemporaryDirectory() as scratch:
        label = single_point(cheap, atoms, Path(directory or scratch))
    if not isinstance(label, Label):
        raise LabellingError(f"The cheap calculator {parent_name(cheap)} cannot label {name}: {label}. Give another one, or no correction.")
    return label
