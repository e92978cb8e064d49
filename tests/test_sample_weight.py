"""Weights of samples: in the loss layers, in `fit` on the engine and layer by layer, and in what a run reports."""

import copy
import warnings

import numpy as np
import pytest

from fastbp import Sequential, TwoLayerNet, num_threads, numerical_gradient, use_reference
from fastbp.layers import Affine, Identity, IdentityWithLoss, ReLU, SigmoidWithLoss, SoftmaxWithLoss
from fastbp.optimizers import SGD, Adam

LOSSES = [SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss]
BY_LOSS = pytest.mark.parametrize("loss", LOSSES)
DISTRIBUTIONS = "softmax of distributions"


def target(loss, samples, C=4, seed=2):
    rng = np.random.default_rng(seed)
    if loss is DISTRIBUTIONS:
        return rng.dirichlet(np.ones(C), samples)
    return rng.integers(0, C, samples) if loss is SoftmaxWithLoss else rng.random((samples, C))


def weights(samples, seed=3):
    rng = np.random.default_rng(seed)
    return 3 * rng.random(samples) * (rng.random(samples) < 0.8)


def network(loss=SoftmaxWithLoss, dtype=np.float64, layer=ReLU):
    rng = np.random.default_rng(1)

    def affine(D, M):
        return Affine((rng.standard_normal((D, M)) / D**0.5).astype(dtype), np.zeros(M, dtype))

    loss = SoftmaxWithLoss if loss is DISTRIBUTIONS else loss
    return Sequential([affine(6, 9), layer(), affine(9, 4)], loss())


def samples(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 6))


def assert_same_parameters(ours, theirs, tolerance=0.0):
    for key, value in ours.params.items():
        np.testing.assert_allclose(value, theirs.params[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("on_reference", [False, True], ids=["kernels", "reference"])
@BY_LOSS
def test_a_weighted_loss_is_the_mean_by_weights_of_the_losses_of_single_samples(loss, on_reference, dtype):
    x, t, w = samples(7)[:, :4].astype(dtype), target(loss, 7), weights(7)
    t = t if loss is SoftmaxWithLoss else t.astype(dtype)
    layer, alone = loss(), loss()
    losses, gradients = [], []
    for i in range(7):
        losses.append(alone.forward(x[i : i + 1], t[i : i + 1]))
        gradients.append(alone.backward(2.0)[0])
    with use_reference() if on_reference else warnings.catch_warnings():
        got, dx = layer.forward(x, t, w), layer.backward(2.0)
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    assert type(got) is float
    assert got == layer.loss == pytest.approx(np.average(losses, weights=w), rel=tolerance)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, np.array(gradients) * (w / w.sum())[:, np.newaxis], rtol=0, atol=tolerance)


@BY_LOSS
def test_the_gradient_of_a_weighted_loss_is_its_derivative(loss):
    net, x, t, w = network(loss), samples(5), target(loss, 5), weights(5)
    gradients = net.gradient(x, t, sample_weight=w)
    for key, value in net.params.items():
        expected = numerical_gradient(lambda _: net.loss(x, t, sample_weight=w), value)
        np.testing.assert_allclose(gradients[key], expected, atol=1e-8)


@BY_LOSS
def test_equal_weights_are_none_and_a_loss_without_weights_forgets_them(loss):
    x, t = samples(5)[:, :4], target(loss, 5)
    layer, plain = loss(), loss()
    plain.forward(x, t)
    assert layer.forward(x, t, np.full(5, 0.3)) == pytest.approx(plain.loss, rel=1e-14)
    np.testing.assert_allclose(layer.backward(), plain.backward(), rtol=1e-14)
    layer.forward(x, t)
    assert layer.loss == plain.loss
    np.testing.assert_array_equal(layer.backward(), plain.backward())


@BY_LOSS
def test_a_batch_of_zeros_has_no_loss_and_no_gradient(loss):
    layer = loss()
    assert layer.forward(samples(3)[:, :4], target(loss, 3), [0, 0, 0]) == 0.0
    np.testing.assert_array_equal(layer.backward(), np.zeros((3, 4)))


@BY_LOSS
@pytest.mark.parametrize("size", [1e-320, 1e300], ids=str)
def test_very_small_and_very_large_weights_count_alike(loss, size):
    x, t = samples(4)[:, :4], target(loss, 4)
    layer, plain = loss(), loss()
    assert layer.forward(x, t, np.full(4, size)) == pytest.approx(plain.forward(x, t), rel=1e-3)
    np.testing.assert_allclose(layer.backward(), plain.backward(), rtol=1e-3)


def test_one_sample_may_have_a_weight():
    layer = SoftmaxWithLoss()
    assert layer.forward([1.0, 2.0], 1, [0.5]) == SoftmaxWithLoss().forward([1.0, 2.0], 1)


BAD = [
    ([1.0] * 9, ValueError, r"sample_weight: expected shape \(10,\), one for each sample, got \(9,\)"),
    ([[1.0]] * 10, ValueError, r"sample_weight: expected shape \(10,\), one for each sample, got \(10, 1\)"),
    ([1.0] * 8 + [-2.0, 1.0], ValueError, r"sample_weight: expected finite numbers .* got -2\.0 at index 8"),
    ([1.0] * 9 + [np.nan], ValueError, "sample_weight: expected finite numbers .* got nan at index 9"),
    ([np.inf] + [1.0] * 9, ValueError, "sample_weight: expected finite numbers .* got inf at index 0"),
    ([1e308] * 10, ValueError, "sample_weight: expected a finite sum, got inf"),
    (["a"] * 10, TypeError, "sample_weight: expected real numbers"),
]


@pytest.mark.parametrize(("bad", "error", "match"), BAD)
@BY_LOSS
def test_bad_weights_are_named_and_change_nothing(loss, bad, error, match):
    net, x, t = network(loss), samples(10), target(loss, 10)
    before = net.loss(x, t)
    with pytest.raises(error, match=match):
        net.gradient(x, t, sample_weight=bad)
    with pytest.raises(error, match=match):
        net.fit(x, t, sample_weight=bad)
    assert net.last_layer.loss == before
    assert_same_parameters(net, network(loss))


def test_a_fit_needs_a_weight_above_zero():
    with pytest.raises(ValueError, match="sample_weight: expected a weight above 0, got 10 zeros"):
        network().fit(samples(10), target(SoftmaxWithLoss, 10), sample_weight=np.zeros(10))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [*LOSSES, DISTRIBUTIONS])
