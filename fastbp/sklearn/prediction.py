"""The outputs of a fitted estimator: the compiled pass over its own arrays, which are not copied."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.neural_network._base import ACTIVATIONS as IN_PLACE
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils.extmath import safe_sparse_dot

from fastbp.kernels import _threads, gemm
from fastbp.kernels import prediction as kernels
from fastbp.kernels.activations import IDENTITY, RELU, SIGMOID, TANH
from fastbp.sklearn.networks import DENSE
from fastbp.validation import FLOAT32, FLOAT64, Array, DType, working

ACTIVATIONS = {
    "identity": IDENTITY,
    "logistic": SIGMOID,
    "tanh": TANH,
    "relu": RELU,
    "softmax": kernels.SOFTMAX,
    "exp": kernels.EXP,
}

# Other subclasses of arrays may mean something else by a product.
PLAIN = np.ndarray, np.memmap

address_of_multiply = cache(gemm.address_of_multiply)


def is_plain(X: Any, features: int) -> bool:
    """Whether X is rows of so many floats as a kernel reads them, which needs no other check than for NaN and inf."""
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
    X = working(X, dtype)
    parameters = [working(array, dtype) for pair in zip(coefs, intercepts, strict=True) for array in pair]
    table = np.array(
        [
            (W.ctypes.data, b.ctypes.data, *W.shape, ACTIVATIONS[name])
            for W, b, name in zip(parameters[::2], parameters[1::2], activations, strict=True)
        ],
        np.intp,
    )
    widths = [X.shape[1], *(W.shape[1] for W in coefs)]
    rows, widest = kernels.rows_of_a_block(len(X), max(widths)), max(widths[1:])
    out = np.empty((len(X), widths[-1]), dtype)
    _threads.start()
    # joblib and threadpoolctl set how many; a few rows are not divided.
    team = _threads.team(_openmp_effective_n_threads() if len(X) > gemm.ROW_GRAIN else 1)
    threads = int(team[0])
    hidden = np.empty((threads, 2, rows * widest), dtype)
    room = np.empty((threads, gemm.room_for(max(rows, *widths), dtype.itemsize)), dtype)
    is_finite = kernels.predict(team.ctypes.data, address_of_multiply(dtype), table, X, out, rows, hidden, room)
    return out, bool(is_finite)


def _kernel_dtype(X: Array, coefs: list[Any], intercepts: list[Any]) -> DType | None:
    """The dtype in which the kernel computes the outputs; None where parameters are not such as it reads."""
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
        IN_PLACE[name](out)
    return out, bool(np.isfinite(X).all())
