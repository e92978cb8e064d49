"""Timing several functions against each other in one run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

# Before a block: the threads of a BLAS or of OpenMP go on spinning for a while after their work, and would slow
# down whatever is timed next. Those of OpenBLAS spin for 20 to 110 ms, so a pause lasts until none does.
PAUSE, LONGEST_PAUSE, LOOK = 0.06, 0.5, 0.01
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
    a block of about `block` seconds that does. A pause ends when no thread of this process works. After two rounds none
    begins that is later than `at_most` seconds. Functions of one thread need no pause and little settling. Without
    settling a turn is a single call, which counts.
    `before` is called at the start of each turn, ahead of the pause, which then has its length whoever works.
    """
    found: dict[Name, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 2 and time.perf_counter() - start > at_most:
            break
        for name, function in functions.items():
            if before is None:
                _rest(pause)
            else:
                before()
                time.sleep(pause)
            calls = _calls_of(block, settling, function) if settling else 1
            begun = time.perf_counter()
            for _ in range(calls):
                function()
            found[name].append((time.perf_counter() - begun) / calls)
    return found


def _rest(pause: float) -> None:
    """Sleep for so many seconds, and on while threads of this process work; not at all if `pause` is 0."""
    time.sleep(pause)
    until = time.perf_counter() + LONGEST_PAUSE
    is_at_rest = pause == 0
    while not is_at_rest and time.perf_counter() < until:
        before = time.process_time()
        time.sleep(LOOK)
        is_at_rest = time.process_time() - before < LOOK / 5


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
