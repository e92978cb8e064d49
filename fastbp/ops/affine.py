"""The affine layer x·W + b, and x·W alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import (
    FLOAT16,
    Array,
    DType,
    as_array,
    empty,
    from_kernel,
    not_run,
    parameter,
    result_dtype,
    same_shape,
    to_kernel,
)
from fastbp.ops.affine_in_lanes import IN_LANES
from fastbp.ops.affine_in_rows import IN_ROWS
from fastbp.ops.contract import LayerRecord, Shape, layer, twin_of
from fastbp.ops.memory import axes_in_memory, empty_in
from fastbp.runtime.gemm.product import A_TRANSPOSED, B_TRANSPOSED, FROM_ROW, SUMS_TO_ROW, product

__all__ = ["Affine", "MatMul"]


def _product(A: Array, B: Array, row: Array | None, C: Array, form: int = 0) -> None:
    """C = A·B, for A in the order of C or of Fortran."""
    if A.flags.c_contiguous:
        product(A, B, row, C, form)
    else:
        product(A.T, B, row, C, form | A_TRANSPOSED)


def _gradient_by_input(dout: Array, W: Array, dx: Array) -> None:
    """dx = dout·Wᵀ, for dx in the order of C or of Fortran."""
    if dx.flags.c_contiguous:
        product(dout, W, None, dx, B_TRANSPOSED)
    else:
        product(W, dout, None, dx.T, B_TRANSPOSED)


def _affine_forward(x: Any, W: Any, b: Any, out: Any) -> None:
    """out = x·W + b."""
    if x.flags.c_contiguous:
        product(x, W, b, out, FROM_ROW)
    else:
        product(x.T, W, b, out, FROM_ROW | A_TRANSPOSED)


@twin_of(_affine_forward)
def affine_forward(x: Array, W: Array, b: Array, out: Array) -> None:
    np.matmul(x, W, out=out)
    out += b


def _affine_backward(x: Any, W: Any, dout: Any, dx: Any, dW: Any, db: Any) -> None:
    """dx = dout·Wᵀ, dW = xᵀ·dout, db = sum of dout over the batch."""
    _gradient_by_input(dout, W, dx)
    _affine_backward_parameters(x, dout, dW, db)


@twin_of(_affine_backward)
def affine_backward(x: Array, W: Array, dout: Array, dx: Array, dW: Array, db: Array) -> None:
    np.matmul(dout, W.T, out=dx)
    np.matmul(x.T, dout, out=dW)
    np.sum(dout, axis=0, out=db)


def _affine_backward_parameters(x: Any, dout: Any, dW: Any, db: Any) -> None:
    """dW = xᵀ·dout, db = sum of dout over the batch: all that a network's first layer needs."""
    _product(x.T, dout, db, dW, SUMS_TO_ROW)


@twin_of(_affine_backward_parameters)
def affine_backward_parameters(x: Array, dout: Array, dW: Array, db: Array) -> None:
    np.matmul(x.T, dout, out=dW)
    np.sum(dout, axis=0, out=db)


def _matmul_forward(x: Any, W: Any, out: Any) -> None:
    """out = x·W."""
    _product(x, W, None, out)


@twin_of(_matmul_forward)
def matmul_forward(x: Array, W: Array, out: Array) -> None:
    np.matmul(x, W, out=out)


def _matmul_backward(x: Any, W: Any, dout: Any, dx: Any, dW: Any) -> None:
    """dx = dout·Wᵀ, dW = xᵀ·dout."""
    _gradient_by_input(dout, W, dx)
    _product(x.T, dout, None, dW)


@twin_of(_matmul_backward)
def matmul_backward(x: Array, W: Array, dout: Array, dx: Array, dW: Array) -> None:
    np.matmul(dout, W.T, out=dx)
    np.matmul(x.T, dout, out=dW)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    W, D = parameter("W", layer.W, 2), math.prod(shape)
    if "b" in layer.parameter_names:
        same_shape("b", parameter("b", layer.b, 1), W.shape[1:], f"one element for each column of W {W.shape}")
    if W.shape[0] != D:
        raise ValueError(
            f"{whose} of {W.shape[0]} numbers, as the rows of W {W.shape} that take them, got {D}; "
            "give each sample as many, or build the network for them"
        )
    return (int(W.shape[1]),)


