"""Batch normalization (section 6.3): each feature of a batch, or each channel of its images, to mean 0 and variance 1.

    xn = (x - mean)/sqrt(var + eps);  out = gamma·xn + beta

The mean and the variance are those of the batch in training, and running ones at prediction. Sergey Ioffe and Christian
Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015.

The kernels are in `fastbp.ops.batch_statistics`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import ArrayLike

from fastbp.checks import (
    Array,
    DType,
    as_array,
    empty,
    from_kernel,
    not_run,
    parameter,
    rate,
    result_dtype,
    same_shape,
    to_kernel,
)
from fastbp.ops.batch_statistics import (
    channel_normalization_input,
    channel_normalization_sums,
    channel_statistics,
    feature_normalization_input,
    feature_normalization_sums,
    feature_statistics,
    normalize_channels,
    normalize_features,
)
from fastbp.ops.contract import LayerRecord, Map, Shape, batch_of, layer
from fastbp.ops.images import in_kernel_dtype, in_lanes
from fastbp.ops.prediction import MEAN_AT, VAR_AT, activate_in_place, row_at
from fastbp.ops.state import (
    B_AT,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    H_IN,
    IN_C,
    IN_H,
    IN_W,
    LANES,
    LAYOUT,
    RUNNING_AT,
    W_AT,
    Z_OUT,
    activate,
    add_slices,
    apply_slope,
    rows_of,
    slice_at,
    sums_of,
    update_by_sums,
)
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.groups import group_of, groups_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import at, located, shift, view

__all__ = ["BatchNormalization"]


class BatchNormalization:
    """Batch normalization (section 6.3): gamma·(x - mean)/sqrt(var + 1e-6) + beta.

    In training the mean and the variance (that of the N samples, not the estimate by N - 1) are those of the batch:
    of each feature of (N, D), of each channel of images (N, C, H, W) over samples and pixels. At prediction they are
    the running ones.

    Parameters
    ----------
    gamma, beta : ndarray (D,), or (C,) for images
        Kept as given, not copied.
    momentum : float
        From 0 to less than 1. Each batch makes the running statistics momentum·running + (1 - momentum)·batch.
    running_mean, running_var : ndarray of the same shape, optional
        Where those of prediction begin.

    Attributes
    ----------
    gamma, beta : ndarray
        The very arrays given.
    running_mean, running_var : ndarray
        Replaced by new arrays at each `forward` in training. Without a beginning the first batch sets them; before it
        they are 0 and 1.
    step : int
        How many batches made the running statistics; where they were given, one more.
    dgamma, dbeta : ndarray
        Gradients by `gamma` and `beta`, new arrays at each `backward`.

    Raises
    ------
    TypeError, ValueError
        If the arrays are not real numbers of one such shape, or momentum is not such a number.

    Notes
    -----
    The book's class treats each of the C·H·W numbers of an image as a feature, and its running statistics begin at 0,
    so that predictions after few steps are far off.

    Examples
    --------
    >>> layer = BatchNormalization(np.ones(1), np.zeros(1))
    >>> layer.forward([[0.0], [2.0]]).round(3)
    array([[-1.],
           [ 1.]])
    """

    parameter_names = ("gamma", "beta")

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
    ) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        is_given = running_mean is not None or running_var is not None
        size = np.shape(gamma)
        self.running_mean = np.zeros(size, _dtype_of(gamma)) if running_mean is None else running_mean
        self.running_var = np.ones(size, _dtype_of(gamma)) if running_var is None else running_var
        self.step = int(is_given)
        self._parameters()
        self.dgamma: Array | None = None
        self.dbeta: Array | None = None
        self._forward: tuple[Array, Array, Array, Array, tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """Return gamma·(x - mean)/sqrt(var + 1e-6) + beta.

        Parameters
        ----------
        x : array_like (N, D) or (N, C, H, W)
        train_flg : bool
            False for prediction, by the running statistics, which stay as they are.

        Returns
        -------
        ndarray
            A new array in the shape of x. The samples of images lie side by side in its memory.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        gamma, beta, running_mean, running_var = self._parameters()
        x = as_array("x", x)
        self._check(x, gamma)
        dtype = _float(result_dtype(x, gamma, beta))
        samples, scaled = _arranged(x, dtype), (to_kernel(each, dtype) for each in (gamma, beta))
        statistics, normalize, _, _ = _KERNELS[x.ndim]
        mean, var = to_kernel(running_mean, dtype), to_kernel(running_var, dtype)
        if train_flg:
            mean, var = np.empty_like(mean), np.empty_like(var)
            statistics.of(dtype)(samples, mean, var)
        std = np.sqrt(var + mean.dtype.type(EPS))
        out = empty(samples.shape, samples.dtype)
        normalize.of(dtype)(samples, mean, std, *scaled, out)
        # Views, whose shapes stay if somebody sets that of x or gamma.
        self._forward = samples.view(), mean.view(), std, gamma.view(), x.shape
        self._is_training = train_flg
        if train_flg and x.size:
            self._move(mean, var)
        return from_kernel(_restored(out, x.ndim), dtype)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx, and set dgamma = sum(dout·xn) and dbeta = sum(dout).

        dx = gamma/std·(dout - dbeta/N - xn·dgamma/N) goes through the mean and the variance of the batch as well. After
        a `forward` for prediction, whose statistics are constants, it is gamma/std·dout.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            dx, a new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        if self._forward is None:
            not_run(self)
        x, mean, std, gamma, shape = self._forward
        dout = as_array("dout", dout)
        same_shape("dout", dout, shape, "as the input")
        dtype = _float(result_dtype(dout, x, gamma))
        samples = _arranged(dout, dtype)
        operands = [to_kernel(each, dtype) for each in (x, mean, std, gamma)]
        dx, dgamma, dbeta = (empty(each.shape, each.dtype) for each in (samples, operands[1], operands[1]))
        _, _, sums, by_input = _KERNELS[len(shape)]
        sums.of(dtype)(samples, *operands[:3], dgamma, dbeta)
        by_input.of(dtype)(samples, *operands, dgamma, dbeta, x.size // max(len(mean), 1), dx)
        if not self._is_training:
            factor = operands[3] / operands[2]
            dx = samples * (factor if len(shape) == _ROWS else factor[:, None, None, None])
        self.dgamma, self.dbeta = from_kernel(dgamma, dtype), from_kernel(dbeta, dtype)
        return from_kernel(_restored(dx, len(shape)), dtype)

    def _move(self, mean: Array, var: Array) -> None:
        """Let a batch into the running statistics."""
        old = rate("momentum", self.momentum, 1) if self.step else 0.0
        for name, new in (("running_mean", mean), ("running_var", var)):
            running = getattr(self, name)
            setattr(self, name, (old * running + (1 - old) * new).astype(_float(running.dtype)))
        self.step += 1

    def _parameters(self) -> tuple[Array, Array, Array, Array]:
        rate("momentum", self.momentum, 1)
        gamma = parameter("gamma", self.gamma, 1)
        others = [parameter(name, getattr(self, name), 1) for name in ("beta", "running_mean", "running_var")]
        for name, array in zip(("beta", "running_mean", "running_var"), others, strict=True):
            same_shape(name, array, gamma.shape, "as gamma")
        return gamma, others[0], others[1], others[2]

    def _check(self, x: Array, gamma: Array) -> None:
        if x.ndim not in _KERNELS or x.shape[1] != len(gamma):
            raise ValueError(
                f"x: expected (N, {len(gamma)}) or images (N, {len(gamma)}, H, W), as gamma has {len(gamma)} numbers, "
                f"got shape {x.shape}; reshape x, or make gamma and beta for it"
            )


EPS = 1e-6  # the book's 10e-7
_ROWS = 2

_KERNELS = {
    _ROWS: (feature_statistics, normalize_features, feature_normalization_sums, feature_normalization_input),
    4: (channel_statistics, normalize_channels, channel_normalization_sums, channel_normalization_input),
}


def _dtype_of(gamma: object) -> DType:
    dtype = gamma.dtype if isinstance(gamma, np.ndarray) else np.dtype(float)
    return dtype if dtype.kind == "f" else np.dtype(float)


def _float(dtype: DType) -> DType:
    return dtype if dtype.kind == "f" else np.dtype(float)


def _arranged(x: Array, dtype: DType) -> Array:
    """Samples (N, D), or images (C, H, W, N), as the kernels take them."""
    return to_kernel(x if x.ndim == _ROWS else in_lanes(in_kernel_dtype(x, dtype)), dtype)


def _restored(arranged: Array, ndim: int) -> Array:
    return arranged if ndim == _ROWS else arranged.transpose(3, 0, 1, 2)


_feature_statistics, _normalize_features, _feature_normalization_sums, _feature_normalization_input = (
    twins.kernel.kernel for twins in _KERNELS[_ROWS]
)
_channel_statistics, _normalize_channels, _channel_normalization_sums, _channel_normalization_input = (
    twins.kernel.kernel for twins in _KERNELS[4]
)

# In training by the engine. The sums of a slice are dgamma and dbeta of the slice, and its mean and variance. Then come
# mean and standard deviation of the batch, and dgamma and dbeta of the batch, which each slice finds for itself.
_OF_SLICE, _OF_BATCH, _GRADIENTS, _SUMS = 2, 4, 6, 8


@kernel
def _pair(network_at, number, part, place):
    """Two of the sums of a slice, from number `place` on, for each channel."""
    C = view(network_at).layers[number, IN_C]
    first = shift(sums_of(network_at, number, part), place * C)
    return carray(first, C), carray(shift(first, C), C)


@kernel
def _vector(values, begin, like):
    """As many values from `begin` on as there are in `like`."""
    return carray(at(values, begin), len(like))


@kernel
def _images(network_at, number, begin, i0, i1):
    """Samples in lanes of what begins at `begin` in the workspace."""
    layer = view(network_at).layers[number]
    return slice_at(network_at, begin, layer[IN_C], layer[IN_H], layer[IN_W], i0, i1)


@kernel
def _rows(network_at, number, begin, i0, i1):
    network = view(network_at)
    return rows_of(network.workspace, begin, network.layers[number, D_IN], i0, i1)


@kernel
def _statistics_of_slice(network_at, number, part, i0, i1):
    layer, (mean, var) = view(network_at).layers[number], _pair(network_at, number, part, _OF_SLICE)
    if layer[LAYOUT] == LANES:
        _channel_statistics(_images(network_at, number, layer[H_IN], i0, i1), mean, var)
    else:
        _feature_statistics(_rows(network_at, number, layer[H_IN], i0, i1), mean, var)


@kernel
def _statistics_of_batch(network_at, number, mean, var):
    """The mean and the variance of the batch from those of its slices.

    The variance is the mean of the slices' variances and of the squared distances of their means from that of the
    batch: Tony F. Chan, Gene H. Golub and Randall J. LeVeque, "Algorithms for Computing the Sample Variance", 1983.
    """
    N = view(network_at).batch[0]
    slices, zero = groups_of(N), mean.dtype.type(0)
    mean[:], var[:] = zero, zero
    for part in range(slices):
        n0, n1 = group_of(N, part)
        share = mean.dtype.type((n1 - n0) / N)
        means, _ = _pair(network_at, number, part, _OF_SLICE)
        for c in range(len(mean)):
            mean[c] += share * means[c]
    for part in range(slices):
        n0, n1 = group_of(N, part)
        share = mean.dtype.type((n1 - n0) / N)
        means, variances = _pair(network_at, number, part, _OF_SLICE)
        for c in range(len(mean)):
            distance = means[c] - mean[c]
            var[c] += share * (variances[c] + distance * distance)


@kernel
def _forward(network_at, number, part, i0, i1):
    network = view(network_at)
    layer, (mean, std) = network.layers[number], _pair(network_at, number, part, _OF_BATCH)
    gamma, beta = _vector(network.params, layer[W_AT], mean), _vector(network.params, layer[B_AT], mean)
    _statistics_of_batch(network_at, number, mean, std)
    for c in range(len(std)):
        std[c] = np.sqrt(std[c] + std.dtype.type(EPS))
    if layer[LAYOUT] == LANES:
        x = _images(network_at, number, layer[H_IN], i0, i1)
        out = _images(network_at, number, layer[Z_OUT], i0, i1)
        _normalize_channels(x, mean, std, gamma, beta, out)
    else:
        x = _rows(network_at, number, layer[H_IN], i0, i1)
        out = _rows(network_at, number, layer[Z_OUT], i0, i1)
        _normalize_features(x, mean, std, gamma, beta, out)
    activate(network_at, number, i0, i1)


@kernel
def _sums(network_at, number, part, i0, i1):
    layer, (mean, std) = view(network_at).layers[number], _pair(network_at, number, part, _OF_BATCH)
    dgamma, dbeta = _pair(network_at, number, part, 0)
    if layer[LAYOUT] == LANES:
        dout = _images(network_at, number, layer[DELTA], i0, i1)
        x = _images(network_at, number, layer[H_IN], i0, i1)
        _channel_normalization_sums(dout, x, mean, std, dgamma, dbeta)
    else:
        dout = _rows(network_at, number, layer[DELTA], i0, i1)
        x = _rows(network_at, number, layer[H_IN], i0, i1)
        _feature_normalization_sums(dout, x, mean, std, dgamma, dbeta)


@kernel
def _backward(network_at, number, part, i0, i1):
    network = view(network_at)
    layer, (mean, std) = network.layers[number], _pair(network_at, number, part, _OF_BATCH)
    gamma, (dgamma, dbeta) = _vector(network.params, layer[W_AT], mean), _pair(network_at, number, part, _GRADIENTS)
    slices, count = groups_of(network.batch[0]), network.batch[0] * layer[IN_H] * layer[IN_W]
    add_slices(network_at, number, slices, 0, 2 * len(mean), at(dgamma, 0))
    if layer[LAYOUT] == LANES:
        dout = _images(network_at, number, layer[DELTA], i0, i1)
        x = _images(network_at, number, layer[H_IN], i0, i1)
        dx = _images(network_at, number, layer[DELTA_BEFORE], i0, i1)
        _channel_normalization_input(dout, x, mean, std, gamma, dgamma, dbeta, count, dx)
    else:
        dout = _rows(network_at, number, layer[DELTA], i0, i1)
        x = _rows(network_at, number, layer[H_IN], i0, i1)
        dx = _rows(network_at, number, layer[DELTA_BEFORE], i0, i1)
        _feature_normalization_input(dout, x, mean, std, gamma, dgamma, dbeta, count, dx)
    apply_slope(network_at, number - 1, layer[DELTA_BEFORE], i0, i1)


@kernel
def _gradient(network_at, number, part, parts, N, coefficients):
    """The update of gamma and beta; whoever has their first element lets the batch into the running statistics."""
    network = view(network_at)
    layer, (mean, var) = network.layers[number], _pair(network_at, number, 0, _OF_BATCH)
    update_by_sums(network_at, number, part, parts, N, coefficients)
    if boundary(len(mean), ROW_GRAIN, part, parts) > 0 or boundary(len(mean), ROW_GRAIN, part + 1, parts) == 0:
        return
    _statistics_of_batch(network_at, number, mean, var)
    one = mean.dtype.type(1)
    old = network.scales[number] if network.counters[number] > 1 else mean.dtype.type(0)
    running_mean = _vector(network.running, layer[RUNNING_AT], mean)
    running_var = _vector(network.running, layer[RUNNING_AT] + len(mean), mean)
    for c in range(len(mean)):
        running_mean[c] = old * running_mean[c] + (one - old) * mean[c]
        running_var[c] = old * running_var[c] + (one - old) * var[c]


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    """By the running statistics."""
    layer, C = row_at(layer_at), row_at(layer_at)[IN_C]
    gamma, beta = carray(located(h, layer[W_AT]), C), carray(located(h, layer[B_AT]), C)
    mean, var = carray(located(h, layer[MEAN_AT]), C), carray(located(h, layer[VAR_AT]), C)
    std = carray(scratch, C)
    for c in range(C):
        std[c] = np.sqrt(var[c] + var.dtype.type(EPS))
    if layer[LAYOUT] == LANES:
        shape = C, layer[IN_H], layer[IN_W], N
        _normalize_channels(carray(h, shape), mean, std, gamma, beta, carray(out, shape))
    else:
        _normalize_features(carray(h, (N, C)), mean, std, gamma, beta, carray(out, (N, C)))
    activate_in_place(layer, out, N)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    gamma, _, _, _ = layer._parameters()
    if len(shape) not in (1, 3) or shape[0] != len(gamma):
        raise ValueError(
            f"{whose} (N, {len(gamma)}) or images (N, {len(gamma)}, H, W), as gamma has {len(gamma)} numbers, "
            f"got {batch_of(shape)}; reshape them, or make gamma and beta for them"
        )
    return shape


layer(
    LayerRecord(
        BatchNormalization,
        arrays=("gamma", "beta", "running_mean", "running_var"),
        settings=("momentum",),
        counters=("step",),
        state=("running_mean", "running_var", "step"),
        map=Map(
            _forward,
            _backward,
            _gradient,
            _predict,
            sums=_sums,
            statistics=_statistics_of_slice,
            shape=_shape,
            layout=lambda shape: LANES if len(shape) == 3 else None,
            scale=lambda layer: rate("momentum", layer.momentum, 1),
            sums_size=lambda layer, _: _SUMS * len(layer.gamma),
            counter="step",
            running=("running_mean", "running_var"),
        ),
    )
)
