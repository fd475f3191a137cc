"""Executors as users bring them: started when there is work, rebuilt when they break, ended when they must."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from amp.nft.errors import ExecutorError
from amp.nft.labels.identity import is_calculator
from amp.nft.system.processes import kill, process_of, tree

Executors = Executor | Callable[[], Executor]


def check_executor(executor: Executors | None, cargo: object) -> None:
    """Check that an executor is one and that its workers can receive the parent.

    Parameters
    ----------
    executor : Executor, callable or None
        An executor, or a function that returns a new one.
    cargo : object
        The parent.

    Raises
    ------
    TypeError
        They cannot be used together.
    """
    if not (executor is None or isinstance(executor, Executor) or callable(executor)):
        raise TypeError(f"executor is {executor!r}: give a concurrent.futures.Executor, or a function that returns a new one.")
    _check_travels(executor, cargo)
    if executor is not None and is_calculator(cargo):
        _check_separate(executor, cargo)


def _makes(executor: Executors | None, kind: type[Executor]) -> bool:
    """Return True for an executor of a kind of the standard library, or a function that makes one."""
    while isinstance(executor, partial):
        executor = executor.func
    return isinstance(executor, kind) or (isinstance(executor, type) and issubclass(executor, kind))


def executor_name(executor: Executors) -> str:
    """Return the name of an executor, or of the function that makes it, for reports.

    Parameters
    ----------
    executor : Executor or callable

    Returns
    -------
    str
    """
    if isinstance(executor, partial):
        return executor_name(executor.func)
    named = type(executor) if isinstance(executor, Executor) else executor
    return getattr(named, "__qualname__", None) or type(named).__qualname__


class InProcess(Executor):
    """Executor that runs each task immediately, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run a function in this thread.

        Parameters
        ----------
        fn : callable
        *args, **kwargs : object
            Its arguments.

        Returns
        -------
        Future
            Finished, with the result or the error.
        """
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Workers:
    """An executor that can be lost.

    Parameters
    ----------
    given : Executor, callable or None
        An executor is used as it is and never shut down. A callable returns a new one, which ends with this. None
        works in this process.
    cargo : object
        Object in every task; an executor that cannot send it is refused before it gets work.
    """

    def __init__(self, given: Executors | None, cargo: object) -> None:
        self._make = given if not isinstance(given, Executor) and callable(given) else None
        self._executor = given if isinstance(given, Executor) else None if self._make else InProcess()
        self._owned = self._executor is None
        self._cargo = cargo

    @property
    def places(self) -> float:
        """Number of tasks to submit together."""
        return 1 if isinstance(self._executor, InProcess) else math.inf

    @property
    def owned(self) -> bool:
        """True if the workers exist for this run only and end with it."""
        return self._owned or self._make is not None

    @property
    def reports_deaths(self) -> bool:
        """True if the future of a failed worker reports the failure immediately."""
        return isinstance(self._executor, InProcess | ThreadPoolExecutor | ProcessPoolExecutor)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Submit a task to the executor, which is made first if necessary.

        Parameters
        ----------
        function : callable
        *arguments : object
            Its arguments.

        Returns
        -------
        Future

        Raises
        ------
        BrokenExecutor
            The executor has just broken.
        ExecutorError
            It accepts no work.
        """
        if self._executor is None:
            assert self._make is not None
            self._executor, self._owned = self._make(), True
            _check_travels(self._executor, self._cargo)
        try:
            return self._executor.submit(function, *arguments)
        except BrokenExecutor:  # a RuntimeError too
            raise
        except Exception as error:  # Dask's closed client raises its own kind
            raise ExecutorError(
                f"the executor takes no more work ({type(error).__name__}: {error}); finished labels are kept: start its scheduler or "
                "workers again and rerun the script."
            ) from error

    def rebuild(self) -> None:
        """Get a new executor in place of a broken one; ExecutorError if that cannot be done."""
        broken = self._executor
        if self._make is None and type(broken) is ProcessPoolExecutor:
            self._make = partial(_another, broken)
        if self._make is None:
            raise ExecutorError(
                f"{type(broken).__name__} broke because a worker process exited, and cannot be rebuilt: give "
                "executor= a function that returns a new one"
            )
        self.renew()

    def renew(self) -> None:
        """Get a new executor at the next task, if a function was given that makes one."""
        if self._make is not None:
            self._shut_down()
            self._executor = None

    def end(self, pid: int) -> bool:
        """End a worker process of a process pool and its programs; the pool then breaks.

        Parameters
        ----------
        pid : int

        Returns
        -------
        bool
            False if it is not a worker of the pool.
        """
        if pid not in (getattr(self._executor, "_processes", None) or {}):
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            kill(tree(process_of(pid)))
        return True

    def close(self, *, at_once: bool = False) -> None:
        """Release the executor.

        Parameters
        ----------
        at_once : bool
            End worker processes without waiting for their work.
        """
        if at_once and (self._owned or isinstance(self._executor, ProcessPoolExecutor)):
            for pid in list(getattr(self._executor, "_processes", None) or {}):
                self.end(pid)
        self._shut_down()
        if self._make is not None:
            self._executor = None

    def _shut_down(self) -> None:
        if self._owned and self._executor is not None:
            try:
                self._executor.shutdown(wait=False, cancel_futures=True)
            except TypeError:  # one that does not know cancel_futures
                self._executor.shutdown(wait=False)


def _another(pool: ProcessPoolExecutor) -> ProcessPoolExecutor:
    """Return a process pool with the settings of another one."""
    return ProcessPoolExecutor(
        pool._max_workers, pool._mp_context, pool._initializer, pool._initargs,  # type: ignore[attr-defined]
        max_tasks_per_child=pool._max_tasks_per_child,  # type: ignore[attr-defined]
    )  # fmt: skip


def _check_separate(executor: Executors, parent: object) -> None:
    """Raise TypeError for a calculator of which two labels at a time would use the same state or files."""
    remedy = f"Give a function f(directory) that returns a fresh {type(parent).__name__}."
    if _makes(executor, ThreadPoolExecutor):
        try:
            copy.deepcopy(parent)
        except Exception as error:  # copying raises many kinds
            raise TypeError(f"parent_calc cannot be copied for each thread ({type(error).__name__}: {error}). {remedy}") from error
    if any(hasattr(parent, name) for name in ("command", "profile")) and not isinstance(getattr(parent, "directory", None), str | Path):
        raise TypeError(f"parent_calc is a {type(parent).__name__} that writes files and has no directory to set. {remedy}")


def _check_travels(executor: Executors | None, cargo: object) -> None:
    """Raise TypeError for a parent that a process pool cannot send."""
    if not _makes(executor, ProcessPoolExecutor):
        return
    try:
        pickle.dumps(cargo)
    except Exception as error:  # pickling raises many kinds
        raise TypeError(
            f"parent_calc cannot be sent to another process ({type(error).__name__}: {error}). Give a function "
            "f(directory) that returns a fresh calculator, defined at the top level of a module or of your script."
        ) from error
