"""The product of a column and a row, subtracted from a matrix: the step of SGD on one sample."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.vectors import VectorCode, while_whole

_I64 = ir.IntType(64)


@intrinsic
def _subtract_outer(typingctx, a, b, rate, c, rows, columns):
    size = types.intp
    signature = types.void(a, b, rate, c, size, size)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, rate, c, rows, columns = args
        emit = VectorCode(context, builder, signature.args[3].dtype, _I64(1))
        factor, last = emit.splat(builder.load(rate)), builder.sub(columns, _I64(emit.width))

        def row(i: Any, nothing: list[Any]) -> list[Any]:
            a_i, c_i = emit.splat(builder.load(builder.gep(a, [i]))), builder.gep(c, [builder.mul(i, columns)])

            def changed(j: Any) -> Any:
                product = builder.fmul(a_i, emit.load(builder.gep(b, [j]), 0, masked=False))
                old = emit.load(builder.gep(c_i, [j]), 0, masked=False)
                return builder.fsub(old, builder.fmul(factor, product))

            def whole(j: Any, nothing: list[Any]) -> list[Any]:
                emit.store(changed(j), builder.gep(c_i, [j]), 0, masked=False)
                return nothing

            end = changed(last)  # before what it overlaps is stored
            while_whole(builder, _I64(0), builder.sub(columns, _I64(1)), emit.width, whole, [])
            emit.store(end, builder.gep(c_i, [last]), 0, masked=False)
            return nothing

        while_whole(builder, _I64(0), rows, 1, row, [])
        return context.get_dummy_value()

    return signature, codegen


@kernel
def subtract_outer(a, b, rate, c, rows, columns):
    """C -= rate·a·b for a of so many rows and b of columns, at least a register of them; C has no gaps.

    Each row is read and written from end to end. The bits are those of `multiply` where it subtracts, which takes 1.4
    times as long for 784×50 in float32: its tiles have one turn each.
    """
    noinline()
    _subtract_outer(a, b, rate, c, rows, columns)