def test_the_engine_gives_what_a_loop_of_gradients_and_updates_gives(loss, dtype):
    x, t, w = samples(110).astype(dtype), target(loss, 110), weights(110)
    fitted, looped, plain = (network(loss, dtype) for _ in range(3))
    history = fitted.fit(
        x, t, epochs=10, batch_size=25, optimizer=Adam(0.01), seed=0, sample_weight=w, record_steps=True
    )
    rng, optimizer, losses, totals = np.random.default_rng(0), Adam(0.01), [], []
    for _ in range(10):
        order = rng.permutation(110)
        for batch in np.split(order, range(25, 110, 25)):
            optimizer.update(looped.params, looped.gradient(x[batch], t[batch], sample_weight=w[batch]))
            losses.append(looped.last_layer.loss)
            totals.append(w[batch].sum())
    tolerance = 1e-12 if dtype is np.float64 else 1e-4
    assert_same_parameters(fitted, looped, tolerance)
    np.testing.assert_allclose(history.steps, losses, rtol=tolerance)
    expected = [np.average(losses[i : i + 5], weights=totals[i : i + 5]) for i in range(0, 50, 5)]
    np.testing.assert_allclose(history["loss"], expected, rtol=tolerance)
    plain.fit(x, t, epochs=10, batch_size=25, optimizer=Adam(0.01), seed=0)
    assert np.abs(plain.params["W1"] - fitted.params["W1"]).max() > 1e-3


class Doubled(ReLU):
    """A layer that the engine does not know."""


@pytest.mark.filterwarnings("ignore:fit. this network")
@BY_LOSS
def test_layer_by_layer_a_run_comes_to_the_same(loss):
    x, t, w = samples(110), target(loss, 110), weights(110)
    ours, theirs = network(loss), network(loss, layer=Doubled)
    arguments = {"epochs": 5, "batch_size": 25, "optimizer": SGD(0.1), "seed": 0, "sample_weight": w}
    history, other = ours.fit(x, t, **arguments), theirs.fit(x, t, **arguments)
    assert_same_parameters(ours, theirs, 1e-13)
    assert history.columns == other.columns
    for column in set(history.columns) - {"seconds"}:
        np.testing.assert_allclose(history[column], other[column], rtol=1e-12)


