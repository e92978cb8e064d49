"""Functions of numbers, arrays and the compiler's symbols, under one name each.

The formulas of `fastbp.graph.operations` are written with them and with operators, once: on a Python number they
stay a Python number, on an array they run NumPy or a fastbp kernel, and on a symbol they are noted down for
`compile`. exp, log, tanh, sigmoid and powers of arrays are those of the kernels, so that a compiled graph gives the
same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp.graph.expressions import Expression, where_expression
from fastbp.implementation import implementation
from fastbp.validation import empty, finished, float_dtype, result_dtype, working

# A Python number, an array, or a symbol.
Value = Any

# x² to x⁴ are products; from there on a power is closer to the exact result than more roundings.
_PRODUCTS_UP_TO = 4


def exp(x: Value) -> Value:
    """exp(x)."""
    return _apply("exp", "exp_forward", math.exp, x)


def log(x: Value) -> Value:
    """log(x); -inf at 0, NaN below."""
    return _apply("log", "log_forward", _log_of_number, x)


def tanh(x: Value) -> Value:
    """tanh(x)."""
    return _apply("tanh", "tanh_forward", math.tanh, x)


def sigmoid(x: Value) -> Value:
    """1/(1 + exp(-x)) without overflow."""
    return _apply("sigmoid", "sigmoid_forward", _sigmoid_of_number, x)


def sqrt(x: Value) -> Value:
    """The square root of x, NaN below 0."""
    if type(x) is float:
        return math.sqrt(x) if x >= 0 else math.nan
    if isinstance(x, Expression):
        return x.function("sqrt")
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


def log1p(x: Value) -> Value:
    """log(1 + x) for x >= 0, to the last places however small x is.

    The rounding of u = 1 + x is made good by the factor x/(u - 1) (Kahan; Goldberg, "What Every Computer Scientist
    Should Know About Floating-Point Arithmetic", theorem 4).
    """
    u = 1.0 + x
    is_one = u == 1.0
    return where(is_one, x, log(u) * (x / where(is_one, 1.0, u - 1.0)))


def power(x: Value, n: Value) -> Value:
    """x**n; up to the fourth power as products, and n = 0.5 as a square root."""
    if type(n) is float:
        if n in (0.5, -0.5):
            root = sqrt(x)
            return root if n > 0 else divide(1.0, root)
        if n.is_integer() and 1 <= abs(n) <= _PRODUCTS_UP_TO:
            product = _product(x, int(abs(n)))
            return product if n > 0 else divide(1.0, product)
    if isinstance(x, Expression) or isinstance(n, Expression):
        return x**n
    if type(x) is float and type(n) is float:
        with np.errstate(all="ignore"):
            return float(np.power(x, n))
    dtype = float_dtype(np.result_type(x, n))
    out = empty(np.broadcast_shapes(np.shape(x), np.shape(n)), dtype)
    flat = [working(np.broadcast_to(value, out.shape).astype(dtype), dtype).reshape(-1) for value in (x, n)]
    implementation(dtype).power_forward(*flat, out.reshape(-1))
    return finished(out, dtype)[()]


def _product(x: Value, n: int) -> Value:
    if n == 1:
        return x * 1.0
    square = x * x
    return square if n == 2 else square * x if n == 3 else square * square


def divide(x: Value, y: Value) -> Value:
    """x/y; of Python numbers too it is inf or NaN where y is 0."""
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def maximum(x: Value, y: Value) -> Value:
    """The larger of x and y; NaN where either is."""
    if isinstance(x, np.ndarray | np.generic) or isinstance(y, np.ndarray | np.generic):
        return np.maximum(x, y)
    return where((x >= y) | (x != x), x, y)  # noqa: PLR0124


def where(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y."""
    if isinstance(condition, bool):
        return x if condition else y
    if isinstance(condition, Expression):
        return where_expression(condition, x, y)
    result: Any = np.where(condition, x, y)
    return result[()]


def _apply(symbol: str, kernel: str, of_number: Callable[[float], float], x: Value) -> Value:
    if type(x) is float:
        try:
            return of_number(x)
        except OverflowError:
            return math.inf
    if isinstance(x, Expression):
        return x.function(symbol)
    array = np.asarray(x)
    dtype = float_dtype(result_dtype(array))
    out = empty(array.shape, dtype)
    getattr(implementation(dtype), kernel)(working(array, dtype).reshape(-1), out.reshape(-1))
    return finished(out, dtype)[()]


def _log_of_number(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _sigmoid_of_number(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)
