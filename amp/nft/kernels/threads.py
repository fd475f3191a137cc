"""Threads that run the tasks of a call, and share the parts of the last ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def available_cpus() -> int:
    """Return the number of processors that this process may run on.

    Returns
    -------
    int
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_threads(work: Callable[[Any], None], tasks: Iterable, threads: int | None = None) -> None:
    """
    Call `work(task)` for every task, on several threads at the same time.

    Parameters
    ----------
    work : callable
        Called with one task; writes its results to where no other task writes.
    tasks : iterable
        Handed out in order to whichever thread is free.
    threads : int, optional
        Number of threads; the processors that this process may use if None.

    Raises
    ------
    Exception
        The first one that `work` raised; tasks that have not begun are skipped.
    """
    Threads(threads).run(work, tasks)


class _Parts:
    """Parts of a task, each of which goes to whichever thread is free."""

    def __init__(self, work: Callable[[Any], None], parts: Sequence) -> None:
        self._work, self._queue, self._lock = work, iter(parts), threading.Lock()
        self._left, self._done = len(parts), threading.Event()
        self._errors: list[BaseException] = []
        self.open = True  # a part is left to begin

    def serve(self) -> None:
        """Work until no part is left to begin."""
        while True:
            with self._lock:
                part = next(self._queue, self._lock)  # the lock itself marks the end
            if part is self._lock:
                self.open = False
                return
            try:
                if not self._errors:
                    self._work(part)
            except BaseException as error:
                self._errors.append(error)
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._done.set()

    def wait(self) -> None:
        """Wait for the parts that other threads have begun; raise the first error."""
        self._done.wait()
        if self._errors:
            raise self._errors[0]


class Threads:
    """
    Threads of one call: each runs tasks, and helps with those of others once no task is left to begin.

    The threads live as long as the call of `run`. So the process may fork before and after it, and any thread may call it,
    neither of which numba's own threading layers allow in general. Each task or part should take 0.1 ms or more in kernels.

    Parameters
    ----------
    count : int, optional
        Number of threads; the processors that this process may use if None.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = available_cpus() if count is None else count
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._busy, self._waiting = 0, 0
        self._shared: list[_Parts] = []
        self._errors: list[BaseException] = []

    @property
    def together(self) -> int:
        """Number of threads that parts would be shared by now: this one, and those without a task."""
        return 1 + self._waiting

    def run(self, work: Callable[[Any], None], tasks: Iterable) -> None:
        """Call `work(task)` for every task; see :func:`run_threads`.

        Parameters
        ----------
        work : callable
        tasks : iterable

        Raises
        ------
        Exception
            The first one that `work` raised.
        """
        queue, self._busy, self._errors = iter(tasks), 1, []

        def serve() -> None:
            """Work until no task is left, or something failed; then help."""
            try:
                while not self._errors:
                    with self._lock:
                        task = next(queue, self)  # this object marks the end
                    if task is self:
                        break
                    work(task)
            except BaseException as error:
                self._errors.append(error)
            self._help()

        helpers: list[threading.Thread] = []
        try:
            self._start(serve, helpers)
        except BaseException as error:  # those that have begun must end
            self._errors.append(error)
        serve()
        for helper in helpers:
            helper.join()
        if self._errors:
            raise self._errors[0]

    def _start(self, serve: Callable[[], None], helpers: list[threading.Thread]) -> None:
        """Start threads next to this one; RuntimeError if the system allows no more."""
        for _ in range(self._count - 1):
            helper = threading.Thread(target=serve, daemon=True)  # ends with the process: after Ctrl-C nothing may wake it
            with self._lock:
                self._busy += 1
            try:
                helper.start()
            except RuntimeError:
                with self._lock:
                    self._busy -= 1
                raise
            helpers.append(helper)

    def share(self, work: Callable[[Any], None], parts: Sequence) -> None:
        """Call `work(part)` for every part of a task, with the help of threads that have none; return when all are done.

        Parameters
        ----------
        work : callable
            Its results must not depend on the thread that calls it, nor on the order of the parts.
        parts : sequence

        Raises
        ------
        Exception
            The first one that `work` raised; parts that have not begun are skipped.
        """
        if len(parts) < 2 or not self._waiting:
            for part in parts:
                work(part)
            return
        job = _Parts(work, parts)
        with self._changed:
            self._shared.append(job)
            self._changed.notify(len(parts) - 1)
        job.serve()
        with self._lock:
            self._shared.remove(job)
        job.wait()

    def _help(self) -> None:
        """Serve the parts of other threads' tasks until these have ended."""
        with self._changed:
            self._busy -= 1
            if not self._busy:
                self._changed.notify_all()
        while self._busy:
            with self._changed:
                job = next((job for job in self._shared if job.open), None)
                if job is None and self._busy:
                    self._waiting += 1
                    try:
                        self._changed.wait()
                    finally:
                        self._waiting -= 1
            if job is not None:
                job.serve()


ALONE = Threads(1)  # shares nothing
