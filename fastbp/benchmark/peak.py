"""The limit that every product of matrices is held to: how many multiply-adds the machine does in a second.

It is measured on registers alone and without any code of the kernels, so that it stays what it is when they change.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.kernels import REGISTER_BYTES

# Sums that do not wait for each other: more than the steps that a multiply-add takes times how many of them a core
# begins at once, and few enough for 16 registers.
_SUMS = 12
_TURNS = 1_000_000
# Long enough for threads that woke on one core to be spread over all.
_SECONDS = 0.4


def multiply_add_peak(dtype: str, threads: int = 1) -> float:
    """Floating-point operations per second of `threads` threads together, a multiply-add counted as two."""
    lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
    half, one = np.ones((2, 1), dtype)[:, 0] / np.array([2, 1], dtype)
    with ThreadPoolExecutor(threads) as pool:
        _run(1, half, one)  # compiles
        stop, fastest = time.perf_counter() + _SECONDS, np.inf
        while (start := time.perf_counter()) < stop:
            list(pool.map(lambda _: _run(_TURNS, half, one), range(threads)))
            fastest = min(fastest, time.perf_counter() - start)
    return 2 * lanes * _SUMS * _TURNS * threads / fastest


@intrinsic
def _multiply_adds(typingctx: Any, turns: Any, factor: Any, term: Any) -> Any:
    """`turns` times sum = sum·factor + term, for all sums; returns one number of each vector, added up."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        turns, factor, term = args
        vector = ir.VectorType(factor.type, REGISTER_BYTES * 8 // signature.args[1].bitwidth)
        factors, terms = (_broadcast(builder, value, vector) for value in (factor, term))
        name = f"llvm.fma.v{vector.count}f{signature.args[1].bitwidth}"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        sums = [cgutils.alloca_once_value(builder, terms) for _ in range(_SUMS)]
        with cgutils.for_range(builder, turns):
            for total in sums:
                builder.store(builder.call(fma, [builder.load(total), factors, terms]), total)
        result = factor
        for total in sums:
            result = builder.fadd(result, builder.extract_element(builder.load(total), ir.IntType(32)(0)))
        return result

    return factor(turns, factor, term), codegen


def _broadcast(builder: Any, value: Any, vector: Any) -> Any:
    single = builder.insert_element(vector(ir.Undefined), value, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, single, lanes)


@njit(nogil=True)
def _run(turns: Any, factor: Any, term: Any) -> Any:
    return _multiply_adds(turns, factor, term)
