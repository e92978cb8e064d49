"""The functions of `fastbp.graph` on variables, numbers and arrays; each returns a variable.

The functions of the elementwise operations and of the layers come from the tables of these
(`operations.ELEMENTWISE`, `composites.LAYERS`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastbp.graph import operations, places
from fastbp.graph.composites import LAYERS, LayerNode
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.operations import ELEMENTWISE, Elementwise


def maximum(x: Any, y: Any) -> Variable:
    """The larger of x and y; where they are equal the gradient goes to y."""
    return apply(operations.MAXIMUM, x, y)


def minimum(x: Any, y: Any) -> Variable:
    """The smaller of x and y; where they are equal the gradient goes to y."""
    return apply(operations.MINIMUM, x, y)


def clip(x: Any, low: Any = None, high: Any = None) -> Variable:
    """The smaller of `high` and the larger of x and `low`; None is no bound."""
    return apply(operations.CLIP, x, -math.inf if low is None else low, math.inf if high is None else high)


def sum(  # noqa: A001 - NumPy's name
    x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """The sum of all elements, or along axes."""
    return apply(operations.Sum(axis, keepdims), x)


def mean(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
    """The mean of all elements, or along axes."""
    return apply(operations.Mean(axis, keepdims), x)


def max(  # noqa: A001
    x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """The largest element, or along axes; elements that are equal share the gradient."""
    return apply(operations.Max(axis, keepdims), x)


def min(  # noqa: A001
    x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """The smallest element, or along axes; elements that are equal share the gradient."""
    return apply(operations.Min(axis, keepdims), x)


def reshape(x: Any, shape: int | Sequence[int]) -> Variable:
    """The elements of x in their order (C) in another shape; one size may be -1."""
    return apply(places.Reshape(shape), x)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Variable:
    """x with its axes in another order, by default in the reverse order."""
    return apply(places.Transpose(axes), x)


def concatenate(operands: Sequence[Any], axis: int | None = 0) -> Variable:
    """The operands one after the other along an axis; with None all their elements in a row."""
    if axis is None:
        return apply(places.Concatenate(), *(reshape(operand, -1) for operand in operands))
    return apply(places.Concatenate(axis), *operands)


def _of_elements(kind: type[Elementwise]) -> Callable[..., Variable]:
    plain = kind()

    def function(x: Any, **settings: float) -> Variable:
        return apply(kind(**settings) if settings else plain, x)

    keyword = inspect.Parameter.KEYWORD_ONLY
    named = [inspect.Parameter(name, keyword, default=value) for name, value in kind.defaults.items()]
    x = inspect.Parameter("x", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    function.__signature__ = inspect.Signature([x, *named])  # type: ignore[attr-defined]
    return function


def _of_layer(kind: type[LayerNode]) -> Callable[..., Variable]:
    operands = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in kind.parameters]
    settings = inspect.signature(kind.layer).parameters if hasattr(kind, "layer") else {}
    signature = inspect.Signature([*operands, *settings.values()])

    def function(*given: Any, **options: Any) -> Variable:
        arguments = signature.bind(*given, **options).arguments
        named = [arguments.pop(name) for name in kind.parameters]
        return apply(kind(**arguments), *named)

    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _from_tables() -> dict[str, Callable[..., Variable]]:
    functions = {name: _of_elements(kind) for name, kind in ELEMENTWISE.items()}
    functions |= {name: _of_layer(kind) for name, kind in LAYERS.items()}
    for name, function in functions.items():
        function.__name__ = function.__qualname__ = name
        function.__doc__ = (ELEMENTWISE.get(name) or LAYERS[name]).__doc__
    return functions


if not TYPE_CHECKING:
    _functions = _from_tables()
    globals().update(_functions)
    __all__ = [  # noqa: PLE0604 - strings, too
        "clip",
        "concatenate",
        "max",
        "maximum",
        "mean",
        "min",
        "minimum",
        "reshape",
        "sum",
        "transpose",
        *_functions,
    ]
else:  # a function that is added to a table needs no declaration: its type is Any
    abs: Callable[..., Variable]  # noqa: A001
    affine: Callable[..., Variable]
    cos: Callable[..., Variable]
    cross_entropy: Callable[..., Variable]
    exp: Callable[..., Variable]
    log: Callable[..., Variable]
    relu: Callable[..., Variable]
    sin: Callable[..., Variable]
    sigmoid: Callable[..., Variable]
    softmax: Callable[..., Variable]
    softmax_with_loss: Callable[..., Variable]
    softplus: Callable[..., Variable]
    sqrt: Callable[..., Variable]
    tanh: Callable[..., Variable]

    def __getattr__(name: str) -> Any: ...
