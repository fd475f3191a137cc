"""
Four doubles as one value inside numba kernels, and eight where a kernel reads packed tiles.

LLVM turns a loop into SIMD code by itself only when the loop is long and plain. The inner loops here are neither: their
lanes are symmetry functions or ensemble members, a handful at a time. So `vec4` makes the vector register a numba type:
``+ - * /`` work lane by lane, a product that is added becomes one fused instruction, and `load`, `store`
and `get` address an array by its flat index in memory, with no test of bounds or sign. It compiles
to the registers of the processor: one AVX register, or two of SSE or NEON.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from amp.nft.kernels.jit import inner

LANES, WIDE_LANES = 4, 8
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(64), LANES)
HAS_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))  # a register contains eight doubles


def zeros(*shape: int) -> np.ndarray:
    """Return zeros that begin at a cache line, so that no vector of a row is in two lines.

    Parameters
    ----------
    *shape : int

    Returns
    -------
    ndarray
    """
    size, line = int(np.prod(shape)), 64 // 8
    buffer = np.zeros(size + line)
    begin = -(buffer.ctypes.data // 8) % line
    return buffer[begin : begin + size].reshape(shape)


class VectorType(types.Type):
    """Type of a few doubles in a register.

    Parameters
    ----------
    lanes : int
        Number of doubles.
    """

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"Vec{lanes}")
        self.lanes = lanes
        self.llvm = ir.VectorType(ir.DoubleType(), lanes)


vec4, vec8 = VectorType(LANES), VectorType(WIDE_LANES)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _define(op: Callable, instruction: str) -> None:
    """Let a Python operator on two vectors be one LLVM instruction."""

    @infer_global(op)
    class _(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            same = len(args) == 2 and args[0] == args[1] and isinstance(args[0], VectorType)
            return signature(args[0], *args) if same else None

    @lower_builtin(op, VectorType, VectorType)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=("contract",))


for _op, _instruction in {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}.items():
    _define(_op, _instruction)


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Pointer to an array's element, the array and flat index being the first two arguments."""
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _broadcast(builder: Any, value: Any, vector: VectorType) -> Any:
    """Return the same double in every lane."""
    undefined, index = ir.Constant(vector.llvm, ir.Undefined), ir.IntType(32)
    single = builder.insert_element(undefined, value, ir.Constant(index, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(index, vector.lanes), [0] * vector.lanes))


