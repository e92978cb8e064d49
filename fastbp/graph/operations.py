"""The operations of a graph: the forward of each beside its local derivative.

An operation knows values, but not the graph. `forward` gets the values of the operands. `backward` gets the gradient
`dout` of the result, the result `out` and the operands, and returns dout times the local derivative for each operand,
or None where there is none. Where an operand was broadcast, the graph sums its gradient to the operand's shape.

=================  ==============================  =================================================
operation          forward                         gradients
=================  ==============================  =================================================
`Add`              x + y                           dout; dout
`Subtract`         x − y                           dout; −dout
`Negate`           −x                              −dout
`Multiply`         x·y                             dout·y; dout·x
`Divide`           x/y                             dout/y; −dout/y·out
`Power`            xⁿ                              dout·n·xⁿ⁻¹
`VariablePower`    xʸ                              dout·y·xʸ⁻¹; dout·out·log(x)
`MatMul`           x @ y                           dout @ yᵀ; xᵀ @ dout
`Exp`              exp(x)                          dout·out
`Log`              log(x)                          dout/x
`Sqrt`             √x                              dout/(2·out)
`Abs`              abs(x)                          dout where x > 0, −dout where x < 0, 0 where x is 0
`Sin`              sin(x)                          dout·cos(x)
`Cos`              cos(x)                          −dout·sin(x)
`Maximum`          the larger of x and y           dout where x > y, else 0; dout where not, else 0
`Minimum`          the smaller of x and y          dout where x < y, else 0; dout where not, else 0
`Clip`             x from `low` to `high`          dout to x within, to the bound beyond it
`Sum`              the sum, or sums along axes     dout for each element
`Mean`             the mean, or along axes         dout/count for each element
`Max`, `Min`       the extreme, or along axes      dout/count for each of the count elements that are it
`Index`            x[key]                          dout at the elements taken, 0 elsewhere
`Reshape`          x in another shape              dout in the shape of x
`Transpose`        x with its axes in an order     dout with its axes in the first order
`Concatenate`      the operands along an axis      for each its part of dout
`Affine`           x·W + b                         dout·Wᵀ; xᵀ·dout; dout summed over the batch
`Softmax`          exp(x)/sum(exp(x))              out·(dout − sum(dout·out))
`CrossEntropy`     mean of −sum(t·log(y))          −t/y/N·dout
`SoftmaxWithLoss`  the same of softmax(x)          (y − t)/N·dout
=================  ==============================  =================================================

The last four are the layers, in `fastbp.graph.composites`; the four before them are in `fastbp.graph.places`. The
activations of `fastbp.layers`, as tanh and ReLU, are operations, too, by their records. A new elementwise operation of
one operand is an entry of `elementwise`.
Any other operation is a class, and `apply`::

    class Cube(Operation):
        '''x³.'''

        symbol = "x³"

        def forward(self, x):
            return x * x * x

        def backward(self, dout, out, x):
            return (dout * (3 * x * x),)

    y = apply(Cube(), x)

If it consists of operators and the functions of `fastbp.graph.elementwise`, it can be compiled, too.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastbp.graph.elementwise import (
    ACTIVATION_FUNCTIONS,
    Value,
    absolute,
    cos,
    divide,
    exp,
    log,
    maximum,
    minimum,
    power,
    sin,
    sqrt,
    where,
)
from fastbp.graph.expressions import INVERSE_SIZE, REDUCTIONS, CompileError, Expression, refuse_symbols
from fastbp.ops.contract import ACTIVATIONS, Activation

Gradients = tuple[Value, ...]
_ARRAYS = np.ndarray, np.generic


class Operation:
    """A function of one or more operands and its local derivatives."""

    # The text in the node of a drawing.
    symbol: str = "?"
    # A character for the arrow of each operand in a drawing, where it matters which is which.
    marks: ClassVar[str] = ""
    # The names of constant operands in a drawing.
    operand_names: ClassVar[tuple[str, ...]] = ("x", "y")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.symbol})"

    @property
    def name(self) -> str:
        """The operation's name in messages."""
        return type(self).__name__.lower()

    def mark(self, position: int) -> str:
        """Return the mark of an operand's arrow, "" where the operands need none."""
        return self.marks[position] if self.marks else ""

    def forward(self, *operands: Value) -> Value:
        """Return the result."""
        raise NotImplementedError

    def backward(self, dout: Value, out: Value, *operands: Value) -> Gradients:
        """Return the gradient for each operand."""
        raise NotImplementedError

    # `inside(*operands)` returns the same result from other operations, for `fastbp.graph.opened`.
    inside: Callable[..., Any] | None = None


