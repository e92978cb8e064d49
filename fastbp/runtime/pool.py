"""A pool of threads that share the parts of a kernel, in which the caller claims parts, too.

A region is a function and a number of parts. The caller publishes it. Then the caller and the helpers claim one part
after the other. A helper without a core delays nothing but a part that it has begun, and the caller does what nobody
else has claimed. An empty region costs 0.2 µs (libgomp: 1.4 to 3), and no library of the system is needed.

- A thread begins with the same parts in every region, and then takes what is left. So it finds in its cache what it
  wrote there in the region before: a line takes 5 to 11 ns from core to core.

- Helpers are Python threads inside a compiled loop without the GIL. They spin for some microseconds after a region and
  then sleep, so a pool that is not used costs nothing.
- One region runs at a time. A caller that finds the pool taken by another thread does its parts alone.
- A region is late when the caller waits much longer for parts that helpers have begun than it worked itself. Another
  process then has the helper's core. The same is true when a helper finds that it was stopped in its spin, or wakes on
  the caller's core. Callers then work alone until what was lost is a twentieth of the time since they last did so. A
  core that is busy costs no more than that, and a short disturbance in a quiet second costs nothing else.
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

from fastbp.runtime.atomics import SPINS, add, get, lowest_bit, place, prepare, put, rest, swap
from fastbp.runtime.jit import kernel, unlocked_kernel
from fastbp.runtime.pointers import address_of

# Places of the pool in machine words, a cache line each where several threads write.
# Parts not yet claimed, a bit for each chunk of them; parts done; how many helpers sleep; what a sleeping helper waits
# to see changed; whether the caller sleeps; whether a region runs; the time until which callers work alone.
LEFT, DONE, SLEEPERS, WAKES, CALLER_SLEEPS, TAKEN, ALONE_UNTIL = (8 * line for line in range(7))
# The region: its parts, its function, what that is given, and the core that its caller runs on; threads beside callers.
PARTS, FUNCTION, DATA, CORE, HELPERS = range(56, 61)
# Addresses of `region` and of the system's functions.
REGION, WAIT, WAKE, CLOCK, WHICH_CORE = range(64, 69)
WORDS = 72

# A helper reads the clock after so many turns. If more than so many nanoseconds have passed, another process had its
# core.
TURNS, CONTESTED = 64, 200_000

# A region is late if the wait is more than so many halves of the caller's own work. Helpers that were woken for it
# begin later and find cold caches: the wait is then up to 3 times the work on a quiet machine.
LATE, LATE_FROM_SLEEP = 3, 12

# Bits of a word that stand for chunks of parts.
CHUNKS = 62

# The time that goes with what was lost, in multiples of it, and the longest time alone in nanoseconds: a process that
# was stopped for an hour has its threads again soon after.
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
                address_of(help_always, (types.intp, types.intp))  # which compiles it
                self._words[REGION] = address_of(region, (types.intp,) * 4)
            while self.helpers < helpers:
                number = self.helpers + 1
                helper = threading.Thread(target=self._help, args=(number,), daemon=True, name=f"fastbp-{number}")
                try:
                    helper.start()
                except RuntimeError:  # no more threads, or the interpreter is about to end: callers do all parts
                    return
                self.helpers = number
                self._words[HELPERS] = number

    def _help(self, number: int) -> None:
        # This frame keeps the words alive. It is never left.
        help_always(self.address, number)


def _call_system(builder: Any, pool: Any, function: int, arguments: list[Any], varying: bool = False) -> Any:
    """Call a function of the system, whose address stands in the pool, by C's rules."""
    kinds = [argument.type for argument in arguments]
    kind = ir.FunctionType(_WORD, kinds[:1] if varying else kinds, var_arg=varying)
    address = builder.load(place(builder, pool, _WORD(function)))
    return builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def _sleep(typingctx: Any, pool: Any, field: Any, value: Any) -> Any:
    """Wait while the word is `value`; may also end before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pool, field, value = args
        word = place(builder, pool, field, ir.IntType(8))
        if sys.platform == "linux":
            call = [_WORD(_FUTEX), builder.ptrtoint(word, _WORD), _WORD(_FUTEX_WAIT), value, _WORD(0)]
            _call_system(builder, pool, WAIT, call, varying=True)
        elif sys.platform == "darwin":
            low = builder.and_(value, _WORD(2**32 - 1))
            _call_system(builder, pool, WAIT, [_I32(_ULOCK_WAIT), word, low, _I32(0)])
        else:
            seen = builder.bitcast(cgutils.alloca_once_value(builder, value), _POINTER)
            _call_system(builder, pool, WAIT, [word, seen, _WORD(8), _I32(2**32 - 1)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _wake(typingctx: Any, pool: Any, field: Any, most: Any) -> Any:
    """Wake threads that sleep on a word: `most` of them, or all."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pool, field, most = args
        word = place(builder, pool, field, ir.IntType(8))
        if sys.platform == "linux":
            call = [_WORD(_FUTEX), builder.ptrtoint(word, _WORD), _WORD(_FUTEX_WAKE), most]
            _call_system(builder, pool, WAKE, call, varying=True)
        elif sys.platform == "darwin":
            _call_system(builder, pool, WAKE, [_I32(_ULOCK_WAKE_ALL), word, _WORD(0)])
        else:
            _call_system(builder, pool, WAKE, [word])
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
    if parts == 1 or begin < get(pool, ALONE_UNTIL) or not swap(pool, TAKEN, 0, 1):
        for part in range(parts):
            _call_part(function, part, data)
        return
    prepare(pool, FUNCTION, function)
    prepare(pool, DATA, data)
    prepare(pool, PARTS, parts)
    prepare(pool, DONE, 0)
    put(pool, LEFT, (1 << _chunks(parts)) - 1)
    late = LATE
    if get(pool, SLEEPERS) > 0:
        late = LATE_FROM_SLEEP
        put(pool, CORE, _core(pool))
        add(pool, WAKES, 1)
        _wake(pool, WAKES, parts - 1)
    _do_parts(pool, 0)
    if get(pool, DONE) < parts:
        waits_from = _now(pool)
        _await_parts(pool, parts)
        waited = _now(pool) - waits_from
        if 2 * waited > late * (waits_from - begin):
            _work_alone(pool, waited)
    put(pool, TAKEN, 0)


