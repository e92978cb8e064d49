"""The outputs of a stack of affine layers with activations, in one pass over the samples.

Each thread takes some samples at a time through all layers, so that what it reads and writes stays in the cache. On the
way it looks for samples that are not finite. A pass of its own for that would take as long as reading them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from fastbp.checks import DType
from fastbp.ops import state
from fastbp.ops.affine import product_with_rows
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import address_of, aligned, at, call_at, located, pointer_to
from fastbp.runtime.threads import WORTH_A_REGION, in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES, sum_of_nothing

# Columns of a table of layers: the addresses of W and b, in rows without gaps, their sizes (D, M), the word of the
# epilogue and the address of its settings.
W_AT, B_AT, D_IN, M_OUT, EPILOGUE, SETTINGS_AT, COLUMNS = range(7)

# Elements of the samples that a thread takes at a time.
BLOCK = 49152


def rows_of_a_block(samples: int, widest: int) -> int:
    """How many of so many samples a thread takes at a time; `widest` is the largest size, D among them."""
    return int(min(max(1, samples), max(ROW_GRAIN, BLOCK // widest // ROW_GRAIN * ROW_GRAIN)))


@kernel
def predict(team, multiply_at, output_at, table, x, out, rows, hidden, scratch):
    """out, (N, C) = the outputs for x, (N, D); returns whether x is finite throughout.

    `output_at` is the address of a kernel like `state.predict`, or 0. `rows` is `rows_of_a_block`. `hidden`,
    (parts, 2, ·), takes so many rows of any layer twice. `scratch` is (parts, ·), as `gemm.multiply.scratch_for` says.
    """
    N = len(x)
    weights = np.intp(0)
    for number in range(len(table)):
        weights += table[number, D_IN] * table[number, M_OUT]
    is_finite = np.ones(len(scratch), np.bool_)
    zero, one = np.intp(0), np.intp(1)
    is_long = N * weights >= WORTH_A_REGION
    gil = release_gil(is_long)
    if not is_long or not 1 < parts_of(team) <= len(scratch):
        _predict_part(zero, one, multiply_at, output_at, table, x, out, rows, hidden, scratch, is_finite)
    else:
        shared = multiply_at, output_at, table, x, out, rows, hidden, scratch, is_finite
        in_parallel(team, parts_of(team), _predict_part, shared)
    take_gil(gil)
    return is_finite.all()


@kernel
def _predict_part(part, parts, multiply_at, output_at, table, x, out, rows, hidden, scratch, is_finite):
    N = len(x)
    stop = boundary(N, ROW_GRAIN, part + 1, parts)
    place = aligned(at(scratch[part], 0), REGISTER_BYTES)
    for start in range(boundary(N, ROW_GRAIN, part, parts), stop, rows):
        block = x[start : min(start + rows, stop)]
        is_finite[part] &= _is_finite(block.reshape(-1))
        _predict_block(multiply_at, output_at, table, block, out[start : start + len(block)], hidden[part], place)


@kernel
def _is_finite(values):
    return sum_of_nothing((at(values, 0),), (), values.size) == 0


@kernel
def _predict_block(multiply_at, output_at, table, x, out, hidden, scratch):
    """The outputs of the rows of x. Hidden layers take turns in the two halves of `hidden`."""
    zero, last = np.intp(0), len(table) - 1
    h = at(x, 0)
    for number in range(last + 1):
        layer = table[number]
        W, b = located(h, layer[W_AT]), located(h, layer[B_AT])
        target = at(out, 0) if number == last else at(hidden[number % 2], 0)
        settings = pointer_to(np.float64, layer[SETTINGS_AT])
        product_with_rows(
            multiply_at, h, layer[D_IN], W, b, np.intp(1), target, layer[M_OUT], zero, np.intp(len(x)), layer[EPILOGUE],
            target, settings, scratch,
        )  # fmt: skip
        h = target
    if output_at:
        N, C = out.shape
        call_at(output_at, state.predict, (at(out, 0), np.intp(N), np.intp(C), at(hidden, 0)))


def address_of_output(function: Any, dtype: DType) -> int:
    """The address of a kernel like `state.predict`."""
    pointer = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    return address_of(function, (pointer, types.intp, types.intp, pointer))
