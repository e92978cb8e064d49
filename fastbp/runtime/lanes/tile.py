"""The register tiles of a correlation, as instructions of LLVM.

Where the samples of a batch lie side by side, memory (C, H, W, N), a row of output pixels is one run of elements, and a
place of the filter is an offset in the run of the input. So the rows of B, in the product of filters and image, are
found by a table of offsets, and no matrix of windows is built.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.gemm.epilogue import NONE, RECTIFY, RECTIFY_SLOPE
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import itemsize
from fastbp.runtime.vectors import (
    FEATURES,
    REGISTER_BYTES,
    VECTOR_BYTES,
    VectorCode,
    folded_together,
    while_whole,
)

_HAS_32_REGISTERS = "avx512f" in FEATURES or "neon" in FEATURES

# Maps of a tile, and the registers of a run that it can have: accumulators, one row of registers of the image and a
# broadcast fit the CPU's registers. The narrower ones end a run.
SHAPES = (
    ((8, (3, 2, 1)), (6, (4, 2, 1)), (4, (6, 3, 1)), (2, (8, 4, 1)), (1, (8, 3, 1)))
    if _HAS_32_REGISTERS
    else ((4, (3, 2, 1)), (6, (2, 1, 1)), (2, (4, 2, 1)), (1, (8, 3, 1)))
)

# Filters × places of the filter whose sums over a run are formed together, as vectors of VECTOR_BYTES.
GRADIENT_HEIGHTS, PLACES = ((4, 3), 5) if REGISTER_BYTES == VECTOR_BYTES else ((2, 1), 3)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_OFFSETS = types.CPointer(types.intp)


@intrinsic
def _correlation_tile(typingctx, shape, width, used, w, x, x_at, K, start, start_row, out, out_row, epilogue, beside):
    """out[m, :] = start[m] + sum over k of w[k, m]·x[x_at[k] + :], for `used` maps and `width` registers of a run.

    `shape` is a number in SHAPES; w is (K, height of the shape). Maps from `used` on are not stored. The epilogue is
    NONE, RECTIFY or RECTIFY_SLOPE of `gemm.epilogue`; `beside` has the strides of `out`.
    """
    pointer, size = w, types.intp
    signature = types.void(
        size, size, size, pointer, pointer, _OFFSETS, size, pointer, size, pointer, size, size, pointer
    )

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shape, width, *operands = args
        emit = VectorCode(context, builder, pointer.dtype, _I64(1))
        for number, (height, widths) in enumerate(SHAPES):
            with builder.if_then(builder.icmp_signed("==", shape, _I64(number))):
                for registers in dict.fromkeys(widths):
                    with builder.if_then(builder.icmp_signed("==", width, _I64(registers))):
                        _emit_correlation(builder, emit, height, registers, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_correlation(
    builder, emit, height, width, used, w, x, x_at, K, start, start_row, out, out_row, epilogue, beside
):  # fmt: skip
    maps, columns = range(height), range(width)
    last = builder.sub(used, _I64(1))
    index = [builder.select(builder.icmp_signed("<", _I64(m), used), _I64(m), last) for m in maps]
    initial = [emit.splat(builder.load(builder.gep(start, [builder.mul(start_row, index[m])]))) for m in maps]

    def turn(k: Any, sums: list[Any]) -> list[Any]:
        image = builder.gep(x, [builder.load(builder.gep(x_at, [k]))])
        vectors = [emit.load(image, j, masked=False) for j in columns]
        factors = builder.gep(w, [builder.mul(k, _I64(height))])
        updated = []
        for m in maps:
            factor = emit.splat(builder.load(builder.gep(factors, [_I64(m)])))
            updated += [emit.multiply_add(factor, vectors[j], sums[m * width + j]) for j in columns]
        return updated

    _, sums = while_whole(builder, _I64(0), K, 1, turn, [initial[m] for m in maps for _ in columns])

    def rectified(value: Any, row: Any, j: int) -> Any:
        return builder.select(builder.fcmp_ordered("<=", value, emit.zero), emit.zero, value)

    def with_slope(value: Any, row: Any, j: int) -> Any:
        outputs = emit.load(builder.gep(beside, [row]), j, masked=False)
        return builder.select(builder.fcmp_ordered("==", outputs, emit.zero), emit.zero, value)

    for word, change in ((NONE, lambda value, *_: value), (RECTIFY, rectified), (RECTIFY_SLOPE, with_slope)):
        with builder.if_then(builder.icmp_signed("==", epilogue, _I64(word))):
            for m in maps:
                with builder.if_then(builder.icmp_signed("<", _I64(m), used)):
                    row = builder.mul(out_row, _I64(m))
                    for j in columns:
                        emit.store(change(sums[m * width + j], row, j), builder.gep(out, [row]), j, masked=False)


@kernel
def correlation_tile(shape, width, used, w, x, x_at, K, start, start_row, out, out_row, epilogue, beside):
    _correlation_tile(shape, width, used, w, x, x_at, K, start, start_row, out, out_row, epilogue, beside)


@intrinsic
def _gradient_tile(typingctx, height, used, d, d_row, d_line, x, x_at, x_line, lines, run, sums):
    """sums[q, f] += sum over lines and a run of d[f, :]·x[x_at[q] + :], for the filters and places of a tile.

    Lane l of a vector sums elements l, l + lanes, ... of each line, one line after the other; then the lanes are added.
    Filters from `used` on repeat the last one.
    """
    pointer, size = d, types.intp
    signature = types.void(size, size, pointer, size, size, pointer, _OFFSETS, size, size, size, pointer)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        height, *operands = args
        for rows in GRADIENT_HEIGHTS:
            with builder.if_then(builder.icmp_signed("==", height, _I64(rows))):
                _emit_gradient(context, builder, pointer.dtype, rows, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_gradient(context, builder, scalar, height, used, d, d_row, d_line, x, x_at, x_line, lines, run, sums):
    lanes = VECTOR_BYTES * 8 // scalar.bitwidth
    whole = builder.and_(run, _I64(-lanes))
    end = builder.and_(builder.add(run, _I64(lanes - 1)), _I64(-lanes))
    emit = VectorCode(context, builder, scalar, builder.sub(run, whole), VECTOR_BYTES)
    last = builder.sub(used, _I64(1))
    index = [builder.select(builder.icmp_signed("<", _I64(f), used), _I64(f), last) for f in range(height)]
    d_rows = [builder.gep(d, [builder.mul(d_row, number)]) for number in index]
    x_places = [builder.gep(x, [builder.load(builder.gep(x_at, [_I64(q)]))]) for q in range(PLACES)]

    def line(number: Any, totals: list[Any]) -> list[Any]:
        d_offset, x_offset = builder.mul(number, d_line), builder.mul(number, x_line)

        def multiplied(place: Any, totals: list[Any], masked: bool = False) -> list[Any]:
            d_place, x_place = builder.add(d_offset, place), builder.add(x_offset, place)
            ds = [emit.load(builder.gep(row, [d_place]), 0, masked) for row in d_rows]
            xs = [emit.load(builder.gep(row, [x_place]), 0, masked) for row in x_places]
            pairs = [(one, other) for other in xs for one in ds]
            return [emit.multiply_add(*pair, total) for pair, total in zip(pairs, totals, strict=True)]

        _, totals = while_whole(builder, _I64(0), whole, lanes, multiplied, totals)
        _, totals = while_whole(
            builder, whole, end, lanes, lambda place, totals: multiplied(place, totals, masked=True), totals
        )
        return totals

    _, totals = while_whole(builder, _I64(0), lines, 1, line, [emit.zero] * (height * PLACES))
    for number, vector in enumerate(folded_together(builder, totals, lanes)):
        emit.store(builder.fadd(emit.load(sums, number, masked=False), vector), sums, number, masked=False)


@kernel
def gradient_tile(height, used, d, d_row, d_line, x, x_at, x_line, lines, run, sums):
    _gradient_tile(height, used, d, d_row, d_line, x, x_at, x_line, lines, run, sums)


@kernel
def gradient_height(rows):
    """The height of the tiles that load the fewest vectors for so many filters."""
    best, fewest = GRADIENT_HEIGHTS[0], rows * (1 + PLACES)
    for height in GRADIENT_HEIGHTS:
        vectors = (rows + height - 1) // height * (height + PLACES)
        if vectors < fewest:
            best, fewest = height, vectors
    return best


@kernel
def tile_sums(pointer, height):
    """Elements that the sums of a tile of such a height take: whole vectors."""
    lanes = VECTOR_BYTES // itemsize(pointer)
    return (height * PLACES + lanes - 1) // lanes * lanes


@intrinsic
def copy_runs(typingctx, source, source_step, target, target_step, runs, count):
    """Copy `runs` runs of `count` elements, source_step and target_step apart."""
    size = types.intp
    signature = types.void(source, size, source, size, size, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_step, target, target_step, runs, count = args
        scalar = signature.args[0].dtype
        lanes = REGISTER_BYTES * 8 // scalar.bitwidth
        whole = builder.and_(builder.sub(count, _I64(1)), _I64(-lanes))
        emit = VectorCode(context, builder, scalar, builder.sub(count, whole))

        def copied(number: Any, nothing: list[Any]) -> list[Any]:
            begin = builder.gep(source, [builder.mul(number, source_step)])
            end = builder.gep(target, [builder.mul(number, target_step)])

            def move(place: Any, nothing: list[Any]) -> list[Any]:
                emit.store(emit.load(builder.gep(begin, [place]), 0, False), builder.gep(end, [place]), 0, False)
                return nothing

            while_whole(builder, _I64(0), whole, lanes, move, [])
            last = emit.load(builder.gep(begin, [whole]), 0, masked=True)
            emit.store(last, builder.gep(end, [whole]), 0, masked=True)
            return nothing

        with builder.if_then(builder.icmp_signed(">", count, _I64(0))):
            while_whole(builder, _I64(0), runs, 1, copied, [])
        return context.get_dummy_value()

    return signature, codegen
