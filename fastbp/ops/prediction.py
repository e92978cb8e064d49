"""A stack of layers in a prediction, as kernels see it: a row for each map and the activation after it."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types

from fastbp.checks import DType
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import address_of

# Columns of the table. The address of what a map does (0: it hands its input on, to the activation). Addresses of its
# parameters, in C order (0: none). The sizes, D in and M out. The word of the epilogue, and where its settings are.
KERNEL, W_AT, B_AT, D_IN, M_OUT, EPILOGUE, SETTINGS_AT, COLUMNS = range(8)


@kernel
def predict_rows(multiply_at, layer, h, out, N, scratch):
    """What each map does in a prediction: N rows of `out` from those of h, with the epilogue.

    `layer` is the address of its row of the table, `scratch` memory for a product.
    """


@cache
def address_of_predict_rows(function: Any, dtype: DType) -> int:
    """The address of a kernel like `predict_rows`."""
    pointer = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    return address_of(function, (types.intp, types.intp, pointer, pointer, types.intp, pointer))
