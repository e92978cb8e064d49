"""New processes: what code prints there, and what a cold start takes with an empty and with a warm cache of kernels."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fastbp


def run(code, before=(), **environment):
    """What `code` prints in a new process, which imports the same fastbp as this one.

    `before` is a command that starts the process in its place.
    """
    done = subprocess.run(
        [*before, sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(fastbp.__file__).parents[1])} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def seconds(*steps, preparation="", **environment):
    """Seconds of each step in one new process; a step is code that finds what the steps before it left."""
    clocked = [f"start = time.perf_counter()\n{step}\nprint(time.perf_counter() - start)" for step in steps]
    printed = run("\n".join(["import time", preparation, *clocked]), **environment)
    return [float(line) for line in printed.splitlines()]


def seconds_of_all(code, **environment):
    """Seconds from the start of a new process to its end."""
    start = time.perf_counter()
    run(code, **environment)
    return time.perf_counter() - start


def empty_and_warm(measure, runs):
    """What `measure` returns with an empty cache, and `runs` times with the cache that it has filled.

    `measure` takes the environment variables of the process as keywords.
    """
    with tempfile.TemporaryDirectory() as cache:
        return measure(FASTBP_CACHE=cache), [measure(FASTBP_CACHE=cache) for _ in range(runs)]
