"""Summary of the terminations of a run's chunks, and a check of the parent's treatment of magnetic moments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from amp.nft.chunks.bonds import KINDS, BondGraph
from amp.nft.chunks.termination import CLASH
from amp.nft.errors import ChunkError
from amp.nft.labels.single_point import Parent, make_calculator

_TREATMENTS = {  # by termination, then by kind of matter
    "sphere": {},
    "molecules": {"molecule": "completed"},
    "neutral": {"molecule": "completed", "ionic": "counter-ions added"},
    "hydrogen": {"molecule": "capped with hydrogen", "network": "capped with hydrogen"},
    "auto": {"molecule": "completed", "network": "capped with hydrogen"},
}  # fmt: skip
_TOTAL_SPIN = ("tblite", "xtb")  # packages whose calculators add up the initial magnetic moments to one total spin


_NEUTRAL = 0.01  # e; a smaller sum is rounding


@dataclass(frozen=True)
class TerminationSummary:
    """Treatment of each kind of matter, and the caps of a set of chunks; print it for one line of a log.

    Attributes
    ----------
    termination : str
        Its name.
    atoms : dict
        Number of atoms of the target of each kind of matter: 'molecule', 'network', 'ionic', 'metal', 'unbonded'.
    treatments : dict
        How chunks treat each of these kinds.
    n_chunks, n_caps : int
        Chunks, and the caps in all of them.
    clashes : dict
        Pairs of caps closer than 1.2 Å, by the central atoms of the chunks that have any.
    """

    termination: str
    atoms: dict[str, int]
    treatments: dict[str, str]
    n_chunks: int
    n_caps: int
    clashes: dict[int, int]

    def __str__(self) -> str:
        kinds = "; ".join(f"{kind} ({n} {'atom' if n == 1 else 'atoms'}) {self.treatments[kind]}" for kind, n in self.atoms.items())
        line = f"Termination {self.termination}: {kinds}. {self.n_chunks} chunks, {self.n_caps} caps"
        if not self.clashes:
            return f"{line}, no clashes."
        some = ", ".join(map(str, list(self.clashes)[:5])) + (", ..." if len(self.clashes) > 5 else "")
        return f"{line}, {sum(self.clashes.values())} cap pairs closer than {CLASH} Å, in the chunks around atoms {some}."


def summarise_terminations(targets: Atoms | Sequence[Atoms], chunks: Iterable[Atoms]) -> TerminationSummary:
    """Summarise the terminations of chunks.

    Parameters
    ----------
    targets : Atoms or list of Atoms
        The structures that the chunks come from.
    chunks : iterable of Atoms
        At least one, all carved with one termination.

    Returns
    -------
    TerminationSummary

    Raises
    ------
    ChunkError
        If there is no chunk.
    """
    chunks = list(chunks)
    if not chunks:
        raise ChunkError("chunks is empty: give at least one chunk of carve_chunks.")
    name = chunks[0].info["termination"]
    kinds = np.concatenate([BondGraph(target).kinds for target in ([targets] if isinstance(targets, Atoms) else targets)])
    counts = {kind: int((kinds == kind).sum()) for kind in KINDS if (kinds == kind).any()}
    default = "as carved" if name in _TREATMENTS else "by the given function"
    treatments = {kind: _TREATMENTS.get(name, {}).get(kind, default) for kind in counts}
    clashes = {chunk.info["target_atom"]: chunk.info["clashes"] for chunk in chunks if chunk.info["clashes"]}
    return TerminationSummary(name, counts, treatments, len(chunks), sum(chunk.info["n_caps"] for chunk in chunks), clashes)


def charge_warning(chunks: Iterable[Atoms]) -> str:
    """Return one line on chunks whose initial charges make ions of them, or an empty text.

    Parameters
    ----------
    chunks : iterable of Atoms

    Returns
    -------
    str
        Parents that take the sum of the initial charges for the total charge label such a chunk as an ion.
    """
    sums = {chunk.info["target_atom"]: float(chunk.get_initial_charges().sum()) for chunk in chunks}
    charged = {atom: total for atom, total in sums.items() if abs(total) > _NEUTRAL}
    if not charged:
        return ""
    atom = max(charged, key=lambda key: abs(charged[key]))
    return (
        f"Initial charges of {len(charged)} of {len(sums)} chunks do not sum to 0 (up to {charged[atom]:.3g} e, around atom {atom}): "
        "a parent that takes their sum for the total charge labels ions. Remove the target's initial charges, or use termination='auto'."
    )


def check_magnetic_moments(target: Atoms, parent: Parent) -> None:
    """Raise ChunkError if a parent would add up a target's initial magnetic moments to a total spin.

    A chunk carries the moments of its atoms. Most parents start from them; those of tblite and xtb take their sum for the number of
    unpaired electrons, which differs from chunk to chunk.

    Parameters
    ----------
    target : Atoms
    parent : ASE calculator, or callable
        A callable is called once, if the target has moments.
    """
    moments = target.get_initial_magnetic_moments()
    if not moments.any():
        return
    with tempfile.TemporaryDirectory() as scratch:
        calculator = make_calculator(parent, scratch)
    package = type(calculator).__module__.split(".")[0]
    if package in _TOTAL_SPIN and dict(getattr(calculator, "parameters", {})).get("multiplicity") is None:
        raise ChunkError(
            f"The initial magnetic moments of the target sum to {moments.sum():.3g}: {package} adds those of each chunk to a total spin. "
            "Remove them (target.set_initial_magnetic_moments(None)), or give the parent a multiplicity."
        )
