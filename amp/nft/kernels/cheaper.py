"""Compile kernels with less work: optimise each inner function once, in the kernel that it is inlined into, and at a lower level.

Numba optimises an inner function and turns it into machine code on its own, and again in each caller. Kernels never call that
machine code, and their SIMD code is explicit, so that neither this nor LLVM's highest level gains speed. Both hooks use names that
numba does not document. Where one is missing or raises an error, kernels are compiled in numba's own way, which takes twice as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LEVEL = 1  # of LLVM's optimisation, unless NUMBA_OPT is set
_inner: set[str] = set()


def register_inner(function: Callable) -> None:
    """Register a function that only kernels call.

    Parameters
    ----------
    function : callable
    """
    _inner.add(function.__qualname__)


@contextmanager
def cheaper_compilation() -> Iterator[None]:
    """Change how numba compiles while the block runs; other threads wait with their compilation."""
    try:
        from numba.core.compiler_lock import global_compiler_lock as lock

        changes = [*_inner_functions_are_not_finished(), *_lower_level()]
    except (ImportError, AttributeError, TypeError):
        yield
        return
    with lock:
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
        try:
            for owner, name, value in changes:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


def _lower_level() -> list[tuple[Any, str, Any]]:
    """Change of the level."""
    from numba.core import config

    return [] if "NUMBA_OPT" in os.environ else [(config, "OPT", type(config.OPT)(LEVEL))]


def _inner_functions_are_not_finished() -> list[tuple[Any, str, Any]]:
    """Return the changes by which inner functions are neither optimised nor turned into machine code on their own."""
    from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen

    optimize, finish, set_env = CPUCodeLibrary._optimize_final_module, CPUCodeLibrary._finalize_final_module, JITCPUCodegen.set_env

    def optimize_kernels(library: Any) -> None:
        if library.name not in _inner:
            optimize(library)

    def finish_kernels(library: Any) -> None:
        if library.name in _inner:
            library._finalized = True
        else:
            finish(library)

    def set_env_of_kernels(codegen: Any, name: str, environment: Any) -> None:
        if codegen._engine.get_global_value_address(name):
            set_env(codegen, name, environment)

    return [
        (CPUCodeLibrary, "_optimize_final_module", optimize_kernels),
        (CPUCodeLibrary, "_finalize_final_module", finish_kernels),
        (JITCPUCodegen, "set_env", set_env_of_kernels),
    ]
