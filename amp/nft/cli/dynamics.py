"""Command ``lammps``: dynamics with an ensemble on all processes of ``mpirun``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from amp.nft.errors import InputError

HALTED_MESSAGE = "an uncertainty halted the dynamics before its last step."


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
    own.add_argument("--relearn", metavar="INPUT")
    found, others = own.parse_known_args(options.arguments)
    if wrong := [one for one in others if one.startswith("--")]:
        own.error(f"unknown argument {wrong[0]}")
    try:
        _check_members(options.ensemble)
        if found.relearn is not None:
            message = _relearn(options, found, others)
        else:
            message = HALTED_MESSAGE if run_deck(options.ensemble, options.deck, others, found.elements, found.baseline_pair) else ""
    except Exception:
        if not _is_first():
            return 0  # mpirun combines the codes of all, and the first process has that of the error
        raise
    if not message or not _is_first():
        return 0
    print(f"amp-nft lammps: {message}", file=sys.stderr)
    return HALTED


def _check_members(ensemble: str) -> None:
    """Raise UnsupportedModel for a committee, also without LAMMPS; with MPI loaded first, only the first process prints it."""
    from amp.nft.amp_io.committee_file import is_committee
    from amp.nft.interfaces.deck import packages
    from amp.nft.interfaces.lammps import networks

    if is_committee(ensemble):
        with suppress(InputError):
            packages()
        networks(ensemble)


def _relearn(options: argparse.Namespace, own: argparse.Namespace, arguments: list[str]) -> str:
    """Run a deck and learn at its halts; return the reason of an end before the last step, or an empty text."""
    from amp.nft.activelearner import NFT
    from amp.nft.cli.input_file import read_input
    from amp.nft.cli.settings import arguments_of_nft, arguments_of_run, executor_of
    from amp.nft.interfaces.deck import packages
    from amp.nft.interfaces.waiting import from_first
    from amp.nft.refinement import RelearnBounds, relearn

    path = own.relearn
    packages()  # an error if they are missing, before anything else
    given = read_input(path)
    if Path(path).absolute().parent != Path.cwd():
        raise InputError(f"{path} is in another directory: start the dynamics in that directory, since its paths are relative to it.")
    sys.path.insert(0, str(Path.cwd()))  # for a module of the user's next to the file
    if given.committee is not None:
        raise InputError(f"{path} has [committee], and --relearn trains networks of Amp: refine the run by `amp-nft refine` instead.")
    bounds = RelearnBounds(**given.relearn.model_dump())
    found = arguments_of_run(given)
    _check_model(given, options.ensemble)
    with ExitStack() as stack:
        executors: list[Any] = []
        from_first(packages()[0].COMM_WORLD, lambda: executors.append(stack.enter_context(executor_of(given.labels))))
        done = relearn(
            NFT(**arguments_of_nft(given), progress=False), found.pop("images"), found.pop("target_image"), options.deck,
            ensemble=options.ensemble, bounds=bounds, arguments=arguments, elements=own.elements, **found,
            baseline_pair=own.baseline_pair,
            executor=executors[0] if executors else None,
        )  # fmt: skip
    if not done.finished:
        return f"{HALTED_MESSAGE} {done.reason} To continue, raise the bound in [relearn] of {path} and run the same command."
    if done.reason and _is_first():
        print(done.reason)
    return ""


def _check_model(given: Any, ensemble: str) -> None:
    """Raise InputError if the cutoff of an ensemble is not that of the input file."""
    from amp.nft.amp_io import read_ensemble

    radius = float(read_ensemble(ensemble)[0].cutoff["kwargs"]["Rc"])
    if given.ensemble.calc_text is None and radius != given.ensemble.cutoff:
        raise InputError(f"ensemble.cutoff is {given.ensemble.cutoff} Å, and that of {ensemble} is {radius} Å: give the input of its run.")


def _is_first() -> bool:
    """Return True on the first process, and where MPI is not in use."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is None or mpi.COMM_WORLD.rank == 0
