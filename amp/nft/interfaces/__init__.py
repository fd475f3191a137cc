"""The trained ensemble in other programs: LAMMPS with MPI."""

from amp.nft.interfaces.deck import run_deck
from amp.nft.interfaces.lammps import Attached, attach

__all__ = ["Attached", "attach", "run_deck"]
