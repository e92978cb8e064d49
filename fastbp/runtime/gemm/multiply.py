"""The loops around the register tile: C = start + A·B over strided memory, and an epilogue on it.

A is read through both of its strides, so A transposed costs nothing. B must lie in rows. It is copied panel by panel if
it does not (B transposed) or if its rows are far apart. A few columns beyond whole registers would waste most of a
register, so they are computed in another way.

An element is one chain in every way: it begins with `start`, and multiply-adds in the order of k follow, each rounded
once. So the number of threads and the CPU's registers change no bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from fastbp.runtime.gemm.epilogue import finish
from fastbp.runtime.gemm.tile import (
    PANEL,
    SHORT,
    SINGLE_ROW,
    TALL,
    TRANSPOSED,
    ones,
    tile,
    tile_copying,
    tile_of_columns,
    zeros,
)
from fastbp.runtime.jit import inlined_kernel, kernel
from fastbp.runtime.pointers import address_of, itemsize, load, pointer_to, shift, store, view, word_at
from fastbp.runtime.turning import places_like, turn_rows
from fastbp.runtime.vectors import REGISTER_BYTES

_WORD = np.intp(0).itemsize

# Rows are shared among threads in multiples of this, so that few tiles are cut short.
ROW_GRAIN = 12

# Rows of B that are multiplied before the next ones.
BLOCK = 1024

# A panel of B is copied when it will be read by at least this many rows, and B is wider than one panel.
COPY_ROWS = 24


class Product(NamedTuple):
    """Rows i0:i1 and columns j0:j1 of C = start + A·B, with an epilogue; strides are in elements."""

    a: Any  # pointer to A[0, 0]
    a_row: Any
    a_col: Any
    source: Any  # pointer to rows that come into A on the way
    source_row: Any
    chosen: Any  # address of the number there of each row of A; 0: A is as it is
    b: Any  # pointer to B[0, 0]
    b_row: Any
    b_col: Any
    start: Any  # pointer to a row; with the stride 0 one of zeros
    start_col: Any
    start_row: Any  # 0 where all rows of C begin with the same
    sums: Any  # pointer to a row for the sum of each column of B
    has_sums: Any  # 1 where the sums are wanted
    c: Any  # pointer to C[0, 0]; the elements of a row lie side by side
    c_row: Any
    i0: Any
    i1: Any
    j0: Any
    j1: Any
    K: Any  # columns of A and rows of B
    rate: Any  # pointer to a number
    subtracts: Any  # 1: C -= rate·A·B instead, for rows of A that do not lie in one piece
    epilogue: Any
    beside: Any  # pointer to what the epilogue reads or writes beside C
    beside_row: Any
    settings: Any  # pointer to the epilogue's settings, float64
    scratch: Any  # pointer to memory, `scratch_size` of it


def _type_of(dtype: np.dtype[Any]) -> Any:
    """Numba's type of a product of `dtype`."""
    pointer = types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    pointers = dict.fromkeys(("a", "source", "b", "start", "sums", "c", "rate", "beside", "scratch"), pointer)
    pointers["settings"] = types.CPointer(types.float64)
    return types.NamedTuple(tuple(pointers.get(name, types.intp) for name in Product._fields), Product)


@cache
def address_of_multiply(dtype: np.dtype[Any]) -> int:
    """The address of `multiply` for products of `dtype`."""
    return address_of(multiply, (types.CPointer(_type_of(dtype)),))


