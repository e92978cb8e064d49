"""Embedding: a row of W for each index, which is the product of one-hot rows with W, without the rows.

    out[i] = W[x[i]];  dW[v] = the sum of dout[i] over all i with x[i] = v

Koki Saitoh, "Deep Learning from Scratch 2", section 4.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import INTP, Array, DType, as_array, empty, from_kernel, not_run, parameter, result_dtype, to_kernel
from fastbp.checks import same_shape as check_shape
from fastbp.ops.contract import LayerRecord, Map, Shape, layer, twin_of
from fastbp.ops.prediction import W_AT as W_ADDRESS
from fastbp.ops.prediction import activate_in_place, row_at
from fastbp.ops.state import (
    CHUNK,
    D_IN,
    DELTA,
    ROWS,
    SQUARES_AT,
    W_AT,
    W_GIVEN_AT,
    W_ROWS,
    W_WIDTH,
    Z_OUT,
    activate,
    gradients_of,
    indices_of,
    update_parameters,
)
from fastbp.ops.targets import first_bad_label
from fastbp.runtime.elementary import zero
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import as_words, at, load, located, shift, store, view
from fastbp.runtime.sharing import public_kernel

__all__ = ["Embedding"]


@public_kernel
def _embedding_forward(x, W, out):
    """out[i] = W[x[i]]."""
    for i in range(x.size):
        row, copy = W[x[i]], out[i]  # an index in the inner loop would take 2 to 12 times as long
        for d in range(row.size):
            copy[d] = row[d]


@twin_of(_embedding_forward)
def embedding_forward(x: Array, W: Array, out: Array) -> None:
    out[...] = W[x]


@public_kernel
def _embedding_backward(dout, x, dW):
    """dW[v] = the sum of dout[i] over all i with x[i] = v, from the first to the last."""
    dW[:] = dW.dtype.type(0)
    for i in range(x.size):
        row, given = dW[x[i]], dout[i]
        for d in range(row.size):
            row[d] += given[d]


@twin_of(_embedding_backward)
def embedding_backward(dout: Array, x: Array, dW: Array) -> None:
    dW[...] = 0
    np.add.at(dW, x, dout)


class Embedding:
    """A row of W for each index (volume 2 of the book, section 4.1).

    Parameters
    ----------
    W : ndarray (V, D)
        A row for each of V words. Kept as given, not copied.

    Attributes
    ----------
    W : ndarray
        The very array given.
    dW : ndarray (V, D)
        The gradient by `W`, a new array at each `backward`. The gradients of an index that is repeated add up.

    Raises
    ------
    TypeError, ValueError
        If W is not an array (V, D) of real numbers.

    Examples
    --------
    >>> layer = Embedding(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> layer.forward([1, 0, 1])
    array([[3., 4.],
           [1., 2.],
           [3., 4.]])
    >>> dx = layer.backward(np.ones((3, 2)))
    >>> layer.dW
    array([[1., 1.],
           [2., 2.]])
    """

    parameter_names = ("W",)

    def __init__(self, W: Array) -> None:
        self.W = W
        parameter("W", W, 2)
        self.dW: Array | None = None
        self._forward: tuple[Array, tuple[int, ...], tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return W[x].

        Parameters
        ----------
        x : array_like of integers
            Any shape; each from 0 to V - 1.

        Returns
        -------
        ndarray
            A new array in the shape of x, and an axis of D after it.

        Raises
        ------
        TypeError, ValueError
            If x is not such integers.
        """
        W, x = parameter("W", self.W, 2), as_array("x", x)
        dtype = result_dtype(W)
        indices = _checked(x, len(W), dtype, copy=True)
        out = empty((x.size, W.shape[1]), dtype)
        embedding_forward.of(dtype)(indices, to_kernel(W, dtype), out)
        self._forward = indices, x.shape, W.shape
        return from_kernel(out, dtype).reshape(*x.shape, W.shape[1])

    def backward(self, dout: ArrayLike) -> Array:
        """Set dW, and return zeros: the output does not change with small changes of an index.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Returns
        -------
        ndarray
            Zeros in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        if self._forward is None:
            not_run(self)
        indices, shape, (V, D) = self._forward
        dout = as_array("dout", dout)
        check_shape("dout", dout, (*shape, D), "as the output")
        dtype = result_dtype(dout)
        dW = empty((V, D), dtype)
        embedding_backward.of(dtype)(to_kernel(dout, dtype).reshape(indices.size, D), indices, dW)
        self.dW = from_kernel(dW, dtype)
        return np.zeros(shape, dtype)


def _checked(x: Array, V: int, dtype: DType, *, copy: bool) -> Array:
    """The indices for results of a dtype, flat. Nobody else can change a copy after the check."""
    if x.dtype.kind not in "iu" and x.size:
        raise TypeError(f"x: expected integers, the indices of rows of W, got {x.dtype}; convert with x.astype(int)")
    indices = x.astype(INTP, copy=copy).reshape(-1)
    bad = first_bad_label.of(dtype)(indices, V)
    if bad >= 0:
        raise ValueError(
            f"x: expected indices from 0 to {V - 1}, as W has {V} rows, got {x.reshape(-1)[bad]}; "
            f"make W with a row for each word"
        )
    return indices


# In the engine, as the first layer.


@kernel
def _forward(network_at, number, part, i0, i1):
    network = view(network_at)
    layer = network.layers[number]
    L, D = layer[D_IN], layer[W_WIDTH]
    W, out = at(network.params, layer[W_AT]), at(network.workspace, layer[Z_OUT])
    for i in range(i0, i1):
        _copy_rows(W, D, indices_of(network_at, i), L, shift(out, i * L * D))
    activate(network_at, number, i0, i1)


@kernel
def _copy_rows(W, D, indices, count, out):
    for k in range(count):
        row, copy = shift(W, load(shift(indices, k)) * D), shift(out, k * D)
        for d in range(D):
            store(shift(copy, d), load(shift(row, d)))


@kernel
def _gradient(network_at, number, part, parts, N, coefficients):
    """Update a slice of W, some rows at a time while they are in the cache."""
    network = view(network_at)
    layer, dW = network.layers[number], at(gradients_of(network_at, part), 0)
    rows, D = layer[W_ROWS], layer[W_WIDTH]
    i0, i1 = boundary(rows, ROW_GRAIN, part, parts), boundary(rows, ROW_GRAIN, part + 1, parts)
    count = max(ROW_GRAIN, CHUNK // D // ROW_GRAIN * ROW_GRAIN)
    for start in range(i0, i1, count):
        stop = min(start + count, i1)
        _gradient_of_rows(network_at, number, N, start, stop, dW)
        squares_at, given = layer[SQUARES_AT] + start // ROW_GRAIN, shift(coefficients, layer[W_GIVEN_AT])
        update_parameters(network_at, layer[W_AT] + start * D, dW, (stop - start) * D, D, squares_at, given)


@kernel
def _gradient_of_rows(network_at, number, N, start, stop, dW):
    """dW = the gradient by rows start:stop of W, with terms in the order of the batch."""
    network = view(network_at)
    layer = network.layers[number]
    L, D = layer[D_IN], layer[W_WIDTH]
    dout = at(network.workspace, layer[DELTA])
    for k in range((stop - start) * D):
        store(shift(dW, k), zero(load(dW)))
    for i in range(N):
        indices = indices_of(network_at, i)
        for k in range(L):
            v = load(shift(indices, k))
            if start <= v < stop:
                row, given = shift(dW, (v - start) * D), shift(dout, (i * L + k) * D)
                for d in range(D):
                    store(shift(row, d), load(shift(row, d)) + load(shift(given, d)))


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    layer = row_at(layer_at)
    _copy_rows(located(h, layer[W_ADDRESS]), layer[W_WIDTH], as_words(h), N * layer[D_IN], out)
    activate_in_place(layer, out, N)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    return (*shape, int(parameter("W", layer.W, 2).shape[1]))


def _check_indices(layer: Any, x: Array) -> Array:
    W = parameter("W", layer.W, 2)
    return _checked(x, len(W), result_dtype(W), copy=False)


_MAP = Map(
    _forward,
    gradient=_gradient,
    predict=_predict,
    shape=_shape,
    layout=lambda _: ROWS,
    check_indices=_check_indices,
)

layer(LayerRecord(Embedding, arrays=("W",), decayed=("W",), map=_MAP))
