"""The structure of a graph: nodes that know their operation and operands, the walks over them, and the chain rule.

A walk starts at the result and goes back to the first nodes. It uses no recursion, and it visits each node once.
"""

from __future__ import annotations

import itertools
import operator
import zlib
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np

from fastbp.checks import Array, as_array, float_dtype
from fastbp.graph.elementwise import Value
from fastbp.graph.expressions import Expression, cannot_be_fused
from fastbp.graph.operations import Operation

_numbers = itertools.count()


class Node:
    """A value in a graph, and how it was computed. `fastbp.graph.Variable` adds the arithmetic."""

    __slots__ = ("arguments", "checksums", "grad", "held", "name", "number", "operands", "operation")

    # The number or array, or a symbol of the compiler.
    held: Value
    grad: Value
    name: str | None
    # None for a node that was made from a value.
    operation: Operation | None
    # The nodes it was computed from, None in the place of a constant, and the values they had at that time.
    operands: tuple[Node | None, ...]
    arguments: tuple[Value, ...]
    # Checksums of the arguments that other code can write to, by position.
    checksums: tuple[tuple[int, int], ...]
    # Later nodes have higher numbers.
    number: int

    def make(
        self,
        held: Value,
        operation: Operation | None = None,
        operands: tuple[Node | None, ...] = (),
        arguments: tuple[Value, ...] = (),
        name: str | None = None,
    ) -> None:
        """Set every attribute except the checksums, of which there are none at first."""
        self.held = held
        self.grad = None
        self.name = name
        self.operation = operation
        self.operands = operands
        self.arguments = arguments
        self.checksums = ()
        self.number = next(_numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, () for a number."""
        return shape_of(self.held)

    @property
    def pairs(self) -> list[tuple[Node | None, Value]]:
        """Each operand (None for a constant) with the value that it had."""
        return list(zip(self.operands, self.arguments, strict=True))


class _Cleared(Operation):
    """The operation of a node whose graph was cleared."""


CLEARED = _Cleared()


def behind(y: Node) -> tuple[list[Node], set[Node]]:
    """Return the computed nodes behind `y` and `y` itself, the latest first; and all nodes behind it.

    Raises
    ------
    RuntimeError
        If `y` was not computed from others, or its graph was cleared.
    """
    if y.operation is None:
        raise RuntimeError(
            f"{described(y)}: expected a variable that was computed from others, got one with no graph behind it; "
            f"call backward or draw on the result of a computation"
        )
    reached, computed, waiting = {y}, [y], [y]
    while waiting:
        node = waiting.pop()
        if node.operation is CLEARED:
            was_cleared(node, "backward")
        for operand in node.operands:
            if operand is not None and operand not in reached:
                reached.add(operand)
                if operand.operation is not None:
                    computed.append(operand)
                    waiting.append(operand)
    computed.sort(key=operator.attrgetter("number"), reverse=True)
    return computed, reached


def chain_rule(
    y: Node, order: list[Node], seed: Any = 1, record: dict[tuple[Node, int], Value] | None = None
) -> dict[Node, Value]:
    """Return the gradient of each node behind `y`; `order` is the first result of `behind(y)`.

    `record` also receives what each computed node passes back to each of its operands, by (node, position).
    """
    gradients: dict[Node, Value] = {y: _seed(y, seed)}
    for node in order:
        if node not in gradients:
            continue
        passed = _passed(node, gradients[node])
        for position, (operand, gradient) in enumerate(zip(node.operands, passed, strict=True)):
            if operand is None or gradient is None:
                continue
            if type(gradient) is not float:
                gradient = _in_shape_of(gradient, operand.held)  # noqa: PLW2901
            if record is not None:
                record[node, position] = gradient
            known = gradients.get(operand)
            gradients[operand] = gradient if known is None else known + gradient
    return gradients


def _passed(node: Node, dout: Value) -> Sequence[Value]:
    """Return what the operation of a node passes back to each operand, checked: it may be somebody's own."""
    operation, count = cast(Operation, node.operation), len(node.operands)
    try:
        passed: Any = operation.backward(dout, node.held, *node.arguments)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(node.held, Expression):
            cannot_be_fused(operation.name, error)
        raise
    if not isinstance(passed, tuple | list) or len(passed) != count:
        _wrong_gradients(operation, passed, count)
    return passed


def _wrong_gradients(operation: Operation, passed: Any, count: int) -> NoReturn:
    expected = "expected a tuple with a gradient" + (f" for each of {count} operands" if count > 1 else " in it")
    example = "(dx,), with the comma" if count == 1 else "one such as (dx, dy), with None where there is no gradient"
    is_sequence = isinstance(passed, tuple | list)
    got = f"one of {len(passed)}" if is_sequence else "no return" if passed is None else type(passed).__name__
    raise (ValueError if is_sequence else TypeError)(
        f"{type(operation).__name__}.backward: {expected}, got {got}; return {example}"
    )


def gradients_of(y: Node, seed: Any) -> tuple[set[Node], dict[Node, Value]]:
    """Return all nodes behind `y` and the gradients of those that have one, after a check of all values."""
    order, reached = behind(y)
    _check_unchanged(order)
    return reached, chain_rule(y, order, seed)


def _check_unchanged(order: list[Node]) -> None:
    """Raise `RuntimeError` if a value in the graph was replaced or written to since it was built."""
    sums: dict[int, int] = {}
    for node in order:
        for operand, argument in zip(node.operands, node.arguments, strict=True):
            if operand is not None and operand.held is not argument:
                _was_changed(described(operand), node)
        for position, checksum in node.checksums:
            argument = node.arguments[position]
            if id(argument) not in sums:
                sums[id(argument)] = _checksum(argument)
            if sums[id(argument)] != checksum:
                operand = node.operands[position]
                _was_changed("an array of constants" if operand is None else described(operand), node)


def checksums_of(node: Node) -> tuple[tuple[int, int], ...]:
    """Return the checksums of the arguments of `node` that other code can write to, by position."""
    return tuple(
        (position, _checksum(argument))
        for position, (operand, argument) in enumerate(zip(node.operands, node.arguments, strict=True))
        if type(argument) is np.ndarray and (operand is None or operand.operation is None)
    )


def described(node: Node) -> str:
    """Return what messages call a node."""
    if node.name:
        return f"variable {node.name!r}"
    if node.operation is not None:
        return f"the result of {node.operation.name}"
    return f"a variable of shape {node.shape}"


def was_cleared(node: Node, doing: str) -> NoReturn:
    """Raise the error for the use of a cleared node."""
    raise RuntimeError(
        f"{doing}: expected variables whose graph is there, got {described(node)}, which was cleared; "
        f"compute it again, or go on from its value with Variable(y.value)"
    )


def as_value(name: str, value: Any) -> Value:
    """Return a Python number as a Python float, and anything else as an array of floats or its one element."""
    if type(value) is float:
        return value
    if type(value) is int or type(value) is bool:
        return float(value)
    if isinstance(value, Node):
        raise TypeError(f"{name}: expected numbers, got a Variable; pass its .value")
    array = as_array(name, value)
    dtype = float_dtype(array.dtype)
    if array.dtype != dtype:
        array = array.astype(dtype)
    return array if array.ndim else array[()]


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape of a value, () for a number."""
    return getattr(value, "shape", ())


def _seed(y: Node, seed: Any) -> Value:
    if isinstance(y.held, Expression):
        return float(seed)
    seed = cast(Any, as_value("seed", seed))
    if shape_of(seed) == y.shape:
        return seed
    if shape_of(seed):
        raise ValueError(
            f"seed: expected one number or the shape {y.shape} of the result, got {seed.shape}; reshape it to that"
        )
    dtype = cast(Any, y.held).dtype if type(seed) is float else None
    return np.broadcast_to(np.asarray(seed, dtype), y.shape)


def _in_shape_of(gradient: Value, value: Value) -> Value:
    """Sum `gradient` over the axes along which `value` was broadcast."""
    shape, given = shape_of(value), shape_of(gradient)
    if shape == given:
        return gradient
    added = len(given) - len(shape)
    axes = *range(added), *(added + i for i, size in enumerate(shape) if size == 1 and given[added + i] != 1)
    summed = np.add.reduce(gradient, axis=axes).reshape(shape)[()]
    return float(summed) if type(value) is float else summed


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _was_changed(what: str, node: Node) -> NoReturn:
    raise RuntimeError(
        f"backward: expected the values that the graph was built with, got another value of {what} since "
        f"{described(node)} was computed; compute the result again, then call backward"
    )
