"""Layer normalization: the features of each sample to mean 0 and variance 1, whatever the rest of the batch is.

    xn = (x - mean)/sqrt(var + eps);  out = gamma·xn + beta

Jimmy Lei Ba, Jamie Ryan Kiros and Geoffrey Hinton, "Layer Normalization", arXiv:1607.06450. Kernels take rows (N, D).
Rows are shared among threads; a sum over rows is formed by fixed groups of them, which are added in their order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray
from numpy.typing import ArrayLike

from fastbp.checks import (
    Array,
    as_array,
    empty,
    from_kernel,
    not_run,
    parameter,
    quotient_dtype,
    rate,
    same_shape,
    to_kernel,
)
from fastbp.ops.contract import LayerRecord, Map, Shape, layer, twin_of
from fastbp.ops.prediction import activate_in_place, row_at, scale_of
from fastbp.ops.state import (
    B_AT,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    H_IN,
    MEMORY_AT,
    ROWS,
    W_AT,
    W_ROWS,
    W_WIDTH,
    Z_OUT,
    activate,
    apply_slope,
    sums_of,
    update_by_sums,
)
from fastbp.runtime.groups import group_of, groups_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import at, located, shift, view
from fastbp.runtime.sharing import public_kernel, shared_kernel
from fastbp.runtime.vectors import sum_of, sum_of_products

__all__ = ["LayerNormalization"]


@shared_kernel
def _normalize_rows(x, scales, eps, xn, std, out):
    """xn = (x - mean)/std and out = gamma·xn + beta for each row; scales is (gamma, beta)."""
    gamma, beta = scales
    N, D = x.shape
    share, least = x.dtype.type(1 / max(D, 1)), x.dtype.type(eps)
    for n in range(N):
        mean = sum_of((at(x, n * D),), (), D) * share
        for d in range(D):
            xn[n, d] = x[n, d] - mean
        row = at(xn, n * D)
        std[n] = np.sqrt(sum_of_products((row, row), (), D) * share + least)
        for d in range(D):
            xn[n, d] /= std[n]
            out[n, d] = gamma[d] * xn[n, d] + beta[d]


@twin_of(_normalize_rows)
def normalize_rows(x: Array, scales: tuple[Array, Array], eps: float, xn: Array, std: Array, out: Array) -> None:
    gamma, beta = scales
    centered = x - np.sum(x, axis=1, keepdims=True) / max(x.shape[1], 1)
    std[...] = np.sqrt(np.sum(centered**2, axis=1) / max(x.shape[1], 1) + eps)
    xn[...] = centered / std[:, None]
    out[...] = gamma * xn + beta


@shared_kernel
def _row_normalization_backward(dout, xn, std, scales, dx):
    """dx = (g - mean of g - xn·mean of g·xn)/std for each row, with g = gamma·dout; scales is (gamma,)."""
    gamma = scales[0]
    N, D = xn.shape
    share = xn.dtype.type(1 / max(D, 1))
    for n in range(N):
        for d in range(D):
            dx[n, d] = gamma[d] * dout[n, d]
        row = at(dx, n * D)
        mean = sum_of((row,), (), D) * share
        along = sum_of_products((row, at(xn, n * D)), (), D) * share
        for d in range(D):
            dx[n, d] = (dx[n, d] - mean - xn[n, d] * along) / std[n]


@twin_of(_row_normalization_backward)
def row_normalization_backward(dout: Array, xn: Array, std: Array, scales: tuple[Array], dx: Array) -> None:
    g, D = scales[0] * dout, max(xn.shape[1], 1)
    mean, along = (np.sum(each, axis=1, keepdims=True) / D for each in (g, g * xn))
    dx[...] = (g - mean - xn * along) / std[:, None]


@public_kernel
def _row_normalization_parameters(dout, xn, dgamma, dbeta):
    """dgamma = sum of dout·xn over the rows, dbeta = sum of dout."""
    N, D = dout.shape
    groups, zero = groups_of(N), dout.dtype.type(0)
    of_gamma, of_beta = np.empty_like(dgamma), np.empty_like(dbeta)
    dgamma[:], dbeta[:] = zero, zero
    for group in range(groups):
        of_gamma[:], of_beta[:] = zero, zero
        for n in range(*group_of(N, group)):
            for d in range(D):
                of_gamma[d] += dout[n, d] * xn[n, d]
                of_beta[d] += dout[n, d]
        for d in range(D):
            dgamma[d] += of_gamma[d]
            dbeta[d] += of_beta[d]


@twin_of(_row_normalization_parameters)
def row_normalization_parameters(dout: Array, xn: Array, dgamma: Array, dbeta: Array) -> None:
    np.sum(dout * xn, axis=0, out=dgamma)
    np.sum(dout, axis=0, out=dbeta)


class LayerNormalization:
    """Layer normalization (arXiv:1607.06450): gamma·(x - mean)/sqrt(var + eps) + beta.

    The mean and the variance (the mean of squares, not the estimate by D - 1) are those of each sample alone, over the
    last axes of x, which have the shape of gamma. So training and prediction are the same.

    Parameters
    ----------
    gamma, beta : ndarray (D,), or the shape of any number of last axes
        Kept as given, not copied.
    eps : float
        At least 0. The numbers of a sample may all be alike where it is above 0. 1e-5 is what PyTorch adds.

    Attributes
    ----------
    gamma, beta : ndarray
        The very arrays given.
    eps : float
        May be set at any time.
    dgamma, dbeta : ndarray
        Gradients by `gamma` and `beta`, new arrays at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If gamma and beta are not arrays of real numbers of one shape, with at least one axis, or eps is no such number.

    Examples
    --------
    >>> LayerNormalization(np.ones(2), np.zeros(2)).forward([[1.0, 3.0], [0.0, 200.0]]).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """

    parameter_names = ("gamma", "beta")

    def __init__(self, gamma: Array, beta: Array, eps: float = 1e-5) -> None:
        self.gamma, self.beta, self.eps = gamma, beta, eps
        self._parameters()
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self._forward: tuple[Array, Array, Array, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return gamma·(x - mean)/sqrt(var + eps) + beta.

        Parameters
        ----------
        x : array_like (..., D)
            Any number of axes before those of gamma.

        Returns
        -------
        ndarray
            A new array in the shape of x.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        gamma, beta, eps = self._parameters()
        x = as_array("x", x)
        if x.shape[x.ndim - gamma.ndim :] != gamma.shape or x.ndim < gamma.ndim:
            raise ValueError(
                f"x: expected the shape of gamma {gamma.shape} at its end, got shape {x.shape}; "
                f"reshape x, or make gamma and beta for it"
            )
        dtype = quotient_dtype(x, gamma, beta)
        rows = to_kernel(x, dtype).reshape(_rows(x.shape, gamma))
        scales = tuple(to_kernel(each, dtype).reshape(-1) for each in (gamma, beta))
        xn, std, out = empty(rows.shape, dtype), empty(len(rows), dtype), empty(rows.shape, dtype)
        normalize_rows.of(dtype)(rows, scales, eps, xn, std, out)
        self._forward = xn, std, gamma, x.shape
        return from_kernel(out, dtype).reshape(x.shape)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx, and set dgamma = sum(dout·xn) and dbeta = sum(dout) over the samples.

        dx = (g - mean(g) - xn·mean(g·xn))/std with g = gamma·dout, and means over the features of each sample.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array in the shape of x.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x, or gamma was given another shape since.
        """
        if self._forward is None:
            not_run(self)
        xn, std, gamma, shape = self._forward
        same_shape("gamma", gamma, shape[len(shape) - gamma.ndim :], "as when forward ran")
        dout = as_array("dout", dout)
        same_shape("dout", dout, shape, "as the input")
        dtype = quotient_dtype(dout, xn, gamma)
        xn, std, weights = (to_kernel(each, dtype) for each in (xn, std, gamma))
        rows, weights = to_kernel(dout, dtype).reshape(_rows(shape, gamma)), weights.reshape(-1)
        dx, dgamma, dbeta = empty(rows.shape, dtype), empty(weights.shape, dtype), empty(weights.shape, dtype)
        row_normalization_backward.of(dtype)(rows, xn, std, (weights,), dx)
        row_normalization_parameters.of(dtype)(rows, xn, dgamma, dbeta)
        self.dgamma, self.dbeta = (from_kernel(each, dtype).reshape(gamma.shape) for each in (dgamma, dbeta))
        return from_kernel(dx, dtype).reshape(shape)

    def _parameters(self) -> tuple[Array, Array, float]:
        gamma, beta = parameter("gamma", self.gamma), parameter("beta", self.beta)
        if gamma.ndim == 0:
            raise ValueError("gamma: expected at least 1 dimension, got shape (); make it with np.ones(features)")
        same_shape("beta", beta, gamma.shape, "as gamma")
        return gamma, beta, rate("eps", self.eps)


