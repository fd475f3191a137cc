"""Command ``lammps``: dynamics with an ensemble on all processes of ``mpirun``."""

from __future__ import annotations

import argparse
import sys


def lammps(options: argparse.Namespace) -> int:
    """Run a deck of LAMMPS; the first process alone prints an error that all have.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.main import HALTED
    from amp.nft.interfaces import run_deck

    own = argparse.ArgumentParser(prog="amp-nft lammps", add_help=False, allow_abbrev=False)
    own.add_argument("--elements", nargs="+")
    own.add_argument("--baseline-pair")
    found, others = own.parse_known_args(options.arguments)
    if wrong := [one for one in others if one.startswith("--")]:
        own.error(f"unknown argument {wrong[0]}")
    try:
        halted = run_deck(options.ensemble, options.deck, others, found.elements, found.baseline_pair)
    except Exception:
        if not _is_first():
            return 0  # mpirun combines the codes of all, and the first process has that of the error
        raise
    if not halted or not _is_first():
        return 0
    print("amp-nft lammps: an uncertainty halted the dynamics before its last step.", file=sys.stderr)
    return HALTED


def _is_first() -> bool:
    """Return True on the first process, and where MPI is not in use."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is None or mpi.COMM_WORLD.rank == 0
