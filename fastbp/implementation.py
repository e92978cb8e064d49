"""Which implementation computes: the compiled kernels, or their NumPy twins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from fastbp import kernels, reference

_active: ContextVar[ModuleType] = ContextVar("fastbp_implementation", default=kernels)


@contextmanager
def use_reference() -> Iterator[None]:
    """Run layers, functions, losses and optimizers on plain NumPy in the body of a `with` statement.

    The numbers are the same up to rounding. It holds for the current thread (or task) only.

    Examples
    --------
    >>> with fastbp.use_reference():
    ...     loss = network.loss(x, t)
    """
    token = _active.set(reference)
    try:
        yield
    finally:
        _active.reset(token)


def is_reference() -> bool:
    """Whether `use_reference` is in force."""
    return _active.get() is reference


def implementation(dtype: np.dtype[Any]) -> ModuleType:
    """The module whose functions compute on arrays of `dtype`.

    Kernels are for floating point. Integers and booleans that stay so (ReLU or an affine layer with integer
    weights) are left to NumPy, which is exact on them.
    """
    return _active.get() if dtype.kind == "f" else reference
