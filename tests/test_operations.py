"""Every operation on record has what a user may ask of one: twins, a case, a node, a file, an estimator."""

import re

import numpy as np
import pytest

import fastbp
from bench.cases import KERNELS, LAYERS, Draw
from fastbp import Sequential, gradient_check, graph, layers, optimizers, saving
from fastbp.layers import Affine, IdentityWithLoss
from fastbp.ops import contract
from fastbp.ops.contract import ACTIVATIONS, LOSSES, TWINS

BY_ACTIVATION = pytest.mark.parametrize("name", ACTIVATIONS)
BY_LOSS = pytest.mark.parametrize("output", LOSSES)
BY_OPTIMIZER = pytest.mark.parametrize("kind", optimizers.OPTIMIZERS)

# Settings of layers that are no shares between 0 and 1.
SETTINGS = {
    "shape": (3, 1),
    "axis": 0,
    "seed": 7,
    "quantiles": (0.25, 0.5, 0.75),
    "pool_h": 3,
    "pool_w": 4,
    "stride": 3,
    "pad": 2,
    "mode": "average",
}

# Functions with a kink, where a slope is not the limit of differences.
AWAY_FROM_0 = 0.05


def away_from_kinks(rng, *shape):
    x = rng.standard_normal(shape)
    return np.where(np.abs(x) < AWAY_FROM_0, x + 2 * AWAY_FROM_0, x)


def affine(rng, D, M, dtype=np.float64):
    return Affine(rng.standard_normal((D, M)).astype(dtype) / D**0.5, np.zeros(M, dtype))


def test_every_twin_has_a_case():
    assert TWINS.keys() == {case.kernel for case in KERNELS}


def test_every_layer_has_a_case_a_docstring_and_a_public_name():
    assert {kind.__name__ for kind in contract.LAYERS} == {case.name for case in LAYERS}
    for kind in contract.LAYERS:
        assert kind.__doc__
        assert getattr(layers, kind.__name__) is kind
        assert kind.__name__ in layers.__all__


@BY_OPTIMIZER
def test_every_optimizer_has_a_docstring_a_public_name_and_a_name_for_fit(kind):
    assert kind.__doc__
    assert kind.__name__ in optimizers.__all__
    assert type(optimizers.optimizer(kind.__name__)) is kind


@BY_ACTIVATION
def test_the_slope_of_an_activation_is_that_of_differences(name):
    rng = np.random.default_rng(0)
    layer, x, dout = ACTIVATIONS[name].layer(), away_from_kinks(rng, 7, 5), rng.standard_normal((7, 5))
    step = 1e-6
    difference = (layer.forward(x + step) - layer.forward(x - step)) / (2 * step)
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(dout), dout * difference, rtol=1e-6, atol=1e-9)


@BY_ACTIVATION
def test_an_activation_is_a_node_of_a_graph_and_compiles(name):
    record = ACTIVATIONS[name]
    if record.activation.forward is None:
        pytest.skip("a graph needs no node for the identity")
    function, layer = getattr(graph, record.activation.name), record.layer()
    x = away_from_kinks(np.random.default_rng(0), 300)
    out = function(graph.Variable(x, "x"))
    np.testing.assert_allclose(out.data, layer.forward(x), rtol=1e-14)
    value, (gradient,) = graph.compile(lambda x: function(x).sum()).value_and_grad(x)
    np.testing.assert_allclose(value, layer.forward(x).sum(), rtol=1e-13)
    np.testing.assert_allclose(gradient, layer.backward(np.ones_like(x)), rtol=1e-13, atol=1e-300)
    number = graph.Variable(0.7, "x")
    y = function(number)
    y.backward()
    np.testing.assert_allclose(float(y.data), layer.forward([0.7])[0], rtol=1e-14)
    np.testing.assert_allclose(float(number.grad), layer.backward([1.0])[0], rtol=1e-13)


@BY_ACTIVATION
def test_an_activation_is_one_of_the_estimators(name):
    mlp = pytest.importorskip("fastbp.sklearn")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    model = mlp.MLPRegressor(hidden_layer_sizes=(6,), activation=name, max_iter=3, random_state=0, alpha=0.0)
    with pytest.warns(match="hasn't converged"):
        model.fit(X, X[:, 0])
    hidden = ACTIVATIONS[name].layer().forward(X @ model.coefs_[0] + model.intercepts_[0])
    np.testing.assert_allclose(model.predict(X), (hidden @ model.coefs_[1] + model.intercepts_[1])[:, 0], rtol=1e-9)


