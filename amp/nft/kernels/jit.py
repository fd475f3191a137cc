"""Compilation of kernels."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from numba import njit

from amp.nft.kernels.cheaper import ShortPipeline, cheaper_compilation, register_inner
from amp.nft.kernels.second_compiler import second_compiler

# Fused multiply-add and reordered sums, which SIMD reductions need. NaN, infinity and the sign
# of a result keep their meaning, so that an overflow is seen and not optimised away.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

# Arrays are not reference-counted: that takes a locked instruction for each array and use, and a tenth of the compilation
_SETTINGS = {
    "error_model": "numpy", "nogil": True, "fastmath": FASTMATH, "_nrt": False, "no_cfunc_wrapper": True, "pipeline_class": ShortPipeline,
}  # fmt: skip


def kernel(function: Callable) -> Callable:
    """Compile a function that Python calls; it must not allocate arrays.

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
    """Numba's compilation of a kernel with less work, and in its own way where that fails."""

    def compile_cheaply(signature: Any) -> Any:
        try:
            with cheaper_compilation():
                return compile_one(signature)
        except Exception:  # of a numba whose inner parts changed; an error of the kernel comes again
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

    It is cheaper to compile than a kernel: it has no entry from Python.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
    """
    register_inner(function)
    return njit(no_cpython_wrapper=True, **_SETTINGS)(function)
