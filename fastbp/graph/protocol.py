"""NumPy's functions on variables: each goes to the operation that a graph has for it, or says that there is none.

NumPy calls `array_ufunc` for np.exp(x), np.add(x, y) and array + x, and `array_function` for np.sum(x) and the like.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp.graph import functions, operations
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.structure import shape_of


def _applied(operation: operations.Operation) -> Callable[..., Variable]:
    return lambda *operands: apply(operation, *operands)


# What a ufunc does to operands of which one is a variable at least.
UFUNCS: dict[Any, Callable[..., Any]] = {
    np.absolute: functions.abs,
    np.add: _applied(operations.ADD),
    np.cos: functions.cos,
    np.divide: _applied(operations.DIVIDE),
    np.exp: functions.exp,
    np.fabs: functions.abs,
    np.log: functions.log,
    np.matmul: _applied(operations.MATMUL),
    np.maximum: functions.maximum,
    np.minimum: functions.minimum,
    np.multiply: _applied(operations.MULTIPLY),
    np.negative: operator.neg,
    np.positive: operator.pos,
    np.power: lambda x, n: apply(operations.VARIABLE_POWER, x, n) if isinstance(n, Variable) else x**n,
    np.reciprocal: lambda x: 1.0 / x,
    np.sin: functions.sin,
    np.sqrt: functions.sqrt,
    np.square: lambda x: x**2,
    np.subtract: _applied(operations.SUBTRACT),
    np.tanh: functions.tanh,
}

# Ufuncs that give values and no variables.
_OF_VALUES: dict[Any, Callable[..., Any]] = {
    np.equal: operator.eq,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.isfinite: np.isfinite,
    np.isinf: np.isinf,
    np.isnan: np.isnan,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.not_equal: operator.ne,
    np.sign: np.sign,
}

_REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: functions.sum,
    np.maximum: functions.max,
    np.minimum: functions.min,
}


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Variable:  # noqa: A002
    return functions.clip(a, min if a_min is None else a_min, max if a_max is None else a_max)


def _dot(a: Any, b: Any) -> Variable:
    if len(shape_of(b)) > 2:
        raise TypeError(f"np.dot: expected b of at most two axes, got shape {shape_of(b)}; take a @ b for stacks")
    return apply(operations.MATMUL if shape_of(a) and shape_of(b) else operations.MULTIPLY, a, b)


def _reduced(function: Callable[..., Variable]) -> Callable[..., Variable]:
    return lambda a, axis=None, *, keepdims=False: function(a, axis, keepdims)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.amax: _reduced(functions.max),
    np.amin: _reduced(functions.min),
    np.clip: _clip,
    np.concatenate: functions.concatenate,
    np.dot: _dot,
    np.max: _reduced(functions.max),
    np.mean: _reduced(functions.mean),
    np.min: _reduced(functions.min),
    np.ndim: lambda a: a.ndim,
    np.reshape: functions.reshape,
    np.shape: lambda a: a.shape,
    np.size: lambda a: a.size,
    np.sum: _reduced(functions.sum),
    np.transpose: functions.transpose,
}


def array_ufunc(_: Variable, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """Apply a ufunc of NumPy's, with a variable among its inputs.

    Raises
    ------
    TypeError
        For a ufunc that no operation of a graph is, and for `out`, `where` and other options.
    """
    if _is_in_place(inputs, options.get("out")):
        del options["out"]  # array += x makes a variable of the name
    if method == "__call__":
        if ufunc in _OF_VALUES:
            inputs = tuple(x.value if isinstance(x, Variable) else x for x in inputs)
            return _called(ufunc.__name__, _OF_VALUES, ufunc, inputs, options)
        return _called(ufunc.__name__, UFUNCS, ufunc, inputs, options)
    if method == "reduce":
        return _called(f"{ufunc.__name__}.reduce", _REDUCTIONS, ufunc, inputs, {"axis": 0, **_given(options)})
    return _called(f"{ufunc.__name__}.{method}", {}, ufunc, inputs, options)


def array_function(_: Variable, function: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
    """Apply a function of NumPy's, with a variable among its arguments.

    Raises
    ------
    TypeError
        For a function that no operation of a graph is, and for an option that the operation does not have.
    """
    return _called(function.__name__, FUNCTIONS, function, args, _given(kwargs))


def _called(name: str, known: dict[Any, Callable[..., Any]], function: Any, args: Any, options: dict[str, Any]) -> Any:
    if function not in known:
        raise TypeError(
            f"np.{name}: expected a function that a graph has, got another; take one of {_listed(known or UFUNCS)}, "
            f"or pass .value"
        )
    operation = known[function]
    try:
        return operation(*args, **options)
    except TypeError:
        _check_arguments(name, operation, args, options)
        raise


def _check_arguments(name: str, operation: Callable[..., Any], args: Any, options: dict[str, Any]) -> None:
    try:
        inspect.signature(operation).bind(*args, **options)
    except TypeError as error:
        raise TypeError(
            f"np.{name}: expected the arguments that the operation of a graph has, got others ({error}); "
            f"leave them out, or pass .value"
        ) from None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that say that there is none."""
    return {name: value for name, value in options.items() if value is not None or name not in ("dtype", "out")}


def _listed(known: dict[Any, Any]) -> str:
    return ", ".join(sorted(function.__name__ for function in known))


def _is_in_place(inputs: tuple[Any, ...], out: Any) -> bool:
    return out is not None and len(inputs) == 2 and len(out) == 1 and out[0] is inputs[0]
