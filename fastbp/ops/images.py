"""Images (N, C, H, W): checks, and arrays whose samples lie side by side in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastbp.checks import FLOAT16, FLOAT32, Array, DType, empty, whole_number
from fastbp.ops.contract import Shape, batch_of, is_reference
from fastbp.runtime.lanes.panel import images_to_lanes


def images(name: str, x: Array) -> Array:
    """`x`, if it is a batch of images (N, C, H, W)."""
    if x.ndim != 4:
        raise ValueError(
            f"{name}: expected images (N, C, H, W), got shape {x.shape}; "
            f"reshape {name} to four axes, one image to (1, C, H, W)"
        )
    return x


def images_of_shape(shape: Shape, whose: str, channels: int | None = None) -> Shape:
    """The shape of a sample, if it is an image (C, H, W) of so many channels."""
    if len(shape) != 3:
        raise ValueError(
            f"{whose} that are images (N, {'C' if channels is None else channels}, H, W), got {batch_of(shape)}; "
            "reshape them, as Reshape((C, H, W)) does in a network"
        )
    if channels not in (None, shape[0]):
        raise ValueError(
            f"{whose} of {channels} channels, as the filters have, got {batch_of(shape)}; "
            + other_channels(shape, channels)
        )
    return shape


def other_channels(shape: Shape, channels: int | None) -> str:
    """The remedy for images of a shape that have other channels than the filters."""
    if shape[-1] == channels:
        return "put the channels before height and width, as x.transpose(0, 3, 1, 2) does"
    return "give images with as many, or make the filters for them"


def steps(name: str, value: object, least: int) -> int:
    """A stride, a pad or a size in pixels."""
    return whole_number(name, value, least, "give a number of pixels")


def output_size(size: int, window: int, stride: int, pad: int, what: str) -> int:
    """How many places a window has along an axis: (size + 2·pad - window)//stride + 1."""
    if size + 2 * pad < window:
        raise ValueError(
            f"x: expected images of at least {window - 2 * pad} pixels for {what} of {window} with pad {pad}, "
            f"got {size}; enlarge x or pad, or take a smaller window"
        )
    return (size + 2 * pad - window) // stride + 1


def window_pixels(
    window: tuple[int, ...], places: tuple[int, ...], stride: int
) -> Iterator[tuple[int, int, slice, slice]]:
    """For each pixel (i, j) of a window, line by line, the lines and columns of images that it meets in all places."""
    for i, j in np.ndindex(*window):
        yield i, j, *(slice(k, k + stride * count, stride) for k, count in zip((i, j), places, strict=True))


def in_kernel_dtype(array: Array, dtype: DType) -> Array:
    """`array` in the dtype that a kernel computes results of `dtype` in, aligned; its layout may be any."""
    dtype = FLOAT32 if dtype is FLOAT16 else dtype
    if array.dtype is dtype and array.flags.aligned:
        return array
    return np.require(array, dtype, ["A"])


def empty_lanes(shape: tuple[int, ...], dtype: DType) -> Array:
    """An array (N, C, H, W) for a kernel to write a result of `dtype` to, whose memory is (C, H, W, N)."""
    N, C, H, W = shape
    return empty((C, H, W, N), dtype).transpose(3, 0, 1, 2)


def in_lanes(x: Array) -> Array:
    """`x` (N, C, H, W) as a C-contiguous array (C, H, W, N): a view where its memory is in that order, else a copy."""
    lanes = x.transpose(1, 2, 3, 0)
    if lanes.flags.c_contiguous:
        return lanes
    if is_reference() or x.dtype.kind != "f":
        return np.ascontiguousarray(lanes)
    copy = empty(lanes.shape, x.dtype)
    images_to_lanes(words_of(x), copy)
    return copy


def words_of(x: Array) -> tuple[int, ...]:
    """Address, strides in elements, and channels, height and width of images, as kernels take them."""
    strides = (stride // x.itemsize for stride in x.strides)
    return (x.__array_interface__["data"][0], *strides, *x.shape[1:])