def _rows(shape: tuple[int, ...], gamma: Any) -> tuple[int, int]:
    """The shape (N, D) of x as rows of as many features as gamma has."""
    return math.prod(shape[: len(shape) - gamma.ndim]), gamma.size


_normalize, _input = _normalize_rows.kernel, _row_normalization_backward.kernel
_parameters = _row_normalization_parameters.kernel

# In training by the engine. A slice keeps xn, and the std of each row, in the memory of its samples.


@kernel
def _slice(network_at, number, begin, i0, i1):
    """Samples i0:i1 of what begins at `begin` in the workspace, as rows of as many features as gamma has."""
    network = view(network_at)
    layer = network.layers[number]
    features = layer[W_ROWS] * layer[W_WIDTH]
    rows = (i1 - i0) * (layer[D_IN] // features)
    return carray(at(network.workspace, begin + i0 * layer[D_IN]), (rows, features))


@kernel
def _kept(network_at, number, i0, i1):
    """xn and std of samples i0:i1."""
    network = view(network_at)
    layer = network.layers[number]
    size, features = layer[D_IN], layer[W_ROWS] * layer[W_WIDTH]
    xn = at(network.workspace, layer[MEMORY_AT] + i0 * (size + size // features))
    rows = (i1 - i0) * (size // features)
    return carray(xn, (rows, features)), carray(shift(xn, rows * features), rows)


@kernel
def _scales(network_at, number):
    """gamma and beta."""
    network = view(network_at)
    layer = network.layers[number]
    features = layer[W_ROWS] * layer[W_WIDTH]
    return carray(at(network.params, layer[W_AT]), features), carray(at(network.params, layer[B_AT]), features)


@kernel
def _forward(network_at, number, part, i0, i1):
    network = view(network_at)
    layer, (xn, std) = network.layers[number], _kept(network_at, number, i0, i1)
    x, out = _slice(network_at, number, layer[H_IN], i0, i1), _slice(network_at, number, layer[Z_OUT], i0, i1)
    _normalize(x, _scales(network_at, number), network.scales[number], xn, std, out)
    activate(network_at, number, i0, i1)


@kernel
def _sums(network_at, number, part, i0, i1):
    layer, (xn, _) = view(network_at).layers[number], _kept(network_at, number, i0, i1)
    dout, features = _slice(network_at, number, layer[DELTA], i0, i1), layer[W_ROWS] * layer[W_WIDTH]
    dgamma = sums_of(network_at, number, part)
    _parameters(dout, xn, carray(dgamma, features), carray(shift(dgamma, features), features))


@kernel
def _backward(network_at, number, part, i0, i1):
    layer, (xn, std) = view(network_at).layers[number], _kept(network_at, number, i0, i1)
    before, (gamma, _) = layer[DELTA_BEFORE], _scales(network_at, number)
    dout, dx = _slice(network_at, number, layer[DELTA], i0, i1), _slice(network_at, number, before, i0, i1)
    _input(dout, xn, std, (gamma,), dx)
    apply_slope(network_at, number - 1, before, i0, i1)


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    layer = row_at(layer_at)
    features = layer[W_ROWS] * layer[W_WIDTH]
    rows = N * (layer[D_IN] // features)
    scales = carray(located(h, layer[W_AT]), features), carray(located(h, layer[B_AT]), features)
    xn, std = carray(scratch, (rows, features)), carray(shift(scratch, rows * features), rows)
    _normalize(carray(h, (rows, features)), scales, scale_of(layer), xn, std, carray(out, (rows, features)))
    activate_in_place(layer, out, N)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    gamma, _, _ = layer._parameters()
    if gamma.size == 0 or shape[len(shape) - gamma.ndim :] != gamma.shape or len(shape) < gamma.ndim:
        raise ValueError(
            f"{whose} with the shape of gamma {gamma.shape} at their end, got {shape}; "
            f"reshape them, or make gamma and beta for them"
        )
    return shape


layer(
    LayerRecord(
        LayerNormalization,
        arrays=("gamma", "beta"),
        settings=("eps",),
        map=Map(
            _forward,
            _backward,
            update_by_sums,
            _predict,
            sums=_sums,
            shape=_shape,
            layout=lambda _: ROWS,
            scale=lambda layer: layer._parameters()[2],
            memory=lambda layer, shape, _: math.prod(shape) // layer.gamma.size * (layer.gamma.size + 1),
            sums_size=lambda layer, _: 2 * layer.gamma.size,
        ),
    )
)
