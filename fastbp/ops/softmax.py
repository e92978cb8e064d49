"""Softmax (section 3.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, axis_of, empty, float_dtype, from_kernel, result_dtype, to_kernel
from fastbp.ops.contract import LayerRecord, layer, twin_of
from fastbp.ops.elementwise import SameShapeLayer
from fastbp.runtime.elementary import as_like, exp, maximum, one, zero
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.pointers import at, itemsize, load, local_memory, shift, store
from fastbp.runtime.sharing import shared_kernel
from fastbp.runtime.vectors import VECTOR_BYTES, sum_of, sum_of_products

__all__ = ["Softmax"]


# Samples that are turned together, so that a vector is one class of several of them.
TURNED = 64
MOST_CLASSES = VECTOR_BYTES // 4 - 1

_block = local_memory((MOST_CLASSES + 1) * TURNED)


@kernel
def is_few(C, pointer):
    """Whether rows of C classes are turned: their sum is then one chain in either layout."""
    return C < VECTOR_BYTES // itemsize(pointer)


@kernel
def softmax_in_lanes(x, y, n, C, tops, totals, scales):
    """`softmax_of_rows` for n samples side by side, x and y of (C, n); y may be x. `scales` is n numbers of memory."""
    noinline()
    for i in range(n):
        store(shift(tops, i), as_like(load(tops), -np.inf))
        store(shift(totals, i), zero(load(totals)))
    for j in range(C):
        row = shift(x, j * n)
        for i in range(n):
            store(shift(tops, i), maximum(load(shift(row, i)), load(shift(tops, i))))
    for j in range(C):
        row, out = shift(x, j * n), shift(y, j * n)
        for i in range(n):
            store(shift(out, i), load(shift(row, i)) - load(shift(tops, i)))
    for k in range(C * n):  # one long loop: the last samples of a row, fewer than a vector, would go one by one
        store(shift(y, k), exp(load(shift(y, k))))
    for j in range(C):
        out = shift(y, j * n)
        for i in range(n):
            store(shift(totals, i), load(shift(totals, i)) + load(shift(out, i)))
    for i in range(n):
        store(shift(scales, i), one(load(totals)) / load(shift(totals, i)))
    for j in range(C):
        out = shift(y, j * n)
        for i in range(n):
            store(shift(out, i), load(shift(out, i)) * load(shift(scales, i)))


@kernel
def _softmax_of_few_classes(x, y, tops, totals):
    """`softmax_of_rows` for so few classes that their sum is one chain."""
    N, C = x.shape
    block = _block(at(y, 0))
    for start in range(0, N, TURNED):
        n = min(TURNED, N - start)
        given, out = at(x, start * C), at(y, start * C)
        for i in range(n):
            for j in range(C):
                store(shift(block, j * n + i), load(shift(given, i * C + j)))
        softmax_in_lanes(block, block, n, C, at(tops, start), at(totals, start), shift(block, C * n))
        for i in range(n):
            for j in range(C):
                store(shift(out, i * C + j), load(shift(block, j * n + i)))


@kernel
def softmax_of_rows(x, y, tops, totals):
    """y = exp(x - tops)/totals, with the largest of each row of x in tops and the sums of exp(x - tops) in totals.

    Several short rows go through exp together: a vector loop over a row of 10 would be mostly its beginning
    and end (8.0 µs for 100 rows of 10 where this takes 2.2).
    """
    noinline()
    N, C = x.shape
    if is_few(C, at(x, 0)):
        _softmax_of_few_classes(x, y, tops, totals)
        return
    rows = max(1, 2048 // C)
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        for i in range(start, stop):
            top = x.dtype.type(-np.inf)
            for j in range(C):
                top = maximum(x[i, j], top)
            tops[i] = top
            for j in range(C):
                y[i, j] = x[i, j] - top
        block = at(y, start * C)
        for k in range((stop - start) * C):
            store(shift(block, k), exp(load(shift(block, k))))
        for i in range(start, stop):
            total = sum_of((at(y, i * C),), (), C)
            totals[i] = total
            scale = x.dtype.type(1) / total
            for j in range(C):
                y[i, j] *= scale


@shared_kernel
def _softmax_forward(x, out):
    """out = exp(x - max) / sum(exp(x - max)), row by row."""
    N = len(x)
    softmax_of_rows(x, out, np.empty(N, x.dtype), np.empty(N, x.dtype))


@twin_of(_softmax_forward)
def softmax_forward(x: Array, out: Array) -> None:
    np.exp(x - np.max(x, axis=1, keepdims=True), out=out)
    out /= np.sum(out, axis=1, keepdims=True)


@shared_kernel
def _softmax_backward(dout, out, dx):
    """dx = out·(dout - sum(dout·out)), row by row: the product with the full Jacobian diag(y) - y yᵀ."""
    N, C = out.shape
    for i in range(N):
        weighted = sum_of_products((at(dout, i * C), at(out, i * C)), (), C)
        for j in range(C):
            dx[i, j] = out[i, j] * (dout[i, j] - weighted)


@twin_of(_softmax_backward)
def softmax_backward(dout: Array, out: Array, dx: Array) -> None:
    weighted = np.sum(dout * out, axis=1, keepdims=True)
    dx[...] = out * (dout - weighted)


class Softmax(SameShapeLayer):
    """exp(x)/sum(exp(x)) along an axis (section 3.5), exact for logits of any size.

    dx = y·(dout - sum(dout·y)) along the axis, the product with the full Jacobian diag(y) - y·yᵀ.

    Parameters
    ----------
    axis : int
        The axis of the classes, by default the last; may be set at any time.

    Attributes
    ----------
    out : ndarray
        y of the last `forward`; the array that it returned.

    Examples
    --------
    >>> Softmax(axis=0).forward([[0.0, 1.0], [0.0, 1.0]])
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """

    axis = -1

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis
        self.out: Array | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = as_array("x", x)
        axis, dtype = axis_of("x", x, self.axis), float_dtype(result_dtype(x))
        if x.shape[axis] == 0:
            raise ValueError(f"x: expected at least one class, got shape {x.shape}; axis {axis} is the classes")
        samples = to_kernel(_rows(x, axis), dtype)
        out = empty(samples.shape, dtype)
        softmax_forward.of(dtype)(samples, out)
        self.out = out = from_kernel(_unrowed(out, x.shape, axis), dtype)
        return out

    def backward(self, dout: ArrayLike) -> Array:
        dout, out = self.checked(dout, "out")
        axis, dtype = axis_of("dout", dout, self.axis), result_dtype(dout, out)
        samples, y = to_kernel(_rows(dout, axis), dtype), to_kernel(_rows(out, axis), dtype)
        dx = empty(samples.shape, dtype)
        softmax_backward.of(dtype)(samples, y, dx)
        return from_kernel(_unrowed(dx, dout.shape, axis), dtype)


def _rows(array: Array, axis: int) -> Array:
    """An array as rows along an axis, (N, C)."""
    if array.ndim == 2 and axis == 1:
        return array
    if axis != array.ndim - 1:
        array = np.moveaxis(array, axis, -1)
    return array.reshape(-1, array.shape[-1])


def _unrowed(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The array of a shape whose `_rows` are these."""
    if rows.shape == shape and axis == 1:
        return rows
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    wide = rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.ascontiguousarray(np.moveaxis(wide, -1, axis))


layer(LayerRecord(Softmax, settings=("axis",)))
