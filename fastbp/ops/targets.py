"""The checks of a loss's targets: labels, distributions, probabilities and counts."""

from __future__ import annotations

import numpy as np

from fastbp.checks import INTP, Array, DType, as_array, same_shape, short, to_kernel
from fastbp.ops.contract import twin_of
from fastbp.runtime.pointers import at, load, shift
from fastbp.runtime.sharing import public_kernel
from fastbp.runtime.vectors import sum_in_double


@public_kernel
def _first_bad_label(t, C):
    """Index of the first label outside 0 <= t < C, or -1."""
    for i in range(t.size):
        if t[i] < 0 or t[i] >= C:
            return i
    return -1


@twin_of(_first_bad_label)
def first_bad_label(t: Array, C: int) -> int:
    return _first((t < 0) | (t >= C))


@public_kernel
def _first_bad_distribution(t):
    """Index of the first row that is negative somewhere or does not sum to 1 within 1e-3, or -1."""
    N, C = t.shape
    values, is_negative = at(t, 0), False
    for k in range(t.size):
        is_negative |= load(shift(values, k)) < 0
    for i in range(N):
        total = sum_in_double((at(t, i * C),), (), C)
        if not abs(total - 1) <= 1e-3 or (is_negative and t[i].min() < 0):
            return i
    return -1


@twin_of(_first_bad_distribution)
def first_bad_distribution(t: Array) -> int:
    off = ~(np.abs(np.sum(t, axis=1, dtype=np.float64) - 1) <= 1e-3)
    return _first(off | np.any(t < 0, axis=1))


@public_kernel
def _first_bad_probability(t):
    """Index of the first element of flat t that is not in 0 <= t <= 1, or -1."""
    for i in range(t.size):
        if not 0 <= t[i] <= 1:
            return i
    return -1


@twin_of(_first_bad_probability)
def first_bad_probability(t: Array) -> int:
    return _first(~((t >= 0) & (t <= 1)))


def _first(is_bad: Array) -> int:
    return int(np.argmax(is_bad)) if is_bad.any() else -1


def target(t: object, shape: tuple[int, ...], dtype: DType) -> tuple[Array, DType]:
    """Targets for predictions of `shape`, (C,) or (N, C), and the dtype that NumPy gives for predictions - t.

    The targets are labels (N,) of intp, or a distribution (N, C) of that dtype. Predictions are of `dtype`.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If the shape is neither, a label is not in 0 <= t < C, or a row is not a distribution.
    """
    array = as_array("t", t)
    C = shape[-1]
    if array.shape == shape and not labels_of_one_class(array, C):
        dtype = np.result_type(dtype, array.dtype)
        return _distribution(array.reshape(-1, C), dtype), dtype
    one_label = len(shape) == 1 and array.size == 1
    if one_label or array.shape in (shape, shape[:1]):
        return _labels(array.reshape(-1), C, dtype), dtype
    labels = "one label" if len(shape) == 1 else f"labels of shape {shape[:1]}"
    raise ValueError(
        f"t: expected {labels} or a distribution of shape {shape}, got shape {array.shape}; "
        f"give one integer class, or one row of probabilities, for each row of predictions"
    )


def labels_of_one_class(t: Array, C: int) -> bool:
    """Whether targets in the shape of predictions are labels: of one class the label is 0, and the probability is 1."""
    return C == 1 and t.size > 0 and t.dtype.kind in "iu" and not t.any()