def _call(builder: Any, name: str, *args: Any) -> Any:
    """Call an LLVM intrinsic on vectors."""
    kind = ir.FunctionType(_DOUBLES, [_DOUBLES] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{LANES}f64"), args)


def _loader(vector: VectorType) -> Any:
    """Intrinsic that reads a vector of an array, from a flat index on."""

    @intrinsic
    def load(typingctx, array, index):
        def generate(context, builder, sig, args):
            return builder.load(builder.bitcast(_address(context, builder, sig, args), vector.llvm.as_pointer()), align=8)

        return vector(array, types.intp), generate

    return load


@intrinsic
def store(typingctx, array, index, value):
    """Write a vector into an array, from a flat index on."""

    def generate(context, builder, sig, args):
        address = builder.bitcast(_address(context, builder, sig, args), value.llvm.as_pointer())
        builder.store(args[2], address, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_single(typingctx, array, index, value):
    """Write a vector into an array of single precision, from a flat index on."""

    def generate(context, builder, sig, args):
        singles = ir.VectorType(ir.FloatType(), value.lanes)
        address = builder.bitcast(_address(context, builder, sig, args), singles.as_pointer())
        builder.store(builder.fptrunc(args[2], singles), address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _splatter(vector: VectorType) -> Any:
    """Intrinsic that repeats a double in every lane."""

    @intrinsic
    def splat(typingctx, value):
        def generate(context, builder, sig, args):
            return _broadcast(builder, args[0], vector)

        return vector(types.float64), generate

    return splat


load, load_wide = _loader(vec4), _loader(vec8)
splat, splat_wide = _splatter(vec4), _splatter(vec8)
load_full, splat_full = (load_wide, splat_wide) if HAS_WIDE else (load, splat)  # of one register


@intrinsic
def get(typingctx, array, index):
    """Return an array's element by its flat index."""

    def generate(context, builder, sig, args):
        return builder.load(_address(context, builder, sig, args))

    return array.dtype(array, types.intp), generate


@intrinsic
def put(typingctx, array, index, value):
    """Write an array's element by its flat index."""

    def generate(context, builder, sig, args):
        builder.store(args[2], _address(context, builder, sig, args))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate


@intrinsic
def lane(typingctx, value, index):
    """One of the four doubles."""

    def generate(context, builder, sig, args):
        return builder.extract_element(args[0], args[1])

    return types.float64(vec4, types.intp), generate


@intrinsic
def pack(typingctx, a, b, c, d):
    """Four doubles as one vector."""

    def generate(context, builder, sig, args):
        value = ir.Constant(_DOUBLES, ir.Undefined)
        for n, arg in enumerate(args):
            value = builder.insert_element(value, arg, ir.Constant(ir.IntType(32), n))
        return value

    return vec4(*[types.float64] * LANES), generate


@intrinsic
def root(typingctx, value):
    """Square root."""

    def generate(context, builder, sig, args):
        return _call(builder, "llvm.sqrt", args[0])

    return vec4(vec4), generate


@intrinsic
def larger(typingctx, first, second):
    """Return the larger of each pair of lanes; the second where either is NaN, so a bound comes first."""

    def generate(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return vec4(vec4, vec4), generate


@intrinsic
def above(typingctx, first, second):
    """1.0 where the first is larger, else 0.0."""

    def generate(context, builder, sig, args):
        return builder.uitofp(builder.fcmp_ordered(">", *args), _DOUBLES)

    return vec4(vec4, vec4), generate


@intrinsic
def _times_power_of_two(typingctx, value, shifted):
    """Return value * 2**n, with n in the low bits of the double 1.5 * 2**52 + n."""

    def generate(context, builder, sig, args):
        value, shifted = (builder.bitcast(arg, _INTEGERS) for arg in args)
        exponent = builder.shl(shifted, ir.Constant(_INTEGERS, [52] * LANES))
        return builder.bitcast(builder.add(value, exponent), _DOUBLES)

    return vec4(vec4, vec4), generate


@inner
def total(value):
    """Sum of the four lanes."""
    return (lane(value, 0) + lane(value, 1)) + (lane(value, 2) + lane(value, 3))


# exp(r) on |r| <= ln(2) / 2 by its Taylor series: the first neglected term is below 1e-17.
_TAYLOR = tuple(1.0 / float(np.prod(np.arange(1.0, n + 1.0))) for n in range(13, -1, -1))
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 1.5 * 2.0**52


@inner
def exp(x):
    """Exponential of anything up to 700, to 3e-16 relative; below -700 as at -700."""
    x = larger(splat(-700.0), x)
    shifted = x * splat(_LOG2_E) + splat(_ROUND)
    n = shifted - splat(_ROUND)
    r = x - n * splat(_LN2_HIGH) - n * splat(_LN2_LOW)
    series = splat(_TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        series = series * r + splat(coefficient)
    return _times_power_of_two(series, shifted)


@inner
def tanh(x):
    """Hyperbolic tangent, to 2e-16 absolute."""
    one, two = splat(1.0), splat(2.0)
    mirrored = larger(splat(-20.0), splat(0.0) - x)
    return one - two / (exp(splat(-2.0) * mirrored) + one)


@inner
def power(x, exponents):
    """x**exponents by the C library; negative bases count as zero."""
    return pack(
        max(lane(x, 0), 0.0) ** lane(exponents, 0),
        max(lane(x, 1), 0.0) ** lane(exponents, 1),
        max(lane(x, 2), 0.0) ** lane(exponents, 2),
        max(lane(x, 3), 0.0) ** lane(exponents, 3),
    )
