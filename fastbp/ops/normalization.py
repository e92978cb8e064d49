"""Batch normalization (section 6.3): each feature of a batch, or each channel of its images, to mean 0 and variance 1.

    xn = (x - mean)/sqrt(var + eps);  out = gamma·xn + beta

The mean and the variance are those of the batch in training, and running ones at prediction. Sergey Ioffe and Christian
Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015.

The kernels for samples take rows (N, D), those for images the samples side by side in memory, (C, H, W, N). A sum over
the batch is formed by fixed groups of samples, which are added in their order.
"""

from __future__ import annotations

import numpy as np
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
from fastbp.ops.contract import LayerRecord, layer, twin_of
from fastbp.ops.images import in_kernel_dtype, in_lanes
from fastbp.runtime.groups import groups_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.sharing import public_kernel, shared_kernel

__all__ = ["BatchNormalization"]


@public_kernel
def _feature_statistics(x, mean, var):
    """The mean and the variance of each column of x (N, D), 0 where N is 0."""
    N, D = x.shape
    groups, part, zero = groups_of(N), np.empty_like(mean), x.dtype.type(0)
    mean[:], var[:] = zero, zero
    for group in range(groups):
        part[:] = zero
        for n in range(N * group // groups, N * (group + 1) // groups):
            for d in range(D):
                part[d] += x[n, d]
        for d in range(D):
            mean[d] += part[d]
    scale = x.dtype.type(1 / max(N, 1))
    for d in range(D):
        mean[d] *= scale
    for group in range(groups):
        part[:] = zero
        for n in range(N * group // groups, N * (group + 1) // groups):
            for d in range(D):
                part[d] += (x[n, d] - mean[d]) * (x[n, d] - mean[d])
        for d in range(D):
            var[d] += part[d]
    for d in range(D):
        var[d] *= scale


@twin_of(_feature_statistics)
def feature_statistics(x: Array, mean: Array, var: Array) -> None:
    mean[...] = x.mean(axis=0) if len(x) else 0
    var[...] = np.mean((x - mean) ** 2, axis=0) if len(x) else 0


@public_kernel
def _normalize_features(x, mean, std, gamma, beta, out):
    """out = gamma·(x - mean)/std + beta."""
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            out[n, d] = gamma[d] * ((x[n, d] - mean[d]) / std[d]) + beta[d]


@twin_of(_normalize_features)
def normalize_features(x: Array, mean: Array, std: Array, gamma: Array, beta: Array, out: Array) -> None:
    out[...] = gamma * ((x - mean) / std) + beta


@public_kernel
def _feature_normalization_backward(dout, x, mean, std, gamma, dx, dgamma, dbeta):
    """dbeta = sum of dout, dgamma = sum of dout·xn, dx = gamma/std·(dout - dbeta/N - xn·dgamma/N)."""
    N, D = x.shape
    groups, zero = groups_of(N), x.dtype.type(0)
    part_beta, part_gamma = np.empty_like(dbeta), np.empty_like(dgamma)
    dbeta[:], dgamma[:] = zero, zero
    for group in range(groups):
        part_beta[:], part_gamma[:] = zero, zero
        for n in range(N * group // groups, N * (group + 1) // groups):
            for d in range(D):
                part_beta[d] += dout[n, d]
                part_gamma[d] += dout[n, d] * ((x[n, d] - mean[d]) / std[d])
        for d in range(D):
            dbeta[d] += part_beta[d]
            dgamma[d] += part_gamma[d]
    scale = x.dtype.type(1 / max(N, 1))
    for n in range(N):
        for d in range(D):
            xn = (x[n, d] - mean[d]) / std[d]
            dx[n, d] = gamma[d] / std[d] * (dout[n, d] - dbeta[d] * scale - xn * (dgamma[d] * scale))


@twin_of(_feature_normalization_backward)
def feature_normalization_backward(
    dout: Array, x: Array, mean: Array, std: Array, gamma: Array, dx: Array, dgamma: Array, dbeta: Array
) -> None:
    xn = (x - mean) / std
    dbeta[...] = np.sum(dout, axis=0)
    dgamma[...] = np.sum(dout * xn, axis=0)
    dx[...] = gamma / std * (dout - dbeta / len(x) - xn * (dgamma / len(x))) if len(x) else 0


@shared_kernel
def _channel_statistics(x, mean, var):
    """The mean and the variance of each channel of x (C, H, W, N), 0 where there is no pixel."""
    C, H, W, N = x.shape
    sums, zero, scale = np.empty(N, x.dtype), x.dtype.type(0), x.dtype.type(1 / max(H * W * N, 1))
    for c in range(C):
        sums[:] = zero
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    sums[n] += x[c, y, q, n]
        mean[c] = sum_by_groups(sums) * scale
        sums[:] = zero
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    sums[n] += (x[c, y, q, n] - mean[c]) * (x[c, y, q, n] - mean[c])
        var[c] = sum_by_groups(sums) * scale


@kernel
def sum_by_groups(values):
    """The sum of a number for each sample: each group from its first to its last, then the groups."""
    N, groups, total = values.size, groups_of(values.size), values.dtype.type(0)
    for group in range(groups):
        part = values.dtype.type(0)
        for n in range(N * group // groups, N * (group + 1) // groups):
            part += values[n]
        total += part
    return total


@twin_of(_channel_statistics)
def channel_statistics(x: Array, mean: Array, var: Array) -> None:
    pixels = x.reshape(len(x), -1)
    mean[...] = pixels.mean(axis=1) if pixels.size else 0
    var[...] = np.mean((pixels - mean[:, None]) ** 2, axis=1) if pixels.size else 0


@shared_kernel
def _normalize_channels(x, mean, std, gamma, beta, out):
    """out = gamma·(x - mean)/std + beta, for x (C, H, W, N)."""
    for c in range(len(x)):
        pixels, results = x[c].reshape(-1), out[c].reshape(-1)
        for i in range(pixels.size):
            results[i] = gamma[c] * ((pixels[i] - mean[c]) / std[c]) + beta[c]


@twin_of(_normalize_channels)
def normalize_channels(x: Array, mean: Array, std: Array, gamma: Array, beta: Array, out: Array) -> None:
    mean, std, gamma, beta = (each[:, None, None, None] for each in (mean, std, gamma, beta))
    out[...] = gamma * ((x - mean) / std) + beta


@shared_kernel
def _channel_normalization_backward(dout, x, mean, std, gamma, dx, dgamma, dbeta):
    """As for features, with the sums over all pixels of a channel, for x (C, H, W, N)."""
    C, H, W, N = x.shape
    of_beta, of_gamma = np.empty(N, x.dtype), np.empty(N, x.dtype)
    zero, scale = x.dtype.type(0), x.dtype.type(1 / max(H * W * N, 1))
    for c in range(C):
        of_beta[:], of_gamma[:] = zero, zero
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    of_beta[n] += dout[c, y, q, n]
                    of_gamma[n] += dout[c, y, q, n] * ((x[c, y, q, n] - mean[c]) / std[c])
        dbeta[c], dgamma[c] = sum_by_groups(of_beta), sum_by_groups(of_gamma)
        factor, of_dout, of_xn = gamma[c] / std[c], dbeta[c] * scale, dgamma[c] * scale
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    xn = (x[c, y, q, n] - mean[c]) / std[c]
                    dx[c, y, q, n] = factor * (dout[c, y, q, n] - of_dout - xn * of_xn)


@twin_of(_channel_normalization_backward)
def channel_normalization_backward(
    dout: Array, x: Array, mean: Array, std: Array, gamma: Array, dx: Array, dgamma: Array, dbeta: Array
) -> None:
    shape, count = (-1, 1, 1, 1), x[0].size if len(x) else 0
    xn = (x - mean.reshape(shape)) / std.reshape(shape)
    dbeta[...] = np.sum(dout, axis=(1, 2, 3))
    dgamma[...] = np.sum(dout * xn, axis=(1, 2, 3))
    if count:
        means = dbeta.reshape(shape) / count, dgamma.reshape(shape) / count
        dx[...] = (gamma / std).reshape(shape) * (dout - means[0] - xn * means[1])


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
        statistics, normalize, _ = _KERNELS[x.ndim]
        mean, var = to_kernel(running_mean, dtype), to_kernel(running_var, dtype)
        if train_flg:
            mean, var = np.empty_like(mean), np.empty_like(var)
            statistics.of(dtype)(samples, mean, var)
        std = np.sqrt(var + mean.dtype.type(_EPS))
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
        _KERNELS[len(shape)][2].of(dtype)(samples, *operands, dx, dgamma, dbeta)
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


_EPS = 1e-6  # the book's 10e-7
_ROWS = 2

_KERNELS = {
    _ROWS: (feature_statistics, normalize_features, feature_normalization_backward),
    4: (channel_statistics, normalize_channels, channel_normalization_backward),
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


layer(
    LayerRecord(
        BatchNormalization,
        arrays=("gamma", "beta", "running_mean", "running_var"),
        settings=("momentum",),
        counters=("step",),
        state=("running_mean", "running_var", "step"),
    )
)
