"""The two-layer network of section 4.5 (`ch04/two_layer_net.py`): sigmoid, and softmax in `predict`."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.book.functions import (
    cross_entropy_error,
    identity_function,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import Affine, Sigmoid
from fastbp.book.network import described, predicted_classes
from fastbp.checks import Array, as_array

__all__ = [
    "TwoLayerNet",
    "cross_entropy_error",
    "identity_function",
    "np",
    "numerical_gradient",
    "os",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
    "sys",
]


class TwoLayerNet:
    """Affine, sigmoid, affine, softmax. The targets are one-hot rows, as its `gradient` and `accuracy` take no labels.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Weights start as normal numbers of this standard deviation, from NumPy's global generator, biases as zeros.

    Attributes
    ----------
    params : dict of str to ndarray
        W1, b1, W2, b2. An array that is put here is the one that is used next.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01) -> None:
        self.params: dict[str, Array] = {}
        for number, (D, M) in enumerate([(input_size, hidden_size), (hidden_size, output_size)], 1):
            self.params[f"W{number}"] = weight_init_std * np.random.randn(D, M)
            self.params[f"b{number}"] = np.zeros(M)

    __repr__ = described

    def predict(self, x: ArrayLike) -> Array:
        """Return the probabilities of the classes, (N, C), or (C,) for one sample."""
        first, activation, second = self._layers()
        return softmax(second.forward(activation.forward(first.forward(x))))

    def loss(self, x: ArrayLike, t: ArrayLike) -> Any:
        """Return the `cross_entropy_error` of a batch."""
        return cross_entropy_error(self.predict(x), t)

    def accuracy(self, x: ArrayLike, t: ArrayLike) -> Any:
        """Return the share of samples whose most probable class is that of the one-hot rows t."""
        hits = predicted_classes(self.predict, as_array("x", x)) == np.argmax(t, axis=1)
        return np.sum(hits) / float(len(hits))

    def numerical_gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, Array]:
        """Return the gradient by numerical differentiation, which takes two losses for each number."""
        return {key: numerical_gradient(lambda _: self.loss(x, t), value) for key, value in self.params.items()}

    def gradient(self, x: ArrayLike, t: ArrayLike) -> dict[str, Array]:
        """Return the gradient by backpropagation, of the error without the 1e-7; t is one-hot rows."""
        first, activation, second = self._layers()
        y = softmax(second.forward(activation.forward(first.forward(x))))
        dout = second.backward((y - as_array("t", t)) / len(y))
        first.backward_parameters(activation.backward(dout))
        gradients = {"W2": second.dW, "b2": second.db, "W1": first.dW, "b1": first.db}
        return {key: value for key, value in gradients.items() if value is not None}

    def _layers(self) -> tuple[Affine, Sigmoid, Affine]:
        """Layers of the arrays that `params` has now."""
        W1, b1, W2, b2 = (self.params[key] for key in ("W1", "b1", "W2", "b2"))
        return Affine(W1, b1), Sigmoid(), Affine(W2, b2)
