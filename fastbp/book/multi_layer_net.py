"""The network of any number of layers of chapter 6 (`common/multi_layer_net.py`)."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastbp.book import layers
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import *  # noqa: F403
from fastbp.book.layers import Affine, BatchNormalization, Dropout, Relu, Sigmoid
from fastbp.book.network import Network
from fastbp.checks import Array
from fastbp.ops.optimizer import decayed_gradient

__all__ = ["MultiLayerNet", "OrderedDict", "numerical_gradient", "os", "sys", *layers.__all__]  # noqa: PLE0604

_ACTIVATIONS: dict[str, Any] = {"sigmoid": Sigmoid, "relu": Relu}


class DecayedNetwork(Network):
    """Affine layers with what stands between them, and a weight decay in the loss and in the gradient.

    The loss is that of softmax plus weight_decay_lambda/2 times the sum of the squares of all weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str,
        weight_init_std: float | str,
        weight_decay_lambda: float,
        *,
        dropout_ratio: float | None = None,
        is_normalized: bool = False,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        self.hidden_size_list, self.hidden_layer_num = hidden_size_list, len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        sizes = [input_size, *hidden_size_list, output_size]
        params: dict[str, Array] = {}
        for number, (D, M) in enumerate(pairwise(sizes), 1):
            params[f"W{number}"] = _deviation(weight_init_std, D) * np.random.randn(D, M)
            params[f"b{number}"] = np.zeros(M)
        stack: OrderedDict[str, Any] = OrderedDict()
        for number, M in enumerate(hidden_size_list, 1):
            stack[f"Affine{number}"] = Affine(params[f"W{number}"], params[f"b{number}"])
            if is_normalized:
                gamma, beta = params[f"gamma{number}"], params[f"beta{number}"] = np.ones(M), np.zeros(M)
                stack[f"BatchNorm{number}"] = BatchNormalization(gamma, beta)
            stack[f"Activation_function{number}"] = _ACTIVATIONS[activation]()
            if dropout_ratio is not None:
                stack[f"Dropout{number}"] = Dropout(dropout_ratio)
        last = len(sizes) - 1
        stack[f"Affine{last}"] = Affine(params[f"W{last}"], params[f"b{last}"])
        super().__init__(params, stack)

    def loss(self, x: Any, t: Any, train_flg: bool = False) -> Any:
        """Return the loss of a batch, with that of the weight decay."""
        return self.last_layer.forward(self.predict(x, train_flg), t) + self._penalty()

    def gradient(self, x: Any, t: Any) -> dict[str, Array]:
        """Return the gradient of the loss by each parameter, by backpropagation."""
        gradients = super().gradient(x, t)
        if self.weight_decay_lambda:
            for key, gradient in gradients.items():
                if key.startswith("W"):
                    self._decay(self.params[key], gradient)
        return gradients

    def _penalty(self) -> Any:
        if not self.weight_decay_lambda:
            return 0
        weights = [value for key, value in self.params.items() if key.startswith("W")]
        return sum(0.5 * self.weight_decay_lambda * np.sum(W**2) for W in weights)

    def _decay(self, W: Array, gradient: Array) -> None:
        """Add weight_decay_lambda·W to a gradient."""
        if W.dtype == gradient.dtype and W.flags.c_contiguous:
            flat = gradient.reshape(-1)
            decayed_gradient.of(W.dtype)(W.reshape(-1), flat, self.weight_decay_lambda, flat)
        else:
            gradient += self.weight_decay_lambda * W


class MultiLayerNet(DecayedNetwork):
    """Affine layers with an activation between them, then softmax with loss.

    Parameters
    ----------
    input_size : int
    hidden_size_list : list of int
    output_size : int
    activation : {"relu", "sigmoid"}
    weight_init_std : float or str
        The standard deviation of the normal numbers with which weights start, from NumPy's global generator; "relu" or
        "he" for sqrt(2/D) with D inputs, "sigmoid" or "xavier" for sqrt(1/D).
    weight_decay_lambda : float
        Of the weights, not of the biases.

    Attributes
    ----------
    layers : OrderedDict of str to layer
        Affine1, Activation_function1, Affine2 and so on.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        super().__init__(input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda)


def _deviation(weight_init_std: float | str, inputs: int) -> Any:
    word = str(weight_init_std).lower()
    if word in ("relu", "he"):
        return np.sqrt(2.0 / inputs)
    return np.sqrt(1.0 / inputs) if word in ("sigmoid", "xavier") else weight_init_std
