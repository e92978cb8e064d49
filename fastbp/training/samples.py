"""What a run reads: samples, targets and weights, checked and in the form in which steps take them."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.layers import Affine, ExpWithLoss, SigmoidWithLoss, SoftmaxWithLoss
from fastbp.training.protocol import Network
from fastbp.validation import (
    FLOAT32,
    FLOAT64,
    INTP,
    Array,
    DType,
    as_array,
    binary_target,
    parameter,
    sample_weights,
    scalar,
    target,
    working,
)


def checked_scale(scale: object) -> float:
    """What x is multiplied by, a finite number."""
    try:
        number = scalar("scale", scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"scale: expected a finite number, got {scale}; give one such as 1/255")
    return number


def common_dtype(layers: Iterable[Any]) -> DType | None:
    """The dtype of all parameters of affine layers, where it is one and the engine trains in it."""
    dtypes = {
        array.dtype
        for layer in layers
        if isinstance(layer, Affine)
        for array in (parameter("W", layer.W, 2), parameter("b", layer.b, 1))
    }
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= {FLOAT32, FLOAT64} else None


def rows_of(x: ArrayLike, dtype: DType) -> Array:
    """x as rows (samples, D) of a dtype that the engine reads: float32, float64 or uint8; others as `dtype`."""
    array = as_array("x", x)
    if array.ndim < 2 or len(array) == 0:
        raise ValueError(
            f"x: expected at least one sample, (samples, D), got shape {array.shape}; give rows of features"
        )
    if array.dtype not in (FLOAT32, FLOAT64, np.uint8):
        array = array.astype(dtype)
    return np.asarray(working(array, array.dtype)).reshape(len(array), -1)


def scaled(x: Array, scale: float) -> Array:
    """x·scale in the dtype of floats; x itself where there is nothing to multiply."""
    if x.dtype.kind != "f":
        return x * scale
    return x if scale == 1 else x * x.dtype.type(scale)


def labels_and_targets(t: ArrayLike, shape: tuple[int, int], dtype: DType, loss: object) -> tuple[Array, Array]:
    """Labels (samples,) and no targets, or no labels and targets (samples, C), for predictions of `shape`."""
    if isinstance(loss, SoftmaxWithLoss):
        values, _ = target(t, shape, dtype)
    else:
        values = as_array("t", t)
        if values.shape == shape[:1] and shape[1] == 1:
            values = values.reshape(shape)
        if isinstance(loss, SigmoidWithLoss):
            values, _ = binary_target(values, shape, dtype)
        if isinstance(loss, ExpWithLoss) and not (values >= 0).all():
            raise ValueError(
                f"t: expected counts, at least 0, got {values[~(values >= 0)][0]}; take IdentityWithLoss for others"
            )
        if values.shape != shape:
            raise ValueError(
                f"t: expected shape {shape}, as the predictions, got {values.shape}; give a row per sample"
            )
    if values.ndim == 1:
        return values, np.empty((0, shape[1]), dtype)
    return np.empty(0, INTP), working(values, dtype)


def where_given(sample_weight: ArrayLike | None) -> dict[str, Any]:
    """The argument `sample_weight` where there is one: a layer or network that knows no weights works without."""
    return {} if sample_weight is None else {"sample_weight": sample_weight}


def weights_for(network: Network, sample_weight: ArrayLike, samples: int) -> Array:
    """One weight for each sample, for a network and a loss that take them."""
    methods: dict[str, Callable[..., Any]] = {
        "loss": network.loss,
        "gradient": network.gradient,
        "last_layer.forward": network.last_layer.forward,
    }
    for name, method in methods.items():
        try:
            inspect.signature(method).bind(None, None, sample_weight=None)
        except TypeError:
            raise TypeError(
                f"sample_weight: expected a network and a loss that take it, got one whose {name} does not; "
                f"give that an argument sample_weight=None, or leave the weights out"
            ) from None
    return sample_weights(sample_weight, samples)


def check_writeable(params: Mapping[str, Array]) -> None:
    """Raise `ValueError` at a parameter that cannot be trained in place."""
    for key, value in params.items():
        if not value.flags.writeable:
            raise ValueError(
                f"params[{key!r}]: expected an array that can be written to, got a read-only one; pass a copy"
            )


def share_memory(params: Iterable[Array]) -> bool:
    """Whether two parameters may be the same elements."""
    return any(np.may_share_memory(*pair) for pair in itertools.combinations(params, 2))


def average(values: Array, counts: Array) -> float:
    """The mean over batches that count for so much; 0.0 where they count for nothing."""
    return float(np.average(values, weights=counts)) if np.any(counts) else 0.0


def share_of_hits(loss: Any, t: Array, sample_shares: Array) -> float:
    """The share of the samples of the loss's last batch whose largest output is at the class of t."""
    labels = t if t.ndim == 1 else np.argmax(t, axis=1)
    hits = np.argmax(loss.y, axis=-1) == labels
    return float(np.sum(sample_shares * hits) if len(sample_shares) else np.mean(hits))