class Elementwise(Operation):
    """A function of one number, applied to each element, with its settings. `elementwise` makes the classes."""

    name = "elementwise"
    value: ClassVar[Callable[..., Value]]
    gradient: ClassVar[Callable[..., Value]]
    defaults: ClassVar[dict[str, float]] = {}

    def __init__(self, **settings: float) -> None:
        unknown = settings.keys() - self.defaults.keys()
        if unknown:
            expected = f"the settings {', '.join(self.defaults)}" if self.defaults else "no settings"
            raise TypeError(f"{self.name}: expected {expected}, got {', '.join(sorted(unknown))}; leave it out")
        self._settings = tuple(float(settings.get(name, default)) for name, default in self.defaults.items())

    def forward(self, x: Value) -> Value:
        """Return the value of each element."""
        return self.value(x, *self._settings)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        """Return the gradient of each element."""
        return (self.gradient(dout, x, out, *self._settings),)


# Every elementwise operation of one operand, by the name of its function in `fastbp.graph`.
ELEMENTWISE: dict[str, type[Elementwise]] = {}


def elementwise(
    kind: str,
    doc: str,
    value: Callable[..., Value],
    gradient: Callable[..., Value],
    *,
    name: str | None = None,
    symbol: str | None = None,
    settings: dict[str, float] | None = None,
) -> type[Elementwise]:
    """Make the class of an elementwise operation and enter it in the table.

    The entry is all that an operation needs. Its node, its compiled form, its drawing, and its function and method of
    variables come from it.

    Parameters
    ----------
    kind, doc : str
        The name of the class; the docstring of the class and of the function.
    value : callable
        value(x, *settings): the result y.
    gradient : callable
        gradient(dout, x, y, *settings): the gradient of x. `times(slope)` makes it from slope(x, y, *settings).
    name : str, optional
        The name of the function, by default `kind` in small letters.
    symbol : str, optional
        The text in the node of a drawing, by default the name.
    settings : dict, optional
        The settings with their defaults.

    Notes
    -----
    `value` and `gradient` run on Python numbers, on arrays and on symbols of the compiler. They consist of operators,
    constants and functions of `fastbp.graph.elementwise`, with `where` instead of branches.
    """
    name = name or kind.lower()
    texts = {"__doc__": doc, "__module__": __name__, "name": name, "symbol": symbol or name}
    formulas = {"value": staticmethod(value), "gradient": staticmethod(gradient), "defaults": settings or {}}
    ELEMENTWISE[name] = type(kind, (Elementwise,), texts | formulas)
    return ELEMENTWISE[name]


def times(slope: Callable[..., Value]) -> Callable[..., Value]:
    """Return gradient(dout, x, y, *settings) = dout·slope(x, y, *settings)."""

    def gradient(dout: Value, x: Value, y: Value, *settings: float) -> Value:
        factor = slope(x, y, *settings)
        if isinstance(factor, _ARRAYS) and factor.dtype is not x.dtype:
            factor = factor.astype(x.dtype)  # where(condition, 1.0, 0.5) is float64
        return dout * factor

    return gradient


Exp = elementwise("Exp", "exp(x).", exp, times(lambda _, y: y))
Log = elementwise(
    "Log", "log(x), the natural logarithm; -inf at 0, NaN below.", log, lambda dout, x, _: divide(dout, x)
)
Sqrt = elementwise("Sqrt", "√x, NaN below 0.", sqrt, lambda dout, _, y: divide(dout, 2.0 * y), symbol="√")
Abs = elementwise(
    "Abs",
    "|x|; the gradient at 0 is 0, at NaN it is NaN.",
    absolute,
    lambda dout, x, _: where(x > 0, dout, where(x < 0, -dout, where(x == 0, 0.0, x))),
)
Sin = elementwise("Sin", "sin(x), NaN at inf.", sin, times(lambda x, _: cos(x)))
Cos = elementwise("Cos", "cos(x), NaN at inf.", cos, times(lambda x, _: -sin(x)))


