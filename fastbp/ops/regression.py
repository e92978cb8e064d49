"""Losses for regression whose gradient is y - t: half the squared error and half the Poisson deviance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, from_kernel, not_run, quotient_dtype, rows, same_shape, scalar, to_kernel
from fastbp.ops.arithmetic import exp_forward
from fastbp.ops.contract import LayerRecord, Loss, layer, twin_of
from fastbp.ops.losses import (
    RegressionLoss,
    difference_of_rows,
    dout_of_sum,
    mean_loss,
    mean_of,
    mean_twin,
    shares_of,
    squared_error_backward,
    weighted,
)
from fastbp.ops.state import end_of, targets_of
from fastbp.ops.targets import count_targets, counts, number_targets
from fastbp.runtime.elementary import exp, log
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.pointers import at, load, shift, store
from fastbp.runtime.sharing import public_kernel
from fastbp.runtime.vectors import sum_of_squared_differences

__all__ = ["ExpWithLoss", "IdentityWithLoss"]


class OutputWithLoss(RegressionLoss):
    """A loss of outputs y whose gradient by what went in is y - t: what such layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.y: Array | None = None

    def backward(self, dout: ArrayLike = 1) -> Array:
        y, t, shares = self.y, self.t, self._shares
        if y is None or t is None:
            not_run(self)
        y, t = as_array("y", y), as_array("t", t)
        same_shape("t", t, y.shape, "as y")
        dtype = quotient_dtype(y, t)
        predictions, targets = to_kernel(rows("y", y), dtype), to_kernel(rows("t", t), dtype)
        dx = np.empty_like(predictions)
        factor = dout_of_sum(scalar("dout", dout), shares)
        squared_error_backward.of(dtype)(predictions, targets, factor, dx)
        return from_kernel(weighted(dx, shares), dtype).reshape(y.shape)


# Half the squared error.


@public_kernel
def _squared_error_forward(y, t):
    """Returns half the sum of (y - t)² over each row, mean over the batch."""
    losses = np.empty(len(y))
    _squared_error_of_rows(y, t, losses)
    return mean_of(losses)


@entry_kernel
def _squared_error_of_rows(y, t, losses):
    """Half the sum of (y - t)² over each row."""
    N, C = y.shape
    for i in range(N):
        losses[i] = sum_of_squared_differences((at(y, i * C), at(t, i * C)), (), C) / 2


@twin_of(_squared_error_forward)
def squared_error_forward(y: Array, t: Array) -> float:
    losses = np.empty(len(y))
    squared_error_of_rows.twin(y, t, losses)
    return mean_twin(losses)


@twin_of(_squared_error_of_rows)
def squared_error_of_rows(y: Array, t: Array, losses: Array) -> None:
    losses[...] = 0.5 * np.sum((y - t) ** 2, axis=1)


class IdentityWithLoss(OutputWithLoss):
    """Identity output with half the squared error, (x - t)²/2, for regression; its gradient is y - t, too.

    Attributes
    ----------
    loss : float
    y : ndarray
        The predictions: x, as given.
    t : ndarray
        The targets, as given.

    Examples
    --------
    >>> layer = IdentityWithLoss()
    >>> layer.forward([[1.0], [2.0]], [[1.0], [4.0]])
    1.0
    >>> layer.backward()
    array([[ 0.],
           [-1.]])
    """

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        x, t = as_array("x", x), as_array("t", t)
        predictions, targets = self.operands(x, t)
        shares = shares_of(sample_weight, len(predictions))
        loss = mean_loss(squared_error_forward, squared_error_of_rows, (predictions, targets), shares)
        self.y, self.t, self.loss, self._shares = x, t, loss, shares
        return loss


@kernel
def _squared_errors(network_at, count, i0, i1):
    h, d, losses = end_of(network_at, i0, i1)
    t = targets_of(network_at, i0, i1)
    _squared_error_of_rows(h, t, losses)
    difference_of_rows(h, t, 1.0 / count, d)


layer(LayerRecord(IdentityWithLoss, loss=Loss(lambda *_: (_squared_errors, None), number_targets, output="identity")))


# Half the Poisson deviance.


@public_kernel
def _poisson_deviance_forward(x, t, y):
    """y = exp(x); returns the sum of t·log(t) - t·x - t + y over each row, mean over the batch."""
    losses = np.empty(len(x))
    _poisson_deviance_of_rows(x, t, y, losses)
    return mean_of(losses)


@entry_kernel
def _poisson_deviance_of_rows(x, t, y, losses):
    """y = exp(x), with the loss of each row."""
    noinline()
    N, C = x.shape
    for i in range(N):
        losses[i] = 0
        for j in range(C):
            y[i, j] = exp(x[i, j])
            if t[i, j] == 0:
                losses[i] += y[i, j]
            else:
                losses[i] += t[i, j] * (log(t[i, j]) - x[i, j]) - t[i, j] + y[i, j]


@twin_of(_poisson_deviance_forward)
def poisson_deviance_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    poisson_deviance_of_rows.twin(x, t, y, losses)
    return mean_twin(losses)


@twin_of(_poisson_deviance_of_rows)
def poisson_deviance_of_rows(x: Array, t: Array, y: Array, losses: Array) -> None:
    exp_forward.twin(x, y)
    logarithms = np.subtract(np.log(t, out=np.zeros_like(t), where=t != 0), x, out=np.zeros_like(x), where=t != 0)
    np.sum(t * logarithms - t + y, axis=1, out=losses)


class ExpWithLoss(OutputWithLoss):
    """Exponential output with half the Poisson deviance, for regression on counts; its gradient is y - t, too.

    Each input x is the logarithm of an expected count, y = exp(x). The loss of one is t·log(t/y) - t + y, which is
    y for t = 0. The targets are at least 0.

    Attributes
    ----------
    loss : float
    y : ndarray
        exp(x), in the shape of x.
    t : ndarray
        The targets, as given.

    Examples
    --------
    >>> layer = ExpWithLoss()
    >>> round(layer.forward([[0.0], [1.0]], [[1.0], [2.0]]), 4)
    0.0523
    >>> layer.backward().round(4)
    array([[0.    ],
           [0.3591]])
    """

    def targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        """Counts in the shape of the predictions."""
        return counts(super().targets(t, shape))

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        x, t = as_array("x", x), as_array("t", t)
        logarithms, targets = self.operands(x, t)
        y, dtype = np.empty_like(logarithms), quotient_dtype(x, t)
        shares = shares_of(sample_weight, len(logarithms))
        loss = mean_loss(poisson_deviance_forward, poisson_deviance_of_rows, (logarithms, targets, y), shares)
        self.y, self.t, self.loss, self._shares = from_kernel(y, dtype).reshape(x.shape), t, loss, shares
        return loss


@kernel
def _deviances(network_at, count, i0, i1):
    h, d, losses = end_of(network_at, i0, i1)
    t = targets_of(network_at, i0, i1)
    _poisson_deviance_of_rows(h, t, d, losses)
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def _predict_counts(out, N, C, scratch):
    for k in range(N * C):
        store(shift(out, k), exp(load(shift(out, k))))


layer(
    LayerRecord(
        ExpWithLoss, loss=Loss(lambda *_: (_deviances, None), count_targets, output="exp", predict=_predict_counts)
    )
)
