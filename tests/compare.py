"""How tests compare: shape, then dtype, then values, within what the dtype can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE = {np.dtype(np.float16): 2e-3, np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def assert_same(got: Any, expected: Any, dtype: Any = None, magnitude: float = 1.0) -> None:
    """Equal in shape and dtype, and in values relative to the largest magnitude; NaN and inf in the same places.

    `dtype` sets the tolerance where the values went through a narrower type than their own. `magnitude` is that of what
    they were formed of, where sums of both signs may leave less.
    """
    assert type(got) is type(expected)
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    magnitude = max(magnitude, float(finite.max())) if finite.size else magnitude
    tolerance = max(TOLERANCE[np.dtype(dtype or expected.dtype)], TOLERANCE[expected.dtype])
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * magnitude)
