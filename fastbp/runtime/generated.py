"""What kernels generated from a graph are made of, and the one loop over threads that runs them all.

A generated kernel is a C function `kernel(first, last, size, addresses)`: it computes blocks `first` to `last` of
BLOCK elements out of `size`, on arrays whose addresses are given. So the code that shares blocks among threads is
compiled once for all graphs. A sum is a number for each block, whoever computes it, so its bits do not depend on the
number of threads: the terms of a block are written down, and then summed in the order of `fastbp.runtime.vectors`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime import threads
from fastbp.runtime.elementary import exp, log
from fastbp.runtime.jit import entry_kernel, generated_kernel, kernel
from fastbp.runtime.pointers import allocate, release, shift
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import sum_of

# Elements to a block: small enough for the first-level cache, large enough for the loop around it not to be seen.
BLOCK = 512

_ADDRESSES = types.CPointer(types.intp)
ARGUMENTS = (types.intp, types.intp, types.intp, _ADDRESSES)


@intrinsic
def array(typingctx: Any, addresses: Any, number: Any, like: Any) -> Any:
    """The array at an address: a pointer to numbers of the type of `like`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.load(builder.gep(args[0], [args[1]]))
        return builder.inttoptr(address, context.get_value_type(signature.return_type))

    return types.CPointer(like)(addresses, types.intp, like), codegen


# The arrays that are written to lie apart from each other and from all inputs. LLVM is told so on every load and
# store, because it would compare no more than a few arrays itself, and use no vectors where there are more.
def _scope(module: Any, name: str) -> Any:
    return module.add_metadata([f"fastbp {name}", module.add_metadata(["fastbp"])])


@intrinsic
def load(typingctx: Any, pointer: Any, i: Any) -> Any:
    """Element i of an input."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(builder.gep(args[0], [args[1]]))
        value.set_metadata("alias.scope", builder.module.add_metadata([_scope(builder.module, "inputs")]))
        return value

    return pointer.dtype(pointer, types.intp), codegen


@intrinsic(prefer_literal=True)
def store(typingctx: Any, pointer: Any, i: Any, value: Any, number: Any) -> Any:
    """Write element i of the output of that number, counted from 0."""
    outputs = [f"output {n}" for n in range(number.literal_value)]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        module = builder.module
        instruction = builder.store(args[2], builder.gep(args[0], [args[1]]))
        own = module.add_metadata([_scope(module, f"output {number.literal_value}")])
        others = module.add_metadata([_scope(module, name) for name in ["inputs", *outputs]])
        instruction.set_metadata("alias.scope", own)
        instruction.set_metadata("noalias", others)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, pointer.dtype, number), codegen


@kernel
def total(terms, first, count):
    """The sum of `count` elements from the first one on."""
    return sum_of((shift(terms, first),), (), count)


@intrinsic
def _call(typingctx: Any, address: Any, first: Any, last: Any, size: Any, addresses: Any) -> Any:
    """Call a generated kernel."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(types.intp.bitwidth)
        kind = ir.FunctionType(ir.VoidType(), [integer, integer, integer, integer.as_pointer()])
        data = context.make_array(signature.args[4])(context, builder, args[4]).data
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*args[1:4], data])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp, addresses), codegen


@kernel
def _run_part(part, parts, address, size, addresses):
    """One of `parts` shares of the blocks."""
    blocks = (size + BLOCK - 1) // BLOCK
    _call(address, blocks * part // parts, blocks * (part + 1) // parts, size, addresses)


@entry_kernel
def _run(team, address, size, addresses, work):
    zero, one = np.intp(0), np.intp(1)  # as constants they would compile `_run_part` once more
    is_long, done = work >= threads.WORTH_A_REGION, True
    gil = release_gil(is_long)
    if parts_of(team) == 1 or not is_long:
        _run_part(zero, one, address, size, addresses)
    else:
        done = in_parallel(team, parts_of(team), _run_part, (address, size, addresses))
    take_gil(gil)
    return done


def run(address: int, size: int, addresses: Any, work: int) -> None:
    """Run a generated kernel on arrays of `size` elements, on several threads where `work` (operations) pays."""
    if not _run(threads.TEAM, address, size, addresses, work):
        threads.start()
        _run(threads.TEAM, address, size, addresses, work)


def compiled(source: str, dtype: Any, functions: dict[str, Any]) -> Any:
    """A generated kernel for arrays of `dtype`, which the source's first line must name, for the cache's sake.

    `functions` are kernels that it may call beside those known here, by name.
    """
    return generated_kernel(source, {**functions, **_NAMES, "T": dtype.type}, ARGUMENTS)


# What a generated source may use, beside T, the type of its numbers.
_NAMES = {
    "BLOCK": BLOCK,
    "INF": np.inf,
    "NAN": np.nan,
    "abs": abs,
    "allocate": allocate,
    "array": array,
    "cos": math.cos,
    "exp": exp,
    "load": load,
    "log": log,
    "release": release,
    "sin": math.sin,
    "sqrt": np.sqrt,
    "store": store,
    "total": total,
}
_VARIABLES = "T i block start count room first last size addresses scalars terms sums kernel"
NAMES = frozenset({*_VARIABLES.split(), *_NAMES})
