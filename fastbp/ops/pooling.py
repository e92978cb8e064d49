"""Pooling of images: the largest pixel or the mean of each window (section 7.3).

The kernels take images with the samples side by side in memory, (C, H, W, N), as a convolution hands them out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import carray
from numpy.typing import ArrayLike

from fastbp.checks import (
    Array,
    DType,
    as_array,
    empty,
    from_kernel,
    not_run,
    quotient_dtype,
    result_dtype,
    same_shape,
    to_kernel,
)
from fastbp.ops.contract import LayerRecord, Map, Shape, layer, twin_of
from fastbp.ops.images import (
    empty_lanes,
    images,
    images_of_shape,
    in_kernel_dtype,
    in_lanes,
    output_size,
    steps,
    window_pixels,
)
from fastbp.ops.prediction import activate_in_place, row_at
from fastbp.ops.state import (
    DELTA,
    DELTA_BEFORE,
    EPILOGUE,
    H_IN,
    H_OUT,
    IN_C,
    IN_H,
    IN_W,
    KEPT,
    LANES,
    M_OUT,
    MEMORY_AT,
    OUT_C,
    OUT_H,
    OUT_W,
    POOL,
    SETTINGS_AT,
    SLOPE,
    WORD,
    Z_OUT,
    activate,
    apply_slope,
    slice_at,
)
from fastbp.runtime.gemm.epilogue import NONE, finish
from fastbp.runtime.jit import kernel
from fastbp.runtime.lanes.windows import largest, means, spread_evenly, spread_to_largest, windows_from
from fastbp.runtime.pointers import at, view
from fastbp.runtime.sharing import shared_kernel

__all__ = ["Pooling"]

MODES = ("max", "average")


@shared_kernel
def _max_pooling_forward(x, pool_h, pool_w, stride, pad, out, place):
    """out = the largest pixel of each window; place = the number of the first one that is, line by line.

    A NaN counts as the largest. Arrays are (C, H, W, N).
    """
    (C, OH, OW, N), H, W = out.shape, x.shape[1], x.shape[2]
    for c in range(C):
        for y in range(OH):
            q = 0
            while q < OW:
                windows = windows_from(q, y, H, W, OW, N, pool_h, pool_w, stride, pad)
                pixel, result = _pixel(c, y, q, H, W, N, stride, pad), ((c * OH + y) * OW + q) * N
                largest(at(x, pixel), at(out, result), at(place, result), windows)
                q += windows.count


@twin_of(_max_pooling_forward)
def max_pooling_forward(x: Array, pool_h: int, pool_w: int, stride: int, pad: int, out: Array, place: Array) -> None:
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min if x.dtype.kind in "iu" else False
    padded, is_image = np.pad(x, border, constant_values=lowest), np.pad(np.ones_like(x, bool), border)
    windows, inside = (np.array([*_windows(a, pool_h, pool_w, stride, out.shape)]) for a in (padded, is_image))
    out[...] = np.max(windows, axis=0)
    is_largest = np.where(np.isnan(out), np.isnan(windows), windows == out)
    place[...] = np.argmax(is_largest & inside, axis=0)


@shared_kernel
def _max_pooling_backward(dout, place, pool_h, pool_w, stride, pad, dx):
    """dx = the sum of dout over the windows whose largest pixel is this one."""
    (C, OH, OW, N), H, W = dout.shape, dx.shape[1], dx.shape[2]
    adds = stride < max(pool_h, pool_w)
    if adds or not _is_covered(dx, OH, OW, pool_h, pool_w, stride, pad):
        dx[...] = dout.dtype.type(0)
    for c in range(C):
        for y in range(OH):
            q = 0
            while q < OW:
                windows = windows_from(q, y, H, W, OW, N, pool_h, pool_w, stride, pad)
                pixel, result = _pixel(c, y, q, H, W, N, stride, pad), ((c * OH + y) * OW + q) * N
                spread_to_largest(at(dout, result), at(place, result), at(dx, pixel), adds, windows)
                q += windows.count


@kernel
def _pixel(c, y, q, H, W, N, stride, pad):
    """Where the first pixel of a window lies in an image (C, H, W, N)."""
    return ((c * H + y * stride - pad) * W + q * stride - pad) * N


@kernel
def _is_covered(dx, OH, OW, pool_h, pool_w, stride, pad):
    """Whether each pixel lies in one of the windows, which do not overlap."""
    height, width = OH * stride - pad, OW * stride - pad
    return stride == pool_h == pool_w and height >= dx.shape[1] and width >= dx.shape[2]


@twin_of(_max_pooling_backward)
def max_pooling_backward(dout: Array, place: Array, pool_h: int, pool_w: int, stride: int, pad: int, dx: Array) -> None:
    padded = np.zeros_like(np.pad(dx, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
    for number, window in enumerate(_windows(padded, pool_h, pool_w, stride, dout.shape)):
        np.add(window, np.where(place == number, dout, 0), out=window)
    dx[...] = padded[:, pad : pad + dx.shape[1], pad : pad + dx.shape[2]]


@shared_kernel
def _average_pooling_forward(x, pool_h, pool_w, stride, pad, out):
    """out = the mean of each window, in which pixels outside of the image count as 0."""
    (C, OH, OW, N), H, W = out.shape, x.shape[1], x.shape[2]
    scale = x.dtype.type(1 / (pool_h * pool_w))
    for c in range(C):
        for y in range(OH):
            q = 0
            while q < OW:
                windows = windows_from(q, y, H, W, OW, N, pool_h, pool_w, stride, pad)
                result = ((c * OH + y) * OW + q) * N
                means(at(x, _pixel(c, y, q, H, W, N, stride, pad)), at(out, result), scale, windows)
                q += windows.count


@twin_of(_average_pooling_forward)
def average_pooling_forward(x: Array, pool_h: int, pool_w: int, stride: int, pad: int, out: Array) -> None:
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out[...] = np.mean([*_windows(padded, pool_h, pool_w, stride, out.shape)], axis=0)


@shared_kernel
def _average_pooling_backward(dout, pool_h, pool_w, stride, pad, dx):
    """dx = the sum of dout over the windows that have the pixel, divided by the pixels of a window."""
    (C, OH, OW, N), H, W = dout.shape, dx.shape[1], dx.shape[2]
    scale, adds = dout.dtype.type(1 / (pool_h * pool_w)), stride < max(pool_h, pool_w)
    if adds or not _is_covered(dx, OH, OW, pool_h, pool_w, stride, pad):
        dx[...] = dout.dtype.type(0)
    for c in range(C):
        for y in range(OH):
            q = 0
            while q < OW:
                windows = windows_from(q, y, H, W, OW, N, pool_h, pool_w, stride, pad)
                result = ((c * OH + y) * OW + q) * N
                spread_evenly(at(dout, result), scale, at(dx, _pixel(c, y, q, H, W, N, stride, pad)), adds, windows)
                q += windows.count


@twin_of(_average_pooling_backward)
def average_pooling_backward(dout: Array, pool_h: int, pool_w: int, stride: int, pad: int, dx: Array) -> None:
    padded = np.zeros_like(np.pad(dx, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
    for window in _windows(padded, pool_h, pool_w, stride, dout.shape):
        np.add(window, dout / (pool_h * pool_w), out=window)
    dx[...] = padded[:, pad : pad + dx.shape[1], pad : pad + dx.shape[2]]


def _windows(padded: Array, pool_h: int, pool_w: int, stride: int, out: tuple[int, ...]) -> Iterator[Array]:
    """For each place of a window, line by line, a view of its pixels (C, OH, OW, N)."""
    for _, _, lines, columns in window_pixels((pool_h, pool_w), out[1:3], stride):
        yield padded[:, lines, columns]


class Pooling:
    """The largest pixel of each window, or its mean (section 7.3).

    Windows of pool_h × pool_w pixels lie `stride` pixels apart, so there are (H + 2·pad - pool_h)//stride + 1 lines of
    them. Each channel is pooled for itself.

    Parameters
    ----------
    pool_h, pool_w : int
        At least 1.
    stride : int
        At least 1.
    pad : int
        The border of each image, less than pool_h and pool_w. Its pixels are never the largest; in a mean they are 0.
    mode : {"max", "average"}

    Attributes
    ----------
    x : ndarray (N, C, H, W)
        The input of the last `forward`.
    arg_max : ndarray of int (N, C, OH, OW), or None
        In mode "max" the number of the largest pixel in each window, line by line; the first of several.

    Raises
    ------
    TypeError, ValueError
        If an argument is not such an integer or mode.

    Notes
    -----
    The size of the output counts the border. The book's counts it in the windows alone, so that its class works
    without one only. Samples lie side by side in the memory of the results, as in those of `Convolution`.

    Examples
    --------
    >>> Pooling(2, 2).forward(np.arange(16.0).reshape(1, 1, 4, 4))[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int = 2, pad: int = 0, mode: str = "max") -> None:
        self.pool_h, self.pool_w = pool_h, pool_w
        self.stride, self.pad, self.mode = stride, pad, mode
        self._settings()
        self.x: Array | None = None
        self.arg_max: Array | None = None
        self._forward: tuple[tuple[int, int, int, int], tuple[int, ...], tuple[int, ...], Array | None] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return the largest pixel of each window, or the mean.

        Parameters
        ----------
        x : array_like (N, C, H, W)

        Returns
        -------
        ndarray (N, C, OH, OW)
            A new array in the dtype of x; means of integers are float64.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape, or images smaller than the window.
        """
        settings = pool_h, pool_w, stride, pad = self._settings()
        x = images("x", as_array("x", x))
        is_max = self.mode == "max"
        dtype = result_dtype(x) if is_max else quotient_dtype(x)
        height = output_size(x.shape[2], pool_h, stride, pad, "a window")
        width = output_size(x.shape[3], pool_w, stride, pad, "a window")
        out, place = empty_lanes((*x.shape[:2], height, width), dtype), None
        lanes, out_lanes = _lanes(x, dtype), in_lanes(out)
        if is_max:
            place = empty(out_lanes.shape, np.dtype(np.uint8 if pool_h * pool_w <= _LARGEST_BYTE else np.int64))
            max_pooling_forward.of(dtype)(lanes, *settings, out_lanes, place)
        else:
            average_pooling_forward.of(dtype)(lanes, *settings, out_lanes)
        self.x, self.arg_max = x, None if place is None else place.transpose(3, 0, 1, 2)
        self._forward = settings, x.shape, out.shape, place
        return from_kernel(out, dtype)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx: dout at the largest pixel of each window, or spread over its pixels.

        Parameters
        ----------
        dout : array_like (N, C, OH, OW)

        Returns
        -------
        ndarray (N, C, H, W)
            A new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        if self._forward is None:
            not_run(self)
        settings, shape, out_shape, place = self._forward
        dout = as_array("dout", dout)
        same_shape("dout", dout, out_shape, "as the output")
        dtype = quotient_dtype(dout) if place is None else result_dtype(dout)
        N, C, H, width = shape
        dx, lanes = empty_lanes((N, C, H, width), dtype), _lanes(dout, dtype)
        if place is None:
            average_pooling_backward.of(dtype)(lanes, *settings, in_lanes(dx))
        else:
            max_pooling_backward.of(dtype)(lanes, place, *settings, in_lanes(dx))
        return from_kernel(dx, dtype)

    def _settings(self) -> tuple[int, int, int, int]:
        """Height and width of the window, stride and pad, checked, as the mode is."""
        height, width = steps("pool_h", self.pool_h, 1), steps("pool_w", self.pool_w, 1)
        stride, pad = steps("stride", self.stride, 1), steps("pad", self.pad, 0)
        if pad >= min(height, width):
            raise ValueError(
                f"pad: expected less than the window {height}×{width}, got {pad}; "
                "take a smaller border, as each window must have a pixel of the image"
            )
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {self.mode!r}; choose one of these")
        return height, width, stride, pad


# The most pixels of a window whose numbers fit a byte.
_LARGEST_BYTE = 256


def _lanes(x: Array, dtype: DType) -> Array:
    """`x` as a kernel takes it for results of `dtype`, (C, H, W, N)."""
    return to_kernel(in_lanes(in_kernel_dtype(x, dtype)), dtype)


_max_forward, _max_backward = _max_pooling_forward.kernel, _max_pooling_backward.kernel
_average_forward, _average_backward = _average_pooling_forward.kernel, _average_pooling_backward.kernel


@kernel
def _forward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    if layer[POOL]:  # the convolution before has done it
        activate(network_at, number, i0, i1)
        return
    OC, OH, OW = layer[OUT_C], layer[OUT_H], layer[OUT_W]
    x = slice_at(network_at, layer[H_IN], layer[IN_C], layer[IN_H], layer[IN_W], i0, i1)
    out = slice_at(network_at, layer[Z_OUT], OC, OH, OW, i0, i1)
    pool_h, pool_w, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    if layer[WORD + 4]:
        place = slice_at(network_at, layer[MEMORY_AT], OC, OH, OW, i0, i1)
        _max_forward(x, pool_h, pool_w, stride, pad, out, place)
    else:
        _average_forward(x, pool_h, pool_w, stride, pad, out)
    activate(network_at, number, i0, i1)


@kernel
def _backward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    if layer[POOL]:  # the convolution before reads dout and the places
        _apply_slope_of_largest(network_at, number, i0, i1)
        return
    before, OC, OH, OW = layer[DELTA_BEFORE], layer[OUT_C], layer[OUT_H], layer[OUT_W]
    dx = slice_at(network_at, before, layer[IN_C], layer[IN_H], layer[IN_W], i0, i1)
    dout = slice_at(network_at, layer[DELTA], OC, OH, OW, i0, i1)
    pool_h, pool_w, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    if not layer[WORD + 4]:
        _average_backward(dout, pool_h, pool_w, stride, pad, dx)
        apply_slope(network_at, number - 1, before, i0, i1)
        return
    place = slice_at(network_at, layer[MEMORY_AT], OC, OH, OW, i0, i1)
    is_single = stride >= max(pool_h, pool_w) and _takes_outputs(network_at, number)
    if is_single:
        # Each pixel is in one window, and what is not the largest has no gradient: a fourth of the work.
        _apply_slope_of_largest(network_at, number, i0, i1)
    _max_backward(dout, place, pool_h, pool_w, stride, pad, dx)
    if not is_single:
        apply_slope(network_at, number - 1, before, i0, i1)


@kernel
def _takes_outputs(network_at, number):
    """Whether the slope of the activation before reads its output, and this layer's output is still the largest."""
    layer, before = view(network_at).layers[number], view(network_at).layers[number - 1]
    return before[KEPT] == before[H_OUT] and layer[EPILOGUE] == NONE


