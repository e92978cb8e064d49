"""Kernels that Python calls: long work lets other Python threads run, and some is shared among fastbp's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from numba import types
from numba.extending import overload

from fastbp.runtime import threads
from fastbp.runtime.jit import entry_kernel, kernel, unlocked_kernel
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil

# A pass over an array of so many elements may take 50 µs, as that of a softmax does. Other Python threads then run
# beside it.
LONG = 20_000

# An array of so many elements is shared among threads. A pass as short as that of ReLU takes 5 µs then.
WORTH_SHARING = 50_000


def public_kernel(function: Callable[..., Any]) -> Any:
    """`entry_kernel` for one thread; where its first array is long, other Python threads run beside it.

    The kernel itself, to be called by other kernels, is its attribute `kernel`.
    """
    short = entry_kernel(function)
    twin = FunctionType(function.__code__, function.__globals__, function.__name__, None, function.__closure__)
    twin.__module__, twin.__qualname__ = function.__module__, f"{function.__qualname__}.unlocked"
    long = unlocked_kernel(twin)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return (short if arguments[0].size < LONG else long)(*arguments)

    call.kernel = short  # type: ignore[attr-defined]
    return call


def shared_kernel(function: Callable[..., Any]) -> Any:
    """`entry_kernel` whose work is shared among threads along the first axis of its arrays, where that is long.

    Whatever it computes for one index of that axis must not depend on another. The kernel itself, to be called by other
    kernels, is its attribute `kernel`.
    """
    whole = entry_kernel(function)

    def share(part, parts, arguments):
        size = len(arguments[0])
        whole(*_shares(arguments, size * part // parts, size * (part + 1) // parts))

    share = _named(share, function, kernel)

    def shares(team, *arguments):
        gil, done = release_gil(True), True
        if parts_of(team) == 1 or arguments[0].size < WORTH_SHARING:
            whole(*arguments)
        else:
            done = in_parallel(team, parts_of(team), share, (arguments,))
        take_gil(gil)
        return done

    shares = _named(shares, function, entry_kernel)

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        if arguments[0].size < LONG:
            whole(*arguments)
        elif not shares(threads.TEAM, *arguments):
            threads.start()
            shares(threads.TEAM, *arguments)

    call.kernel = whole  # type: ignore[attr-defined]
    return call


def _named(inner: Callable[..., Any], outer: Callable[..., Any], kind: Callable[..., Any]) -> Any:
    """`kind(inner)` under a name of its own in the cache, for a function made for another."""
    inner.__module__, inner.__qualname__ = outer.__module__, f"{outer.__qualname__}.{inner.__name__}"
    return kind(inner)


def _shares(arguments: Any, start: Any, stop: Any) -> Any:
    """`arguments`, a tuple, with every array cut to start:stop along its first axis."""
    raise NotImplementedError


@overload(_shares)
def _shares_of(arguments, start, stop):
    if len(arguments) == 0:
        return lambda arguments, start, stop: ()  # noqa: ARG005 - Numba asks for the same names
    if isinstance(arguments[0], types.Array):
        return lambda arguments, start, stop: (arguments[0][start:stop], *_shares(arguments[1:], start, stop))
    return lambda arguments, start, stop: (arguments[0], *_shares(arguments[1:], start, stop))
