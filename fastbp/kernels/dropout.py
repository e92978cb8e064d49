"""Dropout, and the generator of its masks: a pure function of a seed, a step and the index of an element.

It has no state and no order. Any part of a mask can be made again, by any number of threads, from three numbers.
Arrays are C-contiguous, of one dtype, and flat, (n,); `mask` is True where a value is kept.
"""

from __future__ import annotations

import math

import numpy as np

from fastbp.kernels._jit import kernel
from fastbp.kernels._shared import public_kernel

# The odd number next to 2**64 divided by the golden ratio: consecutive multiples are spread evenly over 64 bits.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@public_kernel
def dropout_forward(x, seed, step, ratio, out, mask):
    """mask[i] = is_kept(seed, step, i, ...); out = x/(1 - ratio) where mask, else 0."""
    zero, scale = x.dtype.type(0), x.dtype.type(1 / (1 - ratio))
    threshold = ratio_threshold(ratio)
    for i in range(x.size):
        mask[i] = is_kept(seed, step, i, threshold)
        out[i] = x[i] * scale if mask[i] else zero


@public_kernel
def dropout_backward(dout, mask, ratio, dx):
    """dx = dout/(1 - ratio) where mask, else 0."""
    zero, scale = dout.dtype.type(0), dout.dtype.type(1 / (1 - ratio))
    for i in range(dout.size):
        dx[i] = dout[i] * scale if mask[i] else zero


@kernel
def is_kept(seed, step, index, ratio_threshold):
    """Whether dropout keeps element `index` at `step`: a random number of 53 bits is at least `ratio_threshold`.

    It is output number `index` of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014) started at a place that is mixed from seed and step. All integers are at least 0.
    """
    start = _mix(_mix(np.uint64(seed) + _GOLDEN) + np.uint64(step) * _GOLDEN)
    return _mix(start + np.uint64(index) * _GOLDEN) >> _11 >= np.uint64(ratio_threshold)


@kernel
def ratio_threshold(ratio):
    """The integer below which 53 random bits lie with probability `ratio`."""
    return np.int64(math.ceil(ratio * 2.0**53))


@kernel
def _mix(z):
    """SplitMix64's bijection of 64 bits: each bit of z changes about half of the result."""
    z = (z ^ (z >> _30)) * _MULTIPLIER_1
    z = (z ^ (z >> _27)) * _MULTIPLIER_2
    return z ^ (z >> _31)
