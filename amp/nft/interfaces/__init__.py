"""The trained ensemble and its labels in other programs: LAMMPS with MPI, RuNNer and n2p2, training data of other trainers."""

from amp.nft.interfaces.deck import run_deck
from amp.nft.interfaces.gather import gather_labels
from amp.nft.interfaces.labels import write_labels
from amp.nft.interfaces.lammps import Attached, attach
from amp.nft.interfaces.relearning import RelearnedDynamics, run_and_relearn
from amp.nft.interfaces.runner import write_runner

__all__ = ["Attached", "RelearnedDynamics", "attach", "gather_labels", "run_and_relearn", "run_deck", "write_labels", "write_runner"]
