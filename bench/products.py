"""The matrix product against NumPy's BLAS and, where installed, PyTorch: `python -m bench.products`.

Every figure of a row is measured in turns in one run, and held to `fastbp.benchmark.peak`; those of AVX2 have a run and
a peak of their own on a CPU with AVX-512.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np

from fastbp import num_threads
from fastbp.benchmark.machine import blas_threads
from fastbp.benchmark.measure import medians
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.kernels import REGISTER_BYTES, gemm

# (M, K, N, form): the products of small networks, larger ones, and single rows.
SHAPES = (
    (100, 784, 50, gemm.PLAIN),
    (784, 100, 50, gemm.A_TRANSPOSED),
    (100, 50, 784, gemm.B_TRANSPOSED),
    (100, 784, 256, gemm.PLAIN),
    (128, 784, 1024, gemm.PLAIN),
    (784, 128, 1024, gemm.A_TRANSPOSED),
    (1024, 784, 1024, gemm.PLAIN),
    (256, 256, 256, gemm.PLAIN),
    (32, 32, 32, gemm.PLAIN),
    (8, 8, 8, gemm.PLAIN),
    (1, 784, 50, gemm.PLAIN),
    (1, 1024, 1024, gemm.PLAIN),
    (100, 50, 10, gemm.PLAIN),
)
FORMS = {gemm.PLAIN: "A·B", gemm.A_TRANSPOSED: "Aᵀ·B", gemm.B_TRANSPOSED: "A·Bᵀ"}


# What Numba compiles for where AVX2 is asked for on a CPU that has AVX-512.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}


def main() -> None:
    """Print the table for one thread and two, each for float32 and float64."""
    if len(sys.argv) > 1:
        print(json.dumps(_measured(int(sys.argv[1]), sys.argv[2])))
        return
    for threads in (1, 2):
        for dtype in ("float32", "float64"):
            _table(threads, dtype)


def _table(threads: int, dtype: str) -> None:
    peak, rows = _measured(threads, dtype)
    peak_avx2, rows_avx2 = (peak, rows) if REGISTER_BYTES == 32 else _measured_with_avx2(threads, dtype)
    print(f"\n{dtype}, {threads} thread(s), GFLOP/s; multiply-add peak {peak:.0f}, with AVX2 {peak_avx2:.0f}")
    print(f"{'':<49}{'to NumPy':>10}{'of peak':>9}{'to NumPy':>12}{'of peak':>11}")
    print(f"{'M×K×N':<22}{'fastbp':>9}{'NumPy':>9}{'PyTorch':>9}{'':>19}{'with AVX2':>12}{'with AVX2':>11}")
    for (M, K, N, form), speed, avx2 in zip(SHAPES, rows, rows_avx2, strict=True):
        torch = f"{speed['PyTorch']:9.1f}" if "PyTorch" in speed else f"{'-':>9}"
        print(
            f"{f'{M}×{K}×{N} {FORMS[form]}':<22}{speed['fastbp']:9.1f}{speed['NumPy']:9.1f}{torch}"
            f"{_to_numpy(speed):10.2f}{speed['fastbp'] / peak:9.2f}"
            f"{_to_numpy(avx2):12.2f}{avx2['fastbp'] / peak_avx2:11.2f}"
        )
    means = [np.exp(np.mean(np.log([_to_numpy(speed) for speed in table]))) for table in (rows, rows_avx2)]
    print(f"geometric mean to NumPy {means[0]:.2f}, with AVX2 {means[1]:.2f}")


def _to_numpy(speed: dict[str, float]) -> float:
    return speed["fastbp"] / speed["NumPy"]


def _measured(threads: int, dtype: str) -> tuple[float, list[dict[str, float]]]:
    """The peak and the speed of every product, in GFLOP/s."""
    peak = multiply_add_peak(dtype, threads) / 1e9
    rows = []
    for M, K, N, form in SHAPES:
        functions = _functions(M, K, N, form, dtype, threads)
        with num_threads(threads), blas_threads(threads):
            seconds = medians(functions, rounds=5)
        rows.append({name: 2e-9 * M * K * N / value for name, value in seconds.items()})
    return peak, rows


def _measured_with_avx2(threads: int, dtype: str) -> tuple[float, list[dict[str, float]]]:
    """The same in a process of its own that compiles for AVX2; no numbers where the CPU lacks it."""
    if REGISTER_BYTES < 32:
        return np.nan, [dict.fromkeys(("fastbp", "NumPy"), np.nan)] * len(SHAPES)
    command = [sys.executable, "-m", "bench.products", str(threads), dtype]
    done = subprocess.run(command, env=os.environ | AVX2, stdout=subprocess.PIPE, check=True)
    peak, rows = json.loads(done.stdout)
    return peak, rows


def _functions(M: int, K: int, N: int, form: int, dtype: str, threads: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((K, M) if form == gemm.A_TRANSPOSED else (M, K)).astype(dtype)
    B = rng.standard_normal((N, K) if form == gemm.B_TRANSPOSED else (K, N)).astype(dtype)
    C, D = np.empty((M, N), dtype), np.empty((M, N), dtype)
    left, right = (A.T if form == gemm.A_TRANSPOSED else A), (B.T if form == gemm.B_TRANSPOSED else B)
    functions = {"fastbp": lambda: gemm.product(A, B, None, C, form), "NumPy": lambda: np.dot(left, right, D)}
    torch = _torch(threads)
    if torch is not None:
        a, b, c = torch.from_numpy(left), torch.from_numpy(right), torch.empty((M, N), dtype=getattr(torch, dtype))
        functions["PyTorch"] = lambda: torch.mm(a, b, out=c)
    return functions


def _torch(threads: int) -> Any:
    try:
        import torch  # noqa: PLC0415 - a peer, not a requirement
    except ImportError:
        return None
    torch.set_num_threads(threads)
    return torch


if __name__ == "__main__":
    main()
