"""The kernels of batch normalization: statistics of a batch, and what they make of it.

The kernels for samples take rows (N, D), those for images the samples side by side in memory, (C, H, W, N). A sum over
the batch is formed by fixed groups of samples, which are added in their order.
"""

from __future__ import annotations

import numpy as np

from fastbp.checks import Array
from fastbp.ops.contract import twin_of
from fastbp.runtime.groups import group_of, groups_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.sharing import public_kernel, shared_kernel


@public_kernel
def _feature_statistics(x, mean, var):
    """The mean and the variance of each column of x (N, D), 0 where N is 0."""
    N, D = x.shape
    groups, part, zero = groups_of(N), np.empty_like(mean), x.dtype.type(0)
    mean[:], var[:] = zero, zero
    for group in range(groups):
        part[:] = zero
        for n in range(*group_of(N, group)):
            for d in range(D):
                part[d] += x[n, d]
        for d in range(D):
            mean[d] += part[d]
    scale = x.dtype.type(1 / max(N, 1))
    for d in range(D):
        mean[d] *= scale
    for group in range(groups):
        part[:] = zero
        for n in range(*group_of(N, group)):
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
def _feature_normalization_sums(dout, x, mean, std, dgamma, dbeta):
    """dbeta = sum of dout, dgamma = sum of dout·xn over the batch."""
    N, D = x.shape
    groups, zero = groups_of(N), x.dtype.type(0)
    part_beta, part_gamma = np.empty_like(dbeta), np.empty_like(dgamma)
    dbeta[:], dgamma[:] = zero, zero
    for group in range(groups):
        part_beta[:], part_gamma[:] = zero, zero
        for n in range(*group_of(N, group)):
            for d in range(D):
                part_beta[d] += dout[n, d]
                part_gamma[d] += dout[n, d] * ((x[n, d] - mean[d]) / std[d])
        for d in range(D):
            dbeta[d] += part_beta[d]
            dgamma[d] += part_gamma[d]


@twin_of(_feature_normalization_sums)
def feature_normalization_sums(dout: Array, x: Array, mean: Array, std: Array, dgamma: Array, dbeta: Array) -> None:
    dbeta[...] = np.sum(dout, axis=0)
    dgamma[...] = np.sum(dout * ((x - mean) / std), axis=0)


@public_kernel
def _feature_normalization_input(dout, x, mean, std, gamma, dgamma, dbeta, count, dx):
    """dx = gamma/std·(dout - dbeta/count - xn·dgamma/count)."""
    N, D = x.shape
    scale = x.dtype.type(1 / max(count, 1))
    for n in range(N):
        for d in range(D):
            xn = (x[n, d] - mean[d]) / std[d]
            dx[n, d] = gamma[d] / std[d] * (dout[n, d] - dbeta[d] * scale - xn * (dgamma[d] * scale))


@twin_of(_feature_normalization_input)
def feature_normalization_input(
    dout: Array, x: Array, mean: Array, std: Array, gamma: Array, dgamma: Array, dbeta: Array, count: int, dx: Array
) -> None:
    count = max(count, 1)
    dx[...] = gamma / std * (dout - dbeta / count - (x - mean) / std * (dgamma / count))


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
        for n in range(*group_of(N, group)):
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
def _channel_normalization_sums(dout, x, mean, std, dgamma, dbeta):
    """As for features, with the sums over all pixels of a channel, for x (C, H, W, N)."""
    C, H, W, N = x.shape
    of_beta, of_gamma, zero = np.empty(N, x.dtype), np.empty(N, x.dtype), x.dtype.type(0)
    for c in range(C):
        of_beta[:], of_gamma[:] = zero, zero
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    of_beta[n] += dout[c, y, q, n]
                    of_gamma[n] += dout[c, y, q, n] * ((x[c, y, q, n] - mean[c]) / std[c])
        dbeta[c], dgamma[c] = sum_by_groups(of_beta), sum_by_groups(of_gamma)


@twin_of(_channel_normalization_sums)
def channel_normalization_sums(dout: Array, x: Array, mean: Array, std: Array, dgamma: Array, dbeta: Array) -> None:
    shape = (-1, 1, 1, 1)
    dbeta[...] = np.sum(dout, axis=(1, 2, 3))
    dgamma[...] = np.sum(dout * ((x - mean.reshape(shape)) / std.reshape(shape)), axis=(1, 2, 3))


@shared_kernel
def _channel_normalization_input(dout, x, mean, std, gamma, dgamma, dbeta, count, dx):
    """As for features; `count` is the number of pixels of a channel in the whole batch."""
    C, H, W, N = x.shape
    scale = x.dtype.type(1 / max(count, 1))
    for c in range(C):
        factor, of_dout, of_xn = gamma[c] / std[c], dbeta[c] * scale, dgamma[c] * scale
        for y in range(H):
            for q in range(W):
                for n in range(N):
                    xn = (x[c, y, q, n] - mean[c]) / std[c]
                    dx[c, y, q, n] = factor * (dout[c, y, q, n] - of_dout - xn * of_xn)


@twin_of(_channel_normalization_input)
def channel_normalization_input(
    dout: Array, x: Array, mean: Array, std: Array, gamma: Array, dgamma: Array, dbeta: Array, count: int, dx: Array
) -> None:
    shape, count = (-1, 1, 1, 1), max(count, 1)
    xn = (x - mean.reshape(shape)) / std.reshape(shape)
    means = dbeta.reshape(shape) / count, dgamma.reshape(shape) / count
    dx[...] = (gamma / std).reshape(shape) * (dout - means[0] - xn * means[1])
