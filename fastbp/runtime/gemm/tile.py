"""The register tile of a matrix product, as instructions of LLVM.

A tile of C stays in registers while k runs: each step of k loads one row of vectors from B and multiplies it by a
broadcast element of A for every row (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM
TOMS 34, 2008).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel
from fastbp.runtime.vectors import FEATURES, REGISTER_BYTES, VectorCode, while_whole

# Heights of the tiles that are one, two, three and four registers wide; the widest makes a panel. The accumulators, one
# row of registers from B and a broadcast from A must fit the registers: 32 with AVX-512 and NEON, else 16. The lower
# heights are for the rows that the highest leaves over. Below, V is the elements of a register.
HEIGHTS = (
    ((12, 4, 1), (12, 4, 1), (8, 4, 1), (6, 2, 1))
    if "avx512f" in FEATURES or "neon" in FEATURES
    else ((8, 4, 1), (6, 2, 1))
)
PANEL = len(HEIGHTS)

# A single row needs more vectors side by side: two multiply-adds begin in a cycle, and each takes four cycles.
SINGLE_ROW = 8
_TILES = (*HEIGHTS, *(((1,),) * (SINGLE_ROW - PANEL)))
TALL, SHORT = tuple(heights[0] for heights in _TILES), tuple(heights[-2:][0] for heights in _TILES)

# For the last columns, so many registers of rows of A are transposed together.
TRANSPOSED = 2

# While the first tile copies a panel it asks for the row this far ahead.
PREFETCH_ROWS = 16

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _tile_code(copies: bool) -> Any:
    """The intrinsic of a register tile; where `copies`, of one as high as it can be that also copies B to a panel."""
    tiles = tuple(heights[:1] for heights in HEIGHTS) if copies else _TILES

    @intrinsic
    def tile_code(
        typingctx, vectors, used, a, a_row, a_col, chosen, b, b_row, c, c_row, start, start_row, K, lanes, subtracts,
        rate, panel,
    ):  # fmt: skip
        """C[:used, :] = start + A[:used, :K]·B[:K, :] for one register tile `vectors` vectors wide.

        Where it `subtracts`, C -= rate times that instead. Strides are in elements. The tile is of the least height
        that holds `used` rows: those from `used` on repeat the last one and are not stored. The last vector holds
        `lanes` elements and is masked. Where `chosen` is not 0, row i of A is the one whose number is there, at word i.
        """
        pointer, size = a, types.intp
        signature = types.void(
            size, size, pointer, size, size, size, pointer, size, pointer, size, pointer, size, size, size,
            types.boolean, pointer, pointer,
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

    return tile_code


tile_in_place, tile_copying = _tile_code(copies=False), _tile_code(copies=True)


def _emit_tile(
    builder, emit, panel, height, width, used, a, a_row, a_col, chosen, b, b_row, c, c_row, start, start_row, K,
    subtracts, rate,
):  # fmt: skip
    """The instructions of one tile of `height` rows and `width` vectors; they copy B to `panel` if there is one."""
    zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
    rows, columns = range(height), range(width)
    is_used = [builder.icmp_signed("<", ir.Constant(_I64, i), used) for i in rows]
    last_row = builder.sub(used, one)
    index = [builder.select(is_used[i], ir.Constant(_I64, i), last_row) for i in rows]

    def load_row(row: Any) -> list[Any]:
        return [emit.load(row, j, masked=j == width - 1) for j in columns]

    a_rows = [builder.gep(a, [builder.mul(a_row, number)]) for number in _chosen(builder, chosen, index)]
    initial = [load_row(builder.gep(start, [builder.mul(start_row, number)])) for number in index]

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
                phi.add_incoming(initial[i][j], before)
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


def _chosen(builder: Any, chosen: Any, index: list[Any]) -> list[Any]:
    """The words from the address `chosen` on at these places; the places themselves where it is 0."""
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", chosen, ir.Constant(_I64, 0))):
        words = builder.inttoptr(chosen, _I64.as_pointer())
        numbers, there = [builder.load(builder.gep(words, [place])) for place in index], builder.block
    phis = [builder.phi(_I64) for _ in index]
    for phi, place, number in zip(phis, index, numbers, strict=True):
        phi.add_incoming(place, before)
        phi.add_incoming(number, there)
    return phis


@kernel
def tile(
    vectors, used, a, a_row, a_col, chosen, b, b_row, c, c_row, start, start_row, K, lanes, subtracts, rate
):  # fmt: skip
    # A function of its own, so that its many instructions stand in one place: every caller compiles 1 s faster.
    tile_in_place(
        vectors, used, a, a_row, a_col, chosen, b, b_row, c, c_row, start, start_row, K, lanes, subtracts, rate, b
    )  # fmt: skip


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


@intrinsic
def tile_of_columns(typingctx, rows, columns, a, a_row, b, start, start_row, start_col, c, c_row, K):
    """C = start + A·B for some rows of A, each in one piece, and few columns of B, (K, columns) in one piece."""
    pointer, size = a, types.intp
    signature = types.void(size, size, pointer, size, pointer, pointer, size, size, pointer, size, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, columns, *operands = args
        emit = VectorCode(context, builder, pointer.dtype, ir.Constant(_I64, 1))
        for width in range(1, emit.width // 4 + 1):
            with builder.if_then(builder.icmp_signed("==", columns, ir.Constant(_I64, width))):
                for registers in (TRANSPOSED, 1):
                    height = registers * emit.width
                    with builder.if_then(builder.icmp_signed("==", rows, ir.Constant(_I64, height))):
                        _emit_columns(builder, emit, registers, width, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_columns(builder, emit, registers, width, a, a_row, b, start, start_row, start_col, c, c_row, K):
    """The instructions for so many registers of rows and `width` columns, some k at a time, then one by one."""
    columns, piece = range(width), emit.piece

    def multiplied(k: Any, transposed: list[list[Any]], sums: list[Any]) -> list[Any]:
        """`sums` after the multiply-adds of transposed[register][step] with rows k, k + 1, ... of B."""
        for step in range(len(transposed[0])):
            b_k = builder.gep(b, [builder.mul(builder.add(k, ir.Constant(_I64, step)), ir.Constant(_I64, width))])
            factors = [emit.splat(builder.load(builder.gep(b_k, [ir.Constant(_I64, j)]))) for j in columns]
            products = [(a_k[step], factor) for a_k in transposed for factor in factors]
            sums = [emit.multiply_add(*pair, total) for pair, total in zip(products, sums, strict=True)]
        return sums

    def row(number: int, stride: Any = a_row) -> Any:
        return builder.mul(stride, ir.Constant(_I64, number))

    def gathered(pointers: list[Any]) -> Any:
        vector = emit.zero
        for lane, pointer in enumerate(pointers):
            vector = builder.insert_element(vector, builder.load(pointer), ir.Constant(_I32, lane))
        return vector

    def lanes(register: int) -> range:
        return range(register * emit.width, (register + 1) * emit.width)

    def several(k: Any, sums: list[Any]) -> list[Any]:
        a_k = builder.gep(a, [k])
        lines = [builder.gep(a_k, [row(i)]) for i in range(registers * emit.width)]
        return multiplied(k, [emit.turned(lines[i : i + emit.width]) for i in range(0, len(lines), emit.width)], sums)

    def one(k: Any, sums: list[Any]) -> list[Any]:
        a_k = builder.gep(a, [k])
        transposed = [
            [gathered([builder.gep(a_k, [row(i)]) for i in lanes(register)])] for register in range(registers)
        ]
        return multiplied(k, transposed, sums)

    sums = []
    for register in range(registers):
        for j in columns:
            column = builder.gep(start, [builder.mul(start_col, ir.Constant(_I64, j))])
            sums.append(gathered([builder.gep(column, [row(i, start_row)]) for i in lanes(register)]))
    k, sums = while_whole(builder, ir.Constant(_I64, 0), K, piece, several, sums)
    _, sums = while_whole(builder, k, K, 1, one, sums)
    for place, total in enumerate(sums):
        register, j = divmod(place, width)
        for lane in range(emit.width):
            c_row_at = builder.gep(c, [builder.mul(c_row, ir.Constant(_I64, register * emit.width + lane))])
            element = builder.extract_element(total, ir.Constant(_I32, lane))
            builder.store(element, builder.gep(c_row_at, [ir.Constant(_I64, j)]))
