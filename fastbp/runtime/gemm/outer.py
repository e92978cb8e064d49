"""The product of a column and a row, subtracted from a matrix: the step of SGD on one sample."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.vectors import VectorCode, while_whole

_I64 = ir.IntType(64)

# Rows side by side: 784×50 in float32 takes 2.8 µs, row by row 3.1, and with the product 3.3 for 4.6.
_ROWS = 4


def _subtraction(multiplies: bool) -> Any:
    """An intrinsic that subtracts, and where it `multiplies` adds what the changed rows give."""

    @intrinsic
    def subtract(typingctx, a, b, rate, c, rows, columns, next_a, z):
        size = types.intp
        signature = types.void(a, b, rate, c, size, size, next_a, z)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, b, rate, c, rows, columns, next_a, z = args
            emit = VectorCode(context, builder, signature.args[3].dtype, _I64(1))
            factor, last = emit.splat(builder.load(rate)), builder.sub(columns, _I64(emit.width))

            def vector(row: Any, j: Any) -> Any:
                return emit.load(builder.gep(row, [j]), 0, masked=False)

            def put(value: Any, row: Any, j: Any) -> None:
                emit.store(value, builder.gep(row, [j]), 0, masked=False)

            def abreast(count: int) -> Any:
                def some(i: Any, sums: list[Any]) -> list[Any]:
                    numbers = [builder.add(i, _I64(k)) for k in range(count)]
                    lines = [builder.gep(c, [builder.mul(number, columns)]) for number in numbers]
                    a_i = [emit.splat(builder.load(builder.gep(a, [number]))) for number in numbers]
                    next_i = [
                        emit.splat(builder.load(builder.gep(next_a, [number]))) for number in numbers * multiplies
                    ]

                    def changed(j: Any) -> list[Any]:
                        b_j = vector(b, j)
                        steps = [builder.fmul(factor, builder.fmul(value, b_j)) for value in a_i]
                        return [
                            builder.fsub(vector(*at), step) for *at, step in zip(lines, [j] * count, steps, strict=True)
                        ]

                    def added(total: Any, new: list[Any]) -> Any:
                        for value, row in zip(next_i, new[: len(next_i)], strict=True):
                            total = emit.multiply_add(value, row, total)
                        return total

                    def whole(j: Any, nothing: list[Any]) -> list[Any]:
                        new = changed(j)
                        for line, value in zip(lines, new, strict=True):
                            put(value, line, j)
                        if multiplies:
                            put(added(vector(z, j), new), z, j)
                        return nothing

                    end = changed(last)  # before what it overlaps is stored
                    while_whole(builder, _I64(0), builder.sub(columns, _I64(1)), emit.width, whole, [])
                    for line, value in zip(lines, end, strict=True):
                        put(value, line, last)
                    return [added(total, end) for total in sums]

                return some

            sums = [vector(z, last)] if multiplies else []
            done, sums = while_whole(builder, _I64(0), rows, _ROWS, abreast(_ROWS), sums)
            _, sums = while_whole(builder, done, rows, 1, abreast(1), sums)
            for total in sums:
                put(total, z, last)
            return context.get_dummy_value()

        return signature, codegen

    return subtract


_subtract, _subtract_and_multiply = _subtraction(multiplies=False), _subtraction(multiplies=True)


@kernel
def subtract_outer(a, b, rate, c, rows, columns):
    """C -= rate·a·b for a of so many rows and b of columns, at least a register of them; C has no gaps.

    Each row is read and written from end to end. The bits are those of `multiply` where it subtracts, which takes 1.4
    times as long for 784×50 in float32: its tiles have one turn each.
    """
    noinline()
    _subtract(a, b, rate, c, rows, columns, a, b)


@kernel
def subtract_outer_and_multiply(a, b, rate, c, rows, columns, next_a, z):
    """The same, and then z += next_a·C, in one pass over C: each sum goes from row to row, as in `multiply`."""
    noinline()
    _subtract_and_multiply(a, b, rate, c, rows, columns, next_a, z)
