"""The functions of `fastbp.graph` on variables, numbers and arrays; each returns a variable."""

from __future__ import annotations

from typing import Any

from fastbp.graph import operations
from fastbp.graph.nodes import Variable, apply


def exp(x: Any) -> Variable:
    """exp(x)."""
    return apply(operations.EXP, x)


def log(x: Any) -> Variable:
    """log(x), the natural logarithm; -inf at 0, NaN below."""
    return apply(operations.LOG, x)


def sqrt(x: Any) -> Variable:
    """√x, NaN below 0."""
    return apply(operations.SQRT, x)


def tanh(x: Any) -> Variable:
    """tanh(x)."""
    return apply(operations.TANH, x)


def sigmoid(x: Any) -> Variable:
    """1/(1 + exp(-x)), without overflow (section 5.5.2)."""
    return apply(operations.SIGMOID, x)


def relu(x: Any) -> Variable:
    """0 where x <= 0, else x; the gradient at 0 is 0 (section 5.5.1)."""
    return apply(operations.RELU, x)


def softplus(x: Any) -> Variable:
    """log(1 + exp(x)), exact in both tails."""
    return apply(operations.SOFTPLUS, x)


def maximum(x: Any, y: Any) -> Variable:
    """The larger of x and y; where they are equal the gradient goes to y."""
    return apply(operations.MAXIMUM, x, y)


def sum(  # noqa: A001 - NumPy's name
    x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """The sum of all elements, or along axes."""
    return apply(operations.Sum(axis, keepdims), x)


def mean(x: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
    """The mean of all elements, or along axes."""
    return apply(operations.Mean(axis, keepdims), x)
