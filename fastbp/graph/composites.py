"""The layers as nodes of a graph, and what is inside them.

A composite operation computes with its layer, exactly and at the layer's speed. `opened` replaces it by the
operations that it is made of; `opened(y, elements=True)` goes on down to single numbers, where the gradient of the
softmax with the loss can be followed to (y1 − t1, y2 − t2, y3 − t3) (section 5.6, appendix A).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from fastbp import layers
from fastbp.graph import functions
from fastbp.graph.elementwise import Value
from fastbp.graph.nodes import Variable, apply, behind
from fastbp.graph.operations import MATMUL, Gradients, Index, MatMul, Mean, Operation, Sum
from fastbp.validation import target


class _Composite(Operation):
    """An operation computed by a layer, that can be opened."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def inside(self, *operands: Any) -> Any:
        """The same result from the operations that this one is made of."""
        raise NotImplementedError


class Affine(_Composite):
    """x·W + b, by the layer `Affine`."""

    symbol = "Affine"
    operand_names = ("x", "W", "b")

    def __init__(self) -> None:
        super().__init__(None)

    def forward(self, x: Value, W: Value, b: Value) -> Value:
        self._layer = layers.Affine(W, b)
        return self._layer.forward(x)

    def backward(self, dout: Value, out: Value, x: Value, W: Value, b: Value) -> Gradients:
        dx = self._layer.backward(dout)
        return dx, self._layer.dW, self._layer.db

    def inside(self, x: Any, W: Any, b: Any) -> Any:
        return apply(MATMUL, x, W) + b


class Softmax(_Composite):
    """exp(x)/sum(exp(x)) for each row, by the layer `Softmax`."""

    symbol = "Softmax"
    operand_names = ("a",)

    def forward(self, x: Value) -> Value:
        return self._layer.forward(x)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        return (self._layer.backward(dout),)

    def inside(self, x: Any) -> Any:
        e = functions.exp(x)
        return e / e.sum(axis=-1, keepdims=True)


class CrossEntropy(_Composite):
    """The mean over the batch of −sum(t·log(y)), by the layer `CrossEntropyError`."""

    symbol = "Cross Entropy"
    operand_names = ("y", "t")

    @property
    def name(self) -> str:
        """The operation's name in messages."""
        return "cross_entropy"

    def forward(self, y: Value, t: Value) -> Value:
        return self._layer.forward(y, _labels(t, y))

    def backward(self, dout: Value, out: Value, y: Value, t: Value) -> Gradients:
        return self._layer.backward(dout), None

    def inside(self, y: Any, t: Any) -> Any:
        loss = -(_distribution(t, y) * functions.log(y)).sum()
        return loss if len(_shape(y)) == 1 else loss / float(_shape(y)[0])


class SoftmaxWithLoss(_Composite):
    """Softmax and cross entropy in one, exact, by the layer `SoftmaxWithLoss`."""

    symbol = "Softmax with Loss"
    operand_names = ("a", "t")

    @property
    def name(self) -> str:
        """The operation's name in messages."""
        return "softmax_with_loss"

    def forward(self, x: Value, t: Value) -> Value:
        return self._layer.forward(x, _labels(t, x))

    def backward(self, dout: Value, out: Value, x: Value, t: Value) -> Gradients:
        return self._layer.backward(dout), None

    def inside(self, x: Any, t: Any) -> Any:
        return cross_entropy(softmax(x), t)


class Total(Operation):
    """The sum of any number of operands: what a sum over an axis is to single numbers."""

    symbol = "+"

    def forward(self, *operands: Value) -> Value:
        total = operands[0]
        for operand in operands[1:]:
            total = total + operand
        return total

    def backward(self, dout: Value, out: Value, *operands: Value) -> Gradients:
        return (dout,) * len(operands)


def affine(x: Any, W: Any, b: Any) -> Variable:
    """x·W + b as one node, for one sample (D,) or a batch (N, D); W is (D, M), b (M,) (section 5.6).

    Raises as the layer `Affine` does.
    """
    return apply(Affine(), x, W, b)


def softmax(x: Any) -> Variable:
    """exp(x)/sum(exp(x)) over the last axis as one node, for one sample (C,) or a batch (N, C)."""
    return apply(Softmax(layers.Softmax()), x)


def cross_entropy(y: Any, t: Any) -> Variable:
    """The mean over the batch of −sum(t·log(y)) as one node.

    y is probabilities, (C,) or (N, C); t is integer labels or distributions, and gets no gradient.
    """
    return apply(CrossEntropy(layers.CrossEntropyError()), y, t)


def softmax_with_loss(x: Any, t: Any) -> Variable:
    """The cross entropy of softmax(x) as one node, by the exact log-sum-exp.

    x is logits, (C,) or (N, C); t is integer labels or distributions, and gets no gradient.
    """
    return apply(SoftmaxWithLoss(layers.SoftmaxWithLoss()), x, t)


def opened(y: Variable, *, elements: bool = False) -> Variable:
    """Return the graph behind `y` with every composite node replaced by what is inside it, one level.

    `y` and its graph stay as they are; the new graph has the same first variables. Opening the result again
    opens what was inside: softmax_with_loss becomes softmax and cross_entropy, and these exp, sum, division, log
    and product.

    Parameters
    ----------
    y : Variable
        A computed variable.
    elements : bool
        Open everything and go down to single numbers: a variable "a" of three elements becomes a1, a2, a3, a sum
        over an axis one + with an arrow from each. `y` must be a single number, the arrays small.

    Raises
    ------
    RuntimeError
        If `y` was not computed from others, or its graph was cleared.
    ValueError
        With `elements`, if the arrays have more than 1,000 elements or `y` is not a single number.

    Examples
    --------
    >>> loss = softmax_with_loss(Variable([0.3, 2.9, 4.0], "a"), Variable([0, 0, 1], "t"))
    >>> opened(opened(loss)).draw("inside.svg")
    """
    if elements:
        return _elements(_opened_fully(y))
    return _rebuilt(y)


