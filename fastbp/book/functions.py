"""The book's functions (`common/functions.py`): those of `fastbp.functions` with the numbers of the book's code."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import functions
from fastbp.checks import Array, as_array

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "np",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

identity_function = functions.identity_function
sigmoid = functions.sigmoid
sigmoid_grad = functions.sigmoid_grad


def step_function(x: ArrayLike) -> Array:
    """Return 1 where x > 0, else 0, as an array of integers, that of a number with no axes (section 3.2)."""
    return np.asarray(as_array("x", x) > 0, dtype=int)


def relu(x: ArrayLike) -> Any:
    """Return the larger of 0 and x, in the shape and dtype of x (section 3.2.7)."""
    return np.maximum(0, as_array("x", x))


def relu_grad(x: ArrayLike) -> Array:
    """Return 1 where x >= 0, else 0, in the shape and dtype of x: 1 at 0, unlike the equation of section 5.5.1."""
    x = as_array("x", x)
    return (x >= 0).astype(x.dtype)


def softmax(x: ArrayLike) -> Array:
    """Return exp(x)/sum(exp(x)) along the last axis of x (section 3.5)."""
    return functions.softmax(x)


def sum_squared_error(y: ArrayLike, t: ArrayLike) -> Any:
    """Return half the sum of (y - t)², a number of NumPy's in the dtype of y - t (section 4.2.1)."""
    return 0.5 * np.sum((as_array("y", y) - as_array("t", t)) ** 2)


def cross_entropy_error(y: ArrayLike, t: ArrayLike) -> Any:
    """Return -sum(log(y[n, c_n] + 1e-7))/N over a batch (section 4.2.2).

    Parameters
    ----------
    y : array_like
        Probabilities (N, C), or of one sample (C,).
    t : array_like
        Labels c_n, or as many numbers as y has: c_n is then the place of the largest of a row, also where the row is a
        distribution with several classes.

    Returns
    -------
    number of NumPy's
        In the dtype of y; at most 16.1 for each sample, the logarithm of 1e-7, where the exact error is infinite.

    Raises
    ------
    TypeError
        If y or t is not real numbers.
    IndexError
        If a label is none of the classes, or there are labels for other samples.
    """
    probabilities, labels = as_array("y", y), as_array("t", t)
    if probabilities.ndim == 1:
        probabilities, labels = probabilities.reshape(1, -1), labels.reshape(1, -1)
    if labels.size == probabilities.size:
        labels = labels.argmax(axis=1)
    N = len(probabilities)
    return -np.sum(np.log(probabilities[np.arange(N), labels] + 1e-7)) / N


def softmax_loss(X: ArrayLike, t: ArrayLike) -> Any:
    """Return the cross-entropy error of softmax(X), with the 1e-7 of `cross_entropy_error`."""
    return cross_entropy_error(softmax(X), t)
