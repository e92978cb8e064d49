"""Fits by several ranks over MPI: the bits of one process, and the promises of `fit`."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rank_cases import digest, fit
from tests.subprocesses import ROOT

pytest.importorskip("mpi4py")

MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
if MPIEXEC is None:
    pytest.skip("no mpiexec; install one with: pip install mpich", allow_module_level=True)

SECONDS = 100  # for what takes a few
CASES = range(24)


def started(ranks, work, *arguments):
    """A program of so many ranks that does a work of tests/rank_worker.py."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.rank_worker", work, *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(ranks, work, *arguments):
    """What such a program prints; it must exit with 0."""
    with started(ranks, work, *arguments) as program:
        out, errors = program.communicate(timeout=SECONDS)
    assert program.returncode == 0, errors
    return out


@functools.cache
def alone(number):
    return digest(*fit(number))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_rank_ends_with_the_bits_of_one_process(ranks, threads):
    found = json.loads(output(ranks, "cases", threads, *CASES))
    assert found == {str(number): [alone(number)] * ranks for number in CASES}
