"""exp and the logistic function for one float32 or float64, free of branches, so that a loop over them uses vectors.

Numba's own exp calls a scalar library function in each turn of a loop: 2.3 ms for 1,000,000 float32 where
NumPy takes 0.45 and this 0.2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastbp.kernels._jit import exact_kernel

_f32, _f64, _i32, _i64 = np.float32, np.float64, np.int32, np.int64

# exp(x) = 2**n · exp(r) with n = round(x / ln 2), so |r| <= ln(2) / 2, and exp(r) by its Taylor series up to the
# first term below half a unit in the last place. ln 2 is split so that n · LN2_HIGH is exact (Cody and Waite,
# "Software Manual for the Elementary Functions", 1980).
_TAYLOR_32 = tuple(_f32(1 / math.factorial(k)) for k in range(8))
_TAYLOR_64 = tuple(1 / math.factorial(k) for k in range(14))
_LOG2_E = 1 / math.log(2)
_LN2_HIGH_32, _LN2_LOW_32 = _f32(0.693359375), _f32(-2.12194440054690583e-4)
_LN2_HIGH_64, _LN2_LOW_64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10

# Adding 1.5 · 2**mantissa bits rounds to an integer and leaves it in the low bits.
_ROUND_32, _ROUND_64 = _f32(1.5 * 2**23), 1.5 * 2**52

# Beyond these exp is inf or 0 in the format; inside them n fits two factors of 2**n.
_LOW_32, _HIGH_32 = _f32(-104.0), _f32(89.0)
_LOW_64, _HIGH_64 = -746.0, 710.0


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The integer with the same bits as a float."""
    integer = types.int32 if x.bitwidth == 32 else types.int64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(x.bitwidth))

    return integer(x), codegen


@intrinsic
def _from_bits(typingctx: Any, i: Any) -> Any:
    """The float with the same bits as an integer."""
    floating = types.float32 if i.bitwidth == 32 else types.float64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(floating))

    return floating(i), codegen


@intrinsic
def _multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, in one instruction where the CPU has it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(a)
        name = f"llvm.fmuladd.f{a.bitwidth}"
        known = builder.module.globals.get(name)
        function = known or ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return a(a, a, a), codegen


@exact_kernel
def _exp32(x):
    bounded = _LOW_32 if x < _LOW_32 else _HIGH_32 if x > _HIGH_32 else x
    rounded = _multiply_add(bounded, _f32(_LOG2_E), _ROUND_32)
    n = rounded - _ROUND_32
    r = _multiply_add(-n, _LN2_LOW_32, _multiply_add(-n, _LN2_HIGH_32, bounded))
    c = _TAYLOR_32
    p = _multiply_add(c[7], r, c[6])
    p = _multiply_add(p, r, c[5])
    p = _multiply_add(p, r, c[4])
    p = _multiply_add(p, r, c[3])
    p = _multiply_add(p, r, c[2])
    p = _multiply_add(p, r, c[1])
    p = _multiply_add(p, r, c[0])
    exponent = _bits(rounded) - _bits(_ROUND_32)
    half = exponent >> _i32(1)
    first = _from_bits(_i32((half + _i32(127)) << _i32(23)))
    second = _from_bits(_i32((exponent - half + _i32(127)) << _i32(23)))
    return p * first * second


@exact_kernel
def _exp64(x):
    bounded = _LOW_64 if x < _LOW_64 else _HIGH_64 if x > _HIGH_64 else x
    rounded = _multiply_add(bounded, _LOG2_E, _ROUND_64)
    n = rounded - _ROUND_64
    r = _multiply_add(-n, _LN2_LOW_64, _multiply_add(-n, _LN2_HIGH_64, bounded))
    c = _TAYLOR_64
    p = _multiply_add(c[13], r, c[12])
    p = _multiply_add(p, r, c[11])
    p = _multiply_add(p, r, c[10])
    p = _multiply_add(p, r, c[9])
    p = _multiply_add(p, r, c[8])
    p = _multiply_add(p, r, c[7])
    p = _multiply_add(p, r, c[6])
    p = _multiply_add(p, r, c[5])
    p = _multiply_add(p, r, c[4])
    p = _multiply_add(p, r, c[3])
    p = _multiply_add(p, r, c[2])
    p = _multiply_add(p, r, c[1])
    p = _multiply_add(p, r, c[0])
    exponent = _bits(rounded) - _bits(_ROUND_64)
    half = exponent >> _i64(1)
    first = _from_bits((half + _i64(1023)) << _i64(52))
    second = _from_bits((exponent - half + _i64(1023)) << _i64(52))
    return p * first * second


def exp(x):
    """exp(x) inside a kernel, in the precision of `x`; exp(-inf) = 0, overflow gives inf, NaN stays NaN."""
    raise RuntimeError("exp: expected to be called inside a kernel; from Python call numpy.exp")


@overload(exp)
def _exp(x):
    compiled = _exp32 if x == types.float32 else _exp64

    def call(x):
        return compiled(x)

    return call


@exact_kernel
def logistic(x):
    """1/(1 + exp(-x)) without overflow: with e = exp(-|x|), 1/(1 + e) or e/(1 + e)."""
    e = exp(-abs(x))
    return (_f32(1) if x >= 0 else e) / (_f32(1) + e)
