"""The affine layer: x·W + b, and the three products of its backward pass with the bias summed over the batch.

All arrays are C-contiguous and of one dtype: x and dx (N, D), W and dW (D, M), b and db (M,), out and dout (N, M).
"""

from __future__ import annotations

from typing import Any

from fastbp.kernels.activations import DERIVATIVE
from fastbp.kernels.gemm import A_TRANSPOSED, ACTION, B_TRANSPOSED, FROM_ROW, SUMS_TO_ROW, product


def affine_forward(x: Any, W: Any, b: Any, out: Any) -> None:
    """out = x·W + b."""
    product(x, W, b, out, FROM_ROW)


def affine_backward(x: Any, W: Any, dout: Any, dx: Any, dW: Any, db: Any) -> None:
    """dx = dout·Wᵀ, dW = xᵀ·dout, db = sum of dout over the batch."""
    product(dout, W, None, dx, B_TRANSPOSED)
    affine_backward_parameters(x, dout, dW, db)


def affine_backward_parameters(x: Any, dout: Any, dW: Any, db: Any) -> None:
    """dW = xᵀ·dout, db = sum of dout over the batch: all that a network's first layer needs."""
    product(x, dout, db, dW, A_TRANSPOSED | SUMS_TO_ROW)


def affine_activation_forward(x: Any, W: Any, b: Any, out: Any, activation: int) -> None:
    """out = activation(x·W + b), a number of `fastbp.kernels.activations`, in one pass over `out`."""
    product(x, W, b, out, FROM_ROW | activation << ACTION)


def affine_activation_backward(W: Any, dout: Any, out: Any, dx: Any, activation: int) -> None:
    """dx = (dout·Wᵀ)·activation', in one pass over dx: `out` (N, D) is what the activation before it returned."""
    product(dout, W, out, dx, B_TRANSPOSED | (DERIVATIVE + activation) << ACTION)
