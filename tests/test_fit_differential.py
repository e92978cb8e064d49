"""`fit`, the loop of gradients and updates, and the reference train any network alike."""

import copy
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastbp import Sequential, num_threads, use_reference
from fastbp.layers import Affine, Dropout, ExpWithLoss, SigmoidWithLoss, SoftmaxWithLoss
from fastbp.ops.contract import ACTIVATIONS, LOSSES
from fastbp.optimizers import OPTIMIZERS, SGD

# Rates are drawn, and some are too large.
pytestmark = pytest.mark.filterwarnings("ignore:fit. expected a loss that falls")

FEATURES = 5
# Relative to the largest number of an array. A method that divides by a root makes rounding larger by 1/eps.
TOLERANCE = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-9}


@st.composite
def stacks(draw):
    """Widths of affine layers, classes of activations, and (ratio, seed) of dropout, in any order and number."""
    affine = st.integers(1, 20)
    activation = st.sampled_from([record.layer for record in ACTIVATIONS.values()])
    dropout = st.tuples(st.floats(0, 0.8), st.integers(0, 2**63 - 1))
    return draw(st.lists(st.one_of(affine, activation, dropout), min_size=1, max_size=7))


@st.composite
def optimizers(draw, dtype):
    """A function that makes an optimizer."""
    rates = st.floats(1e-3, 0.1)
    lr = draw(
        st.one_of(
            rates,
            rates.map(lambda rate: lambda step: rate / (1 + step)),
            st.lists(rates, min_size=3, max_size=4).map(np.array),
        )
    )
    ranges = {"eps": st.floats(1e-2 if dtype == np.float32 else 1e-7, 0.1)}
    kind = draw(st.sampled_from(OPTIMIZERS))
    names = [name for name in kind().setting_names() if name not in ("lr", "weight_decay")]
    more = {name: draw(ranges.get(name, st.floats(0, 0.99))) for name in names}
    decay = draw(st.sampled_from([0.0, 0.1]))
    return lambda: kind(lr, **more, weight_decay=decay)


def targets(rng, kind, samples, outputs, dtype):
    if kind == "labels":
        return rng.integers(0, outputs, samples)
    if kind == "one-hot":
        return np.eye(outputs, dtype=dtype)[rng.integers(0, outputs, samples)]
    if kind == "distributions":
        return rng.dirichlet(np.ones(outputs), samples).astype(dtype)
    if kind is SigmoidWithLoss:
        return rng.integers(0, 2, (samples, outputs)).astype(dtype)
    if kind is ExpWithLoss:
        return rng.poisson(2.0, (samples, outputs)).astype(dtype)
    return rng.standard_normal((samples, outputs)).astype(dtype)


