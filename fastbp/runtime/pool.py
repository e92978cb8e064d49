"""A pool of threads that share the parts of a kernel, in which the caller claims parts, too.

A region is a function and a number of parts. The caller publishes it. Then the caller and the helpers claim one part
after the other from a counter. A helper without a core delays nothing but a part that it has begun, and the caller does
what nobody else has claimed. An empty region costs 0.2 µs (libgomp: 1.4 to 3), and no library of the system is needed.

- Helpers are Python threads inside a compiled loop without the GIL. They spin for some microseconds after a region and
  then sleep, so a pool that is not used costs nothing.
- One region runs at a time. A caller that finds the pool taken by another thread does its parts alone.
- A region is late when the caller waits much longer for parts that helpers have begun than it worked itself. Another
  process then has the helper's core. The same is true when a helper finds that it was stopped in its spin, or wakes on
  the caller's core. Callers then work alone for 20 times the time that was lost, so the loss is at most a twentieth.
- A forked child has none of its parent's threads, and makes a pool of its own.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.runtime.jit import kernel, unlocked_kernel
from fastbp.runtime.pointers import address_of

# Places of the pool in machine words, a cache line each where several threads write.
# Parts not yet claimed; parts done; how many helpers sleep; what a sleeping helper waits to see changed; whether the
# caller sleeps; whether a region runs; the time until which callers work alone.
LEFT, DONE, SLEEPERS, WAKES, CALLER_SLEEPS, TAKEN, ALONE_UNTIL = (8 * line for line in range(7))
# The region: its parts, its function, what that is given, and the core that its caller runs on.
PARTS, FUNCTION, DATA, CORE = range(56, 60)
# Addresses of `region` and of the system's functions.
REGION, WAIT, WAKE, CLOCK, WHICH_CORE = range(64, 69)
WORDS = 72

# Turns of a spin, of some 15 ns each: a thread waits 100 µs and then sleeps. Two regions of a training step are less
# than 1 µs apart, two large layers of a loop in Python some 50 µs. With 2,000 turns helpers slept between layers, and
# a step of 784-50-10 by layers took as long on two threads as on one. With 8,000 it takes 0.75 times as long.
SPINS = 8000

# A helper reads the clock after so many turns. If more than so many nanoseconds have passed, another process had its
# core.
TURNS, CONTESTED = 64, 200_000

# A region is late if the wait is more than so many halves of the caller's own work. Helpers that were woken for it
# begin later and find cold caches: the wait is then up to 3 times the work on a quiet machine.
LATE, LATE_FROM_SLEEP = 3, 12

# Time alone in multiples of what was lost, and in nanoseconds at most: a process that was stopped for an hour has its
# threads again soon after.
PATIENCE, LONGEST_ALONE = 20, 1_000_000_000

# Time alone in nanoseconds after a helper woke on the caller's core, which happens when the other cores are busy. The
# helper sleeps again, because the caller would wait for it.
CROWDED = 5_000_000

# Whether the system tells which core a thread runs on.
TELLS_CORES = sys.platform != "darwin"

_WORD, _I32, _POINTER = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}.get(platform.machine())
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # private to the process
_ULOCK_WAIT, _ULOCK_WAKE_ALL = 1, 0x101


def _system_calls() -> tuple[Any, ...]:
    """The system's functions to wait for a change of a word, to wake who waits, and to tell time and core.

    () where they are not known. Without the last the core is not looked at.
    """
    if sys.maxsize < 2**32:
        return ()
    if sys.platform == "linux" and _FUTEX is not None:
        system = ctypes.CDLL(None)
        return system.syscall, system.syscall, system.clock_gettime, system.sched_getcpu
    if sys.platform == "darwin":
        system = ctypes.CDLL(None)
        return system.__ulock_wait, system.__ulock_wake, system.clock_gettime
    if sys.platform == "win32":
        system = ctypes.WinDLL("kernelbase")  # type: ignore[attr-defined,unused-ignore]
        names = "WaitOnAddress", "WakeByAddressAll", "QueryPerformanceCounter", "GetCurrentProcessorNumber"
        return tuple(getattr(system, name) for name in names)
    return ()


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def is_known() -> bool:
    """Whether threads can wait for each other on this system; else every kernel runs on one thread."""
    return bool(_system_calls())


class Pool:
    """The threads of this process beside the callers'.

    Attributes
    ----------
    address : int
        Of the words that kernels share, for `region`.
    helpers : int
        Threads that were started.
    """

    def __init__(self) -> None:
        line = 64
        memory = np.zeros(WORDS + line // 8, np.int64)
        begin = -memory.ctypes.data % line // 8
        self._words = memory[begin : begin + WORDS]
        self.address, self.helpers = int(self._words.ctypes.data), 0
        self._lock = threading.Lock()

    def start(self, helpers: int) -> None:
        """Start threads until there are so many `helpers`, or as many as the system grants."""
        with self._lock:
            if not self._words[REGION]:
                calls = _system_calls()
                self._words[WAIT : WAIT + len(calls)] = [_address(call) for call in calls]
                help_always.compile((types.intp,))
                self._words[REGION] = address_of(region, (types.intp,) * 4)
            while self.helpers < helpers:
                helper = threading.Thread(target=self._help, daemon=True, name=f"fastbp-{self.helpers + 1}")
                try:
                    helper.start()
                except RuntimeError:  # no more threads, or the interpreter is about to end: callers do all parts
                    return
                self.helpers += 1

    def _help(self) -> None:
        # This frame keeps the words alive. It is never left.
        help_always(self.address)


def _place(builder: Any, pool: Any, field: Any, element: Any = _WORD) -> Any:
    address = builder.add(pool, builder.mul(field, _WORD(8)))
    return builder.inttoptr(address, element.as_pointer())


@intrinsic
def _get(typingctx: Any, pool: Any, field: Any) -> Any:
    """The word at a place of the pool."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(builder, *args), "seq_cst", 8)

    return types.intp(types.intp, types.intp), codegen


