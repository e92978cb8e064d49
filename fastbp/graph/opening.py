"""Opening a graph: composite nodes replaced by what is inside them, and arrays by single numbers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from fastbp.graph.composites import LayerNode
from fastbp.graph.elementwise import Value
from fastbp.graph.nodes import Variable, apply
from fastbp.graph.operations import Extreme, MatMul, Max, Mean, Min, Operation, Reduction, Sum, Total
from fastbp.graph.places import Places
from fastbp.graph.structure import Node, behind


def opened(y: Variable, *, elements: bool = False) -> Variable:
    """Return the graph behind `y` with every composite node replaced by the operations inside it, one level.

    `y` and its graph do not change, and the new graph has the same first variables. Opening the result again opens
    the next level: softmax_with_loss becomes softmax and cross_entropy, and these become exp, sum, division, log and
    product.

    Parameters
    ----------
    y : Variable
        A computed variable.
    elements : bool
        Open all levels, and replace arrays by single numbers. A variable "a" of three elements becomes a1, a2, a3,
        and a sum over an axis becomes a + with an arrow from each. `y` must be a single number, the arrays small.

    Raises
    ------
    RuntimeError
        If `y` was not computed from others, or its graph was cleared.
    ValueError
        With `elements`, if the arrays have more than 1,000 elements or `y` is not a single number.

    Examples
    --------
    >>> loss = softmax_with_loss(Variable([0.3, 2.9, 4.0], "a"), Variable([0, 0, 1], "t"))
    >>> drawing = opened(opened(loss)).draw("inside.svg")
    """
    if not elements:
        return _rebuilt(y)
    while any(cast(Operation, node.operation).inside for node in behind(y)[0]):
        y = _rebuilt(y)
    return _elements(y)


def _rebuilt(y: Variable) -> Variable:
    copies: dict[Node, Variable] = {}
    for old in reversed(behind(y)[0]):
        operation = cast(Operation, old.operation)
        operands = [argument if operand is None else copies.get(operand, operand) for operand, argument in old.pairs]
        new = operation.inside(*operands) if operation.inside else apply(operation, *operands)
        new.name = old.name
        copies[old] = new
    return copies[y]


def _elements(y: Variable) -> Variable:
    order, reached = behind(y)
    largest = max(int(np.prod(variable.shape)) for variable in reached)
    if y.shape or largest > 1000:
        raise ValueError(
            f"elements: expected a single number computed from small arrays, got shape {y.shape} and up to {largest} "
            f"elements; open it with elements=False"
        )
    first = sorted((variable for variable in reached if variable.operation is None), key=lambda v: v.number)
    split = {variable: _split(variable) for variable in first}
    for old in reversed(order):
        operation = cast(Operation, old.operation)
        operands = [_constants(argument) if operand is None else split[operand] for operand, argument in old.pairs]
        split[old] = _by_element(operation, operands)
    result = split[y].reshape(-1)[0]
    result.name = y.name
    return cast(Variable, result)


def _split(variable: Node) -> Any:
    """Return an array of variables, one for each element."""
    split = np.empty(variable.shape, object)
    for number, index in enumerate(np.ndindex(variable.shape), start=1):
        if not variable.shape:
            split[index] = variable
            continue
        label = str(number) if len(variable.shape) == 1 else "".join(str(i + 1) for i in index)
        split[index] = Variable(float(variable.held[index]), variable.name and variable.name + label)
    return split


def _constants(argument: Value) -> Any:
    constants = np.empty(np.shape(argument), object)
    for index in np.ndindex(constants.shape):
        constants[index] = float(argument if isinstance(argument, float) else argument[index])
    return constants


def _by_element(operation: Operation, operands: list[Any]) -> Any:
    """Apply `operation` to arrays of variables and numbers, with one node for each element of the result."""
    if isinstance(operation, Places):
        return _as_objects(operation.arranged(*operands))
    if isinstance(operation, Reduction):
        return _totals(operation, operands[0])
    if isinstance(operation, MatMul):
        return _products(*operands)
    if isinstance(operation, LayerNode):
        raise ValueError(
            f"elements: expected layers that can be opened, got {operation.name}; open the graph with elements=False"
        )
    grid = np.broadcast(*operands) if len(operands) > 1 else np.broadcast(operands[0], operands[0])
    arrays = [np.broadcast_to(operand, grid.shape) for operand in operands]
    result = np.empty(grid.shape, object)
    for index in np.ndindex(grid.shape):
        result[index] = apply(operation, *(array[index] for array in arrays))
    return result


def _as_objects(elements: Any) -> Any:
    """Return a single element as an array, which NumPy would ask for its numbers."""
    if isinstance(elements, np.ndarray):
        return elements
    array = np.empty((), object)
    array[()] = elements
    return array


def _totals(operation: Reduction, x: Any) -> Any:
    axis = range(x.ndim) if operation.axis is None else np.atleast_1d(operation.axis) % max(x.ndim, 1)
    kept = [i for i in range(x.ndim) if i not in list(axis)]
    moved = np.moveaxis(x, kept, range(len(kept)))
    result = np.empty(moved.shape[: len(kept)], object)
    for index in np.ndindex(result.shape):
        terms = list(moved[index].reshape(-1)) if isinstance(moved[index], np.ndarray) else [moved[index]]
        total = apply(Extreme(operation) if isinstance(operation, Max | Min) else Total(), *terms)
        result[index] = total / float(len(terms)) if isinstance(operation, Mean) else total
    if operation.keepdims:
        result = result.reshape([size if i in kept else 1 for i, size in enumerate(x.shape)])
    return result


def _products(x: Any, y: Any) -> Any:
    """Return x @ y as products of elements and their totals."""
    if y.ndim == 1:
        return _totals(Sum(-1), x * y)
    return _totals(Sum(-2), x[..., None] * (y if x.ndim == 1 else y[..., None, :, :]))
