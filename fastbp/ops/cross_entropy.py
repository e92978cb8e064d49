"""The cross-entropy error, and softmax with it in one, whose gradient is y - t (sections 4.2.2 and 5.6.3)."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numba import carray
from numpy.typing import ArrayLike

from fastbp.checks import (
    FLOAT64,
    Array,
    DType,
    as_array,
    empty,
    float_dtype,
    from_kernel,
    not_run,
    rate,
    result_dtype,
    rows,
    scalar,
    to_kernel,
)
from fastbp.ops.contract import LayerRecord, Loss, layer, twin_of
from fastbp.ops.cross_entropy_in_lanes import losses_in_lanes
from fastbp.ops.losses import (
    LossLayer,
    difference_of_rows,
    dout_of_sum,
    mean_loss,
    mean_of,
    scaled_difference,
    shares_of,
    sum_of_losses,
    weighted,
)
from fastbp.ops.softmax import MOST_CLASSES, TURNED, is_few, softmax_of_rows
from fastbp.ops.state import DELTA, H_OUT, M_OUT, end_of, targets_of
from fastbp.ops.targets import class_targets, kept_target, target
from fastbp.runtime.elementary import log
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.pointers import at, load, local_memory, shift, store, view
from fastbp.runtime.sharing import WORTH_SHARING, public_kernel, shared_kernel
from fastbp.runtime.vectors import cross_entropy_of

__all__ = ["CrossEntropyError", "SoftmaxWithLoss"]


@public_kernel
def _cross_entropy_forward(y, t):
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
    return -sum_of_losses(terms) / N if N else 0.0


@twin_of(_cross_entropy_forward)
def cross_entropy_forward(y: Array, t: Array) -> float:
    return float(np.mean(_cross_entropy_of_rows(np.log(y), t))) if len(y) else 0.0


def _cross_entropy_of_rows(log_y: Array, t: Array) -> Array:
    """-sum(t·log(y)) of each row; where t is 0 a class adds nothing, even if its log(y) is -inf."""
    if t.ndim == 1:
        return np.negative(log_y[np.arange(len(t)), t])
    losses: Array = -np.sum(np.multiply(t, log_y, out=np.zeros_like(log_y), where=t != 0), axis=1)
    return losses


@public_kernel
def _cross_entropy_backward(y, t, dout, dy):
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


@twin_of(_cross_entropy_backward)
def cross_entropy_backward(y: Array, t: Array, dout: float, dy: Array) -> None:
    dy[...] = 0
    if len(y) == 0:
        return
    if t.ndim == 1:
        rows = np.arange(len(y))
        dy[rows, t] = -dout / len(y) / y[rows, t]
    else:
        np.divide(-t * (dout / len(y)), y, out=dy, where=t != 0)


class CrossEntropyError:
    """The cross-entropy error of probabilities, the mean over the batch of -sum(t·log(y)) (section 4.2.2).

    Unlike the book's there is no 1e-7 inside the logarithm: a probability of 0 for the right class is an
    infinite loss. Classes with t = 0 add nothing and get no gradient.

    Attributes
    ----------
    y : ndarray
        The probabilities, as given.
    t : ndarray
        The targets: labels (N,) or distributions (N, C).
    loss : float

    Examples
    --------
    >>> layer = CrossEntropyError()
    >>> round(layer.forward([[0.25, 0.75]], [1]), 4)
    0.2877
    >>> layer.backward().round(4)
    array([[ 0.    , -1.3333]])
    """

    def __init__(self) -> None:
        self.y: Array | None = None
        self.t: Array | None = None
        self.loss: float | None = None
        self._dtype = FLOAT64

    def forward(self, y: ArrayLike, t: ArrayLike) -> float:
        """Return the mean over the batch of -sum(t·log(y)); 0.0 for an empty batch.

        Parameters
        ----------
        y : array_like
            Probabilities, (N, C), or one sample (C,).
        t : array_like
            Integer labels (N,), 0 <= t < C, or a distribution in the shape of y.

        Raises
        ------
        TypeError, ValueError
            If y or t is not such an array.
        """
        y = as_array("y", y)
        samples, dtype = rows("y", y), float_dtype(result_dtype(y))
        t, dtype = target(t, y.shape, dtype)
        loss = cross_entropy_forward.of(dtype)(to_kernel(samples, dtype), t)
        self.y, self.t, self.loss, self._dtype = y, t, loss, dtype
        return cast(float, loss)

    def backward(self, dout: ArrayLike = 1) -> Array:
        """Return dy = -t/y/N·dout.

        Parameters
        ----------
        dout : scalar

        Returns
        -------
        ndarray
            A new array in the shape of y, in NumPy's dtype for t/y: float64 for a float32 y and a one-hot t of
            float64 or int64.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not one number.
        """
        y, t, dtype = self.y, self.t, self._dtype
        if y is None or t is None:
            not_run(self)
        y = as_array("y", y)
        samples = to_kernel(rows("y", y), dtype)
        dy = empty(samples.shape, dtype)
        t, dout = kept_target(t, samples.shape, dtype), scalar("dout", dout)
        cross_entropy_backward.of(dtype)(samples, t, dout, dy)
        return from_kernel(dy, dtype).reshape(y.shape)


layer(LayerRecord(CrossEntropyError))


@entry_kernel
def cross_entropy_of_logits(x, t, y, losses, tops, totals):
    """y = softmax(x), with the loss of each row, its largest x and the logarithm of its sum of exp(x - top)."""
    noinline()
    N, C = x.shape
    softmax_of_rows(x, y, tops, totals)
    for i in range(N):  # a loop of its own, to take vectors of logarithms
        totals[i] = log(totals[i])
    for i in range(N):
        if t.ndim == 1:
            losses[i] = totals[i] - (x[i, t[i]] - tops[i])
        else:
            losses[i] = cross_entropy_of((at(t, i * C), at(x, i * C)), (tops[i], totals[i]), C)


def _softmax_cross_entropy_forward(x: Any, t: Any, y: Any) -> Any:
    """y = softmax(x); returns the mean of -sum(t·log(y)), by the exact log-sum-exp of x."""
    if x.size < WORTH_SHARING:
        return _cross_entropy_of_few(x, t, y)
    losses = np.empty(len(x))
    _cross_entropy_of_many(x, t, y, losses, np.empty(len(x), x.dtype), np.empty(len(x), x.dtype))
    return mean_of(losses)


@public_kernel
def _cross_entropy_of_few(x, t, y):
    losses = np.empty(len(x))
    cross_entropy_of_logits(x, t, y, losses, np.empty(len(x), x.dtype), np.empty(len(x), x.dtype))
    return mean_of(losses)


@shared_kernel
def _cross_entropy_of_many(x, t, y, losses, tops, totals):
    cross_entropy_of_logits(x, t, y, losses, tops, totals)


@twin_of(_softmax_cross_entropy_forward)
def softmax_cross_entropy_forward(x: Array, t: Array, y: Array) -> float:
    losses = np.empty(len(x))
    softmax_cross_entropy_of_rows.twin(x, t, y, losses, np.empty_like(losses), np.empty_like(losses))
    return float(np.mean(losses)) if len(losses) else 0.0


@twin_of(cross_entropy_of_logits)
def softmax_cross_entropy_of_rows(x: Array, t: Array, y: Array, losses: Array, tops: Array, totals: Array) -> None:
    top = np.max(x, axis=1, keepdims=True)
    np.exp(x - top, out=y)
    total = np.sum(y, axis=1, keepdims=True)
    y /= total
    losses[...] = _cross_entropy_of_rows(x - top - np.log(total), t)
    tops[...], totals[...] = top[:, 0], np.log(total)[:, 0]


def _softmax_cross_entropy_backward(y: Any, t: Any, dout: float, dx: Any) -> None:
    """dx = (y - t)/N·dout."""
    scaled_difference(y, t, dout / len(y) if len(y) else 0.0, dx)


@twin_of(_softmax_cross_entropy_backward)
def softmax_cross_entropy_backward(y: Array, t: Array, dout: float, dx: Array) -> None:
    N = len(y)
    if t.ndim == 1:
        dx[...] = y
        dx[np.arange(N), t] -= 1
    else:
        np.subtract(y, t, out=dx)
    dx *= dout / N if N else 0.0


class SoftmaxWithLoss(LossLayer):
    """Softmax and cross-entropy error in one, whose gradient is y - t (section 5.6.3, appendix A).

    The loss is the exact log-sum-exp of the logits x, log(sum(exp(x))) - sum(t·x). Unlike the book's there is no 1e-7
    inside a logarithm, and `backward` multiplies by `dout`. The targets are integer labels (N,), 0 <= t < C, or a
    distribution (one-hot among them) in the shape of x.

    Parameters
    ----------
    label_smoothing : float
        From 0 to 1; may be set at any time. The targets are mixed with the uniform distribution,
        (1 - label_smoothing)·t + label_smoothing/C (Szegedy et al., arXiv:1512.00567).

    Attributes
    ----------
    loss : float
    y : ndarray
        softmax(x), in the shape of x.
    t : ndarray
        The targets: labels (N,) or distributions (N, C); those that are mixed where labels are smoothed.

    Examples
    --------
    >>> layer = SoftmaxWithLoss()
    >>> round(layer.forward([[0.3, 2.9, 4.0]], [2]), 4)
    0.3057
    >>> layer.y.round(4)
    array([[0.0182, 0.2452, 0.7366]])
    >>> layer.backward().round(4)
    array([[ 0.0182,  0.2452, -0.2634]])
    """

    label_smoothing = 0.0

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.smoothing()
        self.y: Array | None = None
        self._dtype = FLOAT64

    def smoothing(self) -> float:
        """`label_smoothing`, checked."""
        return rate("label_smoothing", self.label_smoothing, most=1)

    def forward(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        x = as_array("x", x)
        samples, dtype = rows("x", x), float_dtype(result_dtype(x))
        smoothing = self.smoothing() if self.label_smoothing else 0.0
        given, wide = target(t, x.shape, dtype)
        y = empty(samples.shape, wide)
        t = _smoothed(given, samples.shape[1], y.dtype, smoothing) if smoothing else given
        N, shares = len(samples), shares_of(sample_weight, len(samples))
        scratch = () if shares is None else (empty(N, wide), empty(N, wide))
        operands = to_kernel(samples, wide), t, y
        loss = mean_loss(softmax_cross_entropy_forward, softmax_cross_entropy_of_rows, operands, shares, scratch)
        self.y, self.t, self.loss, self._dtype = from_kernel(y, dtype).reshape(x.shape), t, loss, wide
        self._shares = shares
        return loss

    def backward(self, dout: ArrayLike = 1) -> Array:
        y, t, dtype, shares = self.y, self.t, self._dtype, self._shares
        if y is None or t is None:
            not_run(self)
        y = as_array("y", y)
        samples = to_kernel(rows("y", y), dtype)
        dx = empty(samples.shape, dtype)
        t, dout = kept_target(t, samples.shape, dtype), dout_of_sum(scalar("dout", dout), shares)
        softmax_cross_entropy_backward.of(dtype)(samples, t, dout, dx)
        return from_kernel(weighted(dx, shares), dtype).reshape(y.shape)


def _smoothed(t: Array, C: int, dtype: DType, smoothing: float) -> Any:
    """Targets mixed with the uniform distribution, (N, C)."""
    distributions = np.eye(C, dtype=dtype)[t] if t.ndim == 1 else t
    return distributions * dtype.type(1 - smoothing) + dtype.type(smoothing / C)


@kernel
def _smooth(t, smoothing):
    """The same, in place."""
    C = t.shape[1]
    keep, add = t.dtype.type(1 - smoothing), t.dtype.type(smoothing / C)
    for i in range(len(t)):
        for j in range(C):
            t[i, j] = t[i, j] * keep + add


@kernel
def _of_smoothed_labels(network_at, count, i0, i1):
    network, t = view(network_at), targets_of(network_at, i0, i1)
    t[:] = 0
    for i in range(i1 - i0):
        t[i, network.labels[i0 + i]] = 1
    _mixed(network_at, count, i0, i1)


# Outputs and deltas of the samples that are turned together.
_outputs = local_memory(2 * MOST_CLASSES * TURNED)


@kernel
def _of_labels(network_at, count, i0, i1):
    network = view(network_at)
    C = network.layers[len(network.layers) - 1, M_OUT]
    if network.ends_in_lanes:
        _in_lanes(network_at, count, i0, i1, True)
    elif is_few(C, at(network.workspace, 0)):
        _of_labels_of_few_classes(network_at, count, i0, i1, C)
    else:
        _of_labels_of_many_classes(network_at, count, i0, i1)
    clip, largest = network.loss_settings[0], network.loss_settings[1]
    if clip != 0:  # the loss of a probability of 1 - clip is clip; NaN stays
        for i in range(i0, i1):
            loss = network.sample_losses[i]
            network.sample_losses[i] = clip if loss < clip else largest if loss > largest else loss


@kernel
def _of_labels_of_many_classes(network_at, count, i0, i1):
    network = view(network_at)
    h, d, losses = end_of(network_at, i0, i1)
    labels, tops = network.labels[i0:i1], network.loss_scratch[0, i0:i1]
    cross_entropy_of_logits(h, labels, d, losses, tops, network.loss_scratch[1, i0:i1])
    for i in range(i1 - i0):
        network.sample_hits[i0 + i] = _is_first_largest(h, i, labels[i], tops[i])
    difference_of_rows(d, labels, 1.0 / count, d)


@kernel
def _of_labels_of_few_classes(network_at, count, i0, i1, C):
    """Some rows at a time are turned, so that a vector is one class of several samples.

    200 rows of 2 take 1.4 µs where they take 3.4 as above (float32).
    """
    network = view(network_at)
    layer, workspace = network.layers[len(network.layers) - 1], network.workspace
    x = _outputs(at(workspace, 0))
    d = shift(x, TURNED * C)
    for start in range(i0, i1, TURNED):
        n = min(TURNED, i1 - start)
        rows, deltas = at(workspace, layer[H_OUT] + start * C), at(workspace, layer[DELTA] + start * C)
        for i in range(n):
            for j in range(C):
                store(shift(x, j * n + i), load(shift(rows, i * C + j)))
        losses_in_lanes(network_at, count, x, d, start, n, C, True)
        for i in range(n):
            for j in range(C):
                store(shift(deltas, i * C + j), load(shift(d, j * n + i)))


@kernel
def _in_lanes(network_at, count, i0, i1, has_labels):
    """Losses, hits and deltas where the outputs lie in lanes, (C, n)."""
    network = view(network_at)
    layer, C = network.layers[len(network.layers) - 1], network.layers[len(network.layers) - 1, M_OUT]
    h, d = at(network.workspace, layer[H_OUT] + i0 * C), at(network.workspace, layer[DELTA] + i0 * C)
    losses_in_lanes(network_at, count, h, d, i0, i1 - i0, C, has_labels)


@kernel
def _of_distributions(network_at, count, i0, i1):
    labels, t = view(network_at).labels, targets_of(network_at, i0, i1)
    for i in range(i1 - i0):
        labels[i0 + i] = np.argmax(t[i])
    _mixed(network_at, count, i0, i1)


@kernel
def _mixed(network_at, count, i0, i1):
    """Losses, hits and deltas for distributions, which are smoothed first, and their labels."""
    network = view(network_at)
    h, d, losses = end_of(network_at, i0, i1)
    t, tops, smoothing = targets_of(network_at, i0, i1), network.loss_scratch[0, i0:i1], network.loss_settings[2]
    if smoothing != 0:
        _smooth(t, smoothing)
    if network.ends_in_lanes:
        _in_lanes(network_at, count, i0, i1, False)
        return
    cross_entropy_of_logits(h, t, d, losses, tops, network.loss_scratch[1, i0:i1])
    for i in range(i1 - i0):
        network.sample_hits[i0 + i] = _is_first_largest(h, i, network.labels[i0 + i], tops[i])
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def _is_first_largest(h, i, label, top):
    """Whether np.argmax(h[i]) is `label`: the first of those that equal `top`, the largest, or the first NaN."""
    for j in range(label):
        if h[i, j] == top or np.isnan(h[i, j]):
            return False
    return h[i, label] == top or np.isnan(h[i, label])


@kernel
def _predict(out, N, C, scratch):
    y = carray(out, (N, C))
    softmax_of_rows(y, y, carray(scratch, N), carray(shift(scratch, N), N))


layer(
    LayerRecord(
        SoftmaxWithLoss,
        settings=("label_smoothing",),
        loss=Loss(
            lambda layer, _: (_of_distributions, _of_smoothed_labels if layer.smoothing() else _of_labels),
            class_targets,
            output="softmax",
            settings=lambda layer, eps: (eps, -math.log(eps) if eps else math.inf, layer.smoothing()),
            classifies=True,
            predict=_predict,
            takes_lanes=True,
        ),
    )
)
