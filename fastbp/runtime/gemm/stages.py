"""A product whose sums are divided among threads: each adds its terms to all elements, after the thread before it.

Rows of a batch are the other way to divide x·W + b among threads. There each thread reads all of W, half of which
another core has just changed, and a line takes 5 to 11 ns from core to core. Here a thread reads the rows of W that it
also updates, and the columns of x that its gradient needs.

The chain of an element goes from thread to thread, so its bits are the same. The threads work at the same time, on
blocks of C one behind the other.
"""

from __future__ import annotations

import numpy as np

from fastbp.runtime.atomics import await_count, put
from fastbp.runtime.gemm.epilogue import NONE
from fastbp.runtime.gemm.multiply import COPY_ROWS, ROW_GRAIN, Product, boundary, column_tail, copies_panels, multiply
from fastbp.runtime.gemm.tile import PANEL
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import call_at, itemsize, record_pointer, shift, view
from fastbp.runtime.vectors import REGISTER_BYTES

# Rows of a block of C where B is not copied. Where it is, a block has the columns of a panel, and there are about so
# many blocks: each copies its panel.
ROWS, BLOCKS = 16, 16

# Words between two counts, so that no two share a line of the cache or the pair of lines that comes with it.
COUNT_STRIDE = 16


@kernel
def stages(M, N, V):
    """How many blocks of C there are, for a matrix B of rows of N in one piece."""
    rows, columns = _block_of(copies_panels(N, 1, M, N, V), M, N, V)
    return ((M + rows - 1) // rows) * ((N + columns - 1) // columns)


@kernel
def share_of_rows(a, M, K, part, parts):
    """The first element and the stride of the rows of columns k0:k1 of `a` (M, K), of which each share lies together.

    In whole rows there would be lines that two cores write to, and each core would ask ahead for lines of the other: a
    half of 100×784×50 then takes 48 µs in place of 37.
    """
    k0, k1 = boundary(K, ROW_GRAIN, part, parts), boundary(K, ROW_GRAIN, part + 1, parts)
    return shift(a, M * k0), k1 - k0


@kernel
def _block_of(is_copied, M, N, V):
    """Rows and columns of a block."""
    if not is_copied:
        return ROWS, N
    pieces = max(1, BLOCKS // ((N + PANEL * V - 1) // (PANEL * V)))
    return max(COPY_ROWS, (M + pieces - 1) // pieces), PANEL * V


@kernel
def multiply_in_stages(multiply_at, product_at, part, parts, counts):
    """The terms of one part for each element of a `Product`, given by its address.

    A lies in shares (`share_of_rows`). `counts` is the address of a count for each part, 0 before the first begins.
    """
    p = view(product_at)
    V, M, N = REGISTER_BYTES // itemsize(p.c), p.i1 - p.i0, p.j1 - p.j0
    stop = p.j1 - column_tail(p.a_row, p.a_col, p.start_col, M, N, p.K, V)
    rows, columns = _block_of(copies_panels(p.b_row, p.b_col, M, N, V), M, max(1, stop - p.j0), V)
    done = 0
    for j in range(p.j0, stop, columns):
        for i in range(p.i0, p.i1, rows):
            done += 1
            _block(
                multiply_at, product_at, part, parts, counts, i, min(i + rows, p.i1), j, min(j + columns, stop), done
            )
    if stop < p.j1:
        _block(multiply_at, product_at, part, parts, counts, p.i0, p.i1, stop, p.j1, done + 1)


@kernel
def _block(multiply_at, product_at, part, parts, counts, i0, i1, j0, j1, done):
    p, zero = view(product_at), np.intp(0)
    k0, k1 = boundary(p.K, ROW_GRAIN, part, parts), boundary(p.K, ROW_GRAIN, part + 1, parts)
    share, share_row = share_of_rows(p.a, p.i1, p.K, part, parts)
    start, start_col, start_row, epilogue, chosen = p.start, p.start_col, p.start_row, np.intp(NONE), zero
    if part:
        await_count(counts, (part - 1) * COUNT_STRIDE, done)
        start, start_col, start_row = p.c, np.intp(1), p.c_row
    if part == parts - 1:
        epilogue = p.epilogue
    if j0 == p.j0:
        chosen = p.chosen
    block = Product(
        a=share, a_row=share_row, a_col=np.intp(1), source=shift(p.source, k0), source_row=p.source_row, chosen=chosen,
        b=shift(p.b, k0 * p.b_row), b_row=p.b_row, b_col=p.b_col, start=start, start_col=start_col, start_row=start_row,
        sums=p.sums, has_sums=zero, c=p.c, c_row=p.c_row, i0=i0, i1=i1, j0=j0, j1=j1, K=k1 - k0, rate=p.rate,
        subtracts=zero, epilogue=epilogue, beside=p.beside, beside_row=p.beside_row, settings=p.settings,
        scratch=p.scratch,
    )  # fmt: skip
    call_at(multiply_at, multiply, (record_pointer(block),))
    put(counts, part * COUNT_STRIDE, done)
