"""What a layer does at a prediction, in steps that every target knows.

A target has a function for each kind of step. A layer that is made of these steps needs no text in any of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from fastbp.checks import Array, DType
from fastbp.export.expressions import Expression
from fastbp.ops.contract import Shape


@dataclass(frozen=True, eq=False)
class Step:
    """Something done to each sample.

    Attributes
    ----------
    shape, out : tuple of int
        Of a sample before and after it.
    """

    shape: Shape
    out: Shape

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """The parameters by name."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                yield each.name, value

    def converted(self, dtype: DType) -> Self:
        """The same with parameters of a dtype, in C order."""
        arrays: dict[str, Any] = {name: np.ascontiguousarray(array, dtype) for name, array in self.arrays()}
        return replace(self, **arrays)


@dataclass(frozen=True, eq=False)
class Reshaped(Step):
    """The same numbers in C order in another shape."""


@dataclass(frozen=True, eq=False)
class Product(Step):
    """x·W + b for a row x; b may be None."""

    W: Array
    b: Array | None


@dataclass(frozen=True, eq=False)
class Lookup(Step):
    """Rows of W for indices."""

    W: Array


@dataclass(frozen=True, eq=False)
class Correlation(Step):
    """An image (C, H, W) with filters W (FN, C, FH, FW), and b for each filter."""

    W: Array
    b: Array
    stride: int
    pad: int


@dataclass(frozen=True, eq=False)
class Pooled(Step):
    """The largest pixel of each window, or its mean, in which the border counts as 0."""

    window: tuple[int, int]
    stride: int
    pad: int
    is_max: bool


@dataclass(frozen=True, eq=False)
class Normalized(Step):
    """gamma·(x - mean)/sqrt(var) + beta, a number of each for an index of the first axis. `var` has the epsilon."""

    gamma: Array
    beta: Array
    mean: Array
    var: Array


@dataclass(frozen=True, eq=False)
class NormalizedOverSample(Step):
    """gamma·(x - mean)/sqrt(var + eps) + beta with the statistics of the last axes, which have the shape of gamma."""

    gamma: Array
    beta: Array
    eps: float


@dataclass(frozen=True, eq=False)
class SoftmaxAlong(Step):
    """exp(x)/sum(exp(x)) along an axis of the sample."""

    axis: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many numbers there are before the axis, along it and after it."""
        return math.prod(self.out[: self.axis]), self.out[self.axis], math.prod(self.out[self.axis + 1 :])


@dataclass(frozen=True, eq=False)
class Elementwise(Step):
    """A function of each number; `name` is that of the activation."""

    name: str
    settings: tuple[float, ...]
    expression: Expression