def _store(ordering: str) -> Any:
    """The intrinsic that stores a word."""

    @intrinsic
    def store(typingctx: Any, pool: Any, field: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store_atomic(args[2], _place(builder, *args[:2]), ordering, 8)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), codegen

    return store


# A thread that sees what was put also sees what was prepared before.
_put, _prepare = _store("seq_cst"), _store("monotonic")


@intrinsic
def _add(typingctx: Any, pool: Any, field: Any, value: Any) -> Any:
    """Add to a word."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("add", _place(builder, *args[:2]), args[2], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _swap(typingctx: Any, pool: Any, field: Any, old: Any, new: Any) -> Any:
    """Store `new` where the word is `old`; returns whether it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = builder.cmpxchg(_place(builder, *args[:2]), *args[2:], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def _rest(typingctx: Any) -> Any:
    """Tell the core that this is a spin."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            _external(builder, "llvm.x86.sse2.pause", [])
        elif machine in ("aarch64", "arm64"):
            _external(builder, "llvm.aarch64.hint", [_I32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


def _external(builder: Any, name: str, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _call_system(builder: Any, pool: Any, function: int, arguments: list[Any], varying: bool = False) -> Any:
    """Call a function of the system, whose address stands in the pool, by C's rules."""
    kinds = [argument.type for argument in arguments]
    kind = ir.FunctionType(_WORD, kinds[:1] if varying else kinds, var_arg=varying)
    address = builder.load(_place(builder, pool, _WORD(function)))
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def _sleep(typingctx: Any, pool: Any, field: Any, value: Any) -> Any:
    """Wait while the word is `value`; may also end before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pool, field, value = args
        place = _place(builder, pool, field, ir.IntType(8))
        if sys.platform == "linux":
            call = [_WORD(_FUTEX), builder.ptrtoint(place, _WORD), _WORD(_FUTEX_WAIT), value, _WORD(0)]
            _call_system(builder, pool, WAIT, call, varying=True)
        elif sys.platform == "darwin":
            low = builder.and_(value, _WORD(2**32 - 1))
            _call_system(builder, pool, WAIT, [_I32(_ULOCK_WAIT), place, low, _I32(0)])
        else:
            seen = builder.bitcast(cgutils.alloca_once_value(builder, value), _POINTER)
            _call_system(builder, pool, WAIT, [place, seen, _WORD(8), _I32(2**32 - 1)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _wake(typingctx: Any, pool: Any, field: Any, most: Any) -> Any:
    """Wake threads that sleep on a word: `most` of them, or all."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pool, field, most = args
        place = _place(builder, pool, field, ir.IntType(8))
        if sys.platform == "linux":
            call = [_WORD(_FUTEX), builder.ptrtoint(place, _WORD), _WORD(_FUTEX_WAKE), most]
            _call_system(builder, pool, WAKE, call, varying=True)
        elif sys.platform == "darwin":
            _call_system(builder, pool, WAKE, [_I32(_ULOCK_WAKE_ALL), place, _WORD(0)])
        else:
            _call_system(builder, pool, WAKE, [place])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _now(typingctx: Any, pool: Any) -> Any:
    """The time in nanoseconds."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = cgutils.alloca_once(builder, ir.ArrayType(_WORD, 2))
        words = [cgutils.gep_inbounds(builder, pair, 0, i) for i in range(2)]
        if sys.platform == "win32":
            _call_system(builder, args[0], CLOCK, [words[0]])
            return builder.mul(builder.load(words[0]), _WORD(100))  # Windows 10 and 11 count in tenths of a microsecond
        monotonic = _I32(6 if sys.platform == "darwin" else 1)
        _call_system(builder, args[0], CLOCK, [monotonic, words[0]])
        seconds, nanoseconds = (builder.load(word) for word in words)
        return builder.add(builder.mul(seconds, _WORD(10**9)), nanoseconds)

    return types.intp(types.intp), codegen


@intrinsic
def _core(typingctx: Any, pool: Any) -> Any:
    """The number of the core that this thread runs on; 0 where the system does not tell."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not TELLS_CORES:
            return _WORD(0)
        number = _call_system(builder, args[0], WHICH_CORE, [])
        return builder.and_(number, _WORD(2**32 - 1))

    return types.intp(types.intp), codegen


@intrinsic
def _call_part(typingctx: Any, function: Any, part: Any, data: Any) -> Any:
    """Call the function of a region for one part."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD, _WORD])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@kernel
def region(pool, function, parts, data):
    """Call `function(part, data)` for each part, on the pool's threads and this one; returns when all are done."""
    begin = _now(pool)
    if parts == 1 or begin < _get(pool, ALONE_UNTIL) or not _swap(pool, TAKEN, 0, 1):
        for part in range(parts):
            _call_part(function, part, data)
        return
    _prepare(pool, FUNCTION, function)
    _prepare(pool, DATA, data)
    _prepare(pool, PARTS, parts)
    _prepare(pool, DONE, 0)
    _put(pool, LEFT, parts)
    late = LATE
    if _get(pool, SLEEPERS) > 0:
        late = LATE_FROM_SLEEP
        _put(pool, CORE, _core(pool))
        _add(pool, WAKES, 1)
        _wake(pool, WAKES, parts - 1)
    _do_parts(pool)
    if _get(pool, DONE) < parts:
        waits_from = _now(pool)
        _await_parts(pool, parts)
        waited = _now(pool) - waits_from
        if 2 * waited > late * (waits_from - begin):
            _put(pool, ALONE_UNTIL, _now(pool) + min(PATIENCE * waited, LONGEST_ALONE))
    _put(pool, TAKEN, 0)


@kernel
def _do_parts(pool):
    """Claim parts of the region and do them, until none is left.

    A part that was claimed keeps its region open, so that what `region` prepared stays as it is until the part is done.
    """
    while True:
        left = _get(pool, LEFT)
        if left == 0:
            return
        if _swap(pool, LEFT, left, left - 1):
            _call_part(_get(pool, FUNCTION), _get(pool, PARTS) - left, _get(pool, DATA))
            _add(pool, DONE, 1)


@kernel
def _await_parts(pool, parts):
    """Wait until the helpers have done what they began. The caller sleeps after a while, and so gives them its core."""
    spins = 0
    while True:
        done = _get(pool, DONE)
        if done == parts:
            return
        if spins < SPINS:
            spins += 1
            _rest()
            continue
        _put(pool, CALLER_SLEEPS, 1)
        if _get(pool, DONE) == done:
            _sleep(pool, DONE, done)
        _put(pool, CALLER_SLEEPS, 0)


@unlocked_kernel
def help_always(pool):
    """What a helper does for the life of the process."""
    spins, looked = 0, _now(pool)
    while True:
        if _get(pool, LEFT) > 0:
            _do_parts(pool)
            if _get(pool, CALLER_SLEEPS) == 1:
                _wake(pool, DONE, 1)
            spins, looked = 0, _now(pool)
        elif spins == SPINS:
            _doze(pool)
            spins, looked = 0, _now(pool)
            while _is_crowded(pool):
                _put(pool, ALONE_UNTIL, _now(pool) + CROWDED)
                _doze(pool)
                looked = _now(pool)
        else:
            _rest()
            spins += 1
            if spins % TURNS == 0:
                before, looked = looked, _now(pool)
                if looked - before > CONTESTED:
                    _put(pool, ALONE_UNTIL, looked + min(PATIENCE * (looked - before), LONGEST_ALONE))
                    spins = SPINS


@kernel
def _doze(pool):
    """Sleep until there is a region. A helper may miss one: no caller depends on it."""
    wakes = _get(pool, WAKES)
    _add(pool, SLEEPERS, 1)
    _sleep(pool, WAKES, wakes)
    _add(pool, SLEEPERS, -1)


@kernel
def _is_crowded(pool):
    return TELLS_CORES and _get(pool, CORE) == _core(pool)
