"""ReLU with its mask, the sigmoid, tanh and the softmax, forward and backward; exp, log and powers of whole arrays.

Arrays are C-contiguous and of one dtype; elementwise kernels take them flat, (n,), softmax takes rows, (N, C).
"""

from __future__ import annotations

import numpy as np

from fastbp.kernels._jit import apart, kernel
from fastbp.kernels._shared import shared_kernel
from fastbp.kernels.elementary import exp, log, logistic, maximum, one, tanh, zero
from fastbp.kernels.pointers import at, load, shift, store
from fastbp.kernels.vectors import sum_of, sum_of_products

# What `finish` does to a block of a product; nothing where the product itself was subtracted.
IDENTITY, RELU, SIGMOID, TANH, DERIVATIVE, SUBTRACT = 0, 1, 2, 3, 4, 8


@shared_kernel
def relu_forward(x, out, mask):
    """mask = x <= 0; out = 0 where mask, else x (so NaN stays NaN)."""
    zero = x.dtype.type(0)
    for i in range(x.size):
        mask[i] = x[i] <= zero
        out[i] = zero if x[i] <= zero else x[i]


@shared_kernel
def relu_backward(dout, mask, dx):
    """dx = 0 where mask, else dout."""
    zero = dout.dtype.type(0)
    for i in range(dout.size):
        dx[i] = zero if mask[i] else dout[i]


@shared_kernel
def sigmoid_forward(x, out):
    """out = 1/(1 + exp(-x))."""
    for i in range(x.size):
        out[i] = logistic(x[i])


@shared_kernel
def sigmoid_backward(dout, out, dx):
    """dx = dout·out·(1 - out)."""
    one = out.dtype.type(1)
    for i in range(out.size):
        dx[i] = dout[i] * out[i] * (one - out[i])


@shared_kernel
def exp_forward(x, out):
    """out = exp(x)."""
    for i in range(x.size):
        out[i] = exp(x[i])


@shared_kernel
def log_forward(x, out):
    """out = log(x); -inf at 0, NaN below."""
    for i in range(x.size):
        out[i] = log(x[i])


@shared_kernel
def tanh_forward(x, out):
    """out = tanh(x)."""
    for i in range(x.size):
        out[i] = tanh(x[i])


@shared_kernel
def tanh_backward(dout, out, dx):
    """dx = dout·(1 - out²)."""
    one = out.dtype.type(1)
    for i in range(out.size):
        dx[i] = dout[i] * (one - out[i] * out[i])


@shared_kernel
def power_forward(x, y, out):
    """out = x**y."""
    for i in range(x.size):
        out[i] = x[i] ** y[i]


@shared_kernel
def softmax_forward(x, out):
    """out = exp(x - max) / sum(exp(x - max)), row by row."""
    N = len(x)
    softmax_of_rows(x, out, np.empty(N, x.dtype), np.empty(N, x.dtype))


@shared_kernel
def softmax_backward(dout, out, dx):
    """dx = out·(dout - sum(dout·out)), row by row: the product with the full Jacobian diag(y) - y yᵀ."""
    N, C = out.shape
    for i in range(N):
        weighted = sum_of_products((at(dout, i * C), at(out, i * C)), (), C)
        for j in range(C):
            dx[i, j] = out[i, j] * (dout[i, j] - weighted)


@kernel
def softmax_of_rows(x, y, tops, totals):
    """y = exp(x - tops)/totals, with the largest of each row of x in tops and the sums of exp(x - tops) in totals.

    Several short rows go through exp together: a vector loop over a row of 10 would be mostly its beginning
    and end (8.0 µs for 100 rows of 10 where this takes 2.2).
    """
    apart()
    N, C = x.shape
    rows = max(1, 2048 // C)
    for start in range(0, N, rows):
        stop = min(start + rows, N)
        for i in range(start, stop):
            top = x.dtype.type(-np.inf)
            for j in range(C):
                top = maximum(x[i, j], top)
            tops[i] = top
            for j in range(C):
                y[i, j] = x[i, j] - top
        block = at(y, start * C)
        for k in range((stop - start) * C):
            store(shift(block, k), exp(load(shift(block, k))))
        for i in range(start, stop):
            total = sum_of((at(y, i * C),), (), C)
            totals[i] = total
            scale = x.dtype.type(1) / total
            for j in range(C):
                y[i, j] *= scale


@kernel
def finish(action, c, c_row, rows, columns, out, out_row):
    """Apply an activation to a block of c in place; for activation + DERIVATIVE multiply c by its slope at `out`.

    Blocks are given by their first element and the stride of their rows. `out` is what the activation returned,
    which is enough for its slope: ReLU's mask is where it is 0.
    """
    if action in (IDENTITY, DERIVATIVE, SUBTRACT):
        return
    if columns == c_row == out_row:
        rows, columns = 1, rows * columns  # one long loop: a vector of tanh takes as long as one tanh
    for i in range(rows):
        row, row_out = shift(c, i * c_row), shift(out, i * out_row)
        if action == RELU:
            for j in range(columns):
                x = load(shift(row, j))
                store(shift(row, j), zero(x) if x <= zero(x) else x)
        elif action == SIGMOID:
            for j in range(columns):
                store(shift(row, j), logistic(load(shift(row, j))))
        elif action == TANH:
            for j in range(columns):
                store(shift(row, j), tanh(load(shift(row, j))))
        elif action == DERIVATIVE + RELU:
            for j in range(columns):
                y, d = load(shift(row_out, j)), load(shift(row, j))
                store(shift(row, j), zero(d) if y == zero(y) else d)
        elif action == DERIVATIVE + SIGMOID:
            for j in range(columns):
                y = load(shift(row_out, j))
                store(shift(row, j), load(shift(row, j)) * y * (one(y) - y))
        else:
            for j in range(columns):
                y = load(shift(row_out, j))
                store(shift(row, j), load(shift(row, j)) * (one(y) - y * y))
