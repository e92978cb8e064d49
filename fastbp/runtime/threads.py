"""How many threads a kernel may use, and the one gate through which parallel code is entered.

A result never depends on the number of threads: parts of a kernel divide its output among them, and each
element of the output is computed by one thread in one order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastbp.runtime import cores
from fastbp.runtime.pool import REGION, Pool, is_known

# A kernel of fewer multiply-adds is not divided: it is done before a helper has begun.
WORTH_A_REGION = 400_000

# What kernels read about threads, by its address: the number of parts into which they divide their work, and the
# address of the pool that does the parts, 0 until `start`.
_team = np.zeros(2, np.intp)
TEAM = _team.ctypes.data

_WORD, _POINTER = ir.IntType(types.intp.bitwidth), ir.IntType(8).as_pointer()


def start() -> None:
    """Start the threads, on the first parallel work."""
    if _team[0] > 1 and not _team[1]:
        _pool.start(min(_number, _most_threads()) - 1)
        _team[1] = _pool.address


@intrinsic
def parts_of(typingctx: Any, team: Any) -> Any:
    """The number of parts into which a kernel may divide its work."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _word(builder, args[0], 0)

    return types.intp(types.intp), codegen


@intrinsic
def in_parallel(typingctx: Any, team: Any, parts: Any, function: Any, arguments: Any) -> Any:
    """Call `function(part, parts, *arguments)` for each part, a kernel that returns nothing; False before `start`."""
    called = function.get_call_type(typingctx, (types.intp, types.intp, *arguments.types), {})

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts, pool = args[1], _word(builder, args[0], 1)
        started = builder.icmp_signed("!=", pool, _WORD(0))
        with builder.if_then(started):
            values = [parts, *cgutils.unpack_tuple(builder, args[3])]
            record = cgutils.pack_struct(builder, values)
            data = cgutils.alloca_once(builder, record.type)
            builder.store(record, data)
            compiled = function.dispatcher.get_compile_result(called)
            context.add_linking_libs([compiled.library])
            task = _task(context, builder.module, compiled, record.type)
            task_at, data_at = (builder.ptrtoint(pointer, _WORD) for pointer in (task, data))
            _call_region(context, builder, [pool, task_at, parts, data_at])
        return started

    return types.boolean(types.intp, types.intp, function, arguments), codegen


def _task(context: Any, module: Any, compiled: Any, record: Any) -> Any:
    """The function of a region: it calls the kernel for one part."""
    name = f"fastbp.task.{compiled.fndesc.mangled_name}"
    if name in module.globals:
        return module.globals[name]
    task = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORD, _WORD]), name)
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    part, data = task.args
    packed = builder.load(builder.inttoptr(data, record.as_pointer()))
    arguments = [builder.extract_value(packed, i) for i in range(len(record.elements))]
    kernel = context.declare_function(module, compiled.fndesc)
    signature = compiled.signature
    context.call_conv.call_function(builder, kernel, signature.return_type, signature.args, [part, *arguments])
    builder.ret_void()
    return task


def _call_region(context: Any, builder: Any, arguments: list[Any]) -> None:
    """Call the pool's `region` by its address: linked in, it would be optimised once more in each of its callers."""
    kind = context.call_conv.get_function_type(types.none, (types.intp,) * 4)
    result, error = (cgutils.alloca_once(builder, pointer.pointee) for pointer in kind.args[:2])
    address = _word(builder, arguments[0], REGION)
    builder.call(builder.inttoptr(address, kind.as_pointer()), [result, error, *arguments])


def _word(builder: Any, address: Any, number: int) -> Any:
    return builder.load(builder.gep(builder.inttoptr(address, _WORD.as_pointer()), [_WORD(number)]))


@intrinsic
def release_gil(typingctx: Any, is_long: Any) -> Any:
    """Let other Python threads run if the work is long, until `take_gil` gets what this returns.

    Long is more than some 50 µs. Shorter work keeps the lock: to take it back may need 5 ms, while another thread
    computes in Python.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        state = cgutils.alloca_once_value(builder, _POINTER(None))
        with builder.if_then(args[0]):
            builder.store(_python(builder, "PyEval_SaveThread", _POINTER, []), state)
        return builder.ptrtoint(builder.load(state), _WORD)

    return types.intp(types.boolean), codegen


@intrinsic
def take_gil(typingctx: Any, state: Any) -> Any:
    """Take back the lock where `release_gil` released it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.if_then(builder.icmp_signed("!=", args[0], _WORD(0))):
            _python(builder, "PyEval_RestoreThread", ir.VoidType(), [builder.inttoptr(args[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _python(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def get_num_threads() -> int:
    """Number of threads that one fastbp kernel may use.

    Examples
    --------
    >>> before = fastbp.get_num_threads()
    >>> fastbp.set_num_threads(1)
    >>> fastbp.get_num_threads()
    1
    >>> fastbp.set_num_threads(before)
    """
    return _number


def most_parts() -> int:
    """The number of parts into which a kernel may divide its work now."""
    return int(_team[0])


def team(n: int) -> NDArray[np.intp]:
    """A copy of the team of `TEAM`, of at most `n` threads. Kernels take it by its address."""
    return np.array([min(n, _team[0]), _team[1]], np.intp)


def set_num_threads(n: int) -> None:
    """Let one fastbp kernel use up to `n` threads.

    The results are bitwise the same for every `n`. At most as many threads run as the process has cores (see
    `available_cores`), or as `NUMBA_NUM_THREADS` says where that is set. At start the value is `FASTBP_NUM_THREADS`
    where that is set. A forked child begins with 1, and may set another.

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

    Examples
    --------
    >>> before = fastbp.get_num_threads()
    >>> fastbp.set_num_threads(1)
    >>> fastbp.get_num_threads()
    1
    >>> fastbp.set_num_threads(before)
    """
    global _number
    _number = _checked("n", n)
    _team[0] = min(n, _MOST_PARTS) if is_known() else 1
    if _pool.helpers < min(n, _most_threads()) - 1:
        _team[1] = 0  # until `start`


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """`set_num_threads(n)` for the body of a `with` statement, for the whole process.

    Examples
    --------
    >>> with fastbp.num_threads(1):
    ...     print(fastbp.get_num_threads())
    1
    """
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


def _most_threads() -> int:
    if os.environ.get("NUMBA_NUM_THREADS"):
        return int(config.NUMBA_NUM_THREADS)
    return _CORES


def _from_environment() -> int:
    text = os.environ.get("FASTBP_NUM_THREADS")
    if not text:
        return _most_threads()
    try:
        return _checked("FASTBP_NUM_THREADS", int(text))
    except ValueError:
        raise ValueError(
            f"FASTBP_NUM_THREADS: expected a whole number, at least 1, got {text!r}; correct or unset it"
        ) from None


def _after_fork_in_child() -> None:
    # The parent's threads do not exist in the child. Its cores are shared with its parent and its siblings, so it
    # begins with one thread.
    global _pool, _number
    _pool, _number = Pool(), 1
    _team[:] = 1, 0


# More than the cores of any machine. Further parts would have nothing to do.
_MOST_PARTS = 1024

_CORES = cores.available_cores()
_pool = Pool()
_number = 1
set_num_threads(_from_environment())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
