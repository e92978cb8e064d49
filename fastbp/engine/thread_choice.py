"""All threads or one: a training run measures which is faster.

No bit of a result depends on the number of threads, so a run may change it between two steps. It times its steps, tries
the other number now and then for a fiftieth of the time, and keeps the faster. A busy machine, a container with half a
core, or a network too small for threads then costs little more than one thread does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

# Seconds from one try of a number of threads to the next: at first, and at most. A try that fails doubles them.
FIRST, LONGEST = 0.05, 0.5

# Seconds at the beginning of a try that do not count, because sleeping threads wake and fill their caches.
WARMING = 0.0005

# The share of the time that tries take. The first try need not keep to it, because it may save much. It comes after so
# many steps.
SHARE, FIRST_STEPS = 0.02, 10

# Seconds over which the time of a step is averaged. A longer average would hold the cold caches of a run's first steps
# against the choice that the run began with.
RECENT = 0.01

# Seconds after which a measurement is out of date.
MEMORY = 10.0

# The other choice must take less than this share of the time. A try has few steps, and their times scatter.
CLEARLY = 0.95


class ThreadChoice:
    """Whether the next steps run on all threads, and how many of them until the next decision."""

    def __init__(self) -> None:
        self.is_all = True
        self.used = time.monotonic()
        self._waits = {True: FIRST, False: FIRST}
        self._rates: dict[bool, float] = {}
        self._tries = self._warms = False
        self._seconds, self._steps, self._recent = 0.0, 0, 0.0

    def next(self, steps: int) -> tuple[bool, int]:
        """Whether to take all threads, and for how many of the next `steps`."""
        was_warming = self._tries and self._warms
        self._tries = was_warming or self._is_time_to_try()
        if not self._tries:
            return self.is_all, steps
        warming = 0 if was_warming else int(WARMING / self._other_rate())
        self._warms = warming > 0
        count = warming or max(1, int(SHARE * self._seconds / self._other_rate()))
        return not self.is_all, min(steps, count)

    def note(self, seconds: float, steps: int) -> None:
        """Take note of the time that the steps of the last `next` took."""
        self.used = time.monotonic()
        if steps == 0:
            return
        if self._tries and self._warms:
            return
        if self._tries:
            self._judge(seconds / steps)
            return
        self._seconds += seconds
        weight = min(1.0, seconds / RECENT) if self._steps else 1.0
        self._steps += steps
        self._recent += weight * (seconds / steps - self._recent)

    def _is_time_to_try(self) -> bool:
        if self._steps < (1 if self._rates else FIRST_STEPS):
            return False
        least = self._rates[not self.is_all] / SHARE if self._rates else 0.0
        return self._seconds >= max(self._waits[not self.is_all], least)

    def _other_rate(self) -> float:
        """Seconds that a step of the other choice took, or is guessed to take."""
        return self._rates.get(not self.is_all, 2 * self._recent)

    def _judge(self, rate: float) -> None:
        """Keep the faster; the slower waits twice as long for its next try."""
        self._rates = {self.is_all: self._recent, not self.is_all: rate}
        if rate < CLEARLY * self._recent:
            self.is_all = not self.is_all
        else:
            self._waits[self.is_all] = FIRST
        self._waits[not self.is_all] = min(LONGEST, 2 * self._waits[not self.is_all])
        self._seconds, self._steps = 0.0, 0


_last = threading.local()


def choice_for(work: Hashable) -> ThreadChoice:
    """The choice of this Python thread for such steps: its last one, if that was for the same work and is recent."""
    known, choice = getattr(_last, "choice", (None, None))
    if choice is None or known != work or time.monotonic() - choice.used > MEMORY:
        choice = ThreadChoice()
        _last.choice = work, choice
    return choice
