"""Dropout, and the generator of its masks: a pure function of a seed, a step and the index of an element.

It has no state and no order. Any part of a mask can be made again, by any number of threads, from three numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, empty, from_kernel, quotient_dtype, rate, to_kernel, whole_number
from fastbp.ops.contract import HANDS_ON, LayerRecord, Map, layer, twin_of
from fastbp.ops.elementwise import SameShapeLayer
from fastbp.ops.state import D_IN, DELTA, DELTA_BEFORE, H_IN, LANES, LAYOUT, WORD, Z_OUT, activate, apply_slope
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import view
from fastbp.runtime.sharing import public_kernel

__all__ = ["Dropout"]

# The largest seed or step for which a kernel is not compiled a second time.
_LARGEST_SEED = 2**63 - 1

# The odd number next to 2**64 divided by the golden ratio: consecutive multiples are spread evenly over 64 bits.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


@public_kernel
def _dropout_forward(x, seed, step, ratio, out, mask):
    """mask[i] = is_kept(seed, step, i, ...); out = x/(1 - ratio) where mask, else 0."""
    zero, scale = x.dtype.type(0), x.dtype.type(1 / (1 - ratio))
    threshold = ratio_threshold(ratio)
    for i in range(x.size):
        mask[i] = is_kept(seed, step, i, threshold)
        out[i] = x[i] * scale if mask[i] else zero


@public_kernel
def _dropout_backward(dout, mask, ratio, dx):
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


@twin_of(_dropout_forward)
def dropout_forward(x: Array, seed: int, step: int, ratio: float, out: Array, mask: Array) -> None:
    mask[...] = _random_bits(seed, step, x.size) >= np.ceil(ratio * 2.0**53)
    dropout_backward.twin(x, mask, ratio, out)


@twin_of(_dropout_backward)
def dropout_backward(dout: Array, mask: Array, ratio: float, dx: Array) -> None:
    dx[...] = np.where(mask, dout * (1 / (1 - ratio)), 0)


def _random_bits(seed: int, step: int, n: int) -> Array:
    """53 bits for each of n elements: SplitMix64 started at a place that is mixed from seed and step."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    # Arrays of one element, because NumPy warns where a scalar wraps around at 2**64.
    start = _mix_twin(_mix_twin(np.array([seed], np.uint64) + golden) + np.array([step], np.uint64) * golden)
    bits: Array = _mix_twin(start + np.arange(n, dtype=np.uint64) * golden) >> np.uint64(11)
    return bits


def _mix_twin(z: Array) -> Array:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


@kernel
def _forward(network_at, number, part, i0, i1):
    _drop(network_at, number, view(network_at).layers[number, H_IN], view(network_at).layers[number, Z_OUT], i0, i1)
    activate(network_at, number, i0, i1)


@kernel
def _backward(network_at, number, part, i0, i1):
    before = view(network_at).layers[number, DELTA_BEFORE]
    _drop(network_at, number, view(network_at).layers[number, DELTA], before, i0, i1)
    apply_slope(network_at, number - 1, before, i0, i1)


@kernel
def _drop(network_at, number, source, target, i0, i1):
    """Rows i0:i1 of what begins at `source` in the workspace, dropped on the way to `target`."""
    network = view(network_at)
    layer, workspace = network.layers[number], network.workspace
    D, step, scale = layer[D_IN], network.counters[number] - 1, network.scales[number]
    seed, threshold, zero = layer[WORD], layer[WORD + 1], workspace.dtype.type(0)
    if layer[LAYOUT] == LANES:
        S = i1 - i0
        for d in range(D):
            for n in range(S):
                k = i0 * D + d * S + n
                kept = is_kept(seed, step, (i0 + n) * D + d, threshold)
                workspace[target + k] = workspace[source + k] * scale if kept else zero
        return
    for k in range(i0 * D, i1 * D):
        kept = is_kept(seed, step, k, threshold)
        workspace[target + k] = workspace[source + k] * scale if kept else zero


