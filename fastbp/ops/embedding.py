"""Embedding: a row of W for each index, which is the product of one-hot rows with W, without the rows.

    out[i] = W[x[i]];  dW[v] = the sum of dout[i] over all i with x[i] = v

Koki Saitoh, "Deep Learning from Scratch 2", section 4.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import INTP, Array, DType, as_array, empty, from_kernel, not_run, parameter, result_dtype, to_kernel
from fastbp.checks import same_shape as check_shape
from fastbp.ops.contract import LayerRecord, layer, twin_of
from fastbp.ops.targets import first_bad_label
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
        indices = _checked(x, len(W), dtype)
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


def _checked(x: Array, V: int, dtype: DType) -> Array:
    """The indices for results of a dtype, a flat copy: nobody else can change it after the check."""
    if x.dtype.kind not in "iu" and x.size:
        raise TypeError(f"x: expected integers, the indices of rows of W, got {x.dtype}; convert with x.astype(int)")
    indices = np.array(x, INTP).reshape(-1)
    bad = first_bad_label.of(dtype)(indices, V)
    if bad >= 0:
        raise ValueError(
            f"x: expected indices from 0 to {V - 1}, as W has {V} rows, got {x.reshape(-1)[bad]}; "
            f"make W with a row for each word"
        )
    return indices


layer(LayerRecord(Embedding, arrays=("W",), decayed=("W",), takes_indices=True))