@pytest.mark.parametrize("kind", list(contract.LAYERS), ids=lambda kind: kind.__name__)
def test_a_layer_is_saved_with_its_settings(kind, tmp_path):
    record = contract.LAYERS[kind]
    made = next(case for case in LAYERS if case.name == kind.__name__).layer(Draw("float64", (7, 3, 2)))
    given = {name: SETTINGS.get(name, 0.375) for name in record.settings}
    layer = kind(**{name: getattr(made, name) for name in record.arrays}, **given)
    stack = [affine(np.random.default_rng(1), 3, 3)]
    network = Sequential(stack, layer) if record.loss else Sequential([*stack, layer], IdentityWithLoss())
    fastbp.save(network, tmp_path / "network")
    loaded = fastbp.load(tmp_path / "network")
    found = loaded.last_layer if record.loss else list(loaded.layers.values())[-1]
    assert type(found) is kind
    for name in (*record.settings, *record.arrays):
        np.testing.assert_array_equal(getattr(found, name), getattr(layer, name))


@BY_LOSS
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_a_loss_is_that_of_differences(output, weighted):
    rng = np.random.default_rng(0)
    network = Sequential([affine(rng, 4, 3)], LOSSES[output].layer())
    x = rng.standard_normal((6, 4))
    t = rng.integers(0, 3, 6) if LOSSES[output].loss.classifies else rng.random((6, 3))
    weights = {"sample_weight": rng.random(6)} if weighted else {}
    gradients, step = network.gradient(x, t, **weights), 1e-6
    for key, value in network.params.items():
        for index in np.ndindex(value.shape):
            before = value[index]
            losses = []
            for changed in (before + step, before - step):
                value[index] = changed
                losses.append(network.loss(x, t, **weights))
            value[index] = before
            np.testing.assert_allclose(
                gradients[key][index], (losses[0] - losses[1]) / (2 * step), rtol=1e-5, atol=1e-8
            )


@BY_LOSS
def test_a_loss_is_a_node_of_a_graph(output):
    record, rng = LOSSES[output], np.random.default_rng(0)
    name = "_".join(re.findall("[A-Z][a-z]*", record.layer.__name__)).lower()
    x, layer = rng.standard_normal((6, 3)), record.layer()
    t = rng.integers(0, 3, 6) if record.loss.classifies else rng.random((6, 3))
    variable = graph.Variable(x, "x")
    loss = getattr(graph, name)(variable, t)
    assert float(loss.data) == layer.forward(x, t)
    loss.backward()
    np.testing.assert_array_equal(variable.grad, layer.backward())


@BY_ACTIVATION
def test_the_gradient_check_passes_through_an_activation(name):
    rng = np.random.default_rng(0)
    first = affine(rng, 4, 6)
    x = next(x for x in rng.standard_normal((1000, 3, 4)) if np.abs(first.forward(x)).min() > 1e-2)
    network = Sequential([first, ACTIVATIONS[name].layer(), affine(rng, 6, 2)], IdentityWithLoss())
    assert gradient_check(network, x, rng.standard_normal((3, 2))).passed


def test_several_quantiles_are_learned_from_one_target_of_each_sample():
    x, t = np.random.default_rng(1).random((2, 20, 4))
    t = t[:, 0]

    def trained(targets):
        network = Sequential([affine(np.random.default_rng(2), 4, 3)], layers.QuantileWithLoss((0.1, 0.5, 0.9)))
        data = {"validation_data": (x, targets)}
        history = network.fit(x, targets, epochs=2, batch_size=8, seed=0, verbose=False, **data)
        return *network.params.values(), history["loss"], history["val_loss"], network.loss(x, targets)

    expected = trained(np.repeat(t[:, np.newaxis], 3, axis=1))
    for targets in (t, t[:, np.newaxis]):
        for one, other in zip(trained(targets), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="quantiles: expected a sequence of numbers, got float"):
        layers.QuantileWithLoss(0.5)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="expected a name that no other record has"):
        contract.registered(ACTIVATIONS, "relu", None)


def test_an_unknown_operation_is_refused_rather_than_taken_for_another():
    with pytest.raises(KeyError):
        ACTIVATIONS["unknown"]
    with pytest.raises(ValueError, match="expected one of"):
        optimizers.optimizer("unknown")

    class Unknown:
        def forward(self, x):
            return 2 * np.asarray(x)

        def backward(self, dout):
            return 2 * np.asarray(dout)

    rng = np.random.default_rng(0)
    network = Sequential([affine(rng, 4, 3), Unknown()], IdentityWithLoss())
    with pytest.warns(match="it knows no Unknown"):
        network.fit(rng.random((8, 4)), rng.random((8, 3)))
    with pytest.raises(TypeError, match="got Unknown"):
        saving.network_contents(network)
