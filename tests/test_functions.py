"""The book's functions give the book's values."""

import numpy as np
import pytest

from fastbp import functions as f


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
