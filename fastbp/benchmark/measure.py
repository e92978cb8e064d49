"""Timing several functions against each other in one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

# Before a block: the threads of a BLAS or of OpenMP go on spinning for a while after their work, and would slow
# down whatever is timed next.
PAUSE = 0.06
# Uncounted, at the start of a block: threads that slept may wake on one core, and are spread only some
# milliseconds later.
SETTLING = 0.03

Name = TypeVar("Name", bound=Hashable)


def samples(
    functions: Mapping[Name, Callable[[], object]],
    *,
    rounds: int = 11,
    block: float = 0.05,
    settling: float = SETTLING,
    pause: float = PAUSE,
    at_most: float = math.inf,
    before: Callable[[], object] | None = None,
) -> dict[Name, list[float]]:
    """Seconds of one call of each function, once for each round.

    The functions take turns, round by round. Each turn is a pause, calls for `settling` seconds that do not count, and
    a block of about `block` seconds that does. After two rounds none begins that is later than `at_most` seconds.
    Functions of one thread need no pause and little settling. Without settling a turn is a single call, which counts.
    `before` is called at the start of each turn, ahead of the pause.
    """
    found: dict[Name, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 2 and time.perf_counter() - start > at_most:
            break
        for name, function in functions.items():
            if before is not None:
                before()
            time.sleep(pause)
            calls = _calls_of(block, settling, function) if settling else 1
            begun = time.perf_counter()
            for _ in range(calls):
                function()
            found[name].append((time.perf_counter() - begun) / calls)
    return found


def medians(
    functions: Mapping[Name, Callable[[], object]], *, rounds: int = 11, block: float = 0.05
) -> dict[Name, float]:
    """Median seconds of one call of each function, of `samples`."""
    found = samples(functions, rounds=rounds, block=block)
    return {name: statistics.median(values) for name, values in found.items()}


def _calls_of(block: float, settling: float, function: Callable[[], object]) -> int:
    """How many calls take `block` seconds, as those of `settling` seconds have shown."""
    start = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() < start + settling:
        function()
        calls += 1
    return max(1, round(block * calls / (time.perf_counter() - start)))
