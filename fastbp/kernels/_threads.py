"""How many threads a kernel may use, and the one gate through which parallel code is entered.

A result never depends on the number of threads: parts of a kernel divide its output among them, and each
element of the output is computed by one thread in one order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba import config

# A parallel region costs about 3 µs; below this many multiply-adds one thread is done sooner.
WORTH_A_REGION = 400_000


def get_num_threads() -> int:
    """Number of threads that one fastbp kernel may use."""
    return _threads


def set_num_threads(n: int) -> None:
    """Let one fastbp kernel use up to `n` threads.

    The results are bitwise the same for every `n`. At most as many threads run as Numba may start
    (`NUMBA_NUM_THREADS`, by default the number of cores). At start the value is `FASTBP_NUM_THREADS`
    where that is set.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.
    """
    global _threads
    _threads = _checked("n", n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """`set_num_threads(n)` for the body of a `with` statement, for the whole process."""
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def run(part: Callable[..., None], parts: Callable[..., None], work: int, *args: Any) -> None:
    """Call `parts(n, *args)`, which runs n parts in parallel, where `work` (multiply-adds) is worth a region.

    Otherwise call `part(0, 1, *args)`: the whole as its only part. One Python thread at a time is let into a
    parallel region: Numba's workqueue layer aborts the process otherwise, and two regions at once would
    share the same cores anyway.
    """
    if work < WORTH_A_REGION or _threads == 1 or _forked or not _region.acquire(blocking=False):
        part(0, 1, *args)
        return
    try:
        parts(_threads, *args)
    finally:
        _region.release()


def _checked(name: str, n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{name}: expected an integer, got {n!r}; give the number of threads, at least 1")
    if n < 1:
        raise ValueError(f"{name}: expected at least 1, got {n}; 1 means no parallel work")
    return n


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
    global _forked, _region
    _forked = True
    _region = threading.Lock()


_threads = _from_environment()
_forked = False
_region = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
