"""The book's helpers (`common/util.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array
from fastbp.ops.images import images, output_size, steps

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

_WINDOW = 11  # values that a smoothed one is the mean of
_BETA = 2  # of the Kaiser window, their weights


def smooth_curve(x: ArrayLike) -> Array:
    """Return a curve whose values are means of 11 neighbours, weighted by a Kaiser window.

    Beyond its ends the curve is mirrored there.

    Parameters
    ----------
    x : array_like (n,)
        At least 11 values.

    Returns
    -------
    ndarray (n,)
        For n of at least 11; the book's code gives other lengths below.
    """
    curve = as_array("x", x)
    before, after = curve[_WINDOW - 1 : 0 : -1], curve[-1:-_WINDOW:-1]
    weights = np.kaiser(_WINDOW, _BETA)
    smoothed = np.convolve(weights / weights.sum(), np.concatenate([before, curve, after]), mode="valid")
    return smoothed[_WINDOW // 2 : len(smoothed) - _WINDOW // 2]


def shuffle_dataset(x: Array, t: Array) -> tuple[Array, Array]:
    """Return samples and targets in a new order, one for both, drawn from NumPy's global generator.

    Parameters
    ----------
    x : ndarray
        Samples (N, D) or images (N, C, H, W).
    t : ndarray (N, ...)
    """
    order = np.random.permutation(len(x))
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Return (input_size + 2·pad - filter_size)/stride + 1, a float, also where it is not whole (section 7.2.4)."""
    return (input_size + 2 * pad - filter_size) / stride + 1


def im2col(input_data: ArrayLike, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Return the windows of images as rows (section 7.4.2).

    Parameters
    ----------
    input_data : array_like (N, C, H, W)
    filter_h, filter_w, stride : int
        At least 1.
    pad : int
        At least 0; the border is zeros.

    Returns
    -------
    ndarray (N·OH·OW, C·filter_h·filter_w) of float64
        A new array, in any dtype of the images, as in the book.

    Raises
    ------
    TypeError, ValueError
        If the images are not real numbers in such a shape, or smaller than a window.
    """
    x = images("input_data", as_array("input_data", input_data))
    _places(x.shape, filter_h, filter_w, stride, pad)
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)]).astype(np.float64)
    windows = sliding_window_view(padded, (filter_h, filter_w), axis=(2, 3))[:, :, ::stride, ::stride]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * filter_h * filter_w)
    return rows if rows.flags.writeable else rows.copy()


def col2im(
    col: ArrayLike, input_shape: tuple[int, int, int, int], filter_h: int, filter_w: int, stride: int = 1, pad: int = 0
) -> Array:
    """Return images (N, C, H, W) of float64 whose pixels are the sums of all that rows of windows have for them.

    Parameters
    ----------
    col : array_like (N·OH·OW, C·filter_h·filter_w)
        In the order of `im2col`.
    input_shape : tuple of int
        N, C, H, W.
    filter_h, filter_w, stride, pad : int
        As `im2col` takes them.

    Raises
    ------
    TypeError, ValueError
        If col is not real numbers in such a shape.
    """
    N, C, H, W = input_shape
    OH, OW = _places(input_shape, filter_h, filter_w, stride, pad)
    rows = as_array("col", col)
    if rows.size != N * OH * OW * C * filter_h * filter_w:
        raise ValueError(
            f"col: expected {N * OH * OW} rows of {C * filter_h * filter_w} for images {tuple(input_shape)}, got shape "
            f"{rows.shape}; give the sizes that im2col had"
        )
    windows = rows.reshape(N, OH, OW, C, filter_h, filter_w).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    for i in range(filter_h):
        for j in range(filter_w):
            padded[:, :, i : i + stride * OH : stride, j : j + stride * OW : stride] += windows[:, :, i, j]
    return padded[:, :, pad : pad + H, pad : pad + W]


def _places(shape: Any, filter_h: int, filter_w: int, stride: int, pad: int) -> tuple[int, int]:
    """How many lines and columns of windows there are."""
    steps("filter_h", filter_h, 1), steps("filter_w", filter_w, 1), steps("stride", stride, 1), steps("pad", pad, 0)
    return (
        output_size(shape[2], filter_h, stride, pad, "windows"),
        output_size(shape[3], filter_w, stride, pad, "windows"),
    )
