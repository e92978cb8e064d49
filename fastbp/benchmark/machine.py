"""What a figure of speed needs beside it: the processor, its limit, the libraries, and how many threads they use."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastbp.benchmark.peak import multiply_add_peak
from fastbp.kernels import REGISTER_BYTES, get_num_threads

_LIBRARIES = ("numpy", "numba", "torch", "jax", "scikit-learn")


def describe() -> dict[str, Any]:
    """The machine and the libraries, ready for JSON; it measures the processor's peak for half a second."""
    return {
        "processor": f"{_processor()} ({llvm.get_host_cpu_name()})",
        "cores": os.cpu_count(),
        "vector_bits": 8 * REGISTER_BYTES,
        "threads": get_num_threads(),
        "peak_flops": multiply_add_peak("float32", get_num_threads()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "blas": blas(),
    }


def blas() -> str:
    """The BLAS that NumPy multiplies with; its threads are known where threadpoolctl is installed."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")  # comes with scikit-learn
    except ImportError:
        built_with = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{built_with['name']} {built_with['version']}, with as many threads as it takes"
    found = [info for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]
    return ", ".join(f"{b['internal_api']} {b['version']} ({b.get('architecture', 'unknown')})" for b in found[:1])


def blas_threads(n: int) -> contextlib.AbstractContextManager[object]:
    """Let every BLAS use `n` threads in the body of a `with` statement, where threadpoolctl is installed."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[object] = threadpoolctl.threadpool_limits(n, user_api="blas")
    return limits


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
