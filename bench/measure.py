"""Timing several functions against each other in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

# Before a block: the threads of a BLAS or of OpenMP go on spinning for a while after their work, and would slow
# down whatever is timed next.
PAUSE = 0.06
# Uncounted, at the start of a block: threads that slept may wake on one core, and are spread only some
# milliseconds later.
SETTLING = 0.03


def medians(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 11, block: float = 0.05
) -> dict[str, float]:
    """Median seconds of one call of each function.

    The functions take turns, round by round, each in a block of about `block` seconds.
    """
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(PAUSE)
            calls = max(1, round(block / (SETTLING / _calls_in(SETTLING, function))))
            start = time.perf_counter()
            for _ in range(calls):
                function()
            samples[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) for name, values in samples.items()}


def _calls_in(seconds: float, function: Callable[[], object]) -> int:
    stop = time.perf_counter() + seconds
    calls = 0
    while calls == 0 or time.perf_counter() < stop:
        function()
        calls += 1
    return calls
