"""Functions of numbers, arrays and the compiler's symbols, under one name each.

The formulas of `fastbp.graph.operations` consist of these functions and of operators. On a Python number the result
is a Python number. On an array NumPy or a fastbp kernel computes it. On a symbol it is an expression for `compile`.
exp, log, tanh, sigmoid and powers of arrays are those of the kernels, so a compiled graph has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastbp.checks import Array, DType, empty, float_dtype, from_kernel, result_dtype, to_kernel
from fastbp.graph.expressions import Expression
from fastbp.ops.contract import TWINS, Twins

# A Python number, an array, or a symbol.
Value = Any

# x² to x⁴ are products. A higher power is closer to the exact result than more roundings.
_PRODUCTS_UP_TO = 4

# The functions that a kernel calls by their names, and the cost of a call in multiply-adds.
COSTS: dict[str, int] = {}

# Those of them that `fastbp.runtime.generated` does not know, compiled.
COMPILED: dict[str, Any] = {}


def function(
    name: str, of_number: Callable[[float], float], cost: int, of_array: Callable[[Any], Any] | None = None
) -> Callable[[Value], Value]:
    """Make a function of numbers, arrays and symbols that a generated kernel calls by its name.

    Arrays take `of_array`, by default the kernel `<name>_forward`. A kernel that is compiled from a graph calls the
    function of that name in `fastbp.runtime.generated`.
    """
    COSTS[name] = cost

    def of_value(x: Value) -> Value:
        if type(x) is float:
            try:
                return of_number(x)
            except OverflowError:
                return math.inf
        if isinstance(x, Expression):
            return x.function(name)
        if of_array is not None:
            return of_array(x)
        array = np.asarray(x)
        return by_kernel(TWINS[f"{name}_forward"], float_dtype(result_dtype(array)), array)

    return of_value


def by_kernel(kernel: Twins, dtype: DType, *arrays: Array, settings: Iterable[float] = ()) -> Value:
    """Apply a kernel to the elements of arrays of one shape."""
    out = empty(arrays[0].shape, dtype)
    flat = [to_kernel(array, dtype).reshape(-1) for array in arrays]
    kernel.of(dtype)(*flat, out.reshape(-1), *settings)
    return from_kernel(out, dtype)[()]


def _log_of_number(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan


def _sigmoid_of_number(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def _sqrt_of_array(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


# log is -inf at 0 and NaN below, sqrt is NaN below 0, sigmoid is 1/(1 + exp(-x)) without overflow.
exp = function("exp", math.exp, 12)
log = function("log", _log_of_number, 15)
sqrt = function("sqrt", lambda x: math.sqrt(x) if x >= 0 else math.nan, 4, _sqrt_of_array)
tanh = function("tanh", math.tanh, 25)
sigmoid = function("sigmoid", _sigmoid_of_number, 20)


def log1p(x: Value) -> Value:
    """log(1 + x) for x >= 0, accurate for the smallest x, too.

    The factor x/(u - 1) corrects the rounding of u = 1 + x (Kahan; Goldberg, "What Every Computer Scientist
    Should Know About Floating-Point Arithmetic", theorem 4).
    """
    u = 1.0 + x
    is_one = u == 1.0
    return where(is_one, x, log(u) * (x / where(is_one, 1.0, u - 1.0)))


def power(x: Value, n: Value) -> Value:
    """x**n, by products up to the fourth power, and by a square root for n = 0.5."""
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
    shape = np.broadcast_shapes(np.shape(x), np.shape(n))
    return by_kernel(TWINS["power_forward"], dtype, *(np.broadcast_to(value, shape).astype(dtype) for value in (x, n)))


def _product(x: Value, n: int) -> Value:
    if n == 1:
        return x * 1.0
    square = x * x
    return square if n == 2 else square * x if n == 3 else square * square


def divide(x: Value, y: Value) -> Value:
    """x/y; inf or NaN where y is 0, for Python numbers, too."""
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or math.isnan(x) else math.copysign(math.inf, x) * math.copysign(1.0, y)


def maximum(x: Value, y: Value) -> Value:
    """The larger of x and y; NaN where either is NaN."""
    if isinstance(x, np.ndarray | np.generic) or isinstance(y, np.ndarray | np.generic):
        return np.maximum(x, y)
    return where((x >= y) | (x != x), x, y)  # noqa: PLR0124


def where(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y."""
    if isinstance(condition, bool):
        return x if condition else y
    if isinstance(condition, Expression):
        return condition.trace.apply("where", condition, x, y)
    result: Any = np.where(condition, x, y)
    return result[()]
