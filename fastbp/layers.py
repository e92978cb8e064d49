"""The layers of "Deep Learning from Scratch", chapter 5: `forward` computes, `backward` applies the chain rule.

A layer checks its arguments, allocates, calls one kernel and keeps what `backward` will need. After an error it
still holds what it held before. Result dtypes are NumPy's for the same operands; inputs are never written to,
and no result is overwritten by a later call. Where a class differs from the book on purpose, it says so.

`backward` goes back through the last `forward` of its layer, whichever thread called it: give each thread layers of
its own, which may share `W` and `b`. What `forward` left may be replaced or written to in between; `backward` takes
each attribute once and checks it, so that nothing outside an array is read.

The classes are defined in `fastbp.ops`, a file for each family.
"""

from __future__ import annotations

from typing import Any, Protocol

from fastbp.ops import (
    activations,
    affine,
    arithmetic,
    convolution,
    cross_entropy,
    dropout,
    embedding,
    layer_normalization,
    losses,
    normalization,
    number_losses,
    pooling,
    rectifiers,
    regression,
    reshape,
    softmax,
)
from fastbp.ops.activations import *  # noqa: F403
from fastbp.ops.affine import *  # noqa: F403
from fastbp.ops.arithmetic import *  # noqa: F403
from fastbp.ops.convolution import *  # noqa: F403
from fastbp.ops.cross_entropy import *  # noqa: F403
from fastbp.ops.dropout import *  # noqa: F403
from fastbp.ops.embedding import *  # noqa: F403
from fastbp.ops.layer_normalization import *  # noqa: F403
from fastbp.ops.losses import *  # noqa: F403
from fastbp.ops.losses import shares_of_mean as shares_of_mean
from fastbp.ops.normalization import *  # noqa: F403
from fastbp.ops.number_losses import *  # noqa: F403
from fastbp.ops.pooling import *  # noqa: F403
from fastbp.ops.rectifiers import *  # noqa: F403
from fastbp.ops.regression import *  # noqa: F403
from fastbp.ops.reshape import *  # noqa: F403
from fastbp.ops.softmax import *  # noqa: F403

__all__ = [  # noqa: PLE0604 - lists of strings
    *activations.__all__,
    *affine.__all__,
    *arithmetic.__all__,
    *convolution.__all__,
    *cross_entropy.__all__,
    *dropout.__all__,
    *embedding.__all__,
    *layer_normalization.__all__,
    *losses.__all__,
    *normalization.__all__,
    *number_losses.__all__,
    *pooling.__all__,
    *rectifiers.__all__,
    *regression.__all__,
    *reshape.__all__,
    *softmax.__all__,
]


class Layer(Protocol):
    """What a network asks of a layer."""

    def forward(self, x: Any) -> Any: ...

    def backward(self, dout: Any) -> Any: ...


class LossLayer(Protocol):
    """What a network asks of its last layer; `loss` is what `forward` returned."""

    loss: float | None

    def forward(self, x: Any, t: Any) -> float: ...

    def backward(self, dout: Any = 1) -> Any: ...
