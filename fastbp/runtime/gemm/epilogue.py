"""What a product does to a block of its result while that is in the first-level cache.

An epilogue is a machine word: one of the numbers below, or the address of a kernel with the arguments of `elementwise`.
ReLU and its slope, the commonest, have numbers and need no call for each tile: by addresses a step of ten layers,
20-8-...-8-3 with batch 200, takes 1.04 times as long (float32, one thread; 784-50-10 and wider ones as long).
"""

from __future__ import annotations

from typing import Any

from numba import types

from fastbp.runtime.elementary import zero
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.pointers import address_of, call_at, load, shift, store

NONE = 0
RECTIFY = 1  # 0 where c <= 0
RECTIFY_SLOPE = 2  # 0 where `beside`, what RECTIFY gave, is 0

_LEAST_ADDRESS = 4096  # no system gives out its first page


@kernel
def elementwise(c, c_row, rows, columns, beside, beside_row, settings):
    """Change a block of c, rows × columns, in place, or write to the block `beside`.

    Blocks are given by their first element and the stride of their rows. `settings` points to float64 numbers.
    """


def checked(word: int) -> int:
    """A word that is an epilogue.

    Raises
    ------
    ValueError
        If it is neither one of the numbers nor an address.
    """
    if word < NONE or RECTIFY_SLOPE < word < _LEAST_ADDRESS:
        raise ValueError(
            f"epilogue: expected a number from {NONE} to {RECTIFY_SLOPE} or the address of a kernel, got {word}; "
            f"take address_of_elementwise for a new one"
        )
    return word


def address_of_elementwise(function: Any, dtype: Any) -> int:
    """The address of a kernel with the arguments of `elementwise`, for blocks of `dtype`."""
    pointer, number = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64), types.intp
    return address_of(function, (pointer, number, number, number, pointer, number, types.CPointer(types.float64)))


@kernel
def finish(epilogue, c, c_row, rows, columns, beside, beside_row, settings):
    """Apply an epilogue to a block of c."""
    noinline()  # four callers would compile it once more
    if epilogue == NONE:
        return
    if columns == c_row == beside_row:
        rows, columns = 1, rows * columns  # one long loop: a vector of tanh takes as long as one tanh
    if epilogue > RECTIFY_SLOPE:
        call_at(epilogue, elementwise, (c, c_row, rows, columns, beside, beside_row, settings))
        return
    for i in range(rows):
        row, row_beside = shift(c, i * c_row), shift(beside, i * beside_row)
        if epilogue == RECTIFY:
            for j in range(columns):
                x = load(shift(row, j))
                store(shift(row, j), zero(x) if x <= zero(x) else x)
        else:
            for j in range(columns):
                y, d = load(shift(row_beside, j)), load(shift(row, j))
                store(shift(row, j), zero(d) if y == zero(y) else d)