@kernel
def multiply(product_at):
    """Compute a `Product`, given by its address.

    Chosen rows of A are read where they are, by the tiles of the first panel, and copied while they are in the
    first-level cache. They are far apart in memory: to copy them before took 0.2 of a step of 784-50-10 with batch 100,
    most of it waiting.

    The epilogue works on a tile while that is in the first-level cache. K is divided where a panel would take too much
    of the second level (50×4320×100 takes 0.88 of the time, 100×4320×100 0.94). Below that it does not pay: for
    100×784×256 blocks of 128, 256 and 784 rows are within 3% of each other. A gradient that is subtracted must be whole
    before. To ask for the next panel, or for the next rows of A transposed, while a panel is multiplied did not pay:
    4320×100×100 took 0.86 of the time, 784×1024×1024 1.04 and 784×100×50 1.06.
    """
    p = view(product_at)
    V, M = REGISTER_BYTES // itemsize(p.c), p.i1 - p.i0
    tail = column_tail(p.a_row, p.a_col, p.start_col, M, p.j1 - p.j0, p.K, V)
    stop = p.j1 - tail
    if p.chosen and stop == p.j0:
        _copy_chosen(p.source, p.source_row, p.chosen, p.i0, p.i1, p.a, p.a_row, p.K)
    blocks = 1 if p.chosen or p.subtracts else max(1, (p.K + BLOCK // 2) // BLOCK)
    for block in range(blocks):
        _multiply_panels(product_at, stop, p.K * block // blocks, p.K * (block + 1) // blocks, V)
    if tail:
        _multiply_column_tail(product_at, stop, tail, V)


@kernel
def _multiply_panels(product_at, stop, k0, k1, V):
    """Columns j0:stop of C = start + A·B for k0:k1; after the first block C itself is the start."""
    p, zero = view(product_at), np.intp(0)
    M, N, K, subtracts = p.i1 - p.i0, p.j1 - p.j0, k1 - k0, p.subtracts == 1
    copied, chosen = copies_panels(p.b_row, p.b_col, M, N, V), p.chosen
    vectors_left = (stop - p.j0 + V - 1) // V
    widest = SINGLE_ROW if M == 1 and not copied else PANEL
    j = p.j0
    while j < stop:
        panels_left = (vectors_left + widest - 1) // widest
        vectors = (vectors_left + panels_left - 1) // panels_left
        width = min(vectors * V, stop - j)
        lanes = width - (vectors - 1) * V
        vectors_left -= vectors
        panel, panel_row = shift(p.b, k0 * p.b_row + j * p.b_col), p.b_row
        c_panel, beside_panel = shift(p.c, j), shift(p.beside, j)
        start, start_row = (c_panel, p.c_row) if k0 else (shift(p.start, j * p.start_col), p.start_row)
        if copied and p.b_col != 1:
            _copy_columns(width, panel, p.b_row, p.b_col, p.scratch, vectors * V, K)
            panel, panel_row = p.scratch, vectors * V
        i = p.i0
        while i < p.i1:
            rows = _next_rows(p.i1 - i, vectors)
            a_tile, c_tile, start_tile = (
                shift(p.a, i * p.a_row + k0 * p.a_col), shift(c_panel, i * p.c_row), shift(start, i * start_row),
            )  # fmt: skip
            source, source_row, numbers = a_tile, p.a_row, zero
            if chosen:
                source, source_row, numbers = p.source, p.source_row, chosen + i * _WORD
            if copied and i == p.i0 and p.b_col == 1:
                tile_copying(
                    vectors, rows, source, source_row, p.a_col, numbers, panel, p.b_row, c_tile, p.c_row, start_tile,
                    start_row, K, lanes, subtracts, p.rate, p.scratch,
                )  # fmt: skip
                panel, panel_row = p.scratch, vectors * V
            else:
                tile(
                    vectors, rows, source, source_row, p.a_col, numbers, panel, panel_row, c_tile, p.c_row, start_tile,
                    start_row, K, lanes, subtracts, p.rate,
                )  # fmt: skip
            if k1 == p.K:
                beside = shift(beside_panel, i * p.beside_row)
                finish(p.epilogue, c_tile, p.c_row, rows, width, beside, p.beside_row, p.settings)
            if chosen:
                _copy_chosen(p.source, p.source_row, chosen, i, i + rows, p.a, p.a_row, K)
            i += rows
        chosen = zero
        if p.has_sums:
            # Literal numbers would compile the tile once more.
            one, subtracts_none, sums = np.intp(1), K < 0, shift(p.sums, j)
            start = sums if k0 else zeros(p.c)
            tile(
                vectors, one, ones(p.c), zero, zero, zero, panel, panel_row, sums, zero, start, zero, K, lanes,
                subtracts_none, p.rate,
            )  # fmt: skip
        j += width


@kernel
def _copy_chosen(source, source_row, chosen, i0, i1, a, a_row, K):
    """Rows i0:i1 of A = those of `source` that are chosen for them."""
    for i in range(i0, i1):
        row, a_i = shift(source, word_at(chosen, i) * source_row), shift(a, i * a_row)
        for k in range(K):
            store(shift(a_i, k), load(shift(row, k)))


@kernel
def _multiply_column_tail(product_at, stop, columns, V):
    """The last columns, from `stop` on."""
    p = view(product_at)
    b, c, M = shift(p.b, stop * p.b_col), shift(p.c, stop), p.i1 - p.i0
    if _is_by_rows(p.a_col, M, p.K, V):
        start = shift(p.start, stop * p.start_col)
        _multiply_by_rows(
            p.a, p.a_row, b, p.b_row, p.b_col, start, p.start_row, p.start_col, c, p.c_row, p.i0, p.i1, columns, p.K, V,
            p.scratch,
        )  # fmt: skip
    else:
        _multiply_transposed(
            p.a, p.a_col, b, p.b_row, p.b_col, c, p.c_row, p.i0, p.i1, columns, p.K, V, p.subtracts == 1, p.rate,
            p.scratch,
        )  # fmt: skip
    beside = shift(p.beside, p.i0 * p.beside_row + stop)
    finish(p.epilogue, shift(c, p.i0 * p.c_row), p.c_row, M, columns, beside, p.beside_row, p.settings)
    if p.has_sums:
        for column in range(columns):
            total = load(zeros(p.c))
            for k in range(p.K):
                total += load(shift(b, k * p.b_row + column * p.b_col))
            store(shift(p.sums, stop + column), total)


def scratch_for(longest: int, itemsize: int) -> int:
    """Elements of scratch that are enough for every product whose K and column tail are at most `longest`."""
    return (longest * PANEL + 2) * (REGISTER_BYTES // itemsize)


@kernel
def _next_rows(rows_left, vectors):
    """Rows of the next tile: of the tallest, or of a shorter one where that wastes less."""
    tall, short = TALL[vectors - 1], SHORT[vectors - 1]
    if rows_left > 2 * short:
        return min(rows_left, tall)
    return min(rows_left, tall if rows_left == tall else short)


@kernel
def copies_panels(b_row, b_col, M, N, V):
    """Whether B is copied panel by panel: where it does not lie in rows, or its rows are far apart.

    Rows far apart fall into few sets of the cache when their distance is a power of two; a copy pays once it is read
    by some tiles.
    """
    return b_col != 1 or (M >= COPY_ROWS and (N > PANEL * V or b_row > PANEL * V))


@kernel
def column_tail(a_row, a_col, start_col, M, N, K, V):
    """How many of N columns, the last ones, do not go by tiles: what is left beyond whole registers, if it is little.

    As a masked register they would cost as much as V columns: 100×784×50 in float32 has 50 = 6·8 + 2. Only a second
    register comes almost free, as a tile of one has twice as many broadcasts to load as products to form.
    """
    columns = N % V
    is_transposed = a_row == 1 and M > 1 and start_col == 0
    if columns <= V // 4 and not V < N < 2 * V and (_is_by_rows(a_col, M, K, V) or is_transposed):
        return columns
    return 0


@kernel
def _is_by_rows(a_col, M, K, V):
    """Whether the last columns go by rows of A in one piece; else, if not by tiles, by columns of A in one piece.

    A single column (K = 1) is in one piece either way.
    """
    return a_col == 1 and K >= V and M >= TRANSPOSED * V


@kernel
def _multiply_by_rows(
    a, a_row, b, b_row, b_col, start, start_row, start_col, c, c_row, i0, i1, columns, K, V, scratch
):  # fmt: skip
    """C[i0:i1, :columns] = start + A[i0:i1, :K]·B[:K, :columns], for rows of A in one piece.

    Registers transpose pieces of the rows. A register holds one column of several rows, so that each element is a chain
    and no lane is wasted. With the columns masked, 100×784×50 would take 1.19 times as long; by dot products, which are
    no chains, 1.00 times, and 100×784×1 half as long. The last rows, too few for a register, go by a tile.
    """
    for k in range(K):
        for column in range(columns):
            store(shift(scratch, k * columns + column), load(shift(b, k * b_row + column * b_col)))
    i = i0
    while i + V <= i1:
        rows = TRANSPOSED * V if i1 - i >= TRANSPOSED * V else V
        tile_of_columns(
            rows, columns, shift(a, i * a_row), a_row, scratch, shift(start, i * start_row), start_row, start_col,
            shift(c, i * c_row), c_row, K,
        )  # fmt: skip
        i += rows
    one, zero, subtracts = np.intp(1), np.intp(0), K < 0
    while i < i1:
        rows = _next_rows(i1 - i, one)
        tile(
            one, rows, shift(a, i * a_row), a_row, one, zero, scratch, columns, shift(c, i * c_row), c_row,
            shift(start, i * start_row), start_row, K, columns, subtracts, a,
        )  # fmt: skip
        i += rows


@inlined_kernel
def _multiply_transposed(a, a_col, b, b_row, b_col, c, c_row, i0, i1, columns, K, V, subtracts, rate, scratch):
    """C[i0:i1, :columns] = A[i0:i1, :K]·B[:K, :columns], for columns of A in one piece: Cᵀ = Bᵀ·Aᵀ by tiles."""
    for i in range(i0, i1, PANEL * V):
        width = min(PANEL * V, i1 - i)
        vectors = (width + V - 1) // V
        lanes = width - (vectors - 1) * V
        tile(
            vectors, columns, b, b_col, b_row, np.intp(0), shift(a, i), a_col,
            scratch, PANEL * V, zeros(a), np.intp(0), K, lanes, K < 0, a,
        )  # fmt: skip
        for column in range(columns):
            for row in range(width):
                value = load(shift(scratch, column * PANEL * V + row))
                place = shift(c, (i + row) * c_row + column)
                store(place, load(place) - load(rate) * value if subtracts else value)


@kernel
def _copy_columns(width, b, b_row, b_col, panel, panel_row, K):
    """panel[:K, :width] = B[:K, :width], by registers where columns lie in one piece, else column by column."""
    if b_row == 1:
        places, registers = places_like(pointer_to(np.intp, np.intp(0))), REGISTER_BYTES // itemsize(panel)
        for first in range(0, width, registers):
            count = min(registers, width - first)
            for lane in range(count):
                store(shift(places, lane), (first + lane) * b_col)
            turn_rows(b, places, count, K, load(ones(b)), shift(panel, first), panel_row)
        return
    for column in range(width):
        source = shift(b, column * b_col)
        for k in range(K):
            store(shift(panel, k * panel_row + column), load(shift(source, k * b_row)))


@kernel
def scratch_size(a_row, a_col, b_row, b_col, start_col, M, N, K, V):
    """Elements of scratch in which `multiply` copies what it needs of B: a panel, or the column tail."""
    columns = column_tail(a_row, a_col, start_col, M, N, K, V)
    rows = K if copies_panels(b_row, b_col, M, N, V) else 0
    if columns:
        rows = max(rows, columns, K * columns // (PANEL * V) + 1)
    return (rows * PANEL + 1) * V if rows else 0


@kernel
def boundary(size, grain, part, parts):
    """Where `part` begins when `size` is divided among `parts` at multiples of `grain`."""
    if part == parts:
        return size
    return min(size, (size * part // parts + grain // 2) // grain * grain)
