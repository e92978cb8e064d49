"""The order of an array's axes in memory, which the results of elementwise functions keep, as NumPy's do."""

from __future__ import annotations

import numpy as np

from fastbp.checks import Array, DType, empty, to_kernel

Axes = tuple[int, ...] | None
"""Axes from the slowest to the fastest; None for those of C order."""


def axes_in_memory(array: Array) -> Axes:
    """The axes of a dense block of memory in their order; those of C order for an array that is none."""
    if array.flags.c_contiguous:
        return None
    axes = tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return axes if array.transpose(axes).flags.c_contiguous else None


def empty_in(axes: Axes, shape: tuple[int, ...], dtype: DType) -> tuple[Array, Array]:
    """`fastbp.checks.empty` with the axes in that order, and its elements as a kernel writes them, (size,)."""
    if axes is None:
        out = empty(shape, dtype)
        return out, out.ravel()
    memory = empty(tuple(shape[axis] for axis in axes), dtype)
    return memory.transpose(np.argsort(axes).tolist()), memory.ravel()


def flat(array: Array, dtype: DType, axes: Axes) -> Array:
    """The elements as a kernel takes them for results of `dtype`, (size,), with the axes in that order."""
    return to_kernel(array if axes is None else array.transpose(axes), dtype).ravel()
