"""A stack of layers in a prediction, as kernels see it: a row for each map and the activation after it.

A row has the columns of `fastbp.ops.state` that say what goes in and out. Where those have a place in memory that a
network in training shares, these have an address.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray, types

from fastbp.checks import DType
from fastbp.ops import state
from fastbp.ops.contract import HANDS_ON, Map
from fastbp.runtime.gemm.epilogue import finish
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import address_of, load, pointer_to

# The address of what a map does.
KERNEL = state.FORWARD

# Addresses of parameters, in C order (0: none). EPILOGUE is a word for an activation in place, and SETTINGS_AT the
# address of its settings.
W_AT, B_AT = state.W_AT, state.B_AT

# Further columns: addresses of a layer's running statistics, and of its scale, float64.
MEAN_AT, VAR_AT, SCALE_AT, COLUMNS = range(state.COLUMNS, state.COLUMNS + 4)


@kernel
def predict_rows(multiply_at, layer_at, h, out, N, scratch):
    """What each map does in a prediction: N samples of `out` from those of h, with the epilogue.

    They lie in rows, or in lanes as one slice; indices are machine words. `layer_at` is the address of the row of the
    table. `scratch` is memory for a product, or for the numbers that the map keeps of N samples in training.
    """


def address_of_map(kind: Map | None, dtype: DType) -> int:
    """The address of what a map does in a prediction.

    Raises
    ------
    TypeError
        If it has no kernel for that.
    """
    if kind is None or kind.predict in (None, HANDS_ON):
        raise TypeError("map: expected a kernel for predictions, got none; add `predict` to the record of the layer")
    return _address_of(kind.predict, dtype)


@cache
def _address_of(function: Any, dtype: DType) -> int:
    pointer = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    return address_of(function, (types.intp, types.intp, pointer, pointer, types.intp, pointer))


@kernel
def row_at(layer_at):
    """The row of the table at an address."""
    return carray(pointer_to(np.intp, layer_at), COLUMNS)


@kernel
def scale_of(layer):
    """The scale of a layer."""
    return load(pointer_to(np.float64, layer[SCALE_AT]))


@kernel
def activate_in_place(layer, out, N):
    """The activation of N samples of the output of a row."""
    size, one = N * layer[state.M_OUT], np.intp(1)
    settings = pointer_to(np.float64, layer[state.SETTINGS_AT])
    finish(layer[state.EPILOGUE], out, size, one, size, out, size, settings)
