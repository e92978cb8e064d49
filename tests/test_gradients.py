"""Every backward is the derivative of its forward, by numerical differentiation."""

import numpy as np
import pytest

from bench.cases import LAYERS, Draw
from fastbp import Sequential, gradient_check, numerical_gradient, numerical_gradient_2d
from fastbp.layers import Affine, SigmoidWithLoss, Tanh


def weighted_sum(out, weights):
    return float(np.sum(out * weights))


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_backward_is_the_derivative_of_forward(case):
    draw = Draw("float64", (4, 6, 5))
    layer, inputs = case.layer(draw), case.inputs(draw)
    # Away from ReLU's kink, where the derivative does not exist.
    inputs = [a + 0.01 * np.sign(a) if a.dtype.kind == "f" and case.name == "ReLU" else a for a in inputs]
    if case.name == "Pooling":  # pixels of one window apart, so that no step changes which is the largest
        inputs = [np.argsort(np.argsort(a, axis=None)).reshape(a.shape) * 0.01 for a in inputs]
    is_loss = case.name.endswith(("Loss", "Error"))
    douts = () if is_loss else case.dout(draw)
    weights = douts[0] if douts else 1.0

    layer.forward(*inputs)
    gradients = layer.backward(*douts)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    of_parameters = {name: getattr(layer, f"d{name}") for name in getattr(layer, "parameter_names", ())}

    def objective(_):
        if case.name == "Dropout":
            layer.step = 0  # the same mask at every point
        return weighted_sum(layer.forward(*inputs), weights)

    if case.name == "CrossEntropyError":
        inputs = [0.05 + 0.9 * inputs[0], inputs[1]]
        layer.forward(*inputs)
        gradients = (layer.backward(),)
    for x, dx in zip(inputs, gradients, strict=False):
        if case.name == "Embedding":  # integers have no neighbours
            assert not np.any(dx)
            continue
        np.testing.assert_allclose(dx, numerical_gradient(objective, x), rtol=1e-5, atol=1e-7)
    for name, gradient in of_parameters.items():
        np.testing.assert_allclose(gradient, numerical_gradient(objective, getattr(layer, name)), atol=1e-7)


@pytest.mark.parametrize(
    "t", [[[0, 1], [1, 1], [0, 0]], [[0.2, 1.0], [0.0, 0.7], [0.5, 0.5]]], ids=["labels", "shares"]
)
def test_a_network_with_binary_classes_has_the_gradients_of_numerical_differentiation(t, rng):
    first = Affine(rng.standard_normal((4, 5)), rng.standard_normal(5))
    network = Sequential([first, Tanh(), Affine(rng.standard_normal((5, 2)), np.zeros(2))], SigmoidWithLoss())
    gradient_check(network, rng.standard_normal((3, 4)), t, raise_on_failure=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_of_a_function_at_points_is_that_at_each(dtype, rng):
    points = rng.standard_normal((5, 3)).astype(dtype)
    before = points.copy()

    def f(x):
        assert x.shape == (3,)
        return np.sum(x**2)

    gradients = numerical_gradient_2d(f, points)
    assert gradients.dtype == dtype
    np.testing.assert_array_equal(gradients, [numerical_gradient(f, point) for point in points])
    np.testing.assert_array_equal(numerical_gradient_2d(f, points[0]), gradients[0])
    np.testing.assert_allclose(
        numerical_gradient_2d(f, points.T.copy().T), 2 * points, atol=1e-8 if dtype is np.float64 else 1e-2
    )
    np.testing.assert_array_equal(points, before)
    assert numerical_gradient_2d(f, points[:0]).shape == (0, 3)
    with pytest.raises(TypeError, match="x: expected an array of float64 or float32, got list"):
        numerical_gradient_2d(f, [[1.0, 2.0, 3.0]])
