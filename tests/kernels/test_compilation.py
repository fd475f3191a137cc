"""Compilation of the kernels: reported once, measured, and the same without numba's private names."""

import gc

import pytest

from amp.nft.kernels import cheaper
from amp.nft.kernels.compilation import MESSAGE, announced


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Return a kernel and an inner function that no cache contains."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    from amp.nft.kernels.jit import inner, kernel

    @inner
    def square(x):
        return x * x

    @kernel
    def sum_of_squares(values):
        total = 0.0
        for value in values:
            total += square(value)
        return total

    return sum_of_squares


def test_compilation_is_reported_once_and_measured(small):
    told = []
    with announced(told.append) as compiled:
        assert small((1.0, 2.0)) == 5.0
        first = compiled.seconds
        assert small((1.0, 2.0, 2.0)) == 9.0  # another signature
    assert told == [MESSAGE]
    assert 0.0 < first < compiled.seconds
    with announced(told.append) as compiled:
        small((3.0, 4.0))
    assert (told, compiled.seconds) == ([MESSAGE], 0.0)


def test_kernels_compile_where_numba_lacks_the_names(small, monkeypatch):
    from numba.core import codegen

    monkeypatch.setattr(cheaper, "_inner_functions_are_not_finished", lambda: [codegen.no_such_name])
    assert small((1.0, 2.0)) == 5.0


def test_kernels_compile_where_a_change_of_numba_fails(small, monkeypatch):
    """A numba that gives its functions other arguments."""
    from numba.core.types.functions import BaseFunction

    monkeypatch.setattr(cheaper, "_calls_are_typed_once", lambda: [(BaseFunction, "get_call_type", lambda function: None)])
    assert small((1.0, 2.0)) == 5.0


def test_numba_is_as_before_after_a_compilation(small):
    from numba.core import codegen, config
    from numba.core.types.functions import BaseFunction

    garbage, typing = gc.get_threshold(), BaseFunction.get_call_type
    before = config.OPT, codegen.CPUCodeLibrary._optimize_final_module, codegen.JITCPUCodegen.set_env
    with cheaper.cheaper_compilation():
        assert gc.get_threshold() == cheaper.GARBAGE
        assert BaseFunction.get_call_type is not typing
        assert (config.OPT == cheaper.LEVEL) or "NUMBA_OPT" in cheaper.os.environ
        assert codegen.JITCPUCodegen.set_env is not before[2]
    assert (config.OPT, codegen.CPUCodeLibrary._optimize_final_module, codegen.JITCPUCodegen.set_env) == before
    assert (gc.get_threshold(), BaseFunction.get_call_type) == (garbage, typing)


def test_passes_that_are_left_out_exist():
    """A pass of another name would not be left out."""
    from numba.core import compiler

    assert all(hasattr(compiler, name) for name in cheaper.UNUSED)


def test_equal_calls_of_other_types_keep_their_types(small):
    assert small((1, 2)) == 5
    assert small((1.5, 2.5)) == 8.5
    assert small((True, True)) == 2.0
    assert small((2, 1)) == 5
