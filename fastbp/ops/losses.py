"""What losses share, and the binary cross-entropy.

Arrays are C-contiguous and of one dtype, (N, C). A loss is the mean over the batch as a float64, and 0.0 for an empty
batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import (
    FLOAT64,
    Array,
    as_array,
    empty,
    float_dtype,
    from_kernel,
    not_run,
    quotient_dtype,
    result_dtype,
    rows,
    same_shape,
    sample_weights,
    scalar,
    to_kernel,
)
from fastbp.ops.contract import LayerRecord, Loss, Twins, layer, twin_of
from fastbp.ops.state import end_of, targets_of
from fastbp.ops.targets import binary_target, probability_targets
from fastbp.runtime.elementary import exp, log, log1p, logistic, one
from fastbp.runtime.jit import entry_kernel, inlined_kernel, kernel, noinline
from fastbp.runtime.pointers import at, load, shift, store, view
from fastbp.runtime.sharing import public_kernel, shared_kernel
from fastbp.runtime.vectors import sum_in_double

__all__ = ["SigmoidWithLoss"]

# What losses share.


@kernel
def sum_of_losses(values):
    """The sum in float64."""
    # In a kernel of its own: Numba frees a caller's array after its last use, and does not count a pointer to it.
    return sum_in_double((at(values, 0),), (), len(values))


@entry_kernel
def mean_of(losses):
    """Their mean; 0.0 of none."""
    return sum_of_losses(losses) / len(losses) if len(losses) else 0.0


def mean_twin(losses: Array) -> float:
    """The same in NumPy."""
    return float(np.mean(losses)) if len(losses) else 0.0


@shared_kernel
def scaled_difference(y, t, factor, dx):
    """dx = (y - t)·factor."""
    N, C = y.shape
    scale = y.dtype.type(factor)
    for i in range(N):
        if t.ndim == 1:
            at_label = (y[i, t[i]] - y.dtype.type(1)) * scale  # taken first: dx may be y
            for j in range(C):
                dx[i, j] = y[i, j] * scale
            dx[i, t[i]] = at_label
        else:
            for j in range(C):
                dx[i, j] = (y[i, j] - t[i, j]) * scale


difference_of_rows = scaled_difference.kernel


def _squared_error_backward(y: Any, t: Any, dout: float, dy: Any) -> None:
    """dy = (y - t)/N·dout."""
    scaled_difference(y, t, dout / len(y) if len(y) else 0.0, dy)


@twin_of(_squared_error_backward)
def squared_error_backward(y: Array, t: Array, dout: float, dy: Array) -> None:
    np.subtract(y, t, out=dy)
    dy *= dout / len(y) if len(y) else 0.0


def shares_of_mean(weights: Array, total: Array | float) -> Array:
    """The shares of samples in a weighted mean, w/sum(w); 0 if the sum is 0."""
    return np.divide(weights, total, out=np.zeros_like(weights), where=np.greater(total, 0))


def shares_of(sample_weight: ArrayLike | None, N: int) -> Array | None:
    """The share of each sample of a batch in the mean, or None if all are alike."""
    if sample_weight is None:
        return None
    weights = sample_weights(sample_weight, N)
    return shares_of_mean(weights, float(np.sum(weights)))


def mean_loss(
    mean: Twins, of_rows: Twins, operands: tuple[Array, ...], shares: Array | None, scratch: tuple[Array, ...] = ()
) -> float:
    """The mean of the losses of rows, or their sum weighted by `shares`."""
    if shares is None:
        loss: float = mean.of(operands[0].dtype)(*operands)
        return loss
    losses = np.empty(len(operands[0]))
    of_rows.of(operands[0].dtype)(*operands, losses, *scratch)
    return float(np.sum(shares * losses))


def dout_of_sum(dout: float, shares: Array | None) -> float:
    """`dout` for a gradient that `weighted` multiplies by shares: that of a sum over the batch, not of a mean."""
    return dout if shares is None else dout * len(shares)


def weighted(dx: Array, shares: Array | None) -> Array:
    """The gradient of a sum over the batch, each sample multiplied by its share, in place."""
    if shares is not None:
        same_shape("sample_weight", shares, dx.shape[:1], "one for each row of y")
        dx *= shares.astype(dx.dtype)[:, np.newaxis]
    return dx


class LossLayer:
    """A loss at the end of a network: what losses share.

    Attributes
    ----------
    loss : float
        Of the last `forward`.
    t : ndarray
        Its targets.
    """

    def __init__(self) -> None:
        self.loss: float | None = None
        self.t: Array | None = None
        self._shares: Array | None = None

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the loss that the class describes, a sum for each sample, mean over the batch; 0.0 for an empty batch.

        Parameters
        ----------
        x : array_like
            Outputs of a network, (N, C), or one sample (C,); for `SigmoidWithLoss` (N, C), or (N,) for one output for
            each sample.
        t : array_like
            Targets in the shape of x, or the other targets that the class names.
        sample_weight : array_like (N,), optional
            What each sample counts for, at least 0. The mean is then sum(w·loss)/sum(w), and 0.0 where all w are 0.

        Raises
        ------
        TypeError, ValueError
            If an argument is not real numbers in such a shape, or a target is none that the class takes.
        """
        raise NotImplementedError

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dx, the gradient of the loss by x times dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of x, in NumPy's dtype for x - t, for which labels do not count.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        raise NotImplementedError


