"""The pool of threads: every part of a region is done once, whoever does it."""

import os
import threading

import numpy as np
import pytest
from numba import njit

from fastbp.runtime import pool as pools
from fastbp.runtime.pointers import at, load, shift, store
from fastbp.runtime.threads import in_parallel, parts_of
from tests.subprocesses import run_python


@njit
def _count(part, parts, counts, work):
    """Add 1 to the part's own counter, after some work."""
    total = 1.0
    for _ in range(work * (part % 3)):
        total = total * 1.0000001 + 1e-9
    place = shift(at(counts, 0), part)
    store(place, load(place) + total / total)


@njit(nogil=True)
def _run_regions(team, regions, counts, work):
    for _ in range(regions):
        in_parallel(team, parts_of(team), _count, (counts, work))


@pytest.fixture
def pool():
    """A pool of its own with two helpers, and how a kernel is told of it."""
    pool = pools.Pool()
    pool.start(2)
    return lambda parts: np.array([parts, pool.address], np.intp)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("work", [0, 300])
def test_every_part_is_done_once(pool, parts, work):
    counts = np.zeros(parts)
    _run_regions(pool(parts).ctypes.data, 2000, counts, work)
    np.testing.assert_array_equal(counts, 2000)


def test_several_threads_enter_regions_of_different_sizes(pool):
    counts = [np.zeros(parts) for parts in (2, 3, 5, 16)]
    teams = [pool(len(count)) for count in counts]
    threads = [
        threading.Thread(target=_run_regions, args=(team.ctypes.data, 20_000, count, 10))
        for team, count in zip(teams, counts, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for count in counts:
        np.testing.assert_array_equal(count, 20_000)


def test_a_pool_without_helpers_does_everything_by_its_caller():
    alone = pools.Pool()
    alone.start(0)
    counts = np.zeros(5)
    _run_regions(np.array([5, alone.address], np.intp).ctypes.data, 100, counts, 0)
    np.testing.assert_array_equal(counts, 100)


def test_helpers_that_sleep_are_woken(pool):
    for _ in range(20):
        counts = np.zeros(64)
        threading.Event().wait(0.002)  # longer than they spin
        _run_regions(pool(64).ctypes.data, 1, counts, 1000)
        np.testing.assert_array_equal(counts, 1)


@pytest.mark.skipif(os.name != "posix", reason="another process cannot stop this one")
def test_a_process_that_was_stopped_has_its_threads_again_soon():
    code = """
import os, signal, subprocess, sys, time
import numpy as np
from fastbp.runtime import pool as pools
from tests.test_pool import _run_regions
pool = pools.Pool()
pool.start(1)
team, counts = np.array([64, pool.address], np.intp), np.zeros(64)
_run_regions(team.ctypes.data, 1, counts, 0)  # compiles it
alone = []
for _ in range(3):
    wake = subprocess.Popen(["sh", "-c", f"while sleep 0.3 && kill -CONT {os.getpid()}; do :; done"])
    _run_regions(team.ctypes.data, 100, counts, 1000)
    os.kill(os.getpid(), signal.SIGSTOP)  # while the helper spins
    time.sleep(0.05)
    alone.append((int(pool._words[pools.ALONE_UNTIL]) - time.monotonic_ns()) / 1e9)
    wake.kill()
    wake.wait()
print(max(alone) <= 1)
"""
    assert run_python(code) == "True"
