"""The two-layer network of section 5.7 (`ch05/two_layer_net.py`), of layers."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from typing import Any

import numpy as np

from fastbp.book import layers
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import *  # noqa: F403
from fastbp.book.layers import Affine, Relu
from fastbp.book.network import Network
from fastbp.checks import Array

__all__ = ["OrderedDict", "TwoLayerNet", "numerical_gradient", "os", "sys", *layers.__all__]  # noqa: PLE0604 - a list of strings


class TwoLayerNet(Network):
    """Affine, ReLU, affine, softmax with loss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Weights start as normal numbers of this standard deviation, from NumPy's global generator, biases as zeros.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01) -> None:
        params: dict[str, Array] = {}
        for number, (D, M) in enumerate([(input_size, hidden_size), (hidden_size, output_size)], 1):
            params[f"W{number}"] = weight_init_std * np.random.randn(D, M)
            params[f"b{number}"] = np.zeros(M)
        stack: OrderedDict[str, Any] = OrderedDict()
        stack["Affine1"] = Affine(params["W1"], params["b1"])
        stack["Relu1"] = Relu()
        stack["Affine2"] = Affine(params["W2"], params["b2"])
        super().__init__(params, stack)

    @property
    def lastLayer(self) -> Any:
        """`last_layer`, by the name that it has in this network."""
        return self.last_layer

    @lastLayer.setter
    def lastLayer(self, layer: Any) -> None:
        self.last_layer = layer