def kept_target(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """What `target` gave for predictions of `shape` (N, C), once more: a layer's `t` can be replaced and written to.

    Raises
    ------
    TypeError
        If labels are not integers.
    ValueError
        If the shape is neither (N,) nor (N, C), or a label is not in 0 <= t < C.
    """
    if type(t) is np.ndarray and t.dtype is INTP and t.shape == shape[:1]:
        labels: Array = t.copy()  # checked and used alike, whatever is written to t meanwhile
        if first_bad_label.of(dtype)(labels, shape[1]) < 0:
            return labels
    array = as_array("t", t)
    if array.shape == shape:
        return to_kernel(array, dtype)
    if array.shape != shape[:1]:
        raise ValueError(
            f"t: expected shape {shape[:1]} or {shape}, as y of the same forward has it, got {array.shape}; "
            f"call forward again, and not from another thread before backward"
        )
    return _labels(array, shape[1], dtype)


def binary_target(t: object, shape: tuple[int, ...], dtype: DType) -> tuple[Array, DType]:
    """Targets from 0 to 1 for logits of `shape` and `dtype`, and the dtype of a result of both.

    Integers and booleans are labels, 0 or 1, and leave `dtype` as it is; floats are probabilities, and widen it as
    NumPy does. The targets come back in that dtype.

    Raises
    ------
    TypeError
        If t is not real numbers.
    ValueError
        If the shape is another, or a target is not from 0 to 1.
    """
    array = as_array("t", t)
    same_shape("t", array, shape, "as the logits")
    if array.dtype.kind == "f":
        dtype = np.result_type(dtype, array.dtype)
    values = to_kernel(array if array.flags.writeable else array.copy(), dtype)  # a layer keeps it
    bad = first_bad_probability.of(dtype)(values.reshape(-1))
    if bad >= 0:
        index = tuple(int(i) for i in np.unravel_index(bad, shape))
        raise ValueError(
            f"t: expected labels 0 and 1 or probabilities from 0 to 1, got {array[index]} "
            f"at index {index if len(index) > 1 else index[0]}; for more than two classes take SoftmaxWithLoss"
        )
    return values, dtype


def counts(t: Array) -> Array:
    """Targets that are counts.

    Raises
    ------
    ValueError
        If one is negative or NaN.
    """
    if not (t >= 0).all():
        raise ValueError(f"t: expected counts, at least 0, got {t[~(t >= 0)][0]}; take IdentityWithLoss for others")
    return t


def class_targets(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """Labels or distributions for outputs of a shape (N, C), as `fit` takes them."""
    return target(t, shape, dtype)[0]


def number_targets(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """Real numbers in the shape of the outputs (N, C), or (N,) for one output."""
    values = as_array("t", t)
    if values.shape == shape[:1] and shape[1] == 1:
        values = values.reshape(shape)
    if values.shape != shape:
        raise ValueError(f"t: expected shape {shape}, as the predictions, got {values.shape}; give a row per sample")
    return values


def count_targets(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """Counts in the shape of the outputs."""
    return counts(number_targets(t, shape, dtype))


def probability_targets(t: object, shape: tuple[int, int], dtype: DType) -> Array:
    """Numbers from 0 to 1 in the shape of the outputs."""
    values = as_array("t", t)
    if values.shape == shape[:1] and shape[1] == 1:
        values = values.reshape(shape)
    return binary_target(values, shape, dtype)[0]


def _labels(labels: Array, C: int, dtype: DType) -> Array:
    if labels.dtype.kind not in "iu" and labels.size:
        raise TypeError(
            f"t: expected integer labels, got {labels.dtype}; convert with t.astype(np.int64), "
            f"or give a distribution with {C} columns"
        )
    # Always a copy: a layer keeps it until backward, and labels changed meanwhile would point outside the array.
    indices = labels.astype(INTP, order="C")
    bad = first_bad_label.of(dtype)(indices, C)
    if bad >= 0:
        raise ValueError(
            f"t: expected labels from 0 to {C - 1}, got {labels[bad]} at index {bad}; "
            f"check the labels against the {C} classes of the predictions"
        )
    return indices


def _distribution(distribution: Array, dtype: DType) -> Array:
    values = to_kernel(distribution if distribution.flags.writeable else distribution.copy(), dtype)  # a layer keeps it
    bad = first_bad_distribution.of(dtype)(values)
    if bad >= 0:
        raise ValueError(
            f"t: expected rows of probabilities that are at least 0 and sum to 1, got {short(distribution[bad])} "
            f"in row {bad}; divide each row by its sum, or give integer labels"
        )
    return values