class RegressionLoss(LossLayer):
    """A loss of predictions that are as many as the targets: what such losses share."""

    def targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        """The targets in the shape of the predictions."""
        same_shape("t", t, shape, "as the predictions")
        return t

    def operands(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Predictions and targets as the kernels take them."""
        dtype = quotient_dtype(x, t)
        predictions, targets = rows("x", x), rows("t", self.targets(t, x.shape))
        return to_kernel(predictions, dtype), to_kernel(targets, dtype)


# Binary cross-entropy.


@public_kernel
def _sigmoid_cross_entropy_forward(x, t, y):
    """y = sigmoid(x); returns the sum of max(x, 0) - t·x + log(1 + exp(-|x|)) over each row, mean over the batch.

    max(x, 0) - t·x is |x| times the probability of the wrong side, which does not cancel and has a limit at inf.
    """
    losses = np.empty(len(x))
    _sigmoid_cross_entropy_of_rows(x, t, y, losses)
    return mean_of(losses)


@entry_kernel
def _sigmoid_cross_entropy_of_rows(x, t, y, losses):
    """y = sigmoid(x), with the loss of each row.

    One loop takes the logarithms of all elements: a loop over a row of one element would use no vectors.
    """
    noinline()
    zero, one = x.dtype.type(0), x.dtype.type(1)
    logits, targets, out = at(x, 0), at(t, 0), at(y, 0)  # flat arrays of them would compile 0.5 s longer
    for k in range(x.size):
        logit, target = load(shift(logits, k)), load(shift(targets, k))
        size = abs(logit)
        wrong = one - target if logit > zero else target
        store(shift(out, k), (zero if wrong == zero else wrong * size) + log1p(exp(-size)))
    _sums_of_rows(y, losses)
    for k in range(x.size):
        store(shift(out, k), logistic(load(shift(logits, k))))


@kernel
def _clipped_sigmoid_cross_entropy_of_rows(x, t, y, losses, eps):
    """The same for t of 0 and 1, where probabilities count as from `eps` to 1 - eps."""
    noinline()
    least = x.dtype.type(eps)
    logits, targets, out = at(x, 0), at(t, 0), at(y, 0)
    for k in range(x.size):
        store(shift(out, k), _clipped_loss(load(shift(logits, k)), load(shift(targets, k)), least))
    _sums_of_rows(y, losses)
    for k in range(x.size):
        store(shift(out, k), logistic(load(shift(logits, k))))


@kernel
def _sums_of_rows(x, sums):
    for i in range(len(x)):
        sums[i] = 0
        for j in range(x.shape[1]):
            sums[i] += x[i, j]


@inlined_kernel
def _clipped_loss(x, t, eps):
    """The loss of a logit for t, 0 or 1.

    The probability is rounded as 1/(1 + exp(-x)), and then that of the other class as 1 minus it: where a loss is
    large, these roundings set its fourth digit.
    """
    p = _clipped(one(x) / (one(x) + exp(-x)), eps)
    return -log(p if t == one(x) else one(x) - p)


@inlined_kernel
def _clipped(p, eps):
    """p between eps and 1 - eps, or NaN."""
    most = one(p) - eps
    return eps if p < eps else most if p > most else p


@twin_of(_sigmoid_cross_entropy_forward)
def sigmoid_cross_entropy_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    sigmoid_cross_entropy_of_rows.twin(x, t, y, losses)
    return mean_twin(losses)


@twin_of(_sigmoid_cross_entropy_of_rows)
def sigmoid_cross_entropy_of_rows(x: Array, t: Array, y: Array, losses: Array) -> None:
    e = np.exp(-np.abs(x))
    y[...] = np.where(x >= 0, 1, e) / (1 + e)
    # max(x, 0) - t·x is |x| times the probability of the wrong side, also where x is infinite.
    size, wrong = np.abs(x), np.where(x > 0, 1 - t, t)
    linear = np.multiply(wrong, size, out=np.zeros_like(x), where=wrong != 0)
    np.sum(linear + np.log1p(np.exp(-size)), axis=1, out=losses)


class SigmoidWithLoss(LossLayer):
    """Sigmoid and binary cross-entropy error in one, for classes that do not exclude each other or for two.

    Each logit x is a probability y = 1/(1 + exp(-x)) of its own. The loss of one is
    -t·log(y) - (1 - t)·log(1 - y) = max(x, 0) - t·x + log(1 + exp(-|x|)), exact for logits of any size; its gradient
    is y - t, as for `SoftmaxWithLoss`. The targets are labels 0 and 1 (integers, booleans or floats), or probabilities.

    Attributes
    ----------
    loss : float
    y : ndarray
        sigmoid(x), in the shape of x.
    t : ndarray
        The targets, in the shape and floating dtype of the loss.

    Examples
    --------
    >>> layer = SigmoidWithLoss()
    >>> round(layer.forward([[0.0], [2.0]], [[1.0], [1.0]]), 4)
    0.41
    >>> layer.backward().round(4)
    array([[-0.25  ],
           [-0.0596]])
    """

    def __init__(self) -> None:
        super().__init__()
        self.y: Array | None = None
        self._dtype = FLOAT64

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        x = as_array("x", x)
        if x.ndim not in (1, 2):
            raise ValueError(
                f"x: expected logits (N,) or (N, C), got shape {x.shape}; flatten them with x.reshape(len(x), -1)"
            )
        dtype = float_dtype(result_dtype(x))
        t, wide = binary_target(t, x.shape, dtype)
        logits = to_kernel(x, wide).reshape(_as_columns(x))
        y, targets = empty(logits.shape, wide), t.reshape(logits.shape)
        shares = shares_of(sample_weight, len(logits))
        loss = mean_loss(sigmoid_cross_entropy_forward, sigmoid_cross_entropy_of_rows, (logits, targets, y), shares)
        self.y, self.t, self.loss, self._dtype = from_kernel(y, dtype).reshape(x.shape), t, loss, wide
        self._shares = shares
        return loss

    def backward(self, dout: ArrayLike = 1) -> Array:
        y, t, dtype, shares = self.y, self.t, self._dtype, self._shares
        if y is None or t is None:
            not_run(self)
        y, t = as_array("y", y), as_array("t", t)
        same_shape("t", t, y.shape, "as y")
        shape = _as_columns(y)
        dx = empty(shape, dtype)
        # The derivative of the sigmoid cancels, and leaves what half the squared error of y has.
        factor = dout_of_sum(scalar("dout", dout), shares)
        predictions, targets = to_kernel(y, dtype).reshape(shape), to_kernel(t, dtype).reshape(shape)
        squared_error_backward.of(dtype)(predictions, targets, factor, dx)
        return from_kernel(weighted(dx, shares), dtype).reshape(y.shape)


def _as_columns(x: Array) -> tuple[int, int]:
    """The shape (N, C) of x, with C = 1 for x of shape (N,)."""
    return len(x), x.shape[1] if x.ndim == 2 else 1


@kernel
def _binary_losses(network_at, count, i0, i1):
    h, d, losses = end_of(network_at, i0, i1)
    t = targets_of(network_at, i0, i1)
    _sigmoid_cross_entropy_of_rows(h, t, d, losses)
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def _clipped_binary_losses(network_at, count, i0, i1):
    """The same for clipped probabilities."""
    h, d, losses = end_of(network_at, i0, i1)
    t = targets_of(network_at, i0, i1)
    _clipped_sigmoid_cross_entropy_of_rows(h, t, d, losses, view(network_at).loss_settings[0])
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def _predict_probabilities(out, N, C, scratch):
    for k in range(N * C):
        store(shift(out, k), logistic(load(shift(out, k))))


layer(
    LayerRecord(
        SigmoidWithLoss,
        loss=Loss(
            lambda _, eps: (_clipped_binary_losses if eps else _binary_losses, None),
            probability_targets,
            output="logistic",
            settings=lambda layer, eps: (eps,),  # noqa: ARG005
            predict=_predict_probabilities,
        ),
    )
)
