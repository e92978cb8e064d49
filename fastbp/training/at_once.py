"""Fits that run at once, in several Python threads of a process, divide the threads of kernels among them.

A search in a pool of threads has one kernel thread for each task then, where it has as many tasks as there are cores. A
fit that goes on alone has all of them again. No bit depends on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastbp.runtime.threads import most_parts

# By the Python threads at work, how often each entered: a callback may fit another network. No thread writes to the
# place of another one, so there is no lock, which a fork could leave locked.
_entered: dict[int, int] = {}


@contextmanager
def at_work() -> Iterator[None]:
    """Count this Python thread among those that fit or predict, in the body of a `with` statement."""
    thread = threading.get_ident()
    before = _entered.get(thread, 0)
    _entered[thread] = before + 1
    try:
        yield
    finally:
        if before:
            _entered[thread] = before
        else:
            del _entered[thread]


def share(most: int | None = None) -> int:
    """How many threads a kernel of one of them may use now, of `most` or of all."""
    count = most_parts() if most is None else min(most, most_parts())
    return max(1, count // max(1, len(_entered)))


def _after_fork_in_child() -> None:
    thread = threading.get_ident()
    for other in [*_entered]:
        if other != thread:
            del _entered[other]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
