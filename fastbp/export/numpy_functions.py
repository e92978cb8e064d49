"""The functions that a file of `to_numpy` carries, as they stand here: their source is copied into it.

Each needs NumPy alone. Arrays are batches of float32 or float64, and stay so.
"""

import math

import numpy as np


def lookup(x, W):
    """Rows of W for indices x."""
    if x.size and not 0 <= x.min() <= x.max() < len(W):
        raise ValueError(f"x: expected indices from 0 to {len(W) - 1}, got {x.min()} to {x.max()}")
    return W[x]


def windows_of(x, height, width, stride, pad, border=0.0):
    """The windows of images (N, C, H, W) with a border, as a view (N, C, OH, OW, height, width)."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=border)
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (2, 3))[:, :, ::stride, ::stride]


def convolution(x, W, b, stride, pad):
    """Images (N, C, H, W) with filters W (FN, C, FH, FW), and b for each filter: images (N, FN, OH, OW)."""
    height, width = W.shape[2:]
    out = np.tensordot(windows_of(x, height, width, stride, pad), W, ((1, 4, 5), (1, 2, 3)))
    return out.transpose(0, 3, 1, 2) + b[:, None, None]


def max_pooling(x, height, width, stride, pad):
    """The largest pixel of each window."""
    return windows_of(x, height, width, stride, pad, -np.inf).max((4, 5))


def average_pooling(x, height, width, stride, pad):
    """The mean of each window, in which the border counts as 0."""
    return windows_of(x, height, width, stride, pad).mean((4, 5))


def normalize(x, gamma, beta, mean, std):
    """gamma·(x - mean)/std + beta for each feature, or for each channel of images."""
    gamma, beta, mean, std = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in (gamma, beta, mean, std))
    return gamma * ((x - mean) / std) + beta


def normalize_samples(x, gamma, beta, eps):
    """gamma·(x - mean)/sqrt(var + eps) + beta, with mean and variance over the last axes, which gamma has."""
    axes = tuple(range(-gamma.ndim, 0))
    centered = x - x.mean(axes, keepdims=True)
    return gamma * (centered / np.sqrt((centered * centered).mean(axes, keepdims=True) + eps)) + beta


def softmax(x, axis):
    """exp(x)/sum(exp(x)) along an axis."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def erf(x):
    """The error function of each number."""
    return np.array([math.erf(number) for number in x.ravel().tolist()], x.dtype).reshape(x.shape)
