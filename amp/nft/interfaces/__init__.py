"""The trained ensemble in other programs: LAMMPS with MPI, files of RuNNer and n2p2."""

from amp.nft.interfaces.deck import run_deck
from amp.nft.interfaces.lammps import Attached, attach
from amp.nft.interfaces.runner import write_runner

__all__ = ["Attached", "attach", "run_deck", "write_runner"]
