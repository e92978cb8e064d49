"""The matrix product against NumPy's BLAS and, where installed, PyTorch: `python -m bench.products`.

Every figure of a row is measured in turns in one run, and held to `fastbp.benchmark.peak`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp import num_threads
from fastbp.benchmark.machine import blas_threads
from fastbp.benchmark.measure import medians
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.kernels import gemm

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


def main() -> None:
    """Print the table for one thread and two, each for float32 and float64."""
    for threads in (1, 2):
        for dtype in ("float32", "float64"):
            _table(threads, dtype)


def _table(threads: int, dtype: str) -> None:
    peak = multiply_add_peak(dtype, threads) / 1e9
    print(f"\n{dtype}, {threads} thread(s), GFLOP/s; multiply-add peak {peak:.0f}")
    print(f"{'M×K×N':<22}{'fastbp':>9}{'NumPy':>9}{'PyTorch':>9}{'to NumPy':>10}{'of peak':>9}")
    ratios = []
    for M, K, N, form in SHAPES:
        functions = _functions(M, K, N, form, dtype, threads)
        with num_threads(threads), blas_threads(threads):
            seconds = medians(functions, rounds=5)
        speed = {name: 2e-9 * M * K * N / value for name, value in seconds.items()}
        ratios.append(speed["fastbp"] / speed["NumPy"])
        torch = f"{speed['PyTorch']:9.1f}" if "PyTorch" in speed else f"{'-':>9}"
        print(
            f"{f'{M}×{K}×{N} {FORMS[form]}':<22}{speed['fastbp']:9.1f}{speed['NumPy']:9.1f}{torch}"
            f"{ratios[-1]:10.2f}{speed['fastbp'] / peak:9.2f}"
        )
    print(f"geometric mean to NumPy {np.exp(np.mean(np.log(ratios))):.2f}")


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
