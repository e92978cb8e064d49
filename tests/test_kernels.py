"""Every kernel equals its NumPy twin, for every dtype and size, and writes only where its twin does."""

import inspect
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cases import DTYPES, KERNELS, Draw
from fastbp import kernels, reference
from tests.compare import assert_same

SIZES = [(1, 1, 1), (0, 3, 2), (3, 0, 2), (1, 784, 50), (7, 13, 10), (17, 31, 33), (100, 784, 50)]

BY_NAME = pytest.mark.parametrize("case", KERNELS, ids=lambda case: case.name)
BY_DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def assert_twins_agree(case, draw, dtype):
    arguments = case.arguments(draw)
    ours = [np.copy(a) if isinstance(a, np.ndarray) else a for a in arguments]
    theirs = [np.copy(a) if isinstance(a, np.ndarray) else a for a in arguments]
    got = getattr(kernels, case.kernel)(*ours)
    expected = getattr(reference, case.kernel)(*theirs)
    assert_same(got, expected, dtype)
    for mine, twin in zip(ours, theirs, strict=True):
        assert_same(mine, twin, dtype)


@BY_NAME
@BY_DTYPE
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kernel_equals_its_reference(case, dtype, size):
    assert_twins_agree(case, Draw(dtype, size), dtype)


@BY_NAME
@BY_DTYPE
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 70)),
    seed=st.integers(0, 2**31),
)
def test_kernel_equals_its_reference_at_any_size(case, dtype, size, seed):
    assert_twins_agree(case, Draw(dtype, size, seed), dtype)


@pytest.mark.parametrize("kernel", sorted({case.kernel for case in KERNELS}))
def test_kernel_and_reference_take_the_same_arguments(kernel):
    ours = getattr(kernels, kernel)
    mine = inspect.signature(getattr(ours, "py_func", ours))
    assert list(mine.parameters) == list(inspect.signature(getattr(reference, kernel)).parameters)


def test_every_reference_function_is_a_kernel_with_a_case():
    assert set(dir(reference)) == {case.kernel for case in KERNELS}


@BY_DTYPE
@pytest.mark.parametrize("kernel", ["relu_forward", "sigmoid_forward", "tanh_forward"])
def test_special_values_come_through_as_in_the_reference(kernel, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1000, -1000, 1e-40, 88.8, -103, 709.9, -745], dtype)
    x = np.tile(x, 5)  # long enough for the vector loop as well as its rest
    results = []
    for module in (kernels, reference):
        out = np.empty_like(x)
        mask = [np.empty(x.shape, bool)] if kernel == "relu_forward" else []
        getattr(module, kernel)(x, out, *mask)
        results.append([out, *mask])
    for got, expected in zip(*results, strict=True):
        assert_same(got, expected)


@BY_DTYPE
@pytest.mark.parametrize(
    "row",
    [
        [1000.0, -1000.0, 0.0],
        [-1000.0, -1000.0, -1000.0],
        [np.nan, 1.0, 2.0],
        [np.inf, 1.0, 2.0],
        [-np.inf, 1.0, 2.0],
        [-np.inf, -np.inf, -np.inf],
        [3e38, -3e38, 1.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["label", "distribution"])
def test_softmax_cross_entropy_of_extreme_logits(row, target, dtype):
    x = np.array([row, [1.0, 2.0, 3.0]], dtype)
    t = np.array([1, 2]) if target == "label" else np.array([[0, 1, 0], [0.2, 0.3, 0.5]], dtype)
    results = []
    for module in (kernels, reference):
        y, dx = np.empty_like(x), np.empty_like(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's own, for inf - inf
            loss = module.softmax_cross_entropy_forward(x, t, y)
            module.softmax_cross_entropy_backward(y, t, 1.0, dx)
        results.append((loss, y, dx))
    for got, expected in zip(*results, strict=True):
        assert_same(got, expected, dtype)


@BY_DTYPE
def test_sigmoid_cross_entropy_of_extreme_logits(dtype):
    logits = [1000, -1000, 50, -50, 0, np.inf, -np.inf, np.inf, -np.inf, np.nan, 1e-30]
    targets = [1, 0, 0, 1, 0.3, 1, 0, 0, 1, 0, 0.5]
    losses = [0, 0, 50, 50, np.log(2), 0, 0, np.inf, np.inf, np.nan, np.log(2)]
    for module in (kernels, reference):
        for logit, target, expected in zip(logits, targets, losses, strict=True):
            x, t, y = np.full((3, 2), logit, dtype), np.full((3, 2), target, dtype), np.empty((3, 2), dtype)
            loss = module.sigmoid_cross_entropy_forward(x, t, y)
            np.testing.assert_allclose(loss, 2 * expected, rtol=1e-6)


@BY_DTYPE
def test_a_small_binary_loss_keeps_its_digits(dtype):
    x, t, y = np.array([[30.0], [-30.0]], dtype), np.array([[1.0], [0.0]], dtype), np.empty((2, 1), dtype)
    for module in (kernels, reference):
        loss = module.sigmoid_cross_entropy_forward(x, t, y)
        np.testing.assert_allclose(loss, np.log1p(np.exp(-30)), rtol=1e-6)


def test_a_bad_label_a_bad_distribution_and_a_bad_probability_are_found():
    for module in (kernels, reference):
        assert module.first_bad_probability(np.array([0.0, 1.0, 1.001])) == 2
        assert module.first_bad_probability(np.array([0.5, -1e-9, 2.0])) == 1
        assert module.first_bad_probability(np.array([np.nan, 0.5])) == 0
        assert module.first_bad_label(np.array([0, 9, 10]), 10) == 2
        assert module.first_bad_label(np.array([0, -1, 10]), 10) == 1
        assert module.first_bad_distribution(np.array([[0.5, 0.5], [0.5, 0.6]])) == 1
        assert module.first_bad_distribution(np.array([[1.5, -0.5], [0.5, 0.5]])) == 0
        assert module.first_bad_distribution(np.array([[0.5, 0.5], [np.nan, 0.5]])) == 1
