"""The formula of an activation, found by running its NumPy twin on a symbol in the place of an array.

So a new activation needs no text here or in the targets. A twin may use the operators of numbers, `np.where` and the
functions of `FUNCTIONS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

FUNCTIONS = {
    "absolute",
    "add",
    "divide",
    "equal",
    "erf",
    "exp",
    "expm1",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "sqrt",
    "square",
    "subtract",
    "tanh",
    "where",
}


SIGNS = {
    "add": "+",
    "divide": "/",
    "equal": "==",
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "multiply": "*",
    "not_equal": "!=",
    "subtract": "-",
}
"""The functions that are operators, in Python as in C."""


class Expression(np.lib.mixins.NDArrayOperatorsMixin):
    """A function of operands, which are expressions or numbers; "x" alone is the input."""

    def __init__(self, function: str, *operands: Expression | float) -> None:
        self.function, self.operands = function, operands

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **_: Any) -> Expression:
        name = ufunc.__name__.removesuffix(" (vectorized)")  # of those that np.frompyfunc makes
        if name == "positive":
            return self
        return _applied(name if method == "__call__" else f"{name}.{method}", operands)

    def __array_function__(self, function: Any, _: Any, operands: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if function is np.clip and not options:
            x, least, most = operands
            return _applied("minimum", (_applied("maximum", (x, least)), most))
        return _applied(function.__name__, (*operands, *options.values()))

    def shared(self) -> list[Expression]:
        """What stands in it more than once, in the order in which it can be computed."""
        counts: Counter[int] = Counter()
        order: list[Expression] = []

        def visit(expression: Expression) -> None:
            counts[id(expression)] += 1
            if counts[id(expression)] == 1:
                for operand in _expressions(expression):
                    visit(operand)
                order.append(expression)

        visit(self)
        return [each for each in order if counts[id(each)] > 1 and each.function != "x"]


def traced(twin: Callable[..., Any], *settings: float) -> Expression:
    """The expression of twin(x, *settings).

    Raises
    ------
    TypeError
        If the twin uses a function that no target knows.
    """
    result = twin(Expression("x"), *settings)
    if not isinstance(result, Expression):
        raise TypeError(f"twin: expected a function of x, got {type(result).__name__}; use x in {twin.__name__}")
    return result


def written(
    expression: Expression, text: Callable[[str, Sequence[str]], str], number: Callable[[float], str]
) -> tuple[list[str], str]:
    """An expression in a language: values for the names t1, t2 and so on, and the result.

    Parameters
    ----------
    text : callable
        text(function, operands) is the call of a function of `FUNCTIONS`, in brackets where it needs them.
    number : callable
        number(value) is a constant.
    """
    names: dict[int, str] = {}

    def told(operand: Expression | float) -> str:
        if not isinstance(operand, Expression):
            return number(float(operand))
        if operand.function == "x":
            return "x"
        return names.get(id(operand)) or text(operand.function, [told(each) for each in operand.operands])

    values = []
    for count, each in enumerate(expression.shared(), 1):
        values.append(told(each))
        names[id(each)] = f"t{count}"
    return values, told(expression)


def bare(text: str) -> str:
    """A text without brackets around all of it."""
    if text[0] != "(":
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1]


def _applied(name: str, operands: Sequence[Any]) -> Expression:
    if name not in FUNCTIONS or not all(isinstance(each, Expression | Real) for each in operands):
        raise TypeError(
            f"activation: expected a twin of {', '.join(sorted(FUNCTIONS))}, got {name}; write it with these functions"
        )
    return Expression(name, *operands)


def _expressions(expression: Expression) -> Iterator[Expression]:
    yield from (each for each in expression.operands if isinstance(each, Expression))
