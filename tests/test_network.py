"""Networks: the book's, and any stack of layers."""

import copy
import inspect
import pickle

import numpy as np
import pytest

from fastbp import Sequential, TwoLayerNet, gradient_check, numerical_gradient, use_reference
from fastbp.layers import Affine, Dropout, IdentityWithLoss, ReLU, Sigmoid, SoftmaxWithLoss
from fastbp.optimizers import SGD
from tests.compare import assert_same


class Scale:
    """A layer of the user's own."""

    parameter_names = ("factor",)

    def __init__(self):
        self.factor = np.array([2.0])

    def forward(self, x):
        self.x = x
        return x * self.factor

    def backward(self, dout):
        self.dfactor = np.array([np.sum(dout * self.x)])
        return dout * self.factor


@pytest.fixture
def batch(rng):
    return rng.random((8, 6)), np.array([0, 3, 1, 1, 2, 0, 3, 2])


@pytest.fixture
def deep(rng):
    layers = [Affine(rng.standard_normal((6, 5)), rng.random(5)), Sigmoid(), Scale()]
    layers += [Affine(rng.standard_normal((5, 7)), rng.random(7)), ReLU(), Affine(rng.random((7, 4)), rng.random(4))]
    return Sequential(layers, SoftmaxWithLoss())


def test_two_layer_net_is_the_books(batch):
    x, t = batch
    network = TwoLayerNet(6, 5, 4, seed=0)
    assert list(network.params) == ["W1", "b1", "W2", "b2"]
    assert [value.shape for value in network.params.values()] == [(6, 5), (5,), (5, 4), (4,)]
    assert list(network.layers) == ["Affine1", "Relu1", "Affine2"]
    assert network.lastLayer is network.last_layer
    hidden = np.maximum(x @ network.params["W1"] + network.params["b1"], 0)
    logits = hidden @ network.params["W2"] + network.params["b2"]
    np.testing.assert_allclose(network.predict(x), logits, atol=1e-15)
    assert network.loss(x, t) == pytest.approx(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(8), t]))
    assert network.accuracy(x, t) == np.mean(logits.argmax(1) == t) == network.accuracy(x, np.eye(4)[t])


def test_weights_come_from_the_seed_or_from_numpys_generator():
    assert_same(TwoLayerNet(3, 2, 2, seed=4).params["W1"], TwoLayerNet(3, 2, 2, seed=4).params["W1"])
    np.random.seed(4)
    expected = 0.01 * np.random.standard_normal((3, 2))
    np.random.seed(4)
    assert_same(TwoLayerNet(3, 2, 2).params["W1"], expected)


