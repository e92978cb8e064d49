"""What the engine can do beside what `fit` asks of it: a penalty by step, gradients alone, clipped probabilities."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastbp import Sequential, num_threads
from fastbp.engine.plan import Engine
from fastbp.layers import (
    GELU,
    Affine,
    Dropout,
    IdentityWithLoss,
    MatMul,
    ReLU,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.ops.contract import LAYERS
from fastbp.ops.state import STAGED
from fastbp.ops.updates import Gradients
from fastbp.optimizers import SGD, AdamW

NONE = np.empty(0)


def network(dtype=np.float64, widths=(40, 50, 7), loss=SoftmaxWithLoss):
    rng = np.random.default_rng(0)
    layers = []
    for D, M in itertools.pairwise(widths):
        layers += [Affine(rng.standard_normal((D, M)).astype(dtype) / D**0.5, np.zeros(M, dtype)), ReLU()]
    return Sequential(layers[:-1], loss())


def samples(dtype=np.float64, count=600, features=40, classes=7):
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((count, features)).astype(dtype), rng.integers(0, classes, count)
    return x, labels, np.empty((0, classes), dtype), 1.0


def engine_of(net, optimizer, batch_size=200, features=40, **settings):
    layers, dtype = list(net.layers.values()), net.params["W1"].dtype
    engine = Engine(layers, net.last_layer, optimizer, net.params, dtype, (features,), batch_size, **settings)
    engine.read()
    return engine


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("widths", [(128, 1), (130, 2), (200, 50, 3), (127, 50, 3), (150, 70, 2), (140, 300, 5)])
@pytest.mark.parametrize("batch_size", [1, 12, 13, 37, 200])
def test_samples_that_are_read_where_they_are_train_as_copies_do(widths, batch_size, threads, dtype):
    x, labels, targets, _ = samples(dtype, 2 * batch_size + 5, widths[0], widths[-1])
    order, trained = np.random.default_rng(2).permutation(len(x)), []
    for data in ((x, labels, targets, 1.0), (2 * x, labels, targets, 0.5)):
        with num_threads(threads):
            engine = engine_of(network(dtype, widths), SGD(0.1), batch_size, widths[0])
            losses = np.zeros(3)
            engine.train(data, order, NONE, 0, 3, losses, np.zeros(3), False)
        trained.append([engine.flat.tobytes(), losses.tobytes()])
    assert trained[0] == trained[1]


@settings(deadline=None, max_examples=60)
@given(
    D=st.integers(128, 900), M=st.integers(1, 300), N=st.integers(50, 300), threads=st.integers(2, 4),
    dtype=st.sampled_from([np.float32, np.float64]), has_b=st.booleans(), x_dtype=st.sampled_from([None, np.uint8]),
    activation=st.sampled_from([ReLU, Tanh, None]),
)  # fmt: skip
@example(784, 50, 100, 2, np.float32, True, None, ReLU)
@example(784, 256, 200, 2, np.float32, True, np.uint8, None)
@example(130, 2, 64, 2, np.float64, False, None, ReLU)
def test_a_first_layer_whose_sums_go_from_thread_to_thread_trains_as_on_one(
    D, M, N, threads, dtype, has_b, x_dtype, activation
):
    rng, trained, staged = np.random.default_rng(D + M), [], []
    W, V = rng.standard_normal((D, M)).astype(dtype) / D**0.5, rng.standard_normal((M, 3)).astype(dtype)
    x = rng.integers(0, 256, (2 * N, D)).astype(x_dtype or dtype)
    data = x, rng.integers(0, 3, 2 * N), np.empty((0, 3), dtype), 1 / 255 if x_dtype else 1.0
    order = rng.permutation(2 * N)[: 2 * N - 7]
    for number in (1, threads):
        first = [Affine(W.copy(), np.full(M, 0.1, dtype)) if has_b else MatMul(W.copy())]
        layers = [*first, *([activation()] if activation else []), Affine(V.copy(), np.zeros(3, dtype))]
        with num_threads(number):
            engine = engine_of(Sequential(layers, SoftmaxWithLoss()), SGD(0.01), N, D)
            losses = np.zeros(2)
            engine.train(data, order, NONE, 0, 2, losses, np.zeros(2), False)
        trained.append([engine.flat.tobytes(), losses.tobytes()])
        staged.append(int(engine._network.batch[STAGED]))
    assert trained[0] == trained[1]
    assert not staged[0]
    if (N, D, M) == (100, 784, 50):
        assert staged[1]


@settings(deadline=None, max_examples=60)
@given(
    D=st.integers(1, 300), widths=st.lists(st.integers(1, 90), min_size=1, max_size=3), steps=st.integers(2, 9),
    dtype=st.sampled_from([np.float32, np.float64]), has_b=st.booleans(), x_dtype=st.sampled_from([None, np.uint8]),
    activation=st.sampled_from([ReLU, Tanh, GELU]), decay=st.sampled_from([0.0, 0.0, 0.1]),
)  # fmt: skip
@example(784, [50, 10], 5, np.float32, True, None, ReLU, 0.0)
@example(2, [16], 5, np.float32, False, None, GELU, 0.0)
def test_steps_of_one_sample_that_take_the_next_one_ahead_train_as_single_ones(
    D, widths, steps, dtype, has_b, x_dtype, activation, decay
):
    rng, trained = np.random.default_rng(D), []
    x = rng.integers(0, 256, (steps, D)).astype(x_dtype) if x_dtype else rng.random((steps, D)).astype(dtype)
    weights = [rng.standard_normal(shape).astype(dtype) / shape[0] ** 0.5 for shape in itertools.pairwise([D, *widths])]
    t = rng.standard_normal((steps, widths[-1])).astype(dtype)
    data, order = (x, NONE.astype(np.intp), t, 1 / 255 if x_dtype else 1.0), rng.permutation(steps)
    for stretch in (steps, 1):  # in a single step there is no next one
        layers = [part for W in weights for part in _affine_and(W.copy(), has_b, activation)][:-1]
        engine = engine_of(Sequential(layers, IdentityWithLoss()), SGD(1e-3, weight_decay=decay), 1, D)
        losses = np.zeros(steps)
        for first in range(0, steps, stretch):
            engine.train(data, order, NONE, first, first + stretch, losses, np.zeros(steps), False)
        assert np.all(np.isfinite(losses))
        trained.append([engine.flat.tobytes(), losses.tobytes()])
        if (D, widths[0]) in ((784, 50), (2, 16)):
            assert engine._network.batch[STAGED] == (stretch > 1)
    assert trained[0] == trained[1]


def _affine_and(W, has_b, activation):
    return [Affine(W, np.full(W.shape[1], 0.1, W.dtype)) if has_b else MatMul(W), activation()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_penalty_by_step(dtype):
    data, decays, penalties, losses = samples(dtype), np.array([0.0, 0.3, 0.1]), np.zeros(3), np.zeros(3)
    net = network(dtype)
    engine = engine_of(net, SGD(0.1))
    engine.train(data, np.arange(600), NONE, 0, 3, losses, np.zeros(3), False, (decays, penalties))
    engine.write()
    twin = network(dtype)
    for step, decay in enumerate(decays):
        weights = [twin.params[key] for key in ("W1", "W2")]
        expected = decay / 2 * sum(float(np.sum(W.astype(float) ** 2)) for W in weights)
        np.testing.assert_allclose(penalties[step], expected, rtol=1e-5 if dtype is np.float32 else 1e-13)
        batch = slice(200 * step, 200 * step + 200)
        gradients = twin.gradient(data[0][batch], data[1][batch])
        np.testing.assert_allclose(losses[step], twin.last_layer.loss, rtol=1e-5 if dtype is np.float32 else 1e-12)
        SGD(0.1, weight_decay=decay).update(twin.params, gradients)
    for key, value in net.params.items():
        np.testing.assert_allclose(value, twin.params[key], atol=1e-5 if dtype is np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_penalties_have_the_same_bits_for_any_number_of_threads(dtype):
    results = []
    for threads in (1, 2, 3, 5):
        with num_threads(threads):
            penalties, losses = np.zeros(3), np.zeros(3)
            net = network(dtype, (40, 117, 7))
            engine = engine_of(net, SGD(0.1))
            arguments = samples(dtype), np.arange(600), NONE, 0, 3, losses, np.zeros(3), False
            engine.train(*arguments, (np.full(3, 0.1), penalties))
            results.append((penalties.tolist(), losses.tolist(), engine.flat.tolist()))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, weight_decay=0.3), AdamW(weight_decay=0.3)], ids=["coupled", "decoupled"]
)
@pytest.mark.parametrize("decayed", [(), ("W",), ("b",), ("W", "b")], ids=str)
def test_the_record_says_which_parameters_decay(optimizer, decayed, monkeypatch):
    monkeypatch.setitem(LAYERS, Affine, replace(LAYERS[Affine], decayed=decayed))
    net, twin, data = network(), network(), samples()
    for each in (net, twin):
        each.params["b1"][...] = 1
    engine, of_twin = engine_of(net, copy.deepcopy(optimizer)), copy.deepcopy(optimizer)
    engine.train(data, np.arange(600), NONE, 0, 3, np.zeros(3), np.zeros(3), False)
    engine.write()
    for step in range(3):
        batch = slice(200 * step, 200 * step + 200)
        of_twin.update(twin.params, twin.gradient(data[0][batch], data[1][batch]))
    for key, value in net.params.items():
        np.testing.assert_allclose(value, twin.params[key], atol=1e-13)


def test_the_penalty_is_that_of_the_parameters_that_decay(monkeypatch):
    monkeypatch.setitem(LAYERS, Affine, replace(LAYERS[Affine], decayed=("W", "b")))
    net, penalties = network(), np.zeros(1)
    net.params["b1"][...] = 1
    expected = 0.3 / 2 * sum(float(np.sum(value**2)) for value in net.params.values())
    engine = engine_of(net, SGD(0.1))
    engine.train(samples(), np.arange(600), NONE, 0, 1, np.zeros(3), np.zeros(3), False, (np.array([0.3]), penalties))
    np.testing.assert_allclose(penalties[0], expected, rtol=1e-13)


def test_a_layer_with_more_parameters_than_the_plan_has_columns_is_refused(monkeypatch):
    monkeypatch.setattr(Affine, "parameter_names", ("W", "b", "x"))
    with pytest.raises(ValueError, match="Affine: expected at most 2 parameters, got W, b, x"):
        engine_of(network(), SGD(0.1))


@pytest.mark.parametrize("word", [-1, 3, 4095])
@pytest.mark.parametrize("name", ["epilogue", "slope_epilogue"])
def test_a_number_that_is_no_epilogue_is_refused(name, word, monkeypatch):
    record = LAYERS[ReLU]
    changed = replace(record, activation=replace(record.activation, **{name: lambda _: word}))
    monkeypatch.setitem(LAYERS, ReLU, changed)
    with pytest.raises(ValueError, match=f"epilogue: expected a number from 0 to 2 or the address of .*, got {word}"):
        engine_of(network(), SGD(0.1))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_engine_of_fewer_threads_computes_the_same(threads):
    results = []
    for limit in (99, threads):
        losses = np.zeros(3)
        engine = engine_of(network(), SGD(0.1), threads=lambda limit=limit: limit)
        engine.train(samples(), np.arange(600), NONE, 0, 3, losses, np.zeros(3), False)
        results.append((losses.tolist(), engine.flat.tolist()))
    assert results[0] == results[1]


def test_gradients_alone():
    net, data = network(), samples(count=200)
    before = copy.deepcopy(dict(net.params))
    engine = engine_of(net, Gradients())
    losses = np.zeros(1)
    engine.train(data, np.arange(200), NONE, 0, 1, losses, np.zeros(1), False)
    expected = net.gradient(*data[:2])
    np.testing.assert_allclose(losses[0], net.last_layer.loss, rtol=1e-13)
    keys = ["W1", "W2", "b1", "b2"]
    got = engine.states[0][engine.index(keys)]
    np.testing.assert_allclose(got, np.concatenate([expected[key].reshape(-1) for key in keys]), atol=1e-15)
    engine.write()
    for key, value in before.items():
        np.testing.assert_array_equal(net.params[key], value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipped_losses_are_those_of_probabilities_within_eps(dtype):
    x = np.array([[200.0, 0, 0], [0, 200.0, 0], [1, 2, 3], [0, 0, 0]], dtype)
    labels, eps = np.array([0, 0, 2, 1]), np.finfo(dtype).eps
    for kind, probabilities in (
        (
            SoftmaxWithLoss,
            np.exp(x - x.max(1, keepdims=True)) / np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True),
        ),
        (SigmoidWithLoss, 1 / (1 + np.exp(-x))),
    ):
        net = Sequential([Affine(np.eye(3, dtype=dtype), np.zeros(3, dtype))], kind())
        targets = np.eye(3, dtype=dtype)[labels]
        p = np.clip(probabilities, eps, 1 - eps)
        if kind is SoftmaxWithLoss:
            data, expected = (x, labels, np.empty((0, 3), dtype), 1.0), -np.log(p[np.arange(4), labels])
        else:
            data = x, np.empty(0, np.intp), targets, 1.0
            expected = -np.sum(np.log(np.where(targets == 1, p, 1 - p)), axis=1)
        losses = np.zeros(4)
        engine = engine_of(net, SGD(0.0), batch_size=1, features=3, clips=True)
        engine.train(data, np.arange(4), NONE, 0, 4, losses, np.zeros(4), False)
        np.testing.assert_allclose(losses, expected, rtol=1e-5 if dtype is np.float32 else 1e-12)


def test_a_clipped_loss_of_nan_is_nan():
    for kind in (SoftmaxWithLoss, SigmoidWithLoss):
        net = Sequential([Affine(np.full((3, 3), np.nan), np.zeros(3))], kind())
        x, losses = np.ones((1, 3)), np.zeros(1)
        data = (
            (x, np.zeros(1, np.intp), np.empty((0, 3)), 1.0)
            if kind is SoftmaxWithLoss
            else (x, np.empty(0, np.intp), x, 1.0)
        )
        engine = engine_of(net, SGD(0.0), batch_size=1, features=3, clips=True)
        assert engine.train(data, np.arange(1), NONE, 0, 1, losses, np.zeros(1), False) == 0
        assert np.isnan(losses[0])


def test_only_parameters_are_written_back_when_so_asked():
    net, optimizer = network(), SGD(0.1)
    net = Sequential([*net.layers.values(), Dropout(0.5, seed=0)], net.last_layer)
    engine = engine_of(net, optimizer)
    engine.train(samples(), np.arange(600), NONE, 0, 3, np.zeros(3), np.zeros(3), False)
    before = net.params["W1"].copy()
    engine.write_parameters()
    assert not np.array_equal(net.params["W1"], before)
    assert net.layers["Dropout1"].step == 0
    engine.write()
    assert net.layers["Dropout1"].step == 3