def is_composite(y: Variable) -> bool:
    """Whether `y` was computed by a node that can be opened."""
    return isinstance(y._operation, _Composite)


def _rebuilt(y: Variable) -> Variable:
    copies: dict[Variable, Variable] = {}
    for old in reversed(behind(y)[0]):
        operation = cast(Operation, old._operation)
        operands = [
            argument if operand is None else copies.get(operand, operand)
            for operand, argument in zip(old._operands, old._arguments, strict=True)
        ]
        new = operation.inside(*operands) if isinstance(operation, _Composite) else apply(operation, *operands)
        new.name = old.name
        copies[old] = new
    return copies[y]


def _opened_fully(y: Variable) -> Variable:
    while any(is_composite(variable) for variable in behind(y)[0]):
        y = _rebuilt(y)
    return y


def _elements(y: Variable) -> Variable:
    order, reached = behind(y)
    largest = max(int(np.prod(variable.shape)) for variable in reached)
    if y.shape or largest > 1000:
        raise ValueError(
            f"elements: expected a single number computed from small arrays, got shape {y.shape} and up to {largest} "
            f"elements; open it with elements=False"
        )
    first = sorted((variable for variable in reached if variable._operation is None), key=lambda v: v._number)
    split = {variable: _split(variable) for variable in first}
    for old in reversed(order):
        operation = cast(Operation, old._operation)
        operands = [
            _constants(argument) if operand is None else split[operand]
            for operand, argument in zip(old._operands, old._arguments, strict=True)
        ]
        split[old] = _by_element(operation, operands)
    result = split[y].reshape(-1)[0]
    result.name = y.name
    return cast(Variable, result)


def _split(variable: Variable) -> Any:
    """An array of variables, one for each element."""
    split = np.empty(variable.shape, object)
    for number, index in enumerate(np.ndindex(variable.shape), start=1):
        if not variable.shape:
            split[index] = variable
            continue
        label = str(number) if len(variable.shape) == 1 else "".join(str(i + 1) for i in index)
        split[index] = Variable(float(variable._value[index]), variable.name and variable.name + label)
    return split


def _constants(argument: Value) -> Any:
    constants = np.empty(np.shape(argument), object)
    for index in np.ndindex(constants.shape):
        constants[index] = float(argument if isinstance(argument, float) else argument[index])
    return constants


def _by_element(operation: Operation, operands: list[Any]) -> Any:
    """`operation` on arrays of variables and numbers, one node for each element of the result."""
    if isinstance(operation, Index):
        return np.asarray(operands[0][operation.key], object)
    if isinstance(operation, Sum | Mean):
        return _totals(operation, operands[0])
    if isinstance(operation, MatMul):
        return _products(*operands)
    grid = np.broadcast(*operands) if len(operands) > 1 else np.broadcast(operands[0], operands[0])
    arrays = [np.broadcast_to(operand, grid.shape) for operand in operands]
    result = np.empty(grid.shape, object)
    for index in np.ndindex(grid.shape):
        result[index] = apply(operation, *(array[index] for array in arrays))
    return result


def _totals(operation: Sum | Mean, x: Any) -> Any:
    axis = range(x.ndim) if operation.axis is None else np.atleast_1d(operation.axis) % max(x.ndim, 1)
    kept = [i for i in range(x.ndim) if i not in list(axis)]
    moved = np.moveaxis(x, kept, range(len(kept)))
    result = np.empty(moved.shape[: len(kept)], object)
    for index in np.ndindex(result.shape):
        terms = list(moved[index].reshape(-1)) if isinstance(moved[index], np.ndarray) else [moved[index]]
        total = apply(Total(), *terms)
        result[index] = total / float(len(terms)) if isinstance(operation, Mean) else total
    if operation.keepdims:
        result = result.reshape([size if i in kept else 1 for i, size in enumerate(x.shape)])
    return result


def _products(x: Any, y: Any) -> Any:
    """x @ y as products of elements and their totals."""
    rows, columns = np.atleast_2d(x), y[:, None] if y.ndim == 1 else y
    if rows.ndim > 2 or columns.ndim > 2:
        raise ValueError(
            f"elements: expected products of vectors and matrices, got {np.ndim(x)} and {np.ndim(y)} dimensions; "
            f"open it with elements=False"
        )
    result = np.empty((rows.shape[0], columns.shape[1]), object)
    for i, j in np.ndindex(result.shape):
        result[i, j] = apply(Total(), *(a * b for a, b in zip(rows[i], columns[:, j], strict=True)))
    return result.reshape(x.shape[:-1] + y.shape[1:])


def _distribution(t: Any, y: Any) -> Any:
    """`t` in the shape of y: labels as one-hot rows."""
    given = t._value if isinstance(t, Variable) else t
    shape = _shape(y)
    if np.shape(given) == shape:
        return t
    labels, _ = target(_labels(given, y), shape, np.dtype(float))
    return np.eye(shape[-1])[labels].reshape(shape)


def _labels(t: Value, y: Any) -> Any:
    """Labels as the integers that a layer takes, where a graph keeps floats; a distribution as it is."""
    array = np.asarray(t)
    if array.shape == _shape(y):
        return t
    with np.errstate(invalid="ignore"):  # of NaN
        integers = array.astype(np.intp)
    return integers if np.array_equal(integers, array) else t


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, Variable) else np.shape(value)
