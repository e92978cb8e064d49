"""The same network with dropout and batch normalization (`common/multi_layer_net_extend.py`)."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from fastbp.book import layers
from fastbp.book.gradient import numerical_gradient
from fastbp.book.layers import *  # noqa: F403
from fastbp.book.multi_layer_net import DecayedNetwork

__all__ = ["MultiLayerNetExtend", "OrderedDict", "numerical_gradient", "os", "sys", *layers.__all__]  # noqa: PLE0604


class MultiLayerNetExtend(DecayedNetwork):
    """Affine layers, each but the last followed by batch normalization, an activation and dropout; softmax with loss.

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        As `MultiLayerNet` takes them.
    use_dropout : bool
    dropout_ration : float
        The share that is dropped; the name is the book's.
    use_batchnorm : bool

    Attributes
    ----------
    layers : OrderedDict of str to layer
        Affine1, BatchNorm1, Activation_function1, Dropout1, Affine2 and so on.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        super().__init__(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
            dropout_ratio=dropout_ration if use_dropout else None,
            is_normalized=use_batchnorm,
        )

    def training_loss(self, x: Any, t: Any) -> Any:
        """The loss with dropout, and with the statistics of the batch."""
        return self.loss(x, t, train_flg=True)