def _of_activation(kind: type, function: Activation) -> None:
    """Make the operation of an activation of `fastbp.ops`."""
    defaults = inspect.signature(kind).parameters
    doc = (kind.__doc__ or "").strip().split("\n")[0]
    settings = {name: float(defaults[name].default) for name in function.settings}
    elementwise(
        kind.__name__, doc, *ACTIVATION_FUNCTIONS[function.name], name=function.name,
        symbol=function.symbol or kind.__name__, settings=settings,
    )  # fmt: skip


for record in ACTIVATIONS.values():
    if record.activation is not None and record.activation.name in ACTIVATION_FUNCTIONS:
        _of_activation(record.layer, record.activation)


class Add(Operation):
    """x + y."""

    symbol = "+"

    def forward(self, x: Value, y: Value) -> Value:
        return x + y

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return dout, dout


class Subtract(Operation):
    """x − y."""

    symbol = "−"
    marks = "+−"

    def forward(self, x: Value, y: Value) -> Value:
        return x - y

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return dout, -dout


class Negate(Operation):
    """−x."""

    symbol = "×(−1)"

    def forward(self, x: Value) -> Value:
        return -x

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        return (-dout,)


class Multiply(Operation):
    """x·y."""

    symbol = "×"

    def forward(self, x: Value, y: Value) -> Value:
        return x * y

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return dout * y, dout * x


class Divide(Operation):
    """x/y."""

    symbol = "/"
    marks = "×÷"

    def forward(self, x: Value, y: Value) -> Value:
        return divide(x, y)

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        dx = divide(dout, y)
        return dx, -(dx * out)


class Power(Operation):
    """xⁿ with a number n."""

    symbol = "**"

    def forward(self, x: Value, n: Value) -> Value:
        return power(x, n)

    def backward(self, dout: Value, out: Value, x: Value, n: Value) -> Gradients:
        return (dout if n == 1 else dout * (n * power(x, n - 1.0))), None


class VariablePower(Operation):
    """xʸ with a variable y; the derivative by y counts log(x) as 0 at x = 0."""

    symbol = "**"
    marks = "12"
    name = "power"

    def forward(self, x: Value, y: Value) -> Value:
        return power(x, y)

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return dout * (y * power(x, y - 1.0)), dout * (out * log(where(x == 0, 1.0, x)))


class MatMul(Operation):
    """x @ y, the product of matrices or vectors."""

    symbol = "dot"

    def forward(self, x: Value, y: Value) -> Value:
        refuse_symbols(self.name, (x, y))
        return x @ y

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        rows, columns = np.atleast_2d(x), (y[:, None] if y.ndim == 1 else y)
        shape = (*np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2]), rows.shape[-2], columns.shape[-1])
        dout = np.reshape(dout, shape)
        dx, dy = dout @ columns.swapaxes(-1, -2), rows.swapaxes(-1, -2) @ dout
        return (dx.sum(axis=tuple(range(dx.ndim - 1))) if x.ndim == 1 else dx), (
            dy.sum(axis=(*range(dy.ndim - 2), -1)) if y.ndim == 1 else dy
        )


class Maximum(Operation):
    """The larger of x and y. Where they are equal the gradient goes to y, so maximum(x, 0) is ReLU."""

    symbol = "max"

    def forward(self, x: Value, y: Value) -> Value:
        return maximum(x, y)

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return where(x > y, dout, 0.0), where(x > y, 0.0, dout)


class Minimum(Operation):
    """The smaller of x and y. Where they are equal the gradient goes to y."""

    symbol = "min"

    def forward(self, x: Value, y: Value) -> Value:
        return minimum(x, y)

    def backward(self, dout: Value, out: Value, x: Value, y: Value) -> Gradients:
        return where(x < y, dout, 0.0), where(x < y, 0.0, dout)


