"""The deep convolutional network of section 8.1 (`ch08/deep_convnet.py`)."""

from __future__ import annotations

import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp.book import layers
from fastbp.book.layers import *  # noqa: F403
from fastbp.book.layers import Affine, Convolution, Dropout, Pooling, Relu
from fastbp.book.network import ImageNetwork
from fastbp.checks import Array
from fastbp.convolutional import DEEP_FILTERS

__all__ = ["DeepConvNet", "OrderedDict", "os", "pickle", "sys", *layers.__all__]  # noqa: PLE0604 - a list of strings


_PIXELS = 64 * 4 * 4  # that the last pooling leaves of an image of 28×28


class DeepConvNet(ImageNetwork):
    """Three blocks of convolutions and pooling, two affine layers with dropout, softmax with loss.

    A block is convolution, ReLU, convolution, ReLU, pooling. `layers` is a list here. `loss` drops, as in training.

    Parameters
    ----------
    input_dim : tuple of int
        C, H, W of an image, 28×28.
    conv_param_1, ..., conv_param_6 : mapping
        filter_num, filter_size, pad, stride of each convolution. The last one has 64 filters.
    hidden_size, output_size : int

    Notes
    -----
    Weights start as normal numbers of variance 2/n, from NumPy's global generator. n is the number of connections to a
    neuron for the filters that are the default; it does not follow `conv_param_1` and the others, as in the book.
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: Mapping[str, int] = DEEP_FILTERS[0],
        conv_param_2: Mapping[str, int] = DEEP_FILTERS[1],
        conv_param_3: Mapping[str, int] = DEEP_FILTERS[2],
        conv_param_4: Mapping[str, int] = DEEP_FILTERS[3],
        conv_param_5: Mapping[str, int] = DEEP_FILTERS[4],
        conv_param_6: Mapping[str, int] = DEEP_FILTERS[5],
        hidden_size: int = 50,
        output_size: int = 10,
    ) -> None:
        connections = np.array([1 * 9, 16 * 9, 16 * 9, 32 * 9, 32 * 9, 64 * 9, _PIXELS, hidden_size])
        scales = np.sqrt(2.0 / connections)
        params: dict[str, Array] = {}

        def drawn(*shape: int, outputs: int) -> tuple[Array, Array]:
            number = len(params) // 2 + 1
            params[f"W{number}"] = scales[number - 1] * np.random.randn(*shape)
            params[f"b{number}"] = np.zeros(outputs)
            return params[f"W{number}"], params[f"b{number}"]

        stack: list[Any] = []
        channels = input_dim[0]
        given = conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6
        for number, conv_param in enumerate(given, 1):
            filters, size = conv_param["filter_num"], conv_param["filter_size"]
            W, b = drawn(filters, channels, size, size, outputs=filters)
            stack += [Convolution(W, b, conv_param["stride"], conv_param["pad"]), Relu()]
            if number % 2 == 0:
                stack.append(Pooling(2, 2, 2))
            channels = filters
        stack += [Affine(*drawn(_PIXELS, hidden_size, outputs=hidden_size)), Relu(), Dropout(0.5)]
        stack += [Affine(*drawn(hidden_size, output_size, outputs=output_size)), Dropout(0.5)]
        super().__init__(params, stack)

    def loss(self, x: Any, t: Any) -> Any:
        """Return the loss of a batch, with new masks of dropout."""
        return self.last_layer.forward(self.predict(x, train_flg=True), t)
