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

from fastbp.runtime.jit import kernel
from fastbp.runtime.vectors import (
    FEATURES,
    REGISTER_BYTES,
    VECTOR_BYTES,
    VectorCode,
    folded,
    while_whole,
)

_HAS_32_REGISTERS = "avx512f" in FEATURES or "neon" in FEATURES

# Maps × registers of a run: accumulators, one row of registers of the image and a broadcast fit the CPU's registers.
SHAPES = ((8, 3), (6, 4), (4, 6), (2, 8), (1, 8)) if _HAS_32_REGISTERS else ((4, 3), (6, 2), (2, 4), (1, 8))

# Filters × places of the filter whose sums over a run are formed together, as vectors of VECTOR_BYTES.
GRADIENT_HEIGHTS, PLACES = ((4, 3), 5) if REGISTER_BYTES == VECTOR_BYTES else ((2, 1), 3)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_OFFSETS = types.CPointer(types.intp)


@intrinsic
def _correlation_tile(typingctx, shape, used, w, w_row, w_at, x, x_at, K, start, start_row, out, out_row):
    """out[m, :] = start[m] + sum over k of w[m, w_at[k]]·x[x_at[k] + :], for `used` maps and the run of a shape.

    `shape` is a number in SHAPES. Maps from `used` on repeat the last one and are not stored.
    """
    pointer, size = w, types.intp
    signature = types.void(
        size, size, pointer, size, _OFFSETS, pointer, _OFFSETS, size, pointer, size, pointer, size
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shape, *operands = args
        emit = VectorCode(context, builder, pointer.dtype, _I64(1))
        for number, (height, width) in enumerate(SHAPES):
            with builder.if_then(builder.icmp_signed("==", shape, _I64(number))):
                _emit_correlation(builder, emit, height, width, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_correlation(builder, emit, height, width, used, w, w_row, w_at, x, x_at, K, start, start_row, out, out_row):
    maps, columns = range(height), range(width)
    last = builder.sub(used, _I64(1))
    index = [builder.select(builder.icmp_signed("<", _I64(m), used), _I64(m), last) for m in maps]
    w_maps = [builder.gep(w, [builder.mul(w_row, index[m])]) for m in maps]
    initial = [emit.splat(builder.load(builder.gep(start, [builder.mul(start_row, index[m])]))) for m in maps]

    def turn(k: Any, sums: list[Any]) -> list[Any]:
        image = builder.gep(x, [builder.load(builder.gep(x_at, [k]))])
        vectors = [emit.load(image, j, masked=False) for j in columns]
        place = builder.load(builder.gep(w_at, [k]))
        updated = []
        for m in maps:
            factor = emit.splat(builder.load(builder.gep(w_maps[m], [place])))
            updated += [emit.multiply_add(factor, vectors[j], sums[m * width + j]) for j in columns]
        return updated

    _, sums = while_whole(builder, _I64(0), K, 1, turn, [initial[m] for m in maps for _ in columns])
    for m in maps:
        with builder.if_then(builder.icmp_signed("<", _I64(m), used)):
            row = builder.gep(out, [builder.mul(out_row, _I64(m))])
            for j in columns:
                emit.store(sums[m * width + j], row, j, masked=False)


@kernel
def correlation_tile(shape, used, w, w_row, w_at, x, x_at, K, start, start_row, out, out_row):
    _correlation_tile(shape, used, w, w_row, w_at, x, x_at, K, start, start_row, out, out_row)


@intrinsic
def _gradient_tile(typingctx, height, used, d, d_row, d_line, x, x_at, x_line, lines, run, first, last, sums, sums_row):
    """sums[f, q] += sum over lines and a run of d[f, :]·x[x_at[q] + :], for `used` filters and places first:last.

    Lane l of a vector sums elements l, l + lanes, ... of each line, one line after the other; then the lanes are added.
    """
    pointer, size = d, types.intp
    signature = types.void(
        size, size, pointer, size, size, pointer, _OFFSETS, size, size, size, size, size, pointer, size
    )

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        height, *operands = args
        for rows in GRADIENT_HEIGHTS:
            with builder.if_then(builder.icmp_signed("==", height, _I64(rows))):
                _emit_gradient(context, builder, pointer.dtype, rows, *operands)
        return context.get_dummy_value()

    return signature, codegen


def _emit_gradient(
    context, builder, scalar, height, used, d, d_row, d_line, x, x_at, x_line, lines, run, first, last, sums, sums_row
):
    filters, places = range(height), range(PLACES)
    lanes = VECTOR_BYTES * 8 // scalar.bitwidth
    whole = builder.and_(run, _I64(-lanes))
    left = builder.sub(run, whole)
    emit = VectorCode(context, builder, scalar, left, VECTOR_BYTES)
    last_row = builder.sub(used, _I64(1))
    index = [builder.select(builder.icmp_signed("<", _I64(f), used), _I64(f), last_row) for f in filters]
    d_rows = [builder.gep(d, [builder.mul(d_row, index[f])]) for f in filters]
    x_places = [builder.gep(x, [builder.load(builder.gep(x_at, [_I64(q)]))]) for q in places]

    def multiplied(place: Any, x_offset: Any, d_offset: Any, masked: bool, totals: list[Any]) -> list[Any]:
        ds = [emit.load(builder.gep(builder.gep(row, [d_offset]), [place]), 0, masked=masked) for row in d_rows]
        updated = []
        for q in places:
            vector = emit.load(builder.gep(builder.gep(x_places[q], [x_offset]), [place]), 0, masked=masked)
            updated += [emit.multiply_add(ds[f], vector, totals[q * height + f]) for f in filters]
        return updated

    def line(number: Any, totals: list[Any]) -> list[Any]:
        x_offset, d_offset = builder.mul(number, x_line), builder.mul(number, d_line)
        _, totals = while_whole(
            builder, _I64(0), whole, lanes, lambda at, sums: multiplied(at, x_offset, d_offset, False, sums), totals
        )
        before, has_rest = builder.block, builder.icmp_signed(">", left, _I64(0))
        rest, done = builder.append_basic_block("rest"), builder.append_basic_block("line")
        builder.cbranch(has_rest, rest, done)
        builder.position_at_end(rest)
        changed = multiplied(whole, x_offset, d_offset, True, totals)
        after = builder.block
        builder.branch(done)
        builder.position_at_end(done)
        result = []
        for total, new in zip(totals, changed, strict=True):
            phi = builder.phi(emit.vector)
            phi.add_incoming(total, before)
            phi.add_incoming(new, after)
            result.append(phi)
        return result

    _, totals = while_whole(builder, _I64(0), lines, 1, line, [emit.zero] * (height * PLACES))
    for f in filters:
        for q in places:
            is_used = builder.icmp_signed("<", _I64(f), used)
            is_new = builder.icmp_signed(">=", _I64(q), first)
            is_there = builder.icmp_signed("<", _I64(q), last)
            with builder.if_then(builder.and_(is_used, builder.and_(is_new, is_there))):
                place = builder.gep(sums, [builder.add(builder.mul(sums_row, _I64(f)), _I64(q))])
                total = builder.extract_element(folded(builder, totals[q * height + f], lanes), _I32(0))
                builder.store(builder.fadd(builder.load(place), total), place)


@kernel
def gradient_tile(height, used, d, d_row, d_line, x, x_at, x_line, lines, run, first, last, sums, sums_row):
    _gradient_tile(height, used, d, d_row, d_line, x, x_at, x_line, lines, run, first, last, sums, sums_row)


@intrinsic
def copy_run(typingctx, source, target, count):
    """Copy `count` elements that lie side by side."""
    signature = types.void(source, source, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count = args
        scalar = signature.args[0].dtype
        lanes = REGISTER_BYTES * 8 // scalar.bitwidth
        whole = builder.and_(count, _I64(-lanes))
        left = builder.sub(count, whole)
        emit = VectorCode(context, builder, scalar, left)

        def move(place: Any, values: list[Any]) -> list[Any]:
            emit.store(emit.load(builder.gep(source, [place]), 0, False), builder.gep(target, [place]), 0, False)
            return values

        while_whole(builder, _I64(0), whole, lanes, move, [])
        with builder.if_then(builder.icmp_signed(">", left, _I64(0))):
            value = emit.load(builder.gep(source, [whole]), 0, masked=True)
            emit.store(value, builder.gep(target, [whole]), 0, masked=True)
        return context.get_dummy_value()

    return signature, codegen
