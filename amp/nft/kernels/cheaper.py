"""Compile kernels with less work.

Numba optimises an inner function and turns it into machine code on its own, and again in each caller. Kernels never call that
machine code, and their SIMD code is explicit, so that neither this nor LLVM's highest level gains speed. To type `a + b`, numba tries
some ten functions that add strings, dates or lists, each time again; for each use of an array, it looks for a function that makes it an
array. It looks for closures, literals and array expressions, which kernels do not have. And Python's search for garbage goes through
all that numba has built so far.

The hooks into numba use names that it does not document. Where one is missing or raises an error, kernels are compiled in numba's own
way, which takes twice as long.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder

LEVEL = 1  # of LLVM's optimisation, unless NUMBA_OPT is set
GARBAGE = 300_000, 50, 100  # thresholds of Python's search for garbage
UNUSED = {
    "WithLifting", "InlineClosureLikes", "RewriteSemanticConstants", "DeadBranchPrune", "RewriteDynamicRaises", "InlineInlinables",
    "MakeFunctionToJitFunction", "FindLiterallyCalls", "LiteralUnroll", "LiteralPropagationSubPipelinePass", "InlineOverloads",
    "NopythonRewrites", "NoPythonSupportedFeatureValidation", "DumpParforDiagnostics",
}  # fmt: skip
_inner: set[str] = set()
_typed: dict[Any, dict] = {}  # by the options of a compilation: type of a call by function and arguments


class ShortPipeline(CompilerBase):
    """Numba's passes without those for parts of the language that kernels do not use.

    Parameters
    ----------
    typingctx, targetctx, library, args, return_type, flags, locals : object
        Those with which numba makes any pipeline.
    """

    def define_pipelines(self) -> list[Any]:
        """Return the passes.

        Returns
        -------
        list of PassManager
        """
        whole = DefaultPassBuilder.define_nopython_pipeline(self.state)
        short = type(whole)(whole.pipeline_name)
        for compiler_pass, description in whole.passes:
            if compiler_pass.__name__ not in UNUSED:
                short.add_pass(compiler_pass, description)
        short.finalize()
        return [short]


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

        changes = [*_inner_functions_are_not_finished(), *_lower_level(), *_calls_are_typed_once(), *_arrays_are_arrays()]
    except (ImportError, AttributeError, TypeError):
        yield
        return
    with lock:
        before, garbage = [(owner, name, getattr(owner, name)) for owner, name, _ in changes], gc.get_threshold()
        try:
            gc.set_threshold(*GARBAGE)
            for owner, name, value in changes:
                setattr(owner, name, value)
            yield
        finally:
            gc.set_threshold(*garbage)
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


def _calls_are_typed_once() -> list[tuple[Any, str, Any]]:
    """Return the change by which the type of a call is found once for each function, types of arguments and options of compilation."""
    from numba.core.targetconfig import ConfigStack
    from numba.core.types.functions import BaseFunction

    find = BaseFunction.get_call_type
    options, known = None, {}

    def find_once(function: Any, context: Any, args: tuple, kws: dict) -> Any:
        nonlocal options, known
        if kws:
            return find(function, context, args, kws)
        if (now := ConfigStack.top_or_none()) is not options or now is None:
            options, known = now, _typed.setdefault(now and now.copy(), {})
        key = context, function, args
        if key not in known:
            types = known
            types[key] = find(function, context, args, kws)  # compiles other functions, maybe
            return types[key]
        return known[key]

    return [(BaseFunction, "get_call_type", find_once)]


def _arrays_are_arrays() -> list[tuple[Any, str, Any]]:
    """Return the change by which nobody looks for the function that turns an array into an array, which does not exist."""
    from numba.core.base import BaseContext
    from numba.core.types import Array

    find = BaseContext.get_function

    def find_existing(context: Any, function: Any, signature: Any, *more: Any, **options: Any) -> Any:
        if function == "__array__" and type(signature.args[0]) is Array:
            raise NotImplementedError
        return find(context, function, signature, *more, **options)

    return [(BaseContext, "get_function", find_existing)]
