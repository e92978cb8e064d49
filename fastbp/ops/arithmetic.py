"""The nodes of the chapter's graphs, addition and multiplication, and exp, log, sin, cos and powers of whole arrays."""

from __future__ import annotations

import math
from typing import Any, NoReturn, TypeAlias

import numpy as np

from fastbp.checks import FLOAT64, Array, DType, as_array, not_run, same_shape
from fastbp.ops.contract import LayerRecord, layer, twin_of
from fastbp.runtime.elementary import exp, log
from fastbp.runtime.sharing import shared_kernel

__all__ = ["AddLayer", "MulLayer"]

# A scalar or an array: what a node of a computational graph carries.
Value: TypeAlias = Any


@shared_kernel
def _exp_forward(x, out):
    """out = exp(x)."""
    for i in range(x.size):
        out[i] = exp(x[i])


@twin_of(_exp_forward)
def exp_forward(x: Array, out: Array) -> None:
    with np.errstate(over="ignore"):
        np.exp(x, out=out)


@shared_kernel
def _log_forward(x, out):
    """out = log(x); -inf at 0, NaN below."""
    for i in range(x.size):
        out[i] = log(x[i])


@twin_of(_log_forward)
def log_forward(x: Array, out: Array) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(x, out=out)


@shared_kernel
def _sin_forward(x, out):
    """out = sin(x), the C library's; NaN at inf."""
    for i in range(x.size):
        out[i] = math.sin(x[i])


@twin_of(_sin_forward)
def sin_forward(x: Array, out: Array) -> None:
    with np.errstate(invalid="ignore"):
        np.sin(x, out=out)


@shared_kernel
def _cos_forward(x, out):
    """out = cos(x), the C library's; NaN at inf."""
    for i in range(x.size):
        out[i] = math.cos(x[i])


@twin_of(_cos_forward)
def cos_forward(x: Array, out: Array) -> None:
    with np.errstate(invalid="ignore"):
        np.cos(x, out=out)


@shared_kernel
def _power_forward(x, y, out):
    """out = x**y."""
    for i in range(x.size):
        out[i] = x[i] ** y[i]


@twin_of(_power_forward)
def power_forward(x: Array, y: Array, out: Array) -> None:
    with np.errstate(all="ignore"):
        np.power(x, y, out=out)


class NodeLayer:
    """A node of two operands: what such nodes share.

    Left to NumPy: one operation for each element is bound by memory, and compiled code is no faster.
    """

    def forward(self, x: Value, y: Value) -> Value:
        """Return the result.

        Parameters
        ----------
        x, y : scalar or array_like
            Shapes that broadcast.

        Raises
        ------
        TypeError
            For operands that are not real numbers.
        ValueError
            If the shapes do not broadcast.
        """
        raise NotImplementedError

    def backward(self, dout: Value) -> tuple[Value, Value]:
        """Return (dx, dy), each summed back to its operand's shape.

        Parameters
        ----------
        dout : scalar or array_like
            In the shape of the result, or a scalar.

        Raises
        ------
        RuntimeError
            Before `forward`.
        ValueError
            For another shape.
        """
        raise NotImplementedError


class AddLayer(NodeLayer):
    """The addition node, x + y (section 5.4.2); (dx, dy) = (dout, dout).

    Examples
    --------
    >>> layer = AddLayer()
    >>> layer.forward(200.0, 450.0)
    650.0
    >>> layer.backward(1.1)
    (1.1, 1.1)
    """

    _shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    def forward(self, x: Value, y: Value) -> Value:
        x, y = _node_operand("x", x), _node_operand("y", y)
        try:
            out = x + y
        except ValueError:
            _do_not_broadcast(x, y)
        self._shapes, self._dtype = (_shape(x), _shape(y), _shape(out)), getattr(out, "dtype", FLOAT64)
        return out

    def backward(self, dout: Value) -> tuple[Value, Value]:
        if self._shapes is None:
            not_run(self)
        x_shape, y_shape, shape = self._shapes
        dout = _node_gradient(dout, shape, self._dtype)
        return _summed_to(dout * 1, x_shape), _summed_to(dout * 1, y_shape)


class MulLayer(NodeLayer):
    """The multiplication node, x·y (section 5.4.1); (dx, dy) = (dout·y, dout·x).

    Attributes
    ----------
    x, y : scalar or ndarray
        The operands of the last `forward`, as given.

    Examples
    --------
    >>> layer = MulLayer()
    >>> layer.forward(100.0, 2.0)
    200.0
    >>> layer.backward(1.0)
    (2.0, 100.0)
    """

    def __init__(self) -> None:
        self.x: Value = None
        self.y: Value = None
        self._shape: tuple[int, ...] = ()

    def forward(self, x: Value, y: Value) -> Value:
        x, y = _node_operand("x", x), _node_operand("y", y)
        try:
            out = x * y
        except ValueError:
            _do_not_broadcast(x, y)
        self.x, self.y, self._shape, self._dtype = x, y, _shape(out), getattr(out, "dtype", FLOAT64)
        return out

    def backward(self, dout: Value) -> tuple[Value, Value]:
        if self.x is None:
            not_run(self)
        dout = _node_gradient(dout, self._shape, self._dtype)
        return _summed_to(dout * self.y, _shape(self.x)), _summed_to(dout * self.x, _shape(self.y))


layer(LayerRecord(AddLayer))
layer(LayerRecord(MulLayer))


def _node_operand(name: str, value: Value) -> Value:
    """A Python number as it is, so that a graph of numbers stays one; anything else as an array."""
    if type(value) is float or isinstance(value, int | float):
        return value
    array = as_array(name, value)
    return array[()] if isinstance(value, np.generic) else array


def _node_gradient(dout: Value, shape: tuple[int, ...], dtype: DType) -> Value:
    dout = _node_operand("dout", dout)
    given = _shape(dout)
    if given == shape:
        return dout
    if given:
        same_shape("dout", dout, shape, "as the result")
    # A Python number takes the dtype of what it meets, as in NumPy.
    return np.broadcast_to(np.asarray(dout, np.result_type(dtype, dout)), shape)


def _shape(value: Value) -> tuple[int, ...]:
    return getattr(value, "shape", ())


def _do_not_broadcast(x: Value, y: Value) -> NoReturn:
    raise ValueError(
        f"x, y: expected shapes that broadcast, got {_shape(x)} and {_shape(y)}; trailing axes must be equal or 1"
    ) from None


def _summed_to(gradient: Value, shape: tuple[int, ...]) -> Value:
    """Sum `gradient` over the axes along which an operand of `shape` was broadcast."""
    given = _shape(gradient)
    if given == shape:
        return gradient
    added = len(given) - len(shape)
    axes = *range(added), *(added + i for i, size in enumerate(shape) if size == 1)
    return np.add.reduce(gradient, axis=axes).reshape(shape)[()]
