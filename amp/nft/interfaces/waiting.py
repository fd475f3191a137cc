"""Work of the first process for which all others wait, asleep."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from ase.parallel import DummyMPI, world

from amp.nft.errors import LabellingError

T = TypeVar("T")
POLL = 0.05  # s between looks of a process that waits


def from_first(comm: Any, make: Callable[[], T], raised: bool = False) -> T:
    """Return the first process's result on all processes; the others sleep until it is there.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    make : callable
        The first process calls it.
    raised : bool
        Raise an error on the first process alone, whose caller ends all.

    Returns
    -------
    object

    Raises
    ------
    Exception
        The error of the first process, on all.
    """
    result: Any = None
    error: Exception | None = None
    if comm.rank == 0:
        try:
            with _alone():
                result = make()
        except Exception as caught:
            if raised:
                raise
            error = caught
        except BaseException as caught:
            if raised or comm.size == 1:
                raise
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            comm.Abort(exit_code(caught))
    ready = comm.Ibcast(np.zeros(1), root=0)
    while not ready.Test():
        time.sleep(POLL)
    result, error = comm.bcast((result, error))
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep ASE to this process: where mpi4py is loaded, its readers and writers wait for all processes."""
    before, world.comm = world.comm, DummyMPI()
    try:
        yield
    finally:
        world.comm = before


def exit_code(error: BaseException) -> int:
    """Return the exit code of the program for an error.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    int
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 4 if isinstance(error, LabellingError) else 1
