"""Machine words that several threads read and change, as instructions of LLVM: the field of that number at an address.

A thread that sees what another has put also sees what that one prepared before.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel

_WORD, _I32 = ir.IntType(64), ir.IntType(32)

# Turns of a spin, of some 15 ns each: a thread waits 100 µs and then lets others have its core. Two regions of a
# training step are less than 1 µs apart, two large layers of a loop in Python some 50 µs. With 2,000 turns helpers
# slept between layers, and a step of 784-50-10 by layers took as long on two threads as on one. With 8,000 it takes
# 0.75 times as long.
SPINS = 8000


def place(builder: Any, address: Any, field: Any, element: Any = _WORD) -> Any:
    """The pointer to a field, for code that is generated."""
    return builder.inttoptr(builder.add(address, builder.mul(field, _WORD(8))), element.as_pointer())


@intrinsic
def get(typingctx: Any, address: Any, field: Any) -> Any:
    """The word there."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(place(builder, *args), "seq_cst", 8)

    return types.intp(types.intp, types.intp), codegen


def _store(ordering: str) -> Any:
    """The intrinsic that stores a word."""

    @intrinsic
    def store(typingctx: Any, address: Any, field: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store_atomic(args[2], place(builder, *args[:2]), ordering, 8)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), codegen

    return store


put, prepare = _store("seq_cst"), _store("monotonic")


@intrinsic
def add(typingctx: Any, address: Any, field: Any, value: Any) -> Any:
    """Add to a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("add", place(builder, *args[:2]), args[2], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def swap(typingctx: Any, address: Any, field: Any, old: Any, new: Any) -> Any:
    """Store `new` where the word is `old`; returns whether it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = builder.cmpxchg(place(builder, *args[:2]), *args[2:], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def lowest_bit(typingctx: Any, word: Any) -> Any:
    """The number of the lowest bit that is set in a word other than 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.intp), codegen


@intrinsic
def rest(typingctx: Any) -> Any:
    """Tell the core that this is a spin."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif machine in ("aarch64", "arm64"):
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), [_I32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def give_way(typingctx: Any) -> Any:
    """Let another thread have this core, if one wants it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call(builder, "SwitchToThread" if sys.platform == "win32" else "sched_yield", _I32, [])
        return context.get_dummy_value()

    return types.void(), codegen


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> None:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, arguments)


@kernel
def await_count(address, field, least):
    """Wait until a word that another thread counts up is at least `least`."""
    spins = 0
    while get(address, field) < least:
        if spins < SPINS:
            spins += 1
            rest()
        else:
            give_way()
