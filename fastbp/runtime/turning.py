"""Samples in rows to samples in lanes, and back, by registers: element j of each of some rows becomes a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.elementary import one
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.pointers import itemsize, load, local_memory, pointer_to, shift, store
from fastbp.runtime.vectors import REGISTER_BYTES, VectorCode, while_whole

_I64 = ir.IntType(64)

# Elements of a register at most: so many rows are turned together.
_MOST = REGISTER_BYTES // 4

# Memory for the places of `turn_rows`, given a pointer to machine words.
places_like = local_memory(_MOST)


@intrinsic
def _turn_rows(typingctx, source, places, lanes, width, scale, target, target_row):
    """target[j·target_row + l] = scale · source[places[l] + j] for the first lanes of a register, and j < width.

    Each place must be one that may be read, also behind the lanes. `width` is at least 16 bytes of elements.
    """
    size = types.intp
    signature = types.void(source, types.CPointer(size), size, size, target.dtype, target, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, places, lanes, width, scale, target, target_row = args
        emit = VectorCode(context, builder, signature.args[5].dtype, lanes)
        rows = [builder.gep(source, [builder.load(builder.gep(places, [_I64(l)]))]) for l in range(emit.width)]
        factor, last = emit.splat(scale), builder.sub(width, _I64(emit.piece))
        end = builder.add(width, _I64(emit.piece - 1))

        def turned(j: Any, nothing: list[Any]) -> list[Any]:
            # The last elements are turned with some of those before them.
            j = builder.select(builder.icmp_signed("<", j, last), j, last)
            for number, vector in enumerate(emit.turned([builder.gep(row, [j]) for row in rows])):
                place = builder.mul(builder.add(j, _I64(number)), target_row)
                emit.store(builder.fmul(vector, factor), builder.gep(target, [place]), 0, masked=True)
            return nothing

        while_whole(builder, _I64(0), end, emit.piece, turned, [])
        return context.get_dummy_value()

    return signature, codegen


@kernel
def turn(source, lines, width, target):
    """target (width, lines) = source (lines, width), turned."""
    places, registers = places_like(pointer_to(np.intp, np.intp(0))), REGISTER_BYTES // itemsize(source)
    for first in range(0, lines, registers):
        count = min(registers, lines - first)
        for lane in range(count):
            store(shift(places, lane), (first + lane) * width)
        turn_rows(source, places, count, width, one(load(source)), shift(target, first), lines)


@kernel
def turn_rows(source, places, count, width, scale, target, target_row):
    """target[j·target_row + l] = scale · source[places[l] + j] for l < count, at most a register, and j < width.

    `places`, memory of `places_like`, is filled up.
    """
    noinline()
    if width * itemsize(target) < _PIECE_BYTES:
        for lane in range(count):
            row = shift(source, load(shift(places, lane)))
            for j in range(width):
                store(shift(target, j * target_row + lane), load(shift(row, j)) * scale)
        return
    for lane in range(count, _MOST):
        store(shift(places, lane), load(shift(places, count - 1)))
    _turn_rows(source, places, count, width, scale, target, target_row)


# Elements that are read from a row at once.
_PIECE_BYTES = 16
