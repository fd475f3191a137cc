"""Compilation of kernels, and their share of the processor."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import ModuleType
from typing import Any

from numba import njit

from amp.nft.kernels.cheaper import cheaper_compilation, register_inner
from amp.nft.kernels.second_compiler import second_compiler

# Fused multiply-add and reordered sums, which SIMD reductions need. NaN, infinity and the sign
# of a result keep their meaning, so that an overflow is seen and not optimised away.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


_SETTINGS = {"error_model": "numpy", "nogil": True, "fastmath": FASTMATH}


def kernel(function: Callable) -> Callable:
    """Compile a function that Python calls.

    Kernels release the interpreter's lock, divide as NumPy does (a test for zero in front of every
    division keeps loops from SIMD), and are kept on disk between processes. Where no directory
    for that cache can be written, each process compiles them again.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
    """
    try:
        compiled = njit(cache=True, **_SETTINGS)(function)
        _check_whole_source(compiled, function.__module__)
    except (RuntimeError, AttributeError):  # no directory for a cache, or a numba whose cache has other names
        compiled = njit(**_SETTINGS)(function)
    compiled.compile = _cheaper(compiled.compile)
    return compiled


def _check_whole_source(compiled: Any, module: str) -> None:
    """Let the cache of a kernel depend on all source below it, and start from scratch where it cannot be read."""
    cache = compiled._cache
    cache._cache_file._source_stamp = cache._cache_file._source_stamp, _stamp_below(module)
    cache.load_overload = _shared(compiled.py_func.__qualname__, _forgiving(cache.load_overload, cache.flush))


def _cheaper(compile_one: Callable) -> Callable:
    """Numba's compilation of a kernel with less work."""

    def compile_cheaply(signature: Any) -> Any:
        with cheaper_compilation():
            return compile_one(signature)

    return compile_cheaply


@lru_cache
def _stamp_below(module: str) -> tuple:
    """
    Names, times and sizes of the files in this package whose functions and classes a module uses, directly or not.

    Numba checks a kernel's own file only, and would use the old code of a function that has changed in another file.
    """
    below: set[tuple] = set()
    for value in vars(sys.modules[module]).values():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name.startswith(f"{__package__}.") and name != module:
            file = os.stat(sys.modules[name].__file__ or "")
            below |= {(name, file.st_mtime, file.st_size), *_stamp_below(name)}
    return tuple(sorted(below))


def _forgiving(load: Callable, forget: Callable) -> Callable:
    """
    Return a cache's load function that treats an unreadable entry as missing.

    The names of our classes are in the cache's index, and a release that has others finds the index of the last one.
    """

    def load_or_forget(signature: Any, context: Any) -> Any:
        try:
            return load(signature, context)
        except Exception:  # a pickle may raise anything
            forget()
            return None

    return load_or_forget


def _shared(name: str, load: Callable) -> Callable:
    """Return a cache's load function that waits for the code where a second process compiles it."""

    def load_or_wait(signature: Any, context: Any) -> Any:
        found = load(signature, context)
        if found is None:
            second_compiler.start()
            if second_compiler.wait_for(name):
                found = load(signature, context)
        return found

    return load_or_wait


def inner(function: Callable) -> Callable:
    """Compile a function that only kernels call; it must not allocate arrays.

    It is cheaper than a kernel, in compiling (it has no entry from Python) and in running: its arrays
    are not reference-counted, which otherwise takes a locked instruction per array and use.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
    """
    register_inner(function)
    return njit(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, **_SETTINGS)(function)


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

    The threads live as long as the call. So the process may fork before and after it, and any thread may call it,
    neither of which numba's own threading layers allow in general. Each task should take 0.1 ms or more in kernels.

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
    threads = available_cpus() if threads is None else threads
    queue, lock = iter(tasks), threading.Lock()
    errors: list[BaseException] = []

    def serve() -> None:
        """Work until no task is left, or something failed."""
        try:
            while not errors:
                with lock:
                    task = next(queue, lock)  # the lock itself marks the end
                if task is lock:
                    return
                work(task)
        except BaseException as error:
            errors.append(error)

    helpers = [threading.Thread(target=serve) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    serve()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
