"""What `fit` is given, checked, and as its steps take it."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import (
    FLOAT32,
    FLOAT64,
    INTP,
    Array,
    DType,
    as_array,
    parameter,
    sample_weights,
    scalar,
    to_kernel,
)
from fastbp.ops.contract import loss_of, parameters_of, takes_indices
from fastbp.ops.targets import number_targets
from fastbp.training.protocol import Network


def checked_scale(scale: object) -> float:
    """The factor for x, a finite number."""
    try:
        number = scalar("scale", scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"scale: expected a finite number, got {scale}; give one such as 1/255")
    return number


def common_dtype(layers: Iterable[Any]) -> DType | None:
    """The dtype of all parameters of fastbp's own layers, if it is one and the engine trains in it."""
    dtypes = {parameter(name, value).dtype for name, value in parameters_of(layers)}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= {FLOAT32, FLOAT64} else None


def check_samples(shape: tuple[int, ...], layers: Sequence[Any]) -> None:
    """Raise `ValueError` unless x of a shape is samples, of which only the first layer may take one number each."""
    if len(shape) < (1 if takes_indices(layers[:1]) else 2) or shape[0] == 0:
        remedy = "give one or more" if shape[:1] == (0,) else "give rows of features, of a single one x.reshape(-1, 1)"
        raise ValueError(f"x: expected at least one sample, (samples, ...), got shape {shape}; {remedy}")


def rows_of(x: ArrayLike, dtype: DType, layers: Sequence[Any], t: ArrayLike) -> Array:
    """x as rows (samples, D) of float32, float64 or uint8, which the engine reads; other dtypes become `dtype`.

    Where that is `INTP`, rows of integers are a copy, which nobody else can change, in words with a sign or without, as
    errors say what was given; others are left for the layer.
    """
    array, targets = as_array("x", x), np.shape(t)
    if array.ndim == 1 < len(targets) and len(array) == targets[0] and not takes_indices(layers[:1]):
        raise ValueError(
            f"x: expected samples, (samples, ...), and their targets in t, got shape {array.shape} and {targets} in t; "
            f"they look exchanged, give x first"
        )
    check_samples(array.shape, layers)
    if dtype is INTP:
        words = {"i": INTP, "u": np.dtype(np.uintp)}.get(array.dtype.kind)
        return (array if words is None else array.astype(words, order="C")).reshape(len(array), -1)
    if array.dtype not in (FLOAT32, FLOAT64, np.uint8):
        array = array.astype(dtype)
    return np.asarray(to_kernel(array, array.dtype)).reshape(len(array), -1)


def scaled(x: Array, scale: float) -> Array:
    """x·scale, in the dtype of x where that is a float."""
    if x.dtype.kind != "f":
        return x * scale
    return x if scale == 1 else x * x.dtype.type(scale)


def in_shape(t: Array, targets: Array) -> Array:
    """t in the shape of its checked targets; those themselves where they repeat one of t for several outputs."""
    return t.reshape(targets.shape) if t.size == targets.size else targets


def labels_and_targets(t: ArrayLike, shape: tuple[int, int], dtype: DType, loss: object) -> tuple[Array, Array]:
    """Labels (samples,) and no targets, or no labels and targets (samples, C), for predictions of `shape`."""
    record = loss_of(loss)
    check = number_targets if record is None else record.targets
    values = check(t, shape, dtype)
    if values.ndim == 1:
        return values, np.empty((0, shape[1]), dtype)
    return np.empty(0, INTP), to_kernel(values, dtype)


def where_given(sample_weight: ArrayLike | None) -> dict[str, Any]:
    """The argument `sample_weight`, or none: a layer or network without that argument works, too."""
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


def validation_parts(given: object) -> tuple[Any, Any, Any]:
    """x, t and the weights of validation data, or None in their place."""
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        size = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise TypeError(
            f"validation_data: expected (x, t) or (x, t, sample_weight), got {type(given).__name__}{size}; "
            f"pass such a tuple"
        )
    x, t, sample_weight = (*given, None)[:3]
    return x, t, sample_weight


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
