"""The outputs of a stack of layers, in one pass over the samples: kernels that walk along a table.

Each thread takes some samples at a time through all layers, so that what it reads and writes stays in the cache, and
memory does not grow with the samples. On the way it looks for samples that are not finite, where it is asked to. A pass
of its own for that would take as long as reading them. The table is that of `fastbp.ops.prediction`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from fastbp.checks import DType
from fastbp.ops import state
from fastbp.ops.prediction import COLUMNS, KERNEL, predict_rows
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.headers import NOTED, data_of, is_as_noted
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.pointers import address_of, aligned, at, call_at, located, pointer_to
from fastbp.runtime.threads import WORTH_A_REGION, in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES, sum_of_nothing

_ROW = COLUMNS * np.intp(0).itemsize  # bytes of a row of the table

# Elements of the samples that a thread takes at a time. Where the weights are more than LARGE, they fit no second-level
# cache, and samples are at least MANY, so that the weights are read less often: in float32 on one thread 10,000 samples
# of 784-1024-10 take 0.72 times as long as 48 samples at a time, those of 784-256-128-10 as long.
BLOCK, LARGE, MANY = 49152, 350_000, 384


def rows_of_a_block(samples: int, widest: int, weights: int) -> int:
    """How many of so many samples a thread takes at a time; `widest` is the largest size, D among them."""
    rows = max(MANY if weights > LARGE else ROW_GRAIN, BLOCK // widest // ROW_GRAIN * ROW_GRAIN)
    return int(min(max(1, samples), rows))


# Bytes of what the largest layer takes and gives for the samples of a slice. Of fewer samples the affine layers read
# their weights too often: in float32 on one thread an image of SimpleConvNet takes 26 µs with slices of 48, where it
# takes 28 with 32 and 31 with 16.
SLICE = 4 << 20


def samples_of_a_slice(size: int, itemsize: int) -> int:
    """How many samples a thread takes at a time, whole registers, where a layer takes and gives `size` for each."""
    lanes = REGISTER_BYTES // itemsize
    return max(1, SLICE // (size * itemsize) // lanes) * lanes


@entry_kernel
def predict(team, multiply_at, output_at, table, x, out, rows, work, hidden, scratch, looks):
    """out, (N, C) = the outputs for x, (N, D); returns whether x is finite throughout, or True where nobody `looks`.

    `output_at` is the address of a kernel like `state.predict`, or 0. A thread takes so many `rows` at a time: see
    `rows_of_a_block`. `work` is multiply-adds of a sample. `hidden`, (parts, 2, ·), takes so many rows of any layer
    twice. `scratch` is (parts, ·), as the rows of the table want it.
    """
    N = len(x)
    is_finite = np.ones(len(scratch), np.bool_)
    zero, one = np.intp(0), np.intp(1)
    is_long = N * work >= WORTH_A_REGION
    gil = release_gil(is_long)
    if not is_long or not 1 < parts_of(team) <= len(scratch):
        _predict_part(zero, one, multiply_at, output_at, table, x, out, rows, hidden, scratch, looks, is_finite)
    else:
        shared = multiply_at, output_at, table, x, out, rows, hidden, scratch, looks, is_finite
        in_parallel(team, parts_of(team), _predict_part, shared)
    take_gil(gil)
    return is_finite.all()


@kernel
def _predict_part(part, parts, multiply_at, output_at, table, x, out, rows, hidden, scratch, looks, is_finite):
    (N, D), C = x.shape, out.shape[1]
    stop = boundary(N, ROW_GRAIN, part + 1, parts)
    first, second = at(hidden[part, 0], 0), at(hidden[part, 1], 0)
    place = aligned(at(scratch[part], 0), REGISTER_BYTES)
    for start in range(boundary(N, ROW_GRAIN, part, parts), stop, rows):
        count, block, outputs = min(rows, stop - start), at(x, start * D), at(out, start * C)
        if looks:
            is_finite[part] &= sum_of_nothing((block,), (), count * D) == 0
        _predict_block(multiply_at, table, block, outputs, count, first, second, place)
        if output_at:
            call_at(output_at, state.predict, (outputs, np.intp(count), np.intp(C), first))


@kernel
def _predict_block(multiply_at, table, h, out, N, first, second, scratch):
    """N rows of out from those of h. The layers between take turns in the memory at `first` and at `second`."""
    noinline()
    last = len(table) - 1
    for number in range(last + 1):
        target = out if number == last else second if number % 2 else first
        given = np.intp(multiply_at), table.ctypes.data + number * _ROW, h, target, np.intp(N), scratch
        call_at(table[number, KERNEL], predict_rows, given)
        h = target


@entry_kernel
def predict_few(multiply_at, noted_at, arrays, table_at, layers, x, out, N, half, memory):
    """The same for a few samples, on one thread and with the GIL, in memory that is there already.

    `x` and `out` are the `id` of C-contiguous arrays. `memory` is two halves of hidden layers and scratch. Returns
    False, and does nothing, where one of the layers' `arrays` is not as `headers.noted` any more. An argument that is
    an array takes 50 ns longer than one that is a number.
    """
    if not are_as_noted(carray(pointer_to(np.intp, noted_at), (arrays, NOTED))):
        return False
    first, table = at(memory, 0), carray(pointer_to(np.intp, table_at), (layers, COLUMNS))
    samples, outputs = located(first, data_of(x)), located(first, data_of(out))
    scratch = aligned(at(memory, 2 * half), REGISTER_BYTES)
    _predict_block(multiply_at, table, samples, outputs, N, first, at(memory, half), scratch)
    return True


@entry_kernel
def are_as_noted(arrays):
    """Whether all arrays are as `headers.noted`."""
    as_noted = True
    for number in range(len(arrays)):
        as_noted &= is_as_noted(arrays[number])
    return as_noted


def address_of_output(function: Any, dtype: DType) -> int:
    """The address of a kernel like `state.predict`."""
    pointer = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    return address_of(function, (pointer, types.intp, types.intp, pointer))
