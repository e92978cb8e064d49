"""The operations that put elements in other places: indexing, reshape, transpose and concatenate."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbp.checks import Array
from fastbp.graph.elementwise import Value
from fastbp.graph.expressions import refuse_symbols
from fastbp.graph.operations import Gradients, Operation


class Places(Operation):
    """An operation whose result has elements of its operands in other places."""

    def arranged(self, *operands: Any) -> Any:
        """Return the elements of arrays in their places: numbers, or the variables of a graph of single numbers."""
        raise NotImplementedError

    def forward(self, *operands: Value) -> Value:
        """Return a copy of the elements in their places."""
        refuse_symbols(self.name, operands)
        return np.array(self.arranged(*(np.asarray(operand) for operand in operands)))


class Index(Places):
    """x[key] for a constant key; an element that is taken twice gets the sum of its gradients."""

    def __init__(self, key: Any) -> None:
        self._key = copy.deepcopy(key)  # an array of indices may be written to before backward
        self.symbol = f"[{', '.join(_part(part) for part in (key if isinstance(key, tuple) else (key,)))}]"

    def arranged(self, x: Array) -> Any:
        return x[self._key]

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        dx = np.zeros(x.shape, np.result_type(dout, x.dtype))
        np.add.at(dx, self._key, dout)
        return (dx,)


class Reshape(Places):
    """The elements of x in their order (C) in another shape; one size may be -1."""

    def __init__(self, shape: int | Sequence[int]) -> None:
        self._shape = tuple(shape) if isinstance(shape, list) else shape
        self.symbol = f"reshape {self._shape}"

    def arranged(self, x: Array) -> Any:
        return x.reshape(self._shape)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        return (_like(x, np.reshape(dout, np.shape(x))),)


class Transpose(Places):
    """x with its axes in another order, by default in the reverse order."""

    def __init__(self, axes: Sequence[int] | None = None) -> None:
        self._axes = tuple(axes) if isinstance(axes, list) else axes
        self.symbol = "T" if axes is None else f"transpose {self._axes}"

    def arranged(self, x: Array) -> Any:
        return x.transpose(self._axes)

    def backward(self, dout: Value, out: Value, x: Value) -> Gradients:
        axes = None if self._axes is None else np.argsort([axis % np.ndim(x) for axis in self._axes])
        return (_like(x, np.transpose(dout, axes)),)


class Concatenate(Places):
    """The operands one after the other along an axis."""

    symbol = "concatenate"

    def __init__(self, axis: int = 0) -> None:
        self._axis = axis

    def mark(self, position: int) -> str:
        return str(position + 1)

    def arranged(self, *operands: Array) -> Any:
        return np.concatenate(operands, self._axis)

    def backward(self, dout: Value, out: Value, *operands: Value) -> Gradients:
        ends = list(itertools.accumulate(operand.shape[self._axis] for operand in operands))
        return tuple(np.split(dout, ends[:-1], self._axis))


def _like(x: Value, gradient: Array) -> Value:
    """Return a gradient as a number where x is one."""
    return float(gradient) if type(x) is float else gradient[()]


def _part(part: Any) -> str:
    """Return a part of an index for a drawing."""
    if isinstance(part, slice):
        ends = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
        return ":".join("" if end is None else str(end) for end in ends)
    return str(part) if np.ndim(part) == 0 else "…"
