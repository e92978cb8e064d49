"""The outputs of a fitted estimator: the compiled pass over its own arrays, which are not copied."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.neural_network._base import ACTIVATIONS as IN_PLACE
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils.extmath import safe_sparse_dot

from fastbp.checks import FLOAT32, FLOAT64, Array, DType, to_kernel
from fastbp.engine import predict as kernels
from fastbp.layers import Affine
from fastbp.ops.contract import ACTIVATIONS, LAYERS, LOSSES, settings_of
from fastbp.ops.prediction import B_AT, COLUMNS, KERNEL, W_AT, address_of_map
from fastbp.ops.state import D_IN, EPILOGUE, M_OUT, SETTINGS_AT
from fastbp.runtime import threads
from fastbp.runtime.gemm.epilogue import NONE, checked
from fastbp.runtime.gemm.multiply import ROW_GRAIN, address_of_multiply, scratch_for
from fastbp.sklearn.networks import DENSE
from fastbp.training.at_once import at_work, share

# Another subclass of ndarray may have a product of its own.
PLAIN = np.ndarray, np.memmap


@cache
def _epilogue(activation: str, dtype: DType) -> tuple[int, Array]:
    """The word for the activation of a hidden layer, and its settings."""
    record = ACTIVATIONS[activation]
    word = NONE if record.activation is None else checked(record.activation.in_place(dtype))
    return word, np.array([*settings_of(record, record.layer()), 0.0])


@cache
def _output(activation: str, dtype: DType) -> int:
    """The address of what the last layer does with its outputs; 0 for nothing."""
    record = LOSSES[activation].loss
    return 0 if record is None or record.predict is None else kernels.address_of_output(record.predict, dtype)


def is_plain(X: Any, features: int) -> bool:
    """Whether X is rows of so many floats that a kernel reads as they are: only NaN and inf are still to be found."""
    return (
        type(X) is np.ndarray
        and (X.dtype is FLOAT64 or X.dtype is FLOAT32)
        and X.ndim == 2
        and X.shape[1] == features
        and len(X) > 0
        and X.flags.c_contiguous
    )


def outputs(X: Any, coefs: list[Array], intercepts: list[Array], activations: list[str]) -> tuple[Array, bool]:
    """The activations of the last layer for rows X, which may be sparse, and whether X is finite.

    `activations` are those of all layers. The dtype is NumPy's for a product of X and the coefs.
    """
    if scipy.sparse.issparse(X):
        X, most = X.tocsr(), max(1, DENSE // max(1, X.shape[1]))
        blocks = (X[start : start + most].toarray() for start in range(0, X.shape[0], most))
        parts, are_finite = zip(*(outputs(block, coefs, intercepts, activations) for block in blocks), strict=True)
        return np.concatenate(parts), all(are_finite)
    coefs, intercepts = list(coefs), list(intercepts)  # a fit in another thread puts others there
    dtype = _kernel_dtype(X, coefs, intercepts)
    if dtype is None:
        return _computed_by_numpy(X, coefs, intercepts, activations)
    X = to_kernel(X, dtype)
    parameters = [to_kernel(array, dtype) for pair in zip(coefs, intercepts, strict=True) for array in pair]
    epilogues = [*(_epilogue(name, dtype) for name in activations[:-1]), (NONE, np.empty(0))]
    affine = address_of_map(LAYERS[Affine].map, dtype)
    table = np.zeros((len(coefs), COLUMNS), np.intp)
    table[:, [KERNEL, W_AT, B_AT, D_IN, M_OUT, EPILOGUE, SETTINGS_AT]] = [
        (affine, W.ctypes.data, b.ctypes.data, *W.shape, word, settings.ctypes.data)
        for W, b, (word, settings) in zip(parameters[::2], parameters[1::2], epilogues, strict=True)
    ]
    widths = [X.shape[1], *(W.shape[1] for W in coefs)]
    weights = sum(W.size for W in coefs)
    rows, widest = kernels.rows_of_a_block(len(X), max(widths), weights), max(widths[1:])
    out = np.empty((len(X), widths[-1]), dtype)
    threads.start()
    addresses = address_of_multiply(dtype), _output(activations[-1], dtype)
    with at_work() if len(X) > ROW_GRAIN else nullcontext():
        # joblib and threadpoolctl set how many; a few rows are not divided.
        team = threads.team(share(_openmp_effective_n_threads()) if len(X) > ROW_GRAIN else 1)
        count = int(team[0])
        hidden = np.empty((count, 2, rows * widest), dtype)
        scratch = np.empty((count, scratch_for(max(rows, *widths), dtype.itemsize)), dtype)
        is_finite = kernels.predict(team.ctypes.data, *addresses, table, X, out, rows, weights, hidden, scratch, True)
    return out, bool(is_finite)


def _kernel_dtype(X: Array, coefs: list[Any], intercepts: list[Any]) -> DType | None:
    """The dtype in which the kernel computes the outputs; None if it cannot read the parameters."""
    if len(coefs) != len(intercepts):
        return None
    width = X.shape[1]
    for W, b in zip(coefs, intercepts, strict=True):
        if type(W) not in PLAIN or type(b) not in PLAIN or W.dtype != coefs[0].dtype:
            return None
        if W.ndim != 2 or W.shape[0] != width or b.shape != W.shape[1:] or b.dtype.kind not in "fiub":
            return None
        width = W.shape[1]
    dtype = coefs[0].dtype
    if dtype is not X.dtype:
        dtype = np.result_type(X.dtype, dtype)
    return dtype if dtype is FLOAT32 or dtype is FLOAT64 else None


def _computed_by_numpy(X: Array, coefs: list[Any], intercepts: list[Any], activations: list[str]) -> tuple[Array, bool]:
    """The same as scikit-learn computes it: for other dtypes, and for its errors where parameters do not fit."""
    if len(coefs) != len(intercepts):
        raise ValueError(
            f"coefs_, intercepts_: expected as many of each, got {len(coefs)} and {len(intercepts)}; set both"
        )
    out = X
    for W, b, name in zip(coefs, intercepts, activations, strict=True):
        out = safe_sparse_dot(out, W)
        out += b
        if name in IN_PLACE:
            IN_PLACE[name](out)
        else:
            out = ACTIVATIONS[name].layer().forward(out)
    return out, bool(np.isfinite(X).all())