@kernel
def _work_alone(pool, lost):
    now = _now(pool)
    since = max(now - get(pool, ALONE_UNTIL), 0)
    put(pool, ALONE_UNTIL, now + min(max(PATIENCE * lost - since, 0), LONGEST_ALONE))


@kernel
def _do_parts(pool, thread):
    """Claim parts of the region and do them, until none is left: first those from the thread's own share on.

    A part that was claimed keeps its region open, so that what `region` prepared stays as it is until the part is done.
    """
    while True:
        left = get(pool, LEFT)
        if left == 0:
            return
        # Where the next region has begun meanwhile, the share is that of another one, and any share will do.
        chunks, threads = _chunks(get(pool, PARTS)), min(get(pool, PARTS), get(pool, HELPERS) + 1)
        from_share = left & -(1 << (thread % threads * chunks // threads))
        chunk = lowest_bit(from_share if from_share else left)
        if swap(pool, LEFT, left, left & ~(1 << chunk)):
            parts = get(pool, PARTS)
            chunks = _chunks(parts)
            begin, end = parts * chunk // chunks, parts * (chunk + 1) // chunks
            for part in range(begin, end):
                _call_part(get(pool, FUNCTION), part, get(pool, DATA))
            add(pool, DONE, end - begin)


@kernel
def _chunks(parts):
    return min(parts, CHUNKS)


@kernel
def _await_parts(pool, parts):
    """Wait until the helpers have done what they began. The caller sleeps after a while, and so gives them its core."""
    spins = 0
    while True:
        done = get(pool, DONE)
        if done == parts:
            return
        if spins < SPINS:
            spins += 1
            rest()
            continue
        put(pool, CALLER_SLEEPS, 1)
        if get(pool, DONE) == done:
            _sleep(pool, DONE, done)
        put(pool, CALLER_SLEEPS, 0)


@unlocked_kernel
def help_always(pool, thread):
    """What a helper does for the life of the process."""
    spins, looked = 0, _now(pool)
    while True:
        if get(pool, LEFT) > 0:
            _do_parts(pool, thread)
            if get(pool, CALLER_SLEEPS) == 1:
                _wake(pool, DONE, 1)
            spins, looked = 0, _now(pool)
        elif spins == SPINS:
            _doze(pool)
            spins, looked = 0, _now(pool)
            while _is_crowded(pool):
                put(pool, ALONE_UNTIL, _now(pool) + CROWDED)
                _doze(pool)
                looked = _now(pool)
        else:
            rest()
            spins += 1
            if spins % TURNS == 0:
                before, looked = looked, _now(pool)
                if looked - before > CONTESTED:
                    _work_alone(pool, looked - before)
                    spins = SPINS


@kernel
def _doze(pool):
    """Sleep until there is a region. A helper may miss one: no caller depends on it."""
    wakes = get(pool, WAKES)
    add(pool, SLEEPERS, 1)
    _sleep(pool, WAKES, wakes)
    add(pool, SLEEPERS, -1)


@kernel
def _is_crowded(pool):
    return TELLS_CORES and get(pool, CORE) == _core(pool)
