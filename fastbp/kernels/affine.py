"""The affine layer: x·W + b, and the three products of its backward pass with the bias summed over the batch.

All arrays are C-contiguous and of one dtype: x and dx (N, D), W and dW (D, M), b and db (M,), out and dout (N, M).
"""

from __future__ import annotations

from typing import Any

from fastbp.kernels._jit import kernel
from fastbp.kernels.gemm import A_TRANSPOSED, B_TRANSPOSED, product


def affine_forward(x: Any, W: Any, b: Any, out: Any) -> None:
    """out = x·W + b."""
    product(x, W, b, out)


def affine_backward(x: Any, W: Any, dout: Any, dx: Any, dW: Any, db: Any) -> None:
    """dx = dout·Wᵀ, dW = xᵀ·dout, db = sum of dout over the batch."""
    product(dout, W, None, dx, B_TRANSPOSED)
    affine_backward_parameters(x, dout, dW, db)


def affine_backward_parameters(x: Any, dout: Any, dW: Any, db: Any) -> None:
    """dW = xᵀ·dout, db = sum of dout over the batch: all that a network's first layer needs."""
    product(x, dout, None, dW, A_TRANSPOSED)
    _sum_over_batch(dout, db)


@kernel
def _sum_over_batch(dout, db):
    N, M = dout.shape
    for j in range(M):
        db[j] = 0
    for i in range(N):
        for j in range(M):
            db[j] += dout[i, j]
