"""The book's functions give the book's values."""

import numpy as np
import pytest

from fastbp import functions as f
from tests.compare import assert_same


def test_activations():
    x = np.array([-1.0, 0.0, 2.0])
    assert f.identity_function(x) is x
    assert f.step_function(x).tolist() == [0, 0, 1]
    assert f.step_function(x).dtype == int
    np.testing.assert_allclose(f.sigmoid(x), [0.26894142, 0.5, 0.88079708], rtol=1e-7)
    np.testing.assert_allclose(f.sigmoid_grad(x), [0.19661193, 0.25, 0.10499359], rtol=1e-6)
    assert f.relu(x).tolist() == [0, 0, 2]
    assert f.relu_grad(x).tolist() == [0, 0, 1]


def test_softmax_of_the_books_examples():
    np.testing.assert_allclose(f.softmax([0.3, 2.9, 4.0]), [0.01821127, 0.24519181, 0.73659691], rtol=1e-6)
    np.testing.assert_allclose(
        f.softmax([1010, 1000, 990]), [9.99954600e-01, 4.53978686e-05, 2.06106005e-09], rtol=1e-6
    )
    np.testing.assert_allclose(f.softmax([[1.0, 1.0], [0.0, np.log(3)]]), [[0.5, 0.5], [0.25, 0.75]])


def test_errors_of_the_books_example():
    t = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    y = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
    assert f.sum_squared_error(y, t) == pytest.approx(0.0975)
    assert f.cross_entropy_error(y, t) == pytest.approx(0.510825457099338, rel=1e-6)
    assert f.cross_entropy_error([y, y], [2, 2]) == pytest.approx(-np.log(0.6))
    assert f.softmax_loss([[0.0, np.log(3)]], [1]) == pytest.approx(-np.log(0.75))
    assert f.sum_squared_error(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0


@pytest.mark.parametrize("number", [0.5, 3, np.float32(-0.5), np.float64(0), np.array(0.5), np.array(2, np.float16)])
def test_a_number_gives_a_number_of_numpys(number):
    e = np.exp(-np.asarray(number))
    relu = np.maximum(0, number)
    for got, expected in [
        (f.sigmoid(number), 1 / (1 + e)),
        (f.sigmoid_grad(number), e / (1 + e) ** 2),
        (f.relu(number), relu),
        (f.relu_grad(number), relu.dtype.type(number > 0)),
        (f.step_function(number), np.int_(number > 0)),
    ]:
        assert isinstance(got, np.generic)
        assert_same(got, expected)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (3, 1, 2, 2), (2, 0, 3), (0,) * 3 + (2,)])
def test_softmax_takes_any_number_of_axes(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    for axis in range(-len(shape), len(shape)):
        if shape[axis] == 0:
            with pytest.raises(ValueError, match=r"x: expected at least one class.*axis \d is the classes"):
                f.softmax(x, axis)
            continue
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        y = f.softmax(x, axis=axis)
        assert_same(y, e / np.sum(e, axis=axis, keepdims=True))
        assert y.flags.c_contiguous
    if shape[-1]:
        assert_same(f.softmax(x), f.softmax(x, axis=-1))
