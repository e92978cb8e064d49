"""Running Python code in a process of its own, with a time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run_python(
    code: str, *, package: Path = ROOT, folder: Path | None = None, timeout: float = 120, **environment: Any
) -> str:
    """What `code` prints; it must exit with 0 and without warnings. It runs in a folder, or in that of the package."""
    variables = os.environ | {"PYTHONPATH": str(package)} | {key: str(value) for key, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=variables,
        cwd=folder or package,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ranks_of(count: int, *arguments: Any) -> list[str]:
    """The command that starts Python as so many ranks of MPI. A test is skipped where there is no MPI."""
    pytest.importorskip("mpi4py")
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("no mpiexec; install one with: pip install mpich")
    return [found, "-n", str(count), sys.executable, *map(str, arguments)]


def run_ranks(count: int, *arguments: Any, timeout: float = 100) -> str:
    """What so many ranks print; they must exit with 0."""
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    command = ranks_of(count, *arguments)
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
