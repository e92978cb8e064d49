"""The matrix product that the affine layer is made of: C = start + A·B over strided memory, and an activation on it.

One register tile of C at a time: its rows × vectors of accumulators stay in registers while k runs, and each
step of k loads one row of vectors from B and multiplies it by a broadcast element of A for every row
(Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34, 2008). A is read
through both of its strides, so A transposed costs nothing; B must lie in rows, and is copied panel by panel where
it does not (B transposed) or where its rows are far apart. What is left of N beyond whole registers, if it is little,
would waste most of one and goes another way, and so does a single long row.

Whichever way an element goes, it is one chain: it begins with `start`, and multiply-adds in the order of k follow, each
rounded once. So neither threads nor the CPU's registers, which set the ways, change a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import _threads
from fastbp.kernels._jit import inlined_kernel, kernel
from fastbp.kernels._threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.kernels.activations import SUBTRACT, finish
from fastbp.kernels.elementary import multiply_add
from fastbp.kernels.pointers import (
    address_of,
    aligned,
    allocate,
    at,
    call_at,
    itemsize,
    load,
    release,
    shift,
    store,
    word_at,
)
from fastbp.kernels.vectors import FEATURES, REGISTER_BYTES, VectorCode, while_whole

# Heights of the tiles that are one, two, three and four registers wide; the widest makes a panel. The accumulators, one
# row of registers from B and a broadcast from A must fit the registers: 32 with AVX-512 and NEON, else 16. The lower
# heights are for the rows that the highest leaves over. Below, V is the elements of a register.
HEIGHTS = (
    ((12, 4, 1), (12, 4, 1), (8, 4, 1), (6, 2, 1))
    if "avx512f" in FEATURES or "neon" in FEATURES
    else ((8, 4, 1), (6, 2, 1))
)
PANEL = len(HEIGHTS)

# A single row needs more vectors side by side, for a multiply-add every half cycle that is four cycles under way.
SINGLE_ROW = 8
_TILES = (*HEIGHTS, *(((1,),) * (SINGLE_ROW - PANEL)))
_TALL, _SHORT = tuple(heights[0] for heights in _TILES), tuple(heights[-2:][0] for heights in _TILES)

# Forms of a product, to be combined by |; an action of `finish` stands above ACTION bits.
PLAIN, A_TRANSPOSED, B_TRANSPOSED, FROM_ROW, SUMS_TO_ROW, ACTION = 0, 1, 2, 4, 8, 4

# The addresses of `multiply` for float32 and float64, 0 until first needed. A product calls it by its address: linked
# in, it would be optimised once more in each of its callers (1 s).
_addresses = np.zeros(2, np.intp)
_ADDRESSES = _addresses.ctypes.data

# What stands beside a product that needs nothing, by the size of an element.
_NOTHING = {4: np.zeros(0, np.float32), 8: np.zeros(0)}

# Rows are shared among threads in multiples of this, so that few tiles are cut short.
ROW_GRAIN = 12

# An A of so many bytes, which no cache holds, is divided into blocks of rows that the second-level cache does hold, as
# every panel of B reads all rows: 10,000×784×50 takes 0.6 times as long in float32 and in float64. A smaller A comes
# from the third-level cache as fast, and blocks, each of which copies B, cost a tenth there.
LARGE_BYTES, BLOCK_BYTES = 16_000_000, 400_000

# Vectors in a row that is multiplied by B row by row: from here on the rows of B are longer than a few tiles.
LONG_ROW = 16

# Registers of rows that go together through the last columns.
TURNED = 2

# A panel of B is copied when it will be read by at least this many rows, and B is wider than one panel.
COPY_ROWS = 24

# While the first tile copies a panel it asks for the row this far ahead.
PREFETCH_ROWS = 16

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _tile_code(copies: bool) -> Any:
    """The intrinsic of a register tile; where `copies`, of one as high as it can be that also copies B to a panel."""
    tiles = tuple(heights[:1] for heights in HEIGHTS) if copies else _TILES

    @intrinsic
    def tile(typingctx, vectors, used, a, a_row, a_col, b, b_row, c, c_row, start, K, lanes, subtracts, rate, panel):
        """C[:used, :] = start + A[:used, :K]·B[:K, :] for one register tile `vectors` vectors wide.

        Where it `subtracts`, C -= rate times that instead. Strides are in elements. The tile is of the least height
        that holds `used` rows: those from `used` on repeat the last one and are not stored. The last vector holds
        `lanes` elements and is masked.
        """
        pointer, size = a, types.intp
        signature = types.void(
            size, size, pointer, size, size, pointer, size, pointer, size, pointer, size, size, types.boolean, pointer,
            pointer,
        )  # fmt: skip

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vectors, used, *operands, lanes, subtracts, rate, panel = args
            operands += [subtracts, rate]
            emit = VectorCode(context, builder, pointer.dtype, lanes)
            for width, heights in enumerate(tiles, start=1):
                with builder.if_then(builder.icmp_signed("==", vectors, ir.Constant(_I64, width))):
                    for height, lower in zip(heights, (*heights[1:], 0), strict=True):
                        above = builder.icmp_signed(">", used, ir.Constant(_I64, lower))
                        fits = builder.icmp_signed("<=", used, ir.Constant(_I64, height))
                        with builder.if_then(builder.and_(above, fits)):
                            _emit_tile(builder, emit, panel if copies else None, height, width, used, *operands)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_emitted_tile, _emitted_tile_copying = _tile_code(copies=False), _tile_code(copies=True)


def _emit_tile(
    builder, emit, panel, height, width, used, a, a_row, a_col, b, b_row, c, c_row, start, K, subtracts, rate
):  # fmt: skip
    """The instructions of one tile of `height` rows and `width` vectors; they copy B to `panel` if there is one."""
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    rows, columns = range(height), range(width)
    is_used = [builder.icmp_signed("<", ir.Constant(_I64, i), used) for i in rows]
    last_row = builder.sub(used, one)
    index = [builder.select(is_used[i], ir.Constant(_I64, i), last_row) for i in rows]

    def load_row(row: Any) -> list[Any]:
        return [emit.load(row, j, masked=j == width - 1) for j in columns]

    a_rows = [builder.gep(a, [builder.mul(a_row, index[i])]) for i in rows]
    initial = load_row(start)

    before = builder.block
    loop, done = builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", K, zero), loop, done)

    builder.position_at_end(loop)
    k = builder.phi(_I64)
    sums = [[builder.phi(emit.vector) for _ in columns] for _ in rows]
    b_k = load_row(builder.gep(b, [builder.mul(k, b_row)]))
    if panel is not None:
        ahead = builder.gep(b, [builder.mul(builder.add(k, ir.Constant(_I64, PREFETCH_ROWS)), b_row)])
        to_row = builder.gep(panel, [builder.mul(k, ir.Constant(_I64, width * emit.width))])
        for j in columns:
            emit.prefetch(ahead, j)
            emit.store(b_k[j], to_row, j, masked=False)
    a_offset = builder.mul(k, a_col)
    updated = []
    for i in rows:
        a_ik = emit.splat(builder.load(builder.gep(a_rows[i], [a_offset])))
        updated.append([emit.multiply_add(a_ik, b_k[j], sums[i][j]) for j in columns])
    k_next = builder.add(k, one)
    k.add_incoming(zero, before)
    k.add_incoming(k_next, loop)
    builder.cbranch(builder.icmp_signed("<", k_next, K), loop, done)

    builder.position_at_end(done)
    results = [[builder.phi(emit.vector) for _ in columns] for _ in rows]
    for i in rows:
        for j in columns:
            for phi in (sums[i][j], results[i][j]):
                phi.add_incoming(initial[j], before)
                phi.add_incoming(updated[i][j], loop)

    def store_rows(change: Any) -> None:
        for i in rows:
            with builder.if_then(is_used[i]):
                row = builder.gep(c, [builder.mul(c_row, index[i])])
                for j in columns:
                    place = row, j, j == width - 1
                    emit.store(change(results[i][j], *place), *place)

    with builder.if_else(subtracts) as (to_subtract, to_store):
        with to_subtract:
            factor = emit.splat(builder.load(rate))
            store_rows(lambda sums, *place: builder.fsub(emit.load(*place), builder.fmul(factor, sums)))
        with to_store:
            store_rows(lambda sums, *_: sums)


@kernel
def _tile(vectors, used, a, a_row, a_col, b, b_row, c, c_row, start, K, lanes, subtracts, rate):
    # A function of its own, so that its many instructions stand in one place: every caller compiles 1 s faster.
    _emitted_tile(vectors, used, a, a_row, a_col, b, b_row, c, c_row, start, K, lanes, subtracts, rate, b)


def _row_of(value: float) -> Any:
    """The intrinsic for a constant row as wide as the widest tile, each element `value`."""

    @intrinsic
    def row(typingctx, pointer):
        """Pointer to the row in the dtype of `pointer`."""

        def codegen(context, builder, signature, args):
            count = SINGLE_ROW * REGISTER_BYTES * 8 // pointer.dtype.bitwidth
            kind = ir.ArrayType(context.get_data_type(pointer.dtype), count)
            constant = cgutils.global_constant(builder, f"fastbp.row.{value:.0f}", kind([value] * count))
            return builder.bitcast(constant, args[0].type)

        return pointer(pointer), codegen

    return row


zeros, ones = _row_of(0.0), _row_of(1.0)


@kernel
def multiply(
    a, a_row, a_col, b, b_row, b_col, start, start_col, sums, summed, c, c_row, i0, i1, j0, j1, K,
    action, beside, beside_row, room,
):  # fmt: skip
    """C[i0:i1, j0:j1] = start + A[i0:i1, :K]·B[:K, j0:j1], and `action` on it, by pointers and strides in elements.

    `start` is a row with stride `start_col`, 0 for a tile of zeros. Where `summed`, sums[j0:j1] becomes the sum of
    each column of B. `action` is for `finish`, and `beside` the outputs that it may need; it works on a tile while that
    is in the first-level cache. With SUBTRACT, which wants rows of A that do not lie in one piece, C -= rate·A·B
    instead, with the rate at `beside`. `room` is as large as `_room` says. K is not divided into blocks: a panel is
    read from the second-level cache as fast as it is multiplied (100×784×256: 128, 256 and 784 rows at a time within 3%
    of each other).
    """
    V = REGISTER_BYTES // itemsize(c)
    M, zero, subtracts = i1 - i0, np.intp(0), action == SUBTRACT
    rest = _rest(a_row, a_col, start_col, M, j1 - j0, K, V)
    copied = _copies_panels(b_col, M, j1 - j0, V)
    stop = j1 - rest
    vectors_left = (stop - j0 + V - 1) // V
    widest = SINGLE_ROW if M == 1 and not copied else PANEL
    j = j0
    while j < stop:
        panels_left = (vectors_left + widest - 1) // widest
        vectors = (vectors_left + panels_left - 1) // panels_left
        width = min(vectors * V, stop - j)
        lanes = width - (vectors - 1) * V
        b_panel, b_panel_row = shift(b, j * b_col), b_row
        start_panel, c_panel, beside_panel = shift(start, j * start_col), shift(c, j), shift(beside, j)
        if copied and b_col != 1:
            _gather(width, b_panel, b_row, b_col, room, vectors * V, K)
            b_panel, b_panel_row = room, vectors * V
        i = i0
        while i < i1:
            rows = _next_rows(i1 - i, vectors)
            a_tile, c_tile = shift(a, i * a_row), shift(c_panel, i * c_row)
            if copied and i == i0 and b_col == 1:
                _emitted_tile_copying(
                    vectors, rows, a_tile, a_row, a_col, b_panel, b_row, c_tile, c_row, start_panel, K, lanes,
                    subtracts, beside, room,
                )  # fmt: skip
                b_panel, b_panel_row = room, vectors * V
            else:
                _tile(
                    vectors, rows, a_tile, a_row, a_col, b_panel, b_panel_row, c_tile, c_row, start_panel, K, lanes,
                    subtracts, beside,
                )  # fmt: skip
            finish(action, c_tile, c_row, rows, width, shift(beside_panel, i * beside_row), beside_row)
            i += rows
        if summed:
            # Literal numbers would compile the tile once more.
            one, subtracts_none = np.intp(1), K < 0
            _tile(
                vectors, one, ones(c), zero, zero, b_panel, b_panel_row, shift(sums, j), zero, zeros(c), K, lanes,
                subtracts_none, c,
            )  # fmt: skip
        j += width
        vectors_left -= vectors
    if rest:
        b_rest, start_rest, c_rest = shift(b, stop * b_col), shift(start, stop * start_col), shift(c, stop)
        if _is_turned(a_col, M, K, V):
            _rest_turned(a, a_row, b_rest, b_row, b_col, start_rest, start_col, c_rest, c_row, i0, i1, rest, K, V, room)
        else:
            _rest_transposed(a, a_col, b_rest, b_row, b_col, c_rest, c_row, i0, i1, rest, K, V, subtracts, beside, room)
        finish(action, shift(c_rest, i0 * c_row), c_row, M, rest, shift(beside, i0 * beside_row + stop), beside_row)
        if summed:
            for column in range(rest):
                total = load(zeros(c))
                for k in range(K):
                    total += load(shift(b_rest, k * b_row + column * b_col))
                store(shift(sums, stop + column), total)


def address_of_multiply(dtype: np.dtype[Any]) -> int:
    """The address of `multiply` for pointers to `dtype`."""
    number, pointer = types.intp, types.CPointer(types.float32 if dtype.itemsize == 4 else types.float64)
    kinds = (
        pointer, number, number, pointer, number, number, pointer, number, pointer, number, pointer, number,
        number, number, number, number, number, number, pointer, number, pointer,
    )  # fmt: skip
    return address_of(multiply, kinds)


def room_for(longest: int, itemsize: int) -> int:
    """Elements of `room` that are enough for every product whose K and rest are at most `longest`."""
    return (longest * PANEL + 2) * (REGISTER_BYTES // itemsize)


@kernel
def _next_rows(rows_left, vectors):
    """Rows of the next tile: of the tallest, or of a shorter one where that wastes less."""
    tall, short = _TALL[vectors - 1], _SHORT[vectors - 1]
    if rows_left > 2 * short:
        return min(rows_left, tall)
    return min(rows_left, tall if rows_left == tall else short)


@kernel
def _copies_panels(b_col, M, N, V):
    """Whether B is copied panel by panel: where it does not lie in rows, or its rows are far apart.

    Rows far apart fall into few sets of the cache when their distance is a power of two; a copy pays once it is read
    by some tiles.
    """
    return b_col != 1 or (M >= COPY_ROWS and N > PANEL * V)


@kernel
def _rest(a_row, a_col, start_col, M, N, K, V):
    """How many of N columns, the last ones, do not go by tiles: what is left beyond whole registers, if it is little.

    As a masked register they would cost as much as V columns: 100×784×50 in float32 has 50 = 6·8 + 2. Only a second
    register comes almost free, as a tile of one has twice as many broadcasts to load as products to form.
    """
    rest = N % V
    is_transposed = a_row == 1 and M > 1 and start_col == 0
    if rest <= V // 4 and not V < N < 2 * V and (_is_turned(a_col, M, K, V) or is_transposed):
        return rest
    return 0


@kernel
def _is_turned(a_col, M, K, V):
    """Whether the last columns go by rows of A that are turned; else, if they do not go by tiles, transposed.

    The other way is for columns of A in one piece. A single column (K = 1) is in one piece either way.
    """
    return a_col == 1 and K >= V and M >= TURNED * V


@kernel
def _rest_turned(a, a_row, b, b_row, b_col, start, start_col, c, c_row, i0, i1, columns, K, V, room):
    """C[i0:i1, :columns] = start + A[i0:i1, :K]·B[:K, :columns], for rows of A in one piece, turned in registers.

    Elements of one column and several rows lie in a register, so that they are chains, and none of it is wasted. With
    the columns masked, 100×784×50 would take 1.19 times as long; by dot products, which are no chains, 1.00 times, and
    100×784×1 half as long. The last rows, if they are too few, are done with some before them once more.
    """
    for k in range(K):
        for column in range(columns):
            store(shift(room, k * columns + column), load(shift(b, k * b_row + column * b_col)))
    i = i0
    while i < i1:
        rows = TURNED * V if i1 - i >= TURNED * V else V
        i = min(i, i1 - rows)
        _emitted_turned(
            rows, columns, shift(a, i * a_row), a_row, room, start, start_col, shift(c, i * c_row), c_row, K
        )
        i += rows


@intrinsic
def _emitted_turned(typingctx, rows, columns, a, a_row, b, start, start_col, c, c_row, K):
    """C = start + A·B for some rows of A, each in one piece, and few columns of B, (K, columns) in one piece."""
    pointer, size = a, types.intp
    signature = types.void(size, size, pointer, size, pointer, pointer, size, pointer, size, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, columns, *operands = args
        emit = VectorCode(context, builder, pointer.dtype, ir.Constant(_I64, 1))
        for width in range(1, emit.width // 4 + 1):
            with builder.if_then(builder.icmp_signed("==", columns, ir.Constant(_I64, width))):
                for registers in (TURNED, 1):
                    height = registers * emit.width
                    with builder.if_then(builder.icmp_signed("==", rows, ir.Constant(_I64, height))):
                        _emit_turned(builder, emit, registers, width, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_turned(builder, emit, registers, width, a, a_row, b, start, start_col, c, c_row, K):
    """The instructions for so many registers of rows and `width` columns, some k at a time, then one by one."""
    columns, piece = range(width), emit.piece

    def multiplied(k: Any, turned: list[list[Any]], sums: list[Any]) -> list[Any]:
        """`sums` after the multiply-adds of turned[register][step] with rows k, k + 1, ... of B."""
        for step in range(len(turned[0])):
            b_k = builder.gep(b, [builder.mul(builder.add(k, ir.Constant(_I64, step)), ir.Constant(_I64, width))])
            factors = [emit.splat(builder.load(builder.gep(b_k, [ir.Constant(_I64, j)]))) for j in columns]
            products = [(a_k[step], factor) for a_k in turned for factor in factors]
            sums = [emit.multiply_add(*pair, total) for pair, total in zip(products, sums, strict=True)]
        return sums

    def row(number: int) -> Any:
        return builder.mul(a_row, ir.Constant(_I64, number))

    def several(k: Any, sums: list[Any]) -> list[Any]:
        a_k = builder.gep(a, [k])
        first_rows = [register * emit.width for register in range(registers)]
        return multiplied(k, [emit.turned(builder.gep(a_k, [row(i)]), a_row) for i in first_rows], sums)

    def one(k: Any, sums: list[Any]) -> list[Any]:
        a_k = builder.gep(a, [k])
        turned = []
        for register in range(registers):
            vector = emit.zero
            for lane in range(emit.width):
                element = builder.load(builder.gep(a_k, [row(register * emit.width + lane)]))
                vector = builder.insert_element(vector, element, ir.Constant(_I32, lane))
            turned.append([vector])
        return multiplied(k, turned, sums)

    sums = [
        emit.splat(builder.load(builder.gep(start, [builder.mul(start_col, ir.Constant(_I64, j))]))) for j in columns
    ]
    k, sums = while_whole(builder, ir.Constant(_I64, 0), K, piece, several, sums * registers)
    _, sums = while_whole(builder, k, K, 1, one, sums)
    for place, total in enumerate(sums):
        register, j = divmod(place, width)
        for lane in range(emit.width):
            c_row_at = builder.gep(c, [builder.mul(c_row, ir.Constant(_I64, register * emit.width + lane))])
            element = builder.extract_element(total, ir.Constant(_I32, lane))
            builder.store(element, builder.gep(c_row_at, [ir.Constant(_I64, j)]))


@inlined_kernel
def _rest_transposed(a, a_col, b, b_row, b_col, c, c_row, i0, i1, columns, K, V, subtracts, rate, room):
    """C[i0:i1, :columns] = A[i0:i1, :K]·B[:K, :columns], for columns of A in one piece: Cᵀ = Bᵀ·Aᵀ by tiles."""
    for i in range(i0, i1, PANEL * V):
        width = min(PANEL * V, i1 - i)
        vectors = (width + V - 1) // V
        lanes = width - (vectors - 1) * V
        _tile(
            vectors, columns, b, b_col, b_row, shift(a, i), a_col,
            room, PANEL * V, zeros(a), K, lanes, K < 0, a,
        )  # fmt: skip
        for column in range(columns):
            for row in range(width):
                value = load(shift(room, column * PANEL * V + row))
                place = shift(c, (i + row) * c_row + column)
                store(place, load(place) - load(rate) * value if subtracts else value)


@kernel
def _gather(width, b, b_row, b_col, panel, panel_row, K):
    """panel[:K, :width] = B[:K, :width], column by column."""
    for column in range(width):
        source = shift(b, column * b_col)
        for k in range(K):
            store(shift(panel, k * panel_row + column), load(shift(source, k * b_row)))


@kernel
def _multiply_row(a, a_col, b, b_row, start, start_col, c, j0, j1, K):
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


def product(A: Any, B: Any, beside: Any, C: Any, form: int = PLAIN) -> None:
    """C = A·B, Aᵀ·B or A·Bᵀ with what goes on beside it, on several threads where that pays.

    Parameters
    ----------
    A : ndarray (M, K), or (K, M) for A_TRANSPOSED
    B : ndarray (K, N), or (N, K) for B_TRANSPOSED
    beside : ndarray (N,) or (M, N), or None
        With FROM_ROW a row that is added to every row of the product, such as a bias. With SUMS_TO_ROW a row that
        receives the sum of each column of B. With the derivative of an activation, the activation's outputs.
    C : ndarray (M, N)
        Written to. A, B and C have any strides; the elements of a row of `beside` lie side by side. All are of one
        dtype, float32 or float64.
    form : int
        PLAIN, or A_TRANSPOSED or B_TRANSPOSED, | FROM_ROW or SUMS_TO_ROW, | action << ACTION.
    """
    if beside is None:
        beside = _NOTHING[C.itemsize]
    if not _product(_threads.TEAM, _ADDRESSES, A, B, beside, C, form):
        _threads.start()
        _addresses[C.itemsize // 4 - 1] = address_of_multiply(C.dtype)
        _product(_threads.TEAM, _ADDRESSES, A, B, beside, C, form)


@kernel
def _product(team, addresses, A, B, beside, C, form):
    """Returns whether it was done: not where `multiply`, or threads that it would be worth, are not there yet."""
    address = word_at(addresses, itemsize(at(C, 0)) // 4 - 1)
    if address == 0:
        return False
    K = A.shape[0] if form & A_TRANSPOSED else A.shape[1]
    is_long, done = C.size * K >= _threads.WORTH_A_REGION, True
    blocks = _blocks(C.shape[0], K, itemsize(at(C, 0)))
    parts = max(blocks, parts_of(team) if is_long else 1)
    gil = release_gil(is_long)
    if parts_of(team) == 1 or not is_long:
        for block in range(blocks):
            _product_part(block, blocks, blocks > 1, address, A, B, beside, C, form)
    else:
        done = in_parallel(team, parts, _product_part, (blocks > 1, address, A, B, beside, C, form))
    take_gil(gil)
    return done


@kernel
def _blocks(M, K, item):
    """Into how many blocks the rows of A are divided; 1 for one that every panel of B may read from the cache.

    More blocks than threads also share the work well where a thread has its core for half of the time.
    """
    block = BLOCK_BYTES // (K * item + 1)
    return M // block if M * K * item >= LARGE_BYTES and block >= 2 * COPY_ROWS else 1


@kernel
def _product_part(part, parts, in_blocks, address, A, B, beside, C, form):
    """One of `parts` shares of a product, which are blocks of rows where it goes `in_blocks`."""
    item = itemsize(at(C, 0))
    V = REGISTER_BYTES // item
    M, N = C.shape
    K, a_row, a_col, b_row, b_col = A.shape[1], A.strides[0], A.strides[1], B.strides[0], B.strides[1]
    if form & A_TRANSPOSED:
        K, a_row, a_col = A.shape[0], a_col, a_row
    if form & B_TRANSPOSED:
        b_row, b_col = b_col, b_row
    if N == 1:
        b_col = item  # an axis of one element may have any stride
    a_row, a_col, b_row, b_col = a_row // item, a_col // item, b_row // item, b_col // item
    i0, i1, j0, j1 = _share(part, parts, in_blocks, M, N, b_col, V)
    c, c_row, c_col = at(C, 0), C.strides[0] // item, C.strides[1] // item
    start, start_col = zeros(c), 0
    if form & FROM_ROW:
        start, start_col = at(beside, 0), 1
    beside_row = beside.strides[0] // item
    summed = np.intp(form & SUMS_TO_ROW != 0 and i0 == 0)
    action = form >> ACTION
    if M == 1 and b_col == 1 and c_col == 1 and N >= LONG_ROW * V and not summed:
        _multiply_row(at(A, 0), a_col, at(B, 0), b_row, start, start_col, c, j0, j1, K)
        finish(action, shift(c, j0), c_row, M, j1 - j0, at(beside, j0), beside_row)
        return
    is_in_rows = c_col == 1 or N == 1
    memory = allocate(c, _room(a_row, a_col, b_col, start_col, i1 - i0, j1 - j0, K, V))
    rows = allocate(c, 0 if is_in_rows else M * N)
    arguments = (
        at(A, 0), a_row, a_col, at(B, 0), b_row, b_col, start, start_col, at(beside, 0), summed,
        c if is_in_rows else rows, c_row if is_in_rows else N, i0, i1, j0, j1, K,
        action, at(beside, 0), beside_row,
        aligned(memory, REGISTER_BYTES),  # else every register would lie in two cache lines
    )  # fmt: skip
    call_at(address, multiply, arguments)
    if not is_in_rows:
        for i in range(i0, i1):
            for j in range(j0, j1):
                store(shift(c, i * c_row + j * c_col), load(shift(rows, i * N + j)))
    release(rows)
    release(memory)


@kernel
def _room(a_row, a_col, b_col, start_col, M, N, K, V):
    """Elements of memory in which `multiply` copies what it needs of B: a panel, or what does not go by tiles."""
    rest = _rest(a_row, a_col, start_col, M, N, K, V)
    rows = K if _copies_panels(b_col, M, N, V) else 0
    if rest:
        rows = max(rows, rest, K * rest // (PANEL * V) + 1)
    return (rows * PANEL + 1) * V if rows else 0


@kernel
def _share(part, parts, in_blocks, M, N, b_col, V):
    """Rows i0:i1 and columns j0:j1 of C that are the share of `part`, one of `parts`.

    Columns are shared where B has panels enough to copy: each panel is then copied once. Rows are shared in
    narrower products, if there are enough of them.
    """
    if parts == 1:
        return 0, M, 0, N
    is_wide = N >= 2 * parts * PANEL * V
    if in_blocks or (b_col == 1 and M >= parts * ROW_GRAIN and not is_wide):
        return boundary(M, ROW_GRAIN, part, parts), boundary(M, ROW_GRAIN, part + 1, parts), 0, N
    return 0, M, boundary(N, PANEL * V, part, parts), boundary(N, PANEL * V, part + 1, parts)


@kernel
def boundary(size, grain, part, parts):
    """Where `part` begins when `size` is divided among `parts` at multiples of `grain`."""
    if part == parts:
        return size
    return min(size, (size * part // parts + grain // 2) // grain * grain)
