"""How many threads a kernel may use, and the one gate through which parallel code is entered.

A result never depends on the number of threads: parts of a kernel divide its output among them, and each
element of the output is computed by one thread in one order.

Parts are handed to Numba's threading layer directly, not by `prange`: around each prange loop Numba makes four
libraries, of which each optimises all code that the loop reaches once more (a product took 8 s to compile, now 3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

# A parallel region costs about 3 µs: a product of fewer multiply-adds is done sooner by one thread.
WORTH_A_REGION = 400_000

# What kernels know of threads, by its address: into how many parts they divide their work, on how many threads the
# parts run, and the address of the threading layer's entry, 0 until `start`.
_team = np.zeros(3, np.intp)
TEAM = _team.ctypes.data


def start() -> None:
    """Load the threading layer: on the first parallel work, as it takes 20 ms."""
    if _team[2]:
        return
    numba.get_num_threads()
    _team[2] = llvm.address_of_symbol("numba_parallel_for")


@intrinsic
def parts_of(typingctx: Any, team: Any) -> Any:
    """Into how many parts a kernel may divide its work."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fields(builder, args[0])[0]

    return types.intp(types.intp), codegen


@intrinsic
def in_parallel(typingctx: Any, team: Any, function: Any, arguments: Any) -> Any:
    """Call `function(part, parts, *arguments)` for each part, a kernel that returns nothing; False before `start`."""
    called = function.get_call_type(typingctx, (types.intp, types.intp, *arguments.types), {})

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts, threads, layer = _fields(builder, args[0])
        started = builder.icmp_signed("!=", layer, layer.type(0))
        with builder.if_then(started):
            values = [parts, *cgutils.unpack_tuple(builder, args[2])]
            record = cgutils.pack_struct(builder, values)
            data = cgutils.alloca_once(builder, record.type)
            builder.store(record, data)
            compiled = function.dispatcher.get_compile_result(called)
            context.add_linking_libs([compiled.library])
            task = _task(context, builder.module, compiled, record.type)
            # One array of addresses from 0 by steps of 1: what a thread is given of it says where its parts begin.
            base, count, step = (cgutils.alloca_once(builder, _WORD) for _ in range(3))
            for place, value in ((base, _WORD(0)), (count, parts), (step, _WORD(1))):
                builder.store(value, place)
            pointers = [builder.bitcast(pointer, _POINTER) for pointer in (task, base, count, step, data)]
            entry = ir.FunctionType(ir.VoidType(), [_POINTER] * 5 + [_WORD] * 3).as_pointer()
            builder.call(builder.inttoptr(layer, entry), [*pointers, _WORD(0), _WORD(1), threads])
        return started

    return types.boolean(types.intp, function, arguments), codegen


def _task(context: Any, module: Any, compiled: Any, record: Any) -> Any:
    """The function that a thread is given: it calls the kernel for a run of parts."""
    name = f"fastbp.task.{compiled.fndesc.mangled_name}"
    if name in module.globals:
        return module.globals[name]
    kind = ir.FunctionType(
        ir.VoidType(), [_WORD.as_pointer(), _WORD.as_pointer(), _WORD.as_pointer(), record.as_pointer()]
    )
    task = ir.Function(module, kind, name)
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    base, count, _, data = task.args
    packed = builder.load(data)
    arguments = [builder.extract_value(packed, i) for i in range(len(record.elements))]
    first = builder.load(base)
    kernel = context.declare_function(module, compiled.fndesc)
    signature = compiled.signature
    with cgutils.for_range(builder, builder.load(count)) as turn:
        part = builder.add(first, turn.index)
        context.call_conv.call_function(builder, kernel, signature.return_type, signature.args, [part, *arguments])
    builder.ret_void()
    return task


def _fields(builder: Any, team: Any) -> list[Any]:
    pointer = builder.inttoptr(team, _WORD.as_pointer())
    return [builder.load(builder.gep(pointer, [_WORD(i)])) for i in range(len(_team))]


_WORD = ir.IntType(types.intp.bitwidth)
_POINTER = ir.IntType(8).as_pointer()


def get_num_threads() -> int:
    """Number of threads that one fastbp kernel may use."""
    return _number


def most_parts() -> int:
    """Into how many parts a kernel may divide its work now."""
    return int(_team[0])


def team(n: int) -> NDArray[np.intp]:
    """Like the team of `TEAM` at this moment, of at most `n` threads. It is given to kernels by its address."""
    return np.array([min(n, _team[0]), min(n, _team[1]), _team[2]], np.intp)


def set_num_threads(n: int) -> None:
    """Let one fastbp kernel use up to `n` threads.

    The results are bitwise the same for every `n`. At most as many threads run as Numba may start
    (`NUMBA_NUM_THREADS`, by default the number of cores). At start the value is `FASTBP_NUM_THREADS`
    where that is set.

    Parameters
    ----------
    n : int
        At least 1; any number is taken, however large.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.
    """
    global _number
    _number = _checked("n", n)
    _team[:2] = min(n, _MOST_PARTS), min(n, int(config.NUMBA_NUM_THREADS))


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """`set_num_threads(n)` for the body of a `with` statement, for the whole process."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def _checked(name: str, n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise TypeError(f"{name}: expected an integer, got {n!r}; give the number of threads, at least 1")
    if n < 1:
        raise ValueError(f"{name}: expected at least 1, got {n}; 1 means no parallel work")
    return int(n)


def _from_environment() -> int:
    text = os.environ.get("FASTBP_NUM_THREADS")
    if not text:
        return int(config.NUMBA_NUM_THREADS)
    try:
        return _checked("FASTBP_NUM_THREADS", int(text))
    except ValueError:
        raise ValueError(
            f"FASTBP_NUM_THREADS: expected a whole number, at least 1, got {text!r}; correct or unset it"
        ) from None


def _after_fork_in_child() -> None:
    # The parent's threads do not exist in the child, and an OpenMP region kills it: it runs serially.
    _team[:] = 1, 1, 0


# More than any machine has cores: beyond it parts have nothing to do, and only take time.
_MOST_PARTS = 1024

_number = 1
set_num_threads(_from_environment())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
