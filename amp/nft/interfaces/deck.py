"""Run an input deck of LAMMPS with the forces of an ensemble."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amp.nft.amp_io import AmpModel
from amp.nft.amp_io.baseline_data import stored_baseline
from amp.nft.errors import InputError, LammpsError, NFTError
from amp.nft.interfaces.commands import commands
from amp.nft.interfaces.halts import Deck, noticing
from amp.nft.interfaces.includes import inlined, read_text
from amp.nft.interfaces.lammps import attach, networks
from amp.nft.interfaces.pair_numbers import check_numbers
from amp.nft.interfaces.waiting import from_first

FIX = "fix nft all external pf/callback 1 1"
_FIX = re.compile(r"\s*fix\s+(?P<id>\S+)\s+(?P<group>\S+)\s+external\s+(?P<mode>[^#]*?)\s*(#.*)?", re.DOTALL)
_COMPUTE = "coord/atom cutoff is longer than pairwise cutoff"


def split_deck(text: str) -> Deck:
    """Return the two parts of a deck.

    Parameters
    ----------
    text : str

    Returns
    -------
    Deck

    Raises
    ------
    InputError
        If it has no ``fix ID all external pf/callback 1 1``.
    """
    end = 0
    for command in commands(text):
        end += len(command)
        found = _FIX.fullmatch(command.replace("&\n", " "))
        if found is None:
            continue
        if found["group"] != "all" or found["mode"].split() != ["pf/callback", "1", "1"] or "$" in found["id"]:
            raise InputError(f"the deck has `{command.strip()}`: an ensemble needs `{FIX}`.")
        return Deck(text[:end], text[end:], found["id"])
    raise InputError(f"the deck has no `{FIX}`: write it after the atoms are read, with `fix_modify nft energy yes virial yes`.")


def run_deck(
    ensemble: str | os.PathLike[str],
    deck: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    elements: Sequence[str] | None = None,
    baseline: str | None = None,
) -> bool:
    """Run a deck; all processes of ``mpirun`` call it together.

    Parameters
    ----------
    ensemble : path
        An ``.ensemble`` file.
    deck : path
        With ``fix nft all external pf/callback 1 1``. It may use the variables ``${nft_cutoff}``, the cutoff of the fingerprints (Å),
        and ``${nft_members}``.
    arguments : sequence of str
        Of LAMMPS, such as ``-var``, ``-log``, ``-screen``.
    elements : sequence of str, optional
        Element of each atom type; from ``labelmap atom`` if not given.
    baseline : str, optional
        Pair style that gives the baseline of the ensemble; see `attach`.

    Returns
    -------
    bool
        True if a ``fix halt`` stopped a run before its last step for an uncertainty, by a variable that contains the vector of the fix.

    Raises
    ------
    InputError, AmpFileError, UnsupportedModel, FileNotFoundError
        If a file cannot be read, or does not fit, on all processes.
    LammpsError
        If LAMMPS stops with an error.
    """
    mpi, lammps = packages()
    comm = mpi.COMM_WORLD
    models, parts = from_first(comm, lambda: (networks(ensemble), noticing(split_deck(read_deck(deck)))))
    compare_baseline(comm, parts.head, models, arguments, elements, baseline)
    lmp = lammps(cmdargs=list(arguments), comm=comm)
    try:
        with lammps_errors(comm, models), tempfile.TemporaryDirectory() as scratch:
            for line in [*variables_of(models), "variable nft_halted string no"]:
                lmp.command(line)
            run_lines(lmp, Path(scratch, "head"), parts.head, comm)
            attach(lmp, models, elements, fix=parts.fix, baseline=baseline)
            run_lines(lmp, Path(scratch, Path(deck).name), parts.rest, comm)
            return bool(lmp.extract_variable("nft_halted") != "no")
    finally:
        lmp.close()


def variables_of(models: Sequence[AmpModel]) -> list[str]:
    """Return commands that define the variables of any deck.

    Parameters
    ----------
    models : sequence of AmpModel

    Returns
    -------
    list of str
    """
    return [f"variable nft_cutoff string {models[0].cutoff['kwargs']['Rc']!r}", f"variable nft_members string {len(models)}"]


def compare_baseline(
    comm: Any, head: str, models: Sequence[AmpModel], arguments: Sequence[str], elements: Sequence[str] | None, baseline: str | None
) -> None:
    """Compare the pair style of a deck with the baseline to which members add, on the first process.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    head : str
        Of the deck.
    models : sequence of AmpModel
    arguments, elements, baseline : as there
        As for `run_deck`.

    Raises
    ------
    InputError
        On all processes, if the pair style is missing or gives other numbers.
    """
    mpi, lammps = packages()

    def compare() -> str:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "head")
            return check_numbers(lammps, mpi.COMM_SELF, head, variables_of(models), path, models, arguments, elements, baseline)

    if stored_baseline(models) is not None and (found := from_first(comm, compare)) and comm.rank == 0:
        print(found, flush=True)


@contextlib.contextmanager
def lammps_errors(comm: Any, models: list[AmpModel]) -> Iterator[None]:
    """Turn errors of LAMMPS in this block into LammpsError, or end all processes if they are one process's.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    models : list of AmpModel

    Yields
    ------
    None

    Raises
    ------
    LammpsError
    """
    try:
        yield
    except NFTError:
        raise
    except Exception as error:  # LAMMPS's own are plain
        if type(error).__name__ == "MPIAbortException":  # on one process alone
            print(f"amp-nft lammps: {error}", flush=True)
            comm.Abort(1)
        raise LammpsError(f"{error}{_remedy(str(error), models)}") from None


def run_lines(lmp: Any, path: Path, text: str, comm: Any) -> None:
    """Run commands as a file, so that loops with label and jump work; the first process reads it.

    Parameters
    ----------
    lmp : lammps.lammps
    path : Path
        Of the file, which is written.
    text : str
    comm : mpi4py.MPI.Comm
    """
    if comm.rank == 0:
        path.write_text(text, encoding="utf-8")
    lmp.file(str(path))


def read_deck(path: str | os.PathLike[str]) -> str:
    """Return the text of a deck, with that of its included files.

    Parameters
    ----------
    path : path

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
    InputError
        If it is no text.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(path)!r} in {os.getcwd()}: give an input deck of LAMMPS.")
    return inlined(read_text(path))


def _remedy(message: str, models: list[AmpModel]) -> str:
    """Return the remedy for an error of LAMMPS that a check of amp.nft causes."""
    if _COMPUTE not in message:
        return ""
    return (
        f"\nThe cutoff of the pair style is below that of the fingerprints, {models[0].cutoff['kwargs']['Rc']} Å: use `pair_style zero "
        "${nft_cutoff}`, or a style with a larger cutoff."
    )


def packages() -> tuple[Any, Any]:
    """Return mpi4py's MPI and the class lammps.

    Returns
    -------
    module, class

    Raises
    ------
    InputError
        If they are not installed.
    """
    try:
        from lammps import lammps
        from mpi4py import MPI
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"LAMMPS or mpi4py cannot be imported ({error}): install them by `pip install 'lammps[mpi]' mpi4py`.") from None
    return MPI, lammps


__all__ = ["Deck", "run_deck", "split_deck"]
