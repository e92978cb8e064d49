"""The matrix product against NumPy's BLAS and, where installed, PyTorch: `python -m bench.products`.

All figures of a row are measured in turns in one run and compared with `fastbp.benchmark.peak`. On a CPU with AVX-512 a
second process measures AVX2 and its peak.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

from bench import flops, processes
from bench.suite import threads as on_threads
from bench.table import Table, machine, print_machine
from fastbp.benchmark.measure import medians
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.runtime.gemm import product as gemm

# (M, K, N, form): products of small networks, larger ones, and single rows.
SHAPES = (
    (100, 784, 50, gemm.PLAIN),
    (784, 100, 50, gemm.A_TRANSPOSED),
    (100, 50, 784, gemm.B_TRANSPOSED),
    (100, 784, 256, gemm.PLAIN),
    (128, 784, 1024, gemm.PLAIN),
    (784, 128, 1024, gemm.A_TRANSPOSED),
    (1024, 784, 1024, gemm.PLAIN),
    (50, 4320, 100, gemm.PLAIN),
    (256, 256, 256, gemm.PLAIN),
    (32, 32, 32, gemm.PLAIN),
    (8, 8, 8, gemm.PLAIN),
    (1, 784, 50, gemm.PLAIN),
    (1, 1024, 1024, gemm.PLAIN),
    (100, 50, 10, gemm.PLAIN),
)
FORMS = {gemm.PLAIN: "A·B", gemm.A_TRANSPOSED: "Aᵀ·B", gemm.B_TRANSPOSED: "A·Bᵀ"}
COLUMNS = ("fastbp", "NumPy", "PyTorch", "to NumPy", "of peak", "AVX2 to NumPy", "AVX2 of peak")

# Numba then compiles for AVX2 on a CPU that has AVX-512.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}


def main() -> None:
    """Print the tables for one thread and two, each for float32 and float64."""
    print_machine()
    for threads in (1, 2):
        for dtype in ("float32", "float64"):
            _print_table(threads, dtype)


def _print_table(threads: int, dtype: str) -> None:
    peak, rows = measured(threads, dtype)
    peak_avx2, rows_avx2 = (peak, rows) if machine()["vector_bits"] == 256 else _measured_with_avx2(threads, dtype)
    print(f"\n{dtype}, {threads} thread(s), GFLOP/s; multiply-add peak {peak:.0f}, with AVX2 {peak_avx2:.0f}")
    table = Table(COLUMNS, "M×K×N", names=22, width=15)
    for (M, K, N, form), speed, avx2 in zip(SHAPES, rows, rows_avx2, strict=True):
        speeds = (speed.get(name) for name in COLUMNS[:3])
        ratios = _to_numpy(speed), speed["fastbp"] / peak, _to_numpy(avx2), avx2["fastbp"] / peak_avx2
        table.row(f"{M}×{K}×{N} {FORMS[form]}", *speeds, *ratios)
    means = [statistics.geometric_mean(map(_to_numpy, found)) for found in (rows, rows_avx2)]
    table.row("geometric mean", "", "", "", means[0], "", means[1])


def _to_numpy(speed: dict[str, float]) -> float:
    return speed["fastbp"] / speed["NumPy"]


def measured(threads: int, dtype: str) -> tuple[float, list[dict[str, float]]]:
    """The peak, and the speed of every product in GFLOP/s."""
    peak = multiply_add_peak(dtype, threads) / 1e9
    rows = []
    for M, K, N, form in SHAPES:
        functions = _functions(M, K, N, form, dtype, threads)
        with on_threads(threads):
            seconds = medians(functions, rounds=5)
        rows.append({name: flops.of_product(M, K, N) / value / 1e9 for name, value in seconds.items()})
    return peak, rows


def _measured_with_avx2(threads: int, dtype: str) -> tuple[float, list[dict[str, float]]]:
    """The same in a new process that compiles for AVX2; the figures are NaN where the CPU lacks it."""
    if machine()["vector_bits"] < 256:
        return np.nan, [dict.fromkeys(("fastbp", "NumPy"), np.nan)] * len(SHAPES)
    code = f"import json; from bench import products; print(json.dumps(products.measured({threads}, {dtype!r})))"
    peak, rows = json.loads(processes.run(code, **AVX2))
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
