"""The convolutional network of section 7.5 (`ch07/simple_convnet.py`)."""

from __future__ import annotations

import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp.book import layers
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import *  # noqa: F403
from fastbp.book.layers import Affine, Convolution, Pooling, Relu
from fastbp.book.network import ImageNetwork
from fastbp.book.util import conv_output_size
from fastbp.checks import Array
from fastbp.convolutional import SIMPLE_FILTERS

__all__ = ["OrderedDict", "SimpleConvNet", "numerical_gradient", "os", "pickle", "sys", *layers.__all__]  # noqa: PLE0604


class SimpleConvNet(ImageNetwork):
    """Convolution, ReLU, pooling of 2×2, affine, ReLU, affine, softmax with loss.

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image; W is taken to be H.
    conv_param : mapping
        filter_num, filter_size, pad, stride.
    hidden_size, output_size : int
    weight_init_std : float
        Weights start as normal numbers of this standard deviation, from NumPy's global generator, biases as zeros.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Mapping[str, int] = SIMPLE_FILTERS,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float = 0.01,
    ) -> None:
        filters, size, pad, stride = (conv_param[key] for key in ("filter_num", "filter_size", "pad", "stride"))
        pooled = conv_output_size(input_dim[1], size, stride, pad) / 2
        shapes = (
            (filters, input_dim[0], size, size),
            (int(filters * pooled * pooled), hidden_size),
            (hidden_size, output_size),
        )
        params: dict[str, Array] = {}
        for number, shape in enumerate(shapes, 1):
            params[f"W{number}"] = weight_init_std * np.random.randn(*shape)
            params[f"b{number}"] = np.zeros(shape[0] if number == 1 else shape[1])
        stack: OrderedDict[str, Any] = OrderedDict()
        stack["Conv1"] = Convolution(params["W1"], params["b1"], stride, pad)
        stack["Relu1"] = Relu()
        stack["Pool1"] = Pooling(2, 2, 2)
        stack["Affine1"] = Affine(params["W2"], params["b2"])
        stack["Relu2"] = Relu()
        stack["Affine2"] = Affine(params["W3"], params["b3"])
        super().__init__(params, stack)
