"""Losses and their gradients, and the checks of a target's values.

Arrays are C-contiguous and of one dtype: x, y (N, C); t is labels (N,) of intp or a distribution (N, C). A loss
is the mean over the batch as a float64, and 0.0 for an empty batch. A class of probability 0 in t adds nothing
to a loss, even where its logarithm is -inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.kernels._jit import apart, inlined_kernel, kernel
from fastbp.kernels._shared import WORTH_SHARING, public_kernel, shared_kernel
from fastbp.kernels.activations import softmax_of_rows
from fastbp.kernels.elementary import exp, log, log1p, logistic, one
from fastbp.kernels.pointers import at, load, shift, store
from fastbp.kernels.vectors import cross_entropy_of, sum_in_double, sum_of_squared_differences


def softmax_cross_entropy_forward(x: Any, t: Any, y: Any) -> Any:
    """y = softmax(x); returns the mean of -sum(t·log(y)), by the exact log-sum-exp of x."""
    if x.size < WORTH_SHARING:
        return _softmax_cross_entropy(x, t, y)
    losses = np.empty(len(x))
    _softmax_cross_entropy_of_many(x, t, y, losses, np.empty(len(x), x.dtype), np.empty(len(x), x.dtype))
    return _mean(losses)


@public_kernel
def _softmax_cross_entropy(x, t, y):
    losses = np.empty(len(x))
    softmax_cross_entropy_of_rows(x, t, y, losses, np.empty(len(x), x.dtype), np.empty(len(x), x.dtype))
    return _mean(losses)


@kernel
def softmax_cross_entropy_of_rows(x, t, y, losses, tops, totals):
    """y = softmax(x), with the loss of each row, its largest x and the logarithm of its sum of exp(x - top)."""
    apart()
    N, C = x.shape
    softmax_of_rows(x, y, tops, totals)
    for i in range(N):  # a loop of its own, to take vectors of logarithms
        totals[i] = log(totals[i])
    for i in range(N):
        if t.ndim == 1:
            losses[i] = totals[i] - (x[i, t[i]] - tops[i])
        else:
            losses[i] = cross_entropy_of((at(t, i * C), at(x, i * C)), (tops[i], totals[i]), C)


@shared_kernel
def _softmax_cross_entropy_of_many(x, t, y, losses, tops, totals):
    softmax_cross_entropy_of_rows(x, t, y, losses, tops, totals)


@kernel
def _sum(values):
    # In a kernel of its own: Numba frees an array of the caller's after its last use, which a pointer to it is not.
    return sum_in_double((at(values, 0),), (), len(values))


@kernel
def _mean(losses):
    return _sum(losses) / len(losses) if len(losses) else 0.0


def softmax_cross_entropy_backward(y: Any, t: Any, dout: float, dx: Any) -> None:
    """dx = (y - t)/N·dout."""
    _scaled_difference(y, t, dout / len(y) if len(y) else 0.0, dx)


@shared_kernel
def _scaled_difference(y, t, factor, dx):
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


difference_of_rows = _scaled_difference.kernel


@public_kernel
def cross_entropy_forward(y, t):
    """Returns the mean of -sum(t·log(y))."""
    N = len(y)
    terms = np.empty(t.size, y.dtype)
    if t.ndim == 1:
        for i in range(N):
            terms[i] = y[i, t[i]]
        for i in range(N):  # a loop of its own, to take vectors of logarithms
            terms[i] = log(terms[i])
    else:
        targets, outputs, zero = at(t, 0), at(y, 0), y.dtype.type(0)
        for k in range(t.size):
            target = load(shift(targets, k))
            term = target * log(load(shift(outputs, k)))
            terms[k] = zero if target == zero else term
    return -_sum(terms) / N if N else 0.0


@public_kernel
def cross_entropy_backward(y, t, dout, dy):
    """dy = -t/y/N·dout, and 0 where t is 0."""
    N, C = y.shape
    zero = y.dtype.type(0)
    scale = y.dtype.type(-dout / N) if N else zero
    for i in range(N):
        if t.ndim == 1:
            for j in range(C):
                dy[i, j] = zero
            dy[i, t[i]] = scale / y[i, t[i]]
        else:
            for j in range(C):
                dy[i, j] = zero if t[i, j] == 0 else scale * t[i, j] / y[i, j]


@public_kernel
def sigmoid_cross_entropy_forward(x, t, y):
    """y = sigmoid(x); returns the sum of max(x, 0) - t·x + log(1 + exp(-|x|)) over each row, mean over the batch.

    max(x, 0) - t·x is |x| times the probability of the wrong side, which does not cancel and has a limit at inf.
    """
    losses = np.empty(len(x))
    sigmoid_cross_entropy_of_rows(x, t, y, losses)
    return _mean(losses)


@kernel
def sigmoid_cross_entropy_of_rows(x, t, y, losses):
    """y = sigmoid(x), with the loss of each row.

    Elements go through the logarithms all together, as a loop over a row of one would take no vectors.
    """
    apart()
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
def clipped_sigmoid_cross_entropy_of_rows(x, t, y, losses, eps):
    """The same for t of 0 and 1, where probabilities count as from `eps` to 1 - eps."""
    apart()
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


@public_kernel
def poisson_deviance_forward(x, t, y):
    """y = exp(x); returns the sum of t·log(t) - t·x - t + y over each row, mean over the batch."""
    losses = np.empty(len(x))
    poisson_deviance_of_rows(x, t, y, losses)
    return _mean(losses)


@kernel
def poisson_deviance_of_rows(x, t, y, losses):
    """y = exp(x), with the loss of each row."""
    apart()
    N, C = x.shape
    for i in range(N):
        losses[i] = 0
        for j in range(C):
            y[i, j] = exp(x[i, j])
            if t[i, j] == 0:
                losses[i] += y[i, j]
            else:
                losses[i] += t[i, j] * (log(t[i, j]) - x[i, j]) - t[i, j] + y[i, j]


@public_kernel
def squared_error_forward(y, t):
    """Returns half the sum of (y - t)² over each row, mean over the batch."""
    losses = np.empty(len(y))
    squared_error_of_rows(y, t, losses)
    return _mean(losses)


@kernel
def squared_error_of_rows(y, t, losses):
    """Half the sum of (y - t)² over each row."""
    N, C = y.shape
    for i in range(N):
        losses[i] = sum_of_squared_differences((at(y, i * C), at(t, i * C)), (), C) / 2


def squared_error_backward(y: Any, t: Any, dout: float, dy: Any) -> None:
    """dy = (y - t)/N·dout."""
    _scaled_difference(y, t, dout / len(y) if len(y) else 0.0, dy)


@public_kernel
def first_bad_label(t, C):
    """Index of the first label outside 0 <= t < C, or -1."""
    for i in range(t.size):
        if t[i] < 0 or t[i] >= C:
            return i
    return -1


@public_kernel
def first_bad_distribution(t):
    """Index of the first row that is negative somewhere or does not sum to 1 within 1e-3, or -1."""
    N, C = t.shape
    values, is_negative = at(t, 0), False
    for k in range(t.size):
        is_negative |= load(shift(values, k)) < 0
    for i in range(N):
        total = sum_in_double((at(t, i * C),), (), C)
        if not abs(total - 1) <= 1e-3 or (is_negative and t[i].min() < 0):
            return i
    return -1


@public_kernel
def first_bad_probability(t):
    """Index of the first element of flat t that is not in 0 <= t <= 1, or -1."""
    for i in range(t.size):
        if not 0 <= t[i] <= 1:
            return i
    return -1
