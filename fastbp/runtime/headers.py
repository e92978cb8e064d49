"""What the objects of NumPy's arrays say of their memory at this moment, as compiled code reads it.

An array can be changed in place: by `resize`, or by its attributes `shape`, `strides` and `dtype`. Who keeps the
address of its memory finds that out here, in some nanoseconds where Python needs half a microsecond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import word_at

# Words of the struct PyArrayObject_fields, which is part of NumPy's binary interface. Before it is Python's own header.
_HEADER = object.__basicsize__ // np.intp(0).itemsize
_DATA, _NDIM, _SHAPE, _STRIDES, _DTYPE = _HEADER, _HEADER + 1, _HEADER + 2, _HEADER + 3, _HEADER + 5
_HALF = 0xFFFFFFFF  # the number of axes has half a word

MOST_AXES = 4
NOTED = 4 + 2 * MOST_AXES


def noted(array: NDArray[Any]) -> list[int]:
    """What `is_as_noted` compares an array with. The array must be kept as long as that."""
    padding = [0] * (MOST_AXES - array.ndim)
    return [
        id(array), array.ctypes.data, array.ndim, id(array.dtype), *array.shape, *padding, *array.strides, *padding,
    ]  # fmt: skip


@kernel
def is_as_noted(words):
    """Whether an array still has the memory, shape, strides and dtype that are `noted`."""
    array = words[0]
    axes = word_at(array, _NDIM) & _HALF
    if word_at(array, _DATA) != words[1] or axes != words[2] or word_at(array, _DTYPE) != words[3]:
        return False
    shape, strides = word_at(array, _SHAPE), word_at(array, _STRIDES)
    for axis in range(axes):
        if word_at(shape, axis) != words[4 + axis] or word_at(strides, axis) != words[4 + MOST_AXES + axis]:
            return False
    return True


@kernel
def data_of(array):
    """The address of the first element of an array, which is given by its `id`."""
    return word_at(array, _DATA)