@kernel
def _apply_slope_of_largest(network_at, number, i0, i1):
    """Multiply dout of samples i0:i1 by the slope of the activation before at the largest pixels."""
    network = view(network_at)
    layer, before, M = network.layers[number], network.layers[number - 1], network.layers[number, M_OUT]
    d, out = at(network.workspace, layer[DELTA] + i0 * M), at(network.workspace, layer[Z_OUT] + i0 * M)
    finish(before[SLOPE], d, M, i1 - i0, M, out, M, at(network.settings, before[SETTINGS_AT]))


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    layer = row_at(layer_at)
    x, shape = carray(h, (layer[IN_C], layer[IN_H], layer[IN_W], N)), (layer[OUT_C], layer[OUT_H], layer[OUT_W], N)
    pool_h, pool_w, stride, pad = layer[WORD], layer[WORD + 1], layer[WORD + 2], layer[WORD + 3]
    if layer[WORD + 4]:
        _max_forward(x, pool_h, pool_w, stride, pad, carray(out, shape), carray(scratch, shape))
    else:
        _average_forward(x, pool_h, pool_w, stride, pad, carray(out, shape))
    activate_in_place(layer, out, N)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    height, width, stride, pad = layer._settings()
    channels, *size = images_of_shape(shape, whose)
    sizes = zip(size, (height, width), strict=True)
    return channels, *(output_size(pixels, window, stride, pad, "a window") for pixels, window in sizes)


def _pool(layer: Any) -> int:
    """The side of the windows where the convolution before can form the largest of each as it goes; else 0."""
    height, width, stride, pad = layer._settings()
    return height if layer.mode == "max" and height == width == stride and pad == 0 else 0


layer(
    LayerRecord(
        Pooling,
        settings=("pool_h", "pool_w", "stride", "pad", "mode"),
        map=Map(
            _forward,
            _backward,
            predict=_predict,
            shape=_shape,
            layout=lambda _: LANES,
            words=lambda layer: (*layer._settings(), int(layer.mode == "max")),
            memory=lambda layer, _, out: math.prod(out) if layer.mode == "max" else 0,
            pool=_pool,
        ),
    )
)