def test_float32_stays_float32(batch):
    x, t = batch
    network = TwoLayerNet(6, 5, 4, dtype=np.float32, seed=0)
    gradients = network.gradient(x.astype(np.float32), t)
    assert {a.dtype for a in (*network.params.values(), *gradients.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["labels", "one-hot"])
def test_gradient_equals_numerical_gradient(deep, batch, kind):
    x, t = batch
    t = np.eye(4)[t] if kind == "one-hot" else t
    backpropagation, numerical = deep.gradient(x, t), deep.numerical_gradient(x, t)
    assert list(backpropagation) == list(numerical) == ["W1", "b1", "factor2", "W3", "b3", "W4", "b4"]
    for key, value in backpropagation.items():
        np.testing.assert_allclose(value, numerical[key], atol=1e-6)


def test_the_same_network_on_the_reference(deep, batch):
    twin = copy.deepcopy(deep)
    got = deep.gradient(*batch)
    with use_reference():
        expected = twin.gradient(*batch)
    for key in got:
        assert_same(got[key], expected[key])


def test_parameters_are_the_layers_own(batch):
    x, t = batch
    network = TwoLayerNet(6, 5, 4, seed=0)
    W1 = network.params["W1"]
    assert network.layers["Affine1"].W is W1
    before = network.loss(x, t)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= 0.5 * network.gradient(x, t)[key]
    assert network.params["W1"] is W1
    assert network.loss(x, t) < before
    network.params["W1"] = np.zeros((6, 5))
    assert not network.layers["Affine1"].W.any()
    assert "W1: (6, 5) float64" in repr(network.params)


def test_parameters_are_those_of_the_layers_as_they_stand(batch):
    network = TwoLayerNet(6, 5, 4, seed=0)
    new = Affine(np.zeros((5, 4)), np.zeros(4))
    network.layers["Affine2"] = new
    assert network.params["W2"] is new.W
    assert network.gradient(*batch)["b2"] is new.db
    network.layers["Affine3"] = Affine(np.zeros((4, 4)), np.zeros(4))
    assert list(network.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]


def test_layers_are_named_by_class_and_count_or_as_given():
    affine, last = Affine(np.ones((2, 3)), np.ones(3)), Affine(np.ones((3, 1)), np.ones(1))
    assert list(Sequential([affine, ReLU(), last], IdentityWithLoss()).layers) == ["Affine1", "ReLU1", "Affine2"]
    assert list(Sequential({"in": affine, "out": last}, IdentityWithLoss()).layers) == ["in", "out"]


def test_a_first_layer_with_a_backward_of_its_own_keeps_it(batch):
    class Decayed(Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            self.dW = self.dW + 100
            return dx

    x, t = batch
    network = Sequential([Decayed(np.ones((6, 4)), np.zeros(4))], SoftmaxWithLoss())
    assert network.gradient(x, t)["W1"].min() > 90


def test_a_layer_twice_in_a_stack_is_refused():
    relu = ReLU()
    with pytest.raises(ValueError, match="one twice"):
        Sequential([relu, Affine(np.ones((2, 2)), np.ones(2)), relu], IdentityWithLoss())


def test_a_network_for_regression_learns(rng):
    x = rng.uniform(-1, 1, (200, 1))
    hidden = Affine(rng.standard_normal((1, 20)), rng.standard_normal(20))
    network = Sequential([hidden, ReLU(), Affine(0.1 * rng.standard_normal((20, 1)), np.zeros(1))], IdentityWithLoss())
    before, optimizer = network.loss(x, x**2), SGD(0.1)
    for _ in range(300):
        optimizer.update(network.params, network.gradient(x, x**2))
    assert network.loss(x, x**2) < before / 50


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copied_network_trains_on_bitwise_the_same(deep, batch, clone):
    twin = clone(deep)
    assert twin.params["W1"] is twin.layers["Affine1"].W
    for network in (deep, twin):
        for _ in range(5):
            SGD(0.1).update(network.params, network.gradient(*batch))
    for key in deep.params:
        np.testing.assert_array_equal(deep.params[key], twin.params[key])


def test_gradient_check_reports_by_parameter(deep, batch):
    report = gradient_check(deep, *batch, raise_on_failure=True)
    assert report.passed
    assert [check.name for check in report.parameters] == list(deep.params)
    assert str(report).count("\n") == len(deep.params) + 1
    assert "passed" in str(report)


def test_gradient_check_finds_the_worst_entry(deep, batch):
    affine = deep.layers["Affine2"]
    right = type(affine).backward

    def wrong(dout):
        dx = right(affine, dout)
        affine.dW[3, 2] += 0.01
        return dx

    affine.backward = wrong
    report = gradient_check(deep, *batch)
    assert not report.passed
    assert report.worst.name == "W3"
    assert report.worst.worst_index == (3, 2)
    assert report.worst.largest == pytest.approx(0.01, rel=1e-4)
    assert "FAILED" in str(report)
    with pytest.raises(ValueError, match=r"gradient of W3.*at index \(3, 2\)"):
        gradient_check(deep, *batch, raise_on_failure=True)


def test_gradient_check_does_not_pass_on_nan(deep, batch):
    deep.params["W1"][0, 0] = np.nan
    assert not gradient_check(deep, *batch).passed


def test_gradient_check_needs_float64(batch):
    with pytest.raises(TypeError, match=r"params\['W1'\]: expected float64"):
        gradient_check(TwoLayerNet(6, 5, 4, dtype=np.float32, seed=0), *batch)


def test_numerical_gradient_puts_every_element_back(rng):
    x = rng.random((3, 2))
    before = x.copy()
    np.testing.assert_allclose(numerical_gradient(lambda a: np.sum(a**2), x), 2 * x, rtol=1e-9)
    np.testing.assert_array_equal(x, before)

    def fails(a):
        raise OverflowError

    with pytest.raises(OverflowError):
        numerical_gradient(fails, x)
    np.testing.assert_array_equal(x, before)


def test_dropout_drops_in_training_only():
    rng = np.random.default_rng(0)
    network = Sequential([Dropout(0.5, seed=0), Affine(rng.standard_normal((20, 3)), np.zeros(3))], SoftmaxWithLoss())
    x, t = rng.random((4, 20)), np.array([0, 1, 2, 0])
    plain = x @ network.params["W1"]
    np.testing.assert_allclose(network.predict(x), plain)
    assert network.loss(x, t) == network.loss(x, t)
    assert not np.allclose(network.predict(x, train_flg=True), plain)
    network.gradient(x, t)
    assert network.layers["Dropout1"].step == 2


def test_fit_and_save_show_their_arguments_as_methods_of_the_network():
    fit, save = inspect.signature(Sequential.fit), inspect.signature(Sequential.save)
    assert list(fit.parameters)[:5] == ["self", "x", "t", "epochs", "batch_size"]
    assert len(fit.parameters) == 3 + 19
    assert all(parameter.annotation is not parameter.empty for parameter in fit.parameters.values())
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in list(fit.parameters.values())[3:])
    assert list(save.parameters)[1:] == ["path", "optimizer"]
    assert "checkpoint : path, optional" in Sequential.fit.__doc__
