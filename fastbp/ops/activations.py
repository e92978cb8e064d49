"""Activations between bounds, sigmoid and tanh, and the identity.

A new one is a pair of functions of a number, their twins in NumPy, a class, and a record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, not_run, result_dtype, same_shape
from fastbp.ops.contract import Activation, LayerRecord, layer
from fastbp.ops.elementwise import ElementwiseLayer, SameShapeLayer, activation, elementwise
from fastbp.runtime.elementary import logistic, one, tanh
from fastbp.runtime.gemm import epilogue
from fastbp.runtime.jit import kernel

__all__ = ["Identity", "Sigmoid", "Tanh"]


# The sigmoid.


def _sigmoid(x):
    return logistic(x)


def _sigmoid_slope(dout, y):
    return dout * y * (one(y) - y)


def sigmoid_twin(x: Any) -> Any:
    """1/(1 + exp(-x)) without overflow."""
    # 1/(1 + exp(-x)) where x >= 0; elsewhere the same fraction times exp(x), so that exp never overflows.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _sigmoid_slope_twin(dout: Any, y: Any) -> Any:
    return dout * y * (1 - y)


class Sigmoid(ElementwiseLayer):
    """The logistic function y = 1/(1 + exp(-x)), without overflow at any x; dx = dout·y·(1 - y) (section 5.5.2).

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> layer = Sigmoid()
    >>> layer.forward([-1.0, 0.0, 1.0]).round(4)
    array([0.2689, 0.5   , 0.7311])
    >>> layer.backward([1.0, 1.0, 1.0]).round(4)
    array([0.1966, 0.25  , 0.1966])
    """


activation(
    Sigmoid,
    elementwise(
        "sigmoid", _sigmoid, _sigmoid_slope, sigmoid_twin, _sigmoid_slope_twin, estimator="logistic", symbol="sigmoid"
    ),
)


# tanh.


def _tanh(x):
    return tanh(x)


def _tanh_slope(dout, y):
    return dout * (one(y) - y * y)


def _tanh_slope_twin(dout: Any, y: Any) -> Any:
    return dout * (1 - y * y)


class Tanh(ElementwiseLayer):
    """The hyperbolic tangent y = tanh(x), an odd function between -1 and 1; dx = dout·(1 - y²).

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> layer = Tanh()
    >>> layer.forward([-1.0, 0.0, 1.0]).round(4)
    array([-0.7616,  0.    ,  0.7616])
    >>> layer.backward([1.0, 1.0, 1.0]).round(4)
    array([0.42, 1.  , 0.42])
    """


activation(Tanh, elementwise("tanh", _tanh, _tanh_slope, np.tanh, _tanh_slope_twin, symbol="tanh"))


# The identity.


@kernel
def _identity(x):
    return x


@kernel
def _identity_slope(dout, y):
    return dout


class Identity(SameShapeLayer):
    """The identity y = x (section 3.5): a placeholder for no activation.

    Left to NumPy, which copies as fast as memory allows.

    Examples
    --------
    >>> layer = Identity()
    >>> layer.forward([1.0, -2.0])
    array([ 1., -2.])
    >>> layer.backward([3.0, 4.0])
    array([3., 4.])
    """

    _shape: tuple[int, ...] | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = as_array("x", x)
        self._shape = x.shape
        return x.astype(result_dtype(x), order="C")

    def backward(self, dout: ArrayLike) -> Array:
        shape = self._shape
        if shape is None:
            not_run(self)
        dout = as_array("dout", dout)
        same_shape("dout", dout, shape, "as the input")
        return dout.astype(result_dtype(dout), order="C")


# Its layer is NumPy's, so it has no kernels for arrays of its own.
layer(
    LayerRecord(
        Identity,
        activation=Activation(
            "identity",
            None,
            None,
            _identity,
            _identity_slope,
            None,
            None,
            in_place=lambda _: epilogue.NONE,
            epilogue=lambda _: epilogue.NONE,
            slope_epilogue=lambda _: epilogue.NONE,
        ),
    )
)