class Clip(Operation):
    """The smaller of `high` and the larger of x and `low`. x has the gradient from `low` to `high`, both included."""

    symbol = "clip"
    operand_names = ("x", "low", "high")

    def forward(self, x: Value, low: Value, high: Value) -> Value:
        return minimum(maximum(x, low), high)

    def backward(self, dout: Value, out: Value, x: Value, low: Value, high: Value) -> Gradients:
        is_above = maximum(x, low) > high
        others = where(is_above, 0.0, dout)
        return where(x < low, 0.0, others), where(x < low, others, 0.0), where(is_above, dout, 0.0)


class Reduction(Operation):
    """A reduction of all elements, or along axes."""

    reduce: ClassVar[Callable[..., Value]]

    def __init__(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Value) -> Value:
        if not isinstance(x, Expression):
            return x if type(x) is float else self.reduce(x, axis=self.axis, keepdims=self.keepdims)
        if self.axis is None and self.name in REDUCTIONS:
            return x.function(self.name)
        along = "" if self.axis is None else f" along axis {self.axis}"
        raise CompileError(
            f"{self.name}{along}: expected operations on single elements, got one that cannot be "
            f"fused; compile what comes before it, or sum everything"
        )

    def _spread(self, dout: Value, x: Value) -> Value:
        """Return `dout` in the shape of x."""
        if type(x) is float or isinstance(x, Expression):
            return dout
        if self.axis is not None and not self.keepdims:
            dout = np.expand_dims(dout, self.axis)
        return np.broadcast_to(np.asarray(dout, x.dtype) if type(dout) is float else dout, x.shape)


class Sum(Reduction):
    """The sum of all elements, or along axes."""

    symbol = "Σ"
    reduce = staticmethod(np.sum)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        return (self._spread(dout, x),)


class Mean(Reduction):
    """The mean of all elements, or along axes."""

    symbol = "mean"
    reduce = staticmethod(np.mean)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        if isinstance(x, Expression):
            return (dout * x.trace.symbol(INVERSE_SIZE),)
        axes = range(np.ndim(x)) if self.axis is None else np.atleast_1d(self.axis)
        return (self._spread(dout / math.prod(np.shape(x)[axis] for axis in axes), x),)


class _Extreme(Reduction):
    """The largest or the smallest element, or along axes; elements that are equal share the gradient."""

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        if type(x) is float:
            return (dout,)
        is_it = x == self._spread(out, x)
        count = np.sum(is_it, axis=self.axis, keepdims=self.keepdims, dtype=x.dtype.type)
        return (np.where(is_it, self._spread(dout / np.maximum(count, 1), x), 0)[()],)  # NaN equals nothing


class Max(_Extreme):
    """The largest element, or along axes; elements that are equal share the gradient."""

    symbol = "max"
    reduce = staticmethod(np.max)
    of_two = staticmethod(maximum)


class Min(_Extreme):
    """The smallest element, or along axes; elements that are equal share the gradient."""

    symbol = "min"
    reduce = staticmethod(np.min)
    of_two = staticmethod(minimum)


class Total(Operation):
    """The sum of any number of operands, which replaces `Sum` in a graph of single numbers."""

    symbol = "+"

    def forward(self, *operands: Value) -> Value:
        total = operands[0]
        for operand in operands[1:]:
            total = total + operand
        return total

    def backward(self, dout: Value, out: Value, *operands: Value) -> Gradients:
        return (dout,) * len(operands)


class Extreme(Operation):
    """The extreme of any number of operands, which replaces `Max` or `Min` in a graph of single numbers."""

    def __init__(self, of: Max | Min) -> None:
        self.symbol, self._of_two = of.symbol, of.of_two

    def forward(self, *operands: Value) -> Value:
        return functools.reduce(self._of_two, operands)

    def backward(self, dout: Value, out: Value, *operands: Value) -> Gradients:
        count = sum(operand == out for operand in operands)
        return tuple(dout / count if operand == out else 0.0 * dout for operand in operands)


# One object is enough for an operation without settings.
ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE = Add(), Subtract(), Multiply(), Divide(), Negate()
POWER, VARIABLE_POWER, MATMUL = Power(), VariablePower(), MatMul()
MAXIMUM, MINIMUM, CLIP = Maximum(), Minimum(), Clip()
ABS, EXP, LOG = Abs(), Exp(), Log()
