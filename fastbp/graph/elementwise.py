"""Functions of numbers, arrays and the compiler's symbols, under one name each.

The formulas of `fastbp.graph.operations` consist of these functions and of operators. On a Python number the result
is a Python number. On an array NumPy or a fastbp kernel computes it. On a symbol it is an expression for `compile`.
exp, log, the activations and powers of arrays are those of the kernels, so a compiled graph has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import numpy as np

from fastbp.checks import Array, DType, empty, float_dtype, from_kernel, result_dtype, to_kernel
from fastbp.graph.expressions import Expression
from fastbp.ops.contract import ACTIVATIONS, TWINS, Activation, Twins

# A Python number, an array, or a symbol.
Value = Any

# x² to x⁴ are products. A higher power is closer to the exact result than more roundings.
_PRODUCTS_UP_TO = 4

# The cost of a call of a function of `fastbp.runtime.elementary` in multiply-adds.
_COSTS_OF_ELEMENTARY = {"exp": 12, "expm1": 15, "log": 15, "log1p": 15, "logistic": 20, "tanh": 25, "erf": 30}

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
            return of_number(x)
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


def _sin_of_number(x: float) -> float:
    return math.sin(x) if math.isfinite(x) else math.nan


def _cos_of_number(x: float) -> float:
    return math.cos(x) if math.isfinite(x) else math.nan


def _exp_of_number(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _expm1_of_number(x: float) -> float:
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def _log1p_of_number(x: float) -> float:
    return math.log1p(x) if x > -1 else -math.inf if x == -1 else math.nan


# The functions of `fastbp.runtime.elementary` that the formulas of operations consist of.
_OF_NUMBERS: dict[str, Callable[..., float]] = {
    "as_like": lambda _, value: value,
    "erf": math.erf,
    "exp": _exp_of_number,
    "expm1": _expm1_of_number,
    "log": _log_of_number,
    "log1p": _log1p_of_number,
    "logistic": _sigmoid_of_number,
    "maximum": lambda a, b: a if a >= b or a != a else b,  # noqa: PLR0124
    "multiply_add": lambda a, b, c: a * b + c,
    "one": lambda _: 1.0,
    "tanh": math.tanh,
    "zero": lambda _: 0.0,
}


def _sqrt_of_array(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


# log is -inf at 0 and NaN below, sqrt is NaN below 0, sin and cos are NaN at inf.
exp = function("exp", _exp_of_number, 12)
log = function("log", _log_of_number, 15)
sqrt = function("sqrt", lambda x: math.sqrt(x) if x >= 0 else math.nan, 4, _sqrt_of_array)
sin = function("sin", _sin_of_number, 20)
cos = function("cos", _cos_of_number, 20)
absolute = function("abs", abs, 1, np.abs)


def activation(name: str, of: Activation) -> tuple[Callable[..., Value], Callable[..., Value]]:
    """Make the value(x, *settings) and the gradient(dout, x, y, *settings) of an activation of `fastbp.ops`.

    A Python number goes through the formula, an array through the kernel. In a kernel that is compiled from a graph
    they are calls of the functions of numbers.
    """
    slope = f"{name}_slope"
    COMPILED[name], COMPILED[slope] = of.value, of.slope
    COSTS[name], COSTS[slope] = _cost(of.value), _cost(of.slope)
    value_of_number, slope_of_number = _of_number(of.value), _of_number(of.slope)

    def value(x: Value, *settings: float) -> Value:
        if type(x) is float:
            return value_of_number(x, *settings)
        if isinstance(x, Expression):
            return x.trace.apply(name, x, *settings)
        if of.leaves_mask:
            return of.value_twin(x, *settings)[()]
        return by_kernel(of.forward, float_dtype(result_dtype(x)), x, settings=settings)

    def gradient(dout: Value, x: Value, y: Value, *settings: float) -> Value:
        kept = x if of.reads_input else y
        if type(kept) is float:
            return slope_of_number(dout, kept, *settings)
        if isinstance(kept, Expression):
            return kept.trace.apply(slope, dout, kept, *settings)
        if of.leaves_mask:
            return of.slope_twin(dout, kept, *settings)[()]
        dtype = float_dtype(np.result_type(dout, kept))
        return by_kernel(of.backward, dtype, *np.broadcast_arrays(dout, kept), settings=settings)

    return value, gradient


def _of_number(kernel: Any) -> Callable[..., float]:
    """Return the formula of a kernel on Python numbers: with the functions of `math` for those of the kernels."""
    formula = kernel.py_func
    names = {**formula.__globals__, **_OF_NUMBERS}
    return FunctionType(formula.__code__, names, formula.__name__, formula.__defaults__, formula.__closure__)


def _cost(kernel: Any) -> int:
    """Return the cost of a kernel of numbers in multiply-adds, by the functions that it names."""
    return 2 + sum(_COSTS_OF_ELEMENTARY.get(name, 0) for name in kernel.py_func.__code__.co_names)


# The activations by the names of their functions in `fastbp.graph`: value and gradient. ReLU's kernels make a mask, as
# the book's layer does, so a graph leaves arrays to its twin.
ACTIVATION_FUNCTIONS = {
    record.activation.name: activation(record.activation.name, record.activation)
    for record in ACTIVATIONS.values()
    if record.activation is not None and record.activation.value_twin is not None
}
sigmoid, tanh = (ACTIVATION_FUNCTIONS[name][0] for name in ("sigmoid", "tanh"))


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


def minimum(x: Value, y: Value) -> Value:
    """The smaller of x and y; NaN where either is NaN."""
    if isinstance(x, np.ndarray | np.generic) or isinstance(y, np.ndarray | np.generic):
        return np.minimum(x, y)
    return where((x <= y) | (x != x), x, y)  # noqa: PLR0124


def where(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y."""
    if isinstance(condition, bool):
        return x if condition else y
    if isinstance(condition, Expression):
        return condition.trace.apply("where", condition, x, y)
    result: Any = np.where(condition, x, y)
    return result[()]
