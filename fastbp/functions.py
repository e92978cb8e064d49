"""The book's functions (its `common/functions.py`), on the same kernels as the layers.

Each takes what the layer of its name takes, and returns a new array; of a number, a number of NumPy's; a loss returns a
float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, same_shape
from fastbp.layers import CrossEntropyError, IdentityWithLoss, ReLU, Sigmoid, Softmax, SoftmaxWithLoss

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]


def identity_function(x: ArrayLike) -> ArrayLike:
    """Return x itself, the output of a network for regression (section 3.5).

    Examples
    --------
    >>> identity_function([0.3, 2.9])
    [0.3, 2.9]
    """
    return x


def step_function(x: ArrayLike) -> Any:
    """Return 1 where x > 0, else 0, as integers in the shape of x (section 3.2).

    Examples
    --------
    >>> step_function([-1.0, 0.0, 2.0])
    array([0, 0, 1])
    """
    return np.asarray(as_array("x", x) > 0, dtype=int)[()]


def sigmoid(x: ArrayLike) -> Any:
    """Return 1/(1 + exp(-x)) in the shape of x (section 3.2).

    Examples
    --------
    >>> sigmoid(0)
    np.float64(0.5)
    """
    return Sigmoid().forward(x)[()]


def sigmoid_grad(x: ArrayLike) -> Any:
    """Return the derivative y·(1 - y) of y = sigmoid(x) in the shape of x (section 5.5.2).

    Examples
    --------
    >>> sigmoid_grad(0)
    np.float64(0.25)
    """
    layer = Sigmoid()
    return layer.backward(np.ones_like(layer.forward(x)))[()]


def relu(x: ArrayLike) -> Any:
    """Return 0 where x <= 0, else x (section 3.2.7).

    Examples
    --------
    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return ReLU().forward(x)[()]


def relu_grad(x: ArrayLike) -> Any:
    """Return 0 where x <= 0, else 1, in the shape and dtype of x (section 5.5.1).

    At x = 0 it is 0, as in the book's equation; the book's code gives 1 there.

    Examples
    --------
    >>> relu_grad([-1.0, 0.0, 2.0])
    array([0., 0., 1.])
    """
    layer = ReLU()
    return layer.backward(np.ones_like(layer.forward(x)))[()]


def softmax(x: ArrayLike, axis: int = -1) -> Array:
    """Return exp(x)/sum(exp(x)) along an axis of x, by default the last (section 3.5).

    Examples
    --------
    >>> softmax([0.3, 2.9, 4.0]).round(4)
    array([0.0182, 0.2452, 0.7366])
    """
    return Softmax(axis).forward(x)


def sum_squared_error(y: ArrayLike, t: ArrayLike) -> float:
    """Return half the sum of (y - t)² over all elements; y and t in one shape (section 4.2.1).

    Examples
    --------
    >>> sum_squared_error([0.1, 0.6, 0.3], [0, 1, 0]).__round__(4)
    0.13
    """
    y, t = as_array("y", y), as_array("t", t)
    same_shape("t", t, y.shape, "as y")
    return IdentityWithLoss().forward(y.reshape(-1), t.reshape(-1)) if y.size else 0.0


def cross_entropy_error(y: ArrayLike, t: ArrayLike) -> float:
    """Return the mean over the batch of -sum(t·log(y)) (section 4.2.2).

    y is probabilities, (C,) or (N, C); t is labels or distributions. There is no 1e-7 inside the logarithm.

    Examples
    --------
    >>> round(cross_entropy_error([0.1, 0.6, 0.3], [0, 1, 0]), 4)
    0.5108
    """
    return CrossEntropyError().forward(y, t)


def softmax_loss(X: ArrayLike, t: ArrayLike) -> float:
    """Return the cross-entropy error of softmax(X), by the exact log-sum-exp of the logits X.

    Examples
    --------
    >>> round(softmax_loss([[0.3, 2.9, 4.0]], [2]), 4)
    0.3057
    """
    return SoftmaxWithLoss().forward(X, t)
