"""The numbers printed in "Deep Learning from Scratch", and by its code."""

import copy

import numpy as np
import pytest

from fastbp import TwoLayerNet, gradient_check
from fastbp.book import ch07, ch08
from fastbp.data import load_mnist
from fastbp.layers import AddLayer, MulLayer, ReLU
from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop


def test_buying_apples():
    apple, tax = MulLayer(), MulLayer()
    assert tax.forward(apple.forward(100, 2), 1.1) == pytest.approx(220)
    dprice, dtax = tax.backward(1)
    dapple, dnumber = apple.backward(dprice)
    assert (dapple, dnumber, dtax) == pytest.approx((2.2, 110, 200))


def test_buying_apples_and_oranges():
    apple, orange, both, tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = tax.forward(both.forward(apple.forward(100, 2), orange.forward(150, 3)), 1.1)
    assert price == pytest.approx(715)
    dall, dtax = tax.backward(1)
    dapples, doranges = both.backward(dall)
    dorange, dorange_number = orange.backward(doranges)
    dapple, dapple_number = apple.backward(dapples)
    got = dapple_number, dapple, dorange, dorange_number, dtax
    assert got == pytest.approx((110, 2.2, 3.3, 165, 650))


def test_the_mask_of_relu():
    layer = ReLU()
    layer.forward(np.array([[1.0, -0.5], [-2.0, 3.0]]))
    assert layer.mask.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("optimizer", "x", "y"),
    [
        (SGD(0.95), -0.3503929957523197, 0.0847823165504322),
        (Momentum(0.1), 0.896413858493733, 0.08808560171506971),
        (Nesterov(0.1), 0.6896149016966209, -0.0006799058361171969),
        (AdaGrad(1.5), -0.12016232231416045, 2.486389893984459e-17),
        (RMSprop(0.1), -0.6974203096807907, 1.4834621508315574e-08),
        (Adam(0.3), 0.13600685239498186, 0.31824537553721943),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
@pytest.mark.parametrize("kind", [float, np.array], ids=["float", "array"])
def test_thirty_updates_of_each_optimizer(optimizer, x, y, kind):
    optimizer = copy.deepcopy(optimizer)
    params = {"x": kind(-7.0), "y": kind(2.0)}
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
    assert float(params["x"]) == pytest.approx(x, rel=1e-12)
    assert float(params["y"]) == pytest.approx(y, rel=1e-9, abs=1e-18)


def test_gradient_check_of_the_network_on_three_images(mnist_folder):
    data = load_mnist(mnist_folder)
    network = TwoLayerNet(784, 50, 10, seed=1)
    x, t = data.x_train[:3], np.eye(10)[data.t_train[:3]]
    assert np.abs(network.layers["Affine1"].forward(x)).min() > 1e-4
    report = gradient_check(network, x, t)
    assert report.passed
    limits = {"W1": 1e-12, "b1": 5e-12, "W2": 5e-12, "b2": 5e-10}
    assert {check.name: check.mean < limits[check.name] for check in report.parameters} == dict.fromkeys(limits, True)


@pytest.mark.parametrize(
    ("network", "file", "accuracy"),
    [(ch07.SimpleConvNet, "ch07_params.pkl", 0.96), (ch08.DeepConvNet, "deep_convnet_params.pkl", 0.9797)],
)
def test_the_stored_parameters_hit_as_many_test_images_as_in_the_book(network, file, accuracy, mnist_folder):
    path = mnist_folder.parent / "book" / file
    if not path.exists():
        pytest.skip(f"no {path}, which the book's repository has")
    trained, data = network(), load_mnist(mnist_folder)
    trained.load_params(path)
    assert trained.accuracy(data.x_test.reshape(-1, 1, 28, 28).astype(np.float64), data.t_test) == accuracy