@st.composite
def cases(draw):
    """A function that makes the network, one that makes the optimizer, and the arguments of `fit`."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    stack = draw(stacks())
    losses = [record.layer for record in LOSSES.values() if not record.loss.classifies]
    kind = draw(st.sampled_from(["labels", "one-hot", "distributions", *losses]))
    smoothing = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]))
    batch_size = draw(st.integers(1, 40))
    samples = draw(st.integers(2 * batch_size + 1, 3 * batch_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    outputs = ([FEATURES] + [part for part in stack if isinstance(part, int)])[-1]
    x = rng.standard_normal((samples, FEATURES)).astype(dtype)
    t = targets(rng, kind, samples, outputs, dtype)
    weights = None
    if draw(st.booleans()):
        weights = rng.random(samples) * (rng.random(samples) < 0.8)
        weights[0] = 1.0
    weight_seed = draw(st.integers(0, 2**32))

    def network():
        rng, width, layers = np.random.default_rng(weight_seed), FEATURES, []
        for part in stack:
            if isinstance(part, int):
                W, b = rng.standard_normal((width, part)) / width**0.5, 0.1 * rng.standard_normal(part)
                layers.append(Affine(W.astype(dtype), b.astype(dtype)))
                width = part
            elif isinstance(part, tuple):
                layers.append(Dropout(*part))
            else:
                layers.append(part())
        return Sequential(layers, SoftmaxWithLoss(smoothing) if isinstance(kind, str) else kind())

    return network, draw(optimizers(dtype)), {"x": x, "t": t, "batch_size": batch_size, "sample_weight": weights}


def loop(network, optimizer, x, t, batch_size, sample_weight, seed):
    """Losses of the steps, and the accuracy where there are classes, NaN if rounding may decide a hit; else None."""
    order, losses, hits, counts = np.random.default_rng(seed).permutation(len(x)), [], 0.0, 0.0
    for start in range(0, len(x), batch_size):
        batch = order[start : start + batch_size]
        weights = np.ones(len(batch)) if sample_weight is None else sample_weight[batch]
        given = {} if sample_weight is None else {"sample_weight": weights}
        optimizer.update(network.params, network.gradient(x[batch], t[batch], **given))
        losses.append(network.last_layer.loss)
        if isinstance(network.last_layer, SoftmaxWithLoss):
            labels = t[batch] if t.ndim == 1 else np.argmax(t[batch], axis=1)
            y = network.last_layer.y
            first, second = np.sort(np.pad(y, ((0, 0), (1, 0))), axis=1)[:, :-3:-1].T
            is_clear = np.all(first - second > TOLERANCE[x.dtype])
            hits += np.sum(weights * (np.argmax(y, axis=1) == labels)) if is_clear else np.nan
            counts += np.sum(weights)
    return losses, hits / counts if counts else None


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    largest = np.max(np.abs(expected), initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * largest)


def assert_same(trained, expected, dtype, tolerance):
    (network, optimizer, losses, accuracy), (other, its_optimizer, its_losses, its_accuracy) = trained, expected
    assert optimizer.iter == its_optimizer.iter == 3
    assert_close(np.array(losses), np.array(its_losses), tolerance)
    assert (accuracy is None) == (its_accuracy is None)
    if accuracy is not None and not np.isnan([accuracy, its_accuracy]).any():
        np.testing.assert_allclose(accuracy, its_accuracy, rtol=1e-12)
    for key, value in network.params.items():
        assert_close(value, other.params[key], tolerance)
    for name in optimizer.state_names():
        state, its_state = getattr(optimizer, name), getattr(its_optimizer, name)
        assert (state or {}).keys() == (its_state or {}).keys()
        for key, value in (state or {}).items():
            assert_close(value, its_state[key], tolerance)
    for layer, its_layer in zip(network.layers.values(), other.layers.values(), strict=True):
        assert getattr(layer, "step", None) == getattr(its_layer, "step", None)


def fitted(network, optimizer, arguments):
    history = network.fit(**arguments, optimizer=optimizer, seed=0, record_steps=True)
    return network, optimizer, history.steps, history["accuracy"][0] if "accuracy" in history.columns else None


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(case=cases())
@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_any_network_is_trained_alike_by_fit_by_the_loop_and_by_the_reference(case):
    make_network, make_optimizer, arguments = case
    dtype = arguments["x"].dtype
    looped = [make_network(), make_optimizer()]
    with np.errstate(over="ignore", invalid="ignore"):
        looped += loop(*looped, **arguments, seed=0)
    assume(np.all(np.array(looped[2]) < 1e3))  # where a run diverges, so does the rounding
    assert_same(fitted(make_network(), make_optimizer(), arguments), looped, dtype, TOLERANCE[dtype])
    with use_reference():
        by_reference = [make_network(), make_optimizer()]
        by_reference += loop(*by_reference, **arguments, seed=0)
        assert_same(fitted(make_network(), make_optimizer(), arguments), by_reference, dtype, 0.0)
    assert_same(looped, by_reference, dtype, TOLERANCE[dtype])
    altered = make_network()
    layer = next(iter(altered.layers.values()))
    layer.backward = layer.backward  # the engine leaves a layer with a method of its own to the loop
    assert_same(fitted(altered, make_optimizer(), arguments), looped, dtype, 0.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_samples_without_features_train_the_biases(threads):
    def network():
        rng = np.random.default_rng(0)
        last = Affine(rng.standard_normal((300, 3)), np.zeros(3))
        return Sequential([Affine(np.zeros((0, 300)), np.zeros(300)), last], SoftmaxWithLoss())

    arguments = {"x": np.zeros((2000, 0)), "t": np.arange(2000) % 4 % 3, "batch_size": 1000, "sample_weight": None}
    looped, trained = (network(), SGD(0.1)), network()
    loop(*looped, **arguments, seed=0)
    with num_threads(threads):
        trained.fit(**arguments, optimizer=SGD(0.1), seed=0)
    for key, value in looped[0].params.items():
        assert_close(trained.params[key], value, 1e-12)
    assert np.all(trained.params["b1"] != 0)


@pytest.mark.parametrize("labels", [False, True], ids=["one-hot", "labels"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_accuracy_of_fit_counts_ties_as_the_accuracy_of_the_network_does(dtype, labels):
    network = Sequential([Affine(np.zeros((2, 3), dtype), np.zeros(3, dtype))], SoftmaxWithLoss())
    x, t = np.ones((9, 2), dtype), np.arange(9) % 3
    t = t if labels else np.eye(3, dtype=dtype)[t]
    expected = network.accuracy(x, t)
    assert expected == pytest.approx(1 / 3)
    assert copy.deepcopy(network).fit(x, t, batch_size=9)["accuracy"][0] == expected
    with use_reference():
        assert network.fit(x, t, batch_size=9)["accuracy"][0] == expected


@pytest.mark.parametrize("place", list(itertools.product([0, 1, 2], repeat=2)))
def test_the_accuracy_of_nan_is_that_of_argmax(place):
    logits = np.zeros(3)
    logits[list(place)] = np.nan
    network = Sequential([Affine(np.zeros((1, 3)), logits)], SoftmaxWithLoss())
    x, t = np.ones((3, 1)), np.arange(3)
    expected = network.accuracy(x, t)
    assert network.fit(x, t, batch_size=3, on_nan="ignore")["accuracy"][0] == expected
