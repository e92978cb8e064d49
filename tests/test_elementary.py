"""exp, log, log1p, tanh and the logistic function: within 2 units in the last place, with exact tails."""

import math

import numpy as np
import pytest

from fastbp.runtime import elementary
from fastbp.runtime.jit import entry_kernel


@entry_kernel
def exp(x, out):
    for i in range(x.size):
        out[i] = elementary.exp(x[i])


@entry_kernel
def log(x, out):
    for i in range(x.size):
        out[i] = elementary.log(x[i])


@entry_kernel
def tanh(x, out):
    for i in range(x.size):
        out[i] = elementary.tanh(x[i])


@entry_kernel
def logistic(x, out):
    for i in range(x.size):
        out[i] = elementary.logistic(x[i])


@entry_kernel
def log1p(x, out):
    for i in range(x.size):
        out[i] = elementary.log1p(x[i])


@entry_kernel
def expm1(x, out):
    for i in range(x.size):
        out[i] = elementary.expm1(x[i])


@entry_kernel
def erf(x, out):
    for i in range(x.size):
        out[i] = elementary.erf(x[i])


FUNCTIONS = {exp: np.exp, log: np.log, tanh: np.tanh, logistic: lambda x: 1 / (1 + np.exp(-x)), expm1: np.expm1}
BY_FUNCTION = pytest.mark.parametrize(
    ("function", "exact"), FUNCTIONS.items(), ids=[function.__name__ for function in FUNCTIONS]
)
BY_DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def whole_range(dtype):
    """Numbers spread evenly over the interesting interval, and evenly over all bit patterns."""
    rng = np.random.default_rng(0)
    edge = 110 if dtype == np.float32 else 760
    patterns = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), 200_000, dtype=f"u{np.dtype(dtype).itemsize}")
    even = [np.linspace(-edge, edge, 200_001), rng.standard_normal(200_000), np.linspace(0.4, 2.5, 100_001)]
    return np.concatenate([*(part.astype(dtype) for part in even), patterns.view(dtype)])


@BY_FUNCTION
@BY_DTYPE
def test_two_units_in_the_last_place_over_the_whole_range(function, exact, dtype):
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("longdouble is no wider than float64 here, and cannot judge it")
    x = whole_range(dtype)
    out = np.empty_like(x)
    function(x, out)
    with np.errstate(all="ignore"):
        wide = exact(x.astype(np.longdouble))
        rounded = wide.astype(dtype)
        finite = np.isfinite(rounded)
        error = np.abs(out - wide)[finite] / np.spacing(np.abs(rounded[finite]))
    assert error.max() <= 2
    np.testing.assert_array_equal(out[~finite], rounded[~finite])


@BY_DTYPE
def test_erf_is_good_to_four_units_in_the_last_place(dtype):
    x = np.concatenate([np.linspace(-7, 7, 200_001), np.geomspace(np.finfo(dtype).tiny, 1, 20_001)]).astype(dtype)
    out = np.empty_like(x)
    erf(x, out)
    exact = np.array([math.erf(value) for value in x.tolist()])
    assert np.max(np.abs(out - exact) / np.spacing(np.abs(exact.astype(dtype)))) <= 4
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    out = np.empty_like(special)
    erf(special, out)
    np.testing.assert_array_equal(out, [np.nan, 1, -1, 0, 0])
    np.testing.assert_array_equal(np.signbit(out[3:]), [False, True])


@BY_DTYPE
def test_log1p_is_good_to_two_units_in_the_last_place_from_0_to_1(dtype):
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("longdouble is no wider than float64 here, and cannot judge it")
    smallest = float(np.finfo(dtype).smallest_subnormal)
    x = np.concatenate([np.linspace(0, 1, 200_001), np.geomspace(smallest, 1, 200_001)]).astype(dtype)
    out = np.empty_like(x)
    log1p(x, out)
    wide = np.log1p(x.astype(np.longdouble))
    assert np.max(np.abs(out - wide) / np.spacing(wide.astype(dtype))) <= 2


@BY_DTYPE
@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (exp, [0, -0.0, np.inf, -np.inf, np.nan, 1000, -1000], [1, 1, np.inf, 0, np.nan, np.inf, 0]),
        (log, [1, 0, -0.0, -1, np.inf, -np.inf, np.nan], [0, -np.inf, -np.inf, np.nan, np.inf, np.nan, np.nan]),
        (tanh, [0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], [0, -0.0, 1, -1, np.nan, 1, -1]),
        (logistic, [0, -0.0, np.inf, -np.inf, np.nan, 1000, -1000], [0.5, 0.5, 1, 0, np.nan, 1, 0]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_tails_are_exact(function, x, expected, dtype):
    x, expected = np.tile(np.array(x, dtype), 5), np.tile(np.array(expected, dtype), 5)
    out = np.empty_like(x)
    function(x, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out[out == 0]), np.signbit(expected[out == 0]))


@BY_DTYPE
def test_exp_underflows_gradually(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x, out = np.array([np.log(float(smallest)) + 0.1], dtype), np.empty(1, dtype)
    exp(x, out)
    assert out[0] == smallest


@BY_FUNCTION
@BY_DTYPE
def test_a_number_gives_the_same_wherever_it_stands(function, exact, dtype):
    x = np.random.default_rng(1).standard_normal(67).astype(dtype)
    together, alone = np.empty_like(x), np.empty_like(x)
    function(x, together)
    for i in range(x.size):
        function(x[i : i + 1], alone[i : i + 1])
    np.testing.assert_array_equal(together, alone)
