"""The outputs of a stack of affine layers with activations, in one pass over the samples.

Each thread takes some samples at a time through all layers, so that what it reads and writes stays in the cache, and
looks for what is not finite in them on the way: looking before, as a pass of its own, takes as long as reading them.
"""

from __future__ import annotations

import numpy as np

from fastbp.kernels._jit import kernel
from fastbp.kernels._threads import WORTH_A_REGION, in_parallel, parts_of, release_gil, take_gil
from fastbp.kernels.activations import IDENTITY, softmax_of_rows
from fastbp.kernels.elementary import exp
from fastbp.kernels.gemm import ROW_GRAIN, boundary, multiply
from fastbp.kernels.pointers import aligned, at, call_at, located
from fastbp.kernels.vectors import REGISTER_BYTES, sum_of_nothing

# Columns of a table of layers: the addresses of W and b, in rows without gaps, their sizes (D, M) and the activation.
W_AT, B_AT, D_IN, M_OUT, ACTIVATION, FIELDS = range(6)

# Activations of the last layer that stand beside those of `activations.finish`.
SOFTMAX, EXP = 16, 17

# Elements of the samples that a thread takes at a time.
BLOCK = 49152


def rows_of_a_block(samples: int, widest: int) -> int:
    """How many of so many samples a thread takes at a time; `widest` is the largest size, D among them."""
    return int(min(max(1, samples), max(ROW_GRAIN, BLOCK // widest // ROW_GRAIN * ROW_GRAIN)))


@kernel
def predict(team, multiply_at, table, x, out, rows, hidden, room):
    """out, (N, C) = the outputs for x, (N, D); returns whether x is finite throughout.

    `rows` is `rows_of_a_block`, `hidden`, (parts, 2, ·), takes so many rows of any hidden layer twice, and `room`,
    (parts, ·), is as `gemm.room_for` says.
    """
    N = len(x)
    weights = np.intp(0)
    for number in range(len(table)):
        weights += table[number, D_IN] * table[number, M_OUT]
    is_finite = np.ones(len(room), np.bool_)
    zero, one = np.intp(0), np.intp(1)
    is_long = N * weights >= WORTH_A_REGION
    gil = release_gil(is_long)
    if not is_long or not 1 < parts_of(team) <= len(room):
        _predict_part(zero, one, multiply_at, table, x, out, rows, hidden, room, is_finite)
    else:
        in_parallel(team, parts_of(team), _predict_part, (multiply_at, table, x, out, rows, hidden, room, is_finite))
    take_gil(gil)
    return is_finite.all()


@kernel
def _predict_part(part, parts, multiply_at, table, x, out, rows, hidden, room, is_finite):
    N = len(x)
    stop = boundary(N, ROW_GRAIN, part + 1, parts)
    place = aligned(at(room[part], 0), REGISTER_BYTES)
    for start in range(boundary(N, ROW_GRAIN, part, parts), stop, rows):
        block = x[start : min(start + rows, stop)]
        is_finite[part] &= _is_finite(block.reshape(-1))
        _predict_block(multiply_at, table, block, out[start : start + len(block)], hidden[part], place)


@kernel
def _is_finite(values):
    return sum_of_nothing((at(values, 0),), (), values.size) == 0


@kernel
def _predict_block(multiply_at, table, x, out, hidden, room):
    """The outputs of the rows of x. Hidden layers take turns in the two halves of `hidden`."""
    zero, one = np.intp(0), np.intp(1)  # as constants they would compile `multiply` once more
    last = len(table) - 1
    h = at(x, 0)
    for number in range(last + 1):
        layer = table[number]
        D, M = layer[D_IN], layer[M_OUT]
        W, b = located(h, layer[W_AT]), located(h, layer[B_AT])
        target = at(out, 0) if number == last else at(hidden[number % 2], 0)
        action = layer[ACTIVATION] if layer[ACTIVATION] < SOFTMAX else np.intp(IDENTITY)
        product = (
            h, D, one, W, M, one, b, one, b, zero,
            target, M, zero, np.intp(len(x)), zero, M, D, action, target, M, room,
        )  # fmt: skip
        call_at(multiply_at, multiply, product)
        h = target
    if table[last, ACTIVATION] == SOFTMAX:
        softmax_of_rows(out, out, hidden[0], hidden[1])
    elif table[last, ACTIVATION] == EXP:
        for i in range(len(out)):
            for j in range(out.shape[1]):
                out[i, j] = exp(out[i, j])
