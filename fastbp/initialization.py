"""The layers of a new network, with the numbers that they begin with."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from fastbp.checks import Array, generator, network_dtype
from fastbp.layers import Affine, Convolution, Dropout

__all__ = ["NewLayers"]


class NewLayers:
    """Makes the layers of a network, one after another.

    Weights are normal numbers of a standard deviation, biases are zeros. With a seed it decides on the weights and on
    the masks of dropout. Without one the weights come from NumPy's global generator, as in the book.

    Parameters
    ----------
    dtype : float64 or float32
    seed : int or numpy.random.Generator, optional
    """

    def __init__(self, dtype: DTypeLike, seed: int | np.random.Generator | None) -> None:
        self.dtype = network_dtype(dtype)
        self._rng = None if seed is None else generator(seed)

    def affine(self, D: int, M: int, deviation: float) -> Affine:
        """D inputs, M outputs."""
        return Affine(self._weights((D, M), deviation), np.zeros(M, self.dtype))

    def convolution(self, shape: tuple[int, int, int, int], stride: int, pad: int, deviation: float) -> Convolution:
        """Filters of a shape (FN, C, FH, FW)."""
        return Convolution(self._weights(shape, deviation), np.zeros(shape[0], self.dtype), stride, pad)

    def dropout(self, ratio: float) -> Dropout:
        """Of a ratio."""
        return Dropout(ratio, None if self._rng is None else int(self._rng.integers(0, 2**63 - 1)))

    def _weights(self, shape: tuple[int, ...], deviation: float) -> Array:
        normal = np.random.standard_normal if self._rng is None else self._rng.standard_normal
        W: Array = (deviation * normal(shape)).astype(self.dtype)
        return W