class Dropout(SameShapeLayer):
    """Dropout: in training each element is 0 with probability `dropout_ratio` (section 6.4.3).

    dx is dout/(1 - dropout_ratio) where the last `forward` kept a value, else 0. After a `forward` for prediction it
    is dout.

    It is inverted: what is kept is multiplied by 1/(1 - dropout_ratio) in training, so that nothing is scaled
    afterwards. The book's scales by 1 - dropout_ratio at prediction instead.

    The mask is a pure function of `seed`, `step` and the place of an element in the array in C order. It depends
    on no other layer and not on the number of threads. Layers of one seed drop the same places: give each its own.

    Parameters
    ----------
    dropout_ratio : float
        At least 0 and less than 1.
    seed : int, optional
        From 0 to 2**63 - 1; without it one is drawn from NumPy's global generator, so that `np.random.seed`
        sets it.

    Attributes
    ----------
    dropout_ratio : float
    seed : int
    step : int
        How many times `forward` has run in training. Set it back to have an earlier mask again.
    mask : ndarray of bool
        True where the last `forward` kept a value, in the shape of x.

    Raises
    ------
    TypeError, ValueError
        If dropout_ratio or seed is not such a number.

    Examples
    --------
    >>> layer = Dropout(0.5, seed=1)
    >>> layer.forward(np.ones(8))
    array([0., 0., 0., 2., 2., 0., 0., 2.])
    >>> layer.backward(np.ones(8))
    array([0., 0., 0., 2., 2., 0., 0., 2.])
    >>> layer.forward(np.ones(8), train_flg=False)
    array([1., 1., 1., 1., 1., 1., 1., 1.])
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None) -> None:
        self.dropout_ratio = dropout_ratio
        self.seed = int(np.random.randint(0, _LARGEST_SEED, dtype=np.int64)) if seed is None else seed
        self.step = 0
        self.settings()
        self.mask: Array | None = None
        self._ratio = 0.0

    def forward(self, x: ArrayLike, train_flg: bool = True) -> Array:
        """Return x/(1 - dropout_ratio) where the mask of this step is True, else 0.

        Parameters
        ----------
        x : array_like
            Any shape.
        train_flg : bool
            False for prediction: x is returned, and no step is counted.

        Returns
        -------
        ndarray
            A new array in the shape and dtype of x; float64 for integers.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers, or an attribute was set to what is not allowed.
        """
        ratio, seed, step = self.settings()
        x = as_array("x", x)
        dtype = quotient_dtype(x)
        if train_flg:
            out, mask = empty(x.shape, dtype), np.empty(x.shape, np.bool_)
            samples = to_kernel(x, dtype).reshape(-1)
            dropout_forward.of(dtype)(samples, seed, step, ratio, out.reshape(-1), mask.reshape(-1))
            self.mask, self._ratio, self.step = mask, ratio, step + 1
            return from_kernel(out, dtype)
        self.mask, self._ratio = np.ones(x.shape, np.bool_), 0.0
        return x.astype(dtype, order="C")

    def backward(self, dout: ArrayLike) -> Array:
        ratio = self._ratio
        dout, mask = self.checked(dout, "mask")
        dtype = quotient_dtype(dout)
        dx, dout = empty(dout.shape, dtype), to_kernel(dout, dtype)
        dropout_backward.of(dtype)(dout.reshape(-1), mask.reshape(-1), ratio, dx.reshape(-1))
        return from_kernel(dx, dtype)

    def settings(self) -> tuple[float, int, int]:
        """Ratio, seed and step, checked."""
        remedy = "give a number such as 0"
        return (
            rate("dropout_ratio", self.dropout_ratio, 1),
            whole_number("seed", self.seed, 0, remedy, _LARGEST_SEED),
            whole_number("step", self.step, 0, remedy, _LARGEST_SEED),
        )


def _words(dropout: Any) -> tuple[int, int]:
    ratio, seed, _ = dropout.settings()
    return seed, int(ratio_threshold.py_func(ratio))  # a call would compile it


layer(
    LayerRecord(
        Dropout,
        settings=("dropout_ratio", "seed"),
        counters=("step",),
        state=("step",),
        map=Map(
            _forward,
            _backward,
            predict=HANDS_ON,
            words=_words,
            scale=lambda dropout: 1 / (1 - dropout.settings()[0]),
            counter="step",
        ),
    )
)