def test_a_whole_weight_is_as_if_the_sample_came_so_often():
    x, t, w = samples(30), target(SoftmaxWithLoss, 30), np.random.default_rng(0).integers(0, 4, 30)
    weighted, repeated = network(), network()
    history = weighted.fit(x, t, epochs=5, batch_size=1000, optimizer=SGD(0.5), seed=0, sample_weight=w)
    expected = repeated.fit(x.repeat(w, 0), t.repeat(w), epochs=5, batch_size=1000, optimizer=SGD(0.5), seed=0)
    assert_same_parameters(weighted, repeated, 1e-14)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-13)
    np.testing.assert_allclose(history["accuracy"], expected["accuracy"], rtol=1e-13)


@pytest.mark.parametrize("layer", [ReLU, Doubled], ids=["engine", "layer by layer"])
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_batch_in_which_nothing_counts_changes_nothing(layer):
    x, t = samples(50), target(SoftmaxWithLoss, 50)
    order = np.random.default_rng(0).permutation(50)
    w = np.ones(50)
    w[order[:25]] = 0
    fitted, expected = network(layer=layer), network(layer=layer)
    seen = []

    def on_steps(progress):
        seen.append((progress.loss, copy.deepcopy(dict(progress.network.params))))

    history = fitted.fit(
        x, t, batch_size=25, optimizer=SGD(0.1), seed=0, sample_weight=w, record_steps=True, on_steps=on_steps
    )
    assert seen[0][0] == history.steps[0] == 0.0
    for key, value in expected.params.items():
        np.testing.assert_array_equal(seen[0][1][key], value)
    SGD(0.1).update(expected.params, expected.gradient(x[order[25:]], t[order[25:]]))
    assert_same_parameters(fitted, expected, 1e-15)
    assert history["loss"][0] == pytest.approx(expected.last_layer.loss, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit(dtype):
    rng = np.random.default_rng(0)
    x, t, w = rng.random((300, 784)).astype(dtype), rng.integers(0, 10, 300), rng.random(300)
    networks = [TwoLayerNet(784, 50, 10, dtype=dtype, seed=0) for _ in range(4)]
    for n, net in zip((1, 2, 3, 7), networks, strict=True):
        with num_threads(n):
            net.fit(x, t, epochs=3, batch_size=101, optimizer="adam", seed=0, sample_weight=w)
    for other in networks[1:]:
        assert_same_parameters(networks[0], other)


def test_accuracies_are_weighted_and_those_of_validation_data_where_it_has_weights():
    x, t, w = samples(60), target(SoftmaxWithLoss, 60), weights(60)
    net = network()
    before = net.accuracy(x, t, sample_weight=w)
    assert before == pytest.approx(np.average(np.argmax(net.predict(x), axis=1) == t, weights=w), rel=1e-14)
    history = net.fit(x, t, batch_size=60, sample_weight=w, validation_data=(x[:30], t[:30], w[:30]))
    assert history["accuracy"][0] == pytest.approx(before, rel=1e-14)
    assert history["val_loss"][0] == net.loss(x[:30], t[:30], sample_weight=w[:30])
    assert history["val_accuracy"][0] == net.accuracy(x[:30], t[:30], sample_weight=w[:30])


class Plain(SoftmaxWithLoss):
    """A loss that knows no weights."""

    def forward(self, x, t):
        return super().forward(x, t)


class OwnGradient(TwoLayerNet):
    """A network whose gradient knows no weights."""

    def gradient(self, x, t):
        return super().gradient(x, t)


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_loss_or_network_that_knows_no_weights_is_named_and_works_without():
    x, t = samples(10), target(SoftmaxWithLoss, 10)
    plain = Sequential([Affine(np.zeros((6, 4)), np.zeros(4)), Identity()], Plain())
    for net, name in ((plain, "last_layer.forward"), (OwnGradient(6, 5, 4, seed=0), "gradient")):
        with pytest.raises(TypeError, match=f"sample_weight: expected a network and a loss .* whose {name} does not"):
            net.fit(x, t, sample_weight=np.ones(10))
        assert len(net.fit(x, t)) == 1
