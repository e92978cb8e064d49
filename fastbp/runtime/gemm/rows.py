"""Rows times a matrix in rows without gaps, as layers ask for them: one row by a way of its own, more by `multiply`."""

from __future__ import annotations

import numpy as np

from fastbp.runtime.elementary import multiply_add
from fastbp.runtime.gemm.epilogue import finish
from fastbp.runtime.gemm.multiply import Product, multiply
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import call_at, itemsize, load, record_pointer, shift, store
from fastbp.runtime.vectors import REGISTER_BYTES

# A single row is multiplied by B row by row if the rows of B have so many vectors. They are longer than a few tiles.
LONG_ROW = 16


@kernel
def is_long_row(N, V):
    """Whether a single row is multiplied by N columns row by row; a register has V elements."""
    return N >= LONG_ROW * V


@kernel
def product_with_rows(multiply_at, source, chosen, h, D, W, b, b_col, z, M, i0, i1, epilogue, out, settings, scratch):
    """z = h·W + b for rows i0:i1, with an epilogue that may write to `out`. With b_col = 0 all of b is its first.

    Where `chosen` is not 0, h becomes the rows of `source` whose numbers are there.
    """
    zero, one = np.intp(0), np.intp(1)
    if i1 - i0 == 1 and not chosen and is_long_row(M, REGISTER_BYTES // itemsize(z)):
        row = shift(z, i0 * M)
        multiply_row(shift(h, i0 * D), one, W, M, b, b_col, row, zero, M, D)
        finish(epilogue, row, M, one, M, shift(out, i0 * M), M, settings)
        return
    product = Product(
        a=h, a_row=D, a_col=one, source=source, source_row=D, chosen=chosen, b=W, b_row=M, b_col=one, start=b,
        start_col=b_col, start_row=zero, sums=b, has_sums=zero, c=z, c_row=M, i0=i0, i1=i1, j0=zero, j1=M, K=D, rate=b,
        subtracts=zero, epilogue=epilogue, beside=out, beside_row=M, settings=settings, scratch=scratch,
    )  # fmt: skip
    call_at(multiply_at, multiply, (record_pointer(product),))


@kernel
def multiply_row(a, a_col, b, b_row, start, start_col, c, j0, j1, K):
    """c[j0:j1] = start + a·B[:, j0:j1] for one row, eight rows of B at a time.

    Each is read from end to end, where a tile would touch a piece of every row: 1×1024×1024 in float32 takes 45 µs,
    by tiles 98.
    """
    for j in range(j0, j1):
        store(shift(c, j), load(shift(start, j * start_col)))
    k = 0
    while k + 8 <= K:
        a_0, a_1 = load(shift(a, k * a_col)), load(shift(a, (k + 1) * a_col))
        a_2, a_3 = load(shift(a, (k + 2) * a_col)), load(shift(a, (k + 3) * a_col))
        a_4, a_5 = load(shift(a, (k + 4) * a_col)), load(shift(a, (k + 5) * a_col))
        a_6, a_7 = load(shift(a, (k + 6) * a_col)), load(shift(a, (k + 7) * a_col))
        row = shift(b, k * b_row)
        for j in range(j0, j1):
            total = multiply_add(a_0, load(shift(row, j)), load(shift(c, j)))
            total = multiply_add(a_1, load(shift(row, b_row + j)), total)
            total = multiply_add(a_2, load(shift(row, 2 * b_row + j)), total)
            total = multiply_add(a_3, load(shift(row, 3 * b_row + j)), total)
            total = multiply_add(a_4, load(shift(row, 4 * b_row + j)), total)
            total = multiply_add(a_5, load(shift(row, 5 * b_row + j)), total)
            total = multiply_add(a_6, load(shift(row, 6 * b_row + j)), total)
            total = multiply_add(a_7, load(shift(row, 7 * b_row + j)), total)
            store(shift(c, j), total)
        k += 8
    while k < K:
        a_k, row = load(shift(a, k * a_col)), shift(b, k * b_row)
        for j in range(j0, j1):
            store(shift(c, j), multiply_add(a_k, load(shift(row, j)), load(shift(c, j))))
        k += 1