_MAP = replace(IN_ROWS, shape=_shape, in_lanes=IN_LANES)


class Affine:
    """x·W + b for one sample or a batch (section 5.6).

    Parameters
    ----------
    W : ndarray (D, M)
    b : ndarray (M,)
        Kept as given, not copied: `params["W1"] -= lr * grad` from outside is seen by the layer.

    Attributes
    ----------
    W, b : ndarray
        The very arrays given.
    x : ndarray (N, D)
        The input of the last `forward` as rows; a view of it where its layout allows.
    dW : ndarray (D, M)
    db : ndarray (M,)
        Gradients by `W` and `b`, new arrays at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If `W` and `b` are not arrays of real numbers in these shapes.

    Examples
    --------
    >>> layer = Affine(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.5, 0.0]))
    >>> layer.forward([[1.0, 1.0]])
    array([[4.5, 6. ]])
    >>> layer.backward([[1.0, 0.0]])
    array([[1., 3.]])
    >>> layer.dW
    array([[1., 0.],
           [1., 0.]])
    >>> layer.db
    array([1., 0.])
    """

    parameter_names = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        self.W = W
        self.b = b
        self._parameters()
        self.x: Array | None = None
        self.dW: Array | None = None
        self.db: Array | None = None
        self._forward: tuple[Array, Array, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return x·W + b.

        Parameters
        ----------
        x : array_like
            One sample (D,), a batch (N, D), or any (N, ...) whose samples flatten to D.

        Returns
        -------
        ndarray
            A new array, (M,) for one sample, else (N, M).

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        W, b = self._parameters()
        x = as_array("x", x)
        samples, M = _as_rows(x, W), len(b)
        dtype = result_dtype(x, W, b)
        out = empty((len(samples), M), dtype)
        affine_forward.of(dtype)(_laid_out(samples, dtype), to_kernel(W, dtype), to_kernel(b, dtype), out)
        self.x, self._forward = samples, (samples, W, x.shape)
        out = from_kernel(out, dtype)
        return out.reshape(M) if x.ndim == 1 else out

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx = dout·Wᵀ, and set dW = xᵀ·dout and db, the sum of dout over the batch.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Returns
        -------
        ndarray
            dx, a new array in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        x, W, shape, dout = _operands(self, dout)
        dtype = result_dtype(x, W, dout)
        x_given, dW, db = _laid_out(x, dtype), empty(W.shape, dtype), empty(W.shape[1:], dtype)
        dx, _ = empty_in(axes_in_memory(x_given), x.shape, dtype)
        affine_backward.of(dtype)(x_given, to_kernel(W, dtype), to_kernel(dout, dtype), dx, dW, db)
        if dx.dtype is not dout.dtype or x.dtype is not W.dtype or dtype.kind != "f":
            dx, dW = from_kernel(dx, result_dtype(dout, W)), from_kernel(dW, result_dtype(x, dout))
            db = _sum_over_batch(db, dout)
        self.dW, self.db = dW, db
        return dx.reshape(shape)

    def backward_parameters(self, dout: ArrayLike) -> None:
        """Set dW and db as `backward` does, without dx: for a network's first layer, whose dx nobody reads.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `backward`.

        Examples
        --------
        >>> layer = Affine(np.eye(2), np.zeros(2))
        >>> out = layer.forward([[1.0, 2.0]])
        >>> layer.backward_parameters([[1.0, 0.0]])
        >>> layer.dW
        array([[1., 0.],
               [2., 0.]])
        """
        x, W, _, dout = _operands(self, dout)
        dtype = result_dtype(x, dout)
        dW, db = empty(W.shape, dtype), empty(W.shape[1], dtype)
        affine_backward_parameters.of(dtype)(_laid_out(x, dtype), to_kernel(dout, dtype), dW, db)
        self.dW, self.db = from_kernel(dW, dtype), _sum_over_batch(db, dout)

    def _parameters(self) -> tuple[Array, Array]:
        W, b = parameter("W", self.W, 2), parameter("b", self.b, 1)
        if b.shape[0] != W.shape[1]:
            raise ValueError(
                f"b: expected shape ({W.shape[1]},), one element for each column of W {W.shape}, got {b.shape}; "
                f"make b with np.zeros({W.shape[1]})"
            )
        return W, b


layer(LayerRecord(Affine, arrays=("W", "b"), decayed=("W",), map=_MAP))


class MatMul:
    """x·W for one sample or a batch, without a bias (section 5.6).

    Parameters
    ----------
    W : ndarray (D, M)
        Kept as given, not copied.

    Attributes
    ----------
    W : ndarray
        The very array given.
    x : ndarray (N, D)
        The input of the last `forward` as rows; a view of it where its layout allows.
    dW : ndarray (D, M)
        The gradient by `W`, a new array at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If W is not an array (D, M) of real numbers.

    Examples
    --------
    >>> MatMul(np.array([[1.0, 2.0], [3.0, 4.0]])).forward([1.0, 1.0])
    array([4., 6.])
    """

    parameter_names = ("W",)

    def __init__(self, W: Array) -> None:
        self.W = W
        parameter("W", W, 2)
        self.x: Array | None = None
        self.dW: Array | None = None
        self._forward: tuple[Array, Array, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return x·W.

        Parameters
        ----------
        x : array_like
            One sample (D,), a batch (N, D), or any (N, ...) whose samples flatten to D.

        Returns
        -------
        ndarray
            A new array, (M,) for one sample, else (N, M).

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        W, x = parameter("W", self.W, 2), as_array("x", x)
        samples, dtype = _as_rows(x, W), result_dtype(x, W)
        out = empty((len(samples), W.shape[1]), dtype)
        matmul_forward.of(dtype)(_laid_out(samples, dtype), to_kernel(W, dtype), out)
        self.x, self._forward = samples, (samples, W, x.shape)
        out = from_kernel(out, dtype)
        return out.reshape(-1) if x.ndim == 1 else out

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx = dout·Wᵀ, and set dW = xᵀ·dout.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Returns
        -------
        ndarray
            dx, a new array in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        x, W, shape, dout = _operands(self, dout)
        dtype = result_dtype(x, W, dout)
        x_given, dW = _laid_out(x, dtype), empty(W.shape, dtype)
        dx, _ = empty_in(axes_in_memory(x_given), x.shape, dtype)
        matmul_backward.of(dtype)(x_given, to_kernel(W, dtype), to_kernel(dout, dtype), dx, dW)
        self.dW = from_kernel(dW, result_dtype(x, dout))
        return from_kernel(dx, result_dtype(dout, W)).reshape(shape)


layer(LayerRecord(MatMul, arrays=("W",), decayed=("W",), map=_MAP))


def _operands(layer: Any, dout: ArrayLike) -> tuple[Array, Array, tuple[int, ...], Array]:
    """x and W as forward used them, the shape of its input, and dout as rows."""
    if layer._forward is None:
        not_run(layer)
    x, W, shape = layer._forward
    if x.ndim != 2 or W.ndim != 2 or x.shape[1] != W.shape[0]:
        raise ValueError(
            f"W: expected {x.shape[-1]} rows, as when forward ran, got shape {W.shape}; call forward after a reshape"
        )
    dout = as_array("dout", dout)
    out_shape = (len(x), W.shape[1])
    if len(shape) == 1:
        same_shape("dout", dout, out_shape[1:], "as the output")
        return x, W, shape, dout.reshape(out_shape)
    same_shape("dout", dout, out_shape, "as the output")
    return x, W, shape, dout


def _laid_out(x: Array, dtype: DType) -> Array:
    """`to_kernel`, but for samples that lie side by side in memory, as images come from a convolution: no copy.

    For SimpleConvNet's affine layer, 100×4320×100 in float32, the copy would take as long as the product.
    """
    if x.dtype is dtype and dtype is not FLOAT16 and x.flags.farray:
        return x
    return to_kernel(x, dtype)


def _as_rows(x: Array, W: Array) -> Array:
    D = len(W)
    shape = (1, *x.shape) if x.ndim == 1 else x.shape
    if x.ndim == 0 or math.prod(shape[1:]) != D:
        raise ValueError(
            f"x: expected one sample ({D},) or a batch (N, {D}) to multiply W {W.shape}, got shape {x.shape}; "
            f"reshape x, or make W with as many rows as x has features"
        )
    return x if x.ndim == 2 else x.reshape(shape[0], D)


def _sum_over_batch(db: Array, dout: Array) -> Array:
    """`db` in the dtype that NumPy's sum over the batch has."""
    return from_kernel(db, result_dtype(dout)) if dout.dtype.kind == "f" else np.sum(dout, axis=0)
