"""`network.predict` of images by slices: the bits of the layers' own `forward`, in memory for a few samples."""

import copy
import pickle
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from fastbp import DeepConvNet, MultiLayerNetExtend, Sequential, SimpleConvNet, num_threads
from fastbp.engine import predict
from fastbp.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    LayerNormalization,
    LeakyReLU,
    Pooling,
    ReLU,
    Reshape,
    SoftmaxWithLoss,
)
from tests.test_fit_images import described, layers
from tests.test_prediction import assert_bitwise, by_layers, in_place, keeps_nothing

FILTERS = {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}


def arrays_of(layer):
    return [name for name in ("W", "b", "gamma", "beta", "running_mean", "running_var") if hasattr(layer, name)]


def network_of(parts, shape, dtype, rng):
    """The stack that `parts` make for samples of a shape; those that do not fit are left out."""
    stack = []
    for part in parts:
        layer = part(rng, shape)
        if layer is None:
            continue
        for name in arrays_of(layer):
            value = getattr(layer, name)
            drawn = rng.random(value.shape) + 0.1 if name == "running_var" else value
            setattr(layer, name, (drawn + (name == "running_mean") * rng.random(value.shape)).astype(dtype))
        shape = by_layers(Sequential([layer], SoftmaxWithLoss()), np.zeros((2, *shape), dtype)).shape[1:]
        stack.append(layer)
    return Sequential(stack or [ReLU()], SoftmaxWithLoss())


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    parts=st.lists(layers(), min_size=1, max_size=6),
    dtype=st.sampled_from([np.float32, np.float64]),
    samples=st.sampled_from([0, 1, 2, 15, 24, 33, 100, 500]),
    slice_bytes=st.sampled_from([1, 20_000, predict.SLICE]),
    seed=st.integers(0, 2**32),
)
def test_a_prediction_of_images_has_the_bits_of_the_layers(shape, parts, dtype, samples, slice_bytes, seed):
    rng = np.random.default_rng(seed)
    net = network_of(parts, shape, dtype, rng)
    x = rng.standard_normal((samples, *shape)).astype(dtype)
    if seed % 3 == 0 and samples:
        x[0, 0, 0, 0], x[-1, -1, -1, -1] = np.nan, np.inf
    note(f"{[described(layer) for layer in net.layers.values()]}, x {x.shape}")
    expected = by_layers(net, x)
    with mock.patch.object(predict, "SLICE", slice_bytes):
        with num_threads(1):
            assert_bitwise(net.predict(x), expected)
        if samples and any(arrays_of(layer) for layer in net.layers.values()):
            assert keeps_nothing(net)
        for threads in (2, 3):
            with num_threads(threads):
                assert_bitwise(net.predict(x), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [SimpleConvNet, DeepConvNet])
def test_the_books_networks_predict_as_their_layers_do(kind, dtype):
    net = kind((1, 16, 16), dtype=dtype, seed=0)
    x = np.random.default_rng(1).standard_normal((150, 1, 16, 16)).astype(dtype)
    expected = by_layers(net, x)
    for threads in (1, 2):
        with num_threads(threads):
            assert_bitwise(net.predict(x), expected)
    assert keeps_nothing(net)


def test_memory_is_that_of_a_slice():
    net, x = SimpleConvNet(dtype=np.float32, seed=0), np.zeros((2000, 1, 28, 28), np.float32)
    with num_threads(1):
        net.predict(x[:24])  # compiles
        tracemalloc.start()
        try:
            net.predict(x)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    a_layer = 2000 * 30 * 24 * 24 * 4
    assert most < a_layer / 10


def network(dtype=np.float32):
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.standard_normal(shape).astype(dtype)

    stack = [
        Convolution(drawn(4, 2, 3, 3), drawn(4), 1, 1),
        BatchNormalization(drawn(4), drawn(4), 0.9, drawn(4), drawn(4) ** 2),
        LeakyReLU(),
        Pooling(2, 2, 2, 1),
        Dropout(0.5),
        LayerNormalization(drawn(5), drawn(5)),
        Reshape((5, 20)),
        Affine(drawn(100, 6), drawn(6)),
        BatchNormalization(drawn(6), drawn(6), 0.9, drawn(6), drawn(6) ** 2),
        Reshape((2, 3)),
    ]
    return Sequential(stack, SoftmaxWithLoss())


def images(samples, dtype=np.float32):
    return np.random.default_rng(2).standard_normal((samples, 2, 8, 8)).astype(dtype)


def setting(layer, name, value):
    def change(net):
        setattr(net.layers[layer], name, value)

    change.__name__ = f"{layer}.{name}"
    return change


def replaced(layer, name):
    return setting(layer, name, np.linspace(0.5, 1, getattr(network().layers[layer], name).size, dtype=np.float32))


def _other_filters(net):
    net.params["W1"] = net.params["W1"][::-1].copy()


def _other_size_of_filters(net):
    net.layers["Convolution1"].W = np.ones((4, 2, 1, 5), np.float32)
    net.layers["Convolution1"].pad = 2
    net.layers["Convolution1"].stride = 2
    net.layers["Pooling1"].pad = 0
    del net.layers["LayerNormalization1"], net.layers["Reshape1"], net.layers["Affine1"]
    del net.layers["BatchNormalization2"], net.layers["Reshape2"]


def _in_place(net):
    net.layers["BatchNormalization1"].running_mean += 1
    net.params["W1"][0] *= 2


def _trained(net):
    net.layers["BatchNormalization1"].forward(np.ones((9, 4, 2, 2), np.float32) * np.arange(9)[:, None, None, None])


def _turned_over(net):
    net.layers["Reshape2"].shape = (3, 2)


@pytest.mark.parametrize("samples", [3, 300])
@pytest.mark.parametrize(
    "change",
    [
        _other_filters, _other_size_of_filters, _in_place, _trained, _turned_over,
        replaced("BatchNormalization1", "running_mean"), replaced("BatchNormalization2", "running_var"),
        replaced("BatchNormalization1", "gamma"), replaced("LayerNormalization1", "beta"),
        setting("LayerNormalization1", "eps", 0.5), setting("LeakyReLU1", "alpha", 0.7),
        setting("Pooling1", "mode", "average"),
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_a_change_of_the_network_counts_at_once(change, samples):
    net, x = network(), images(samples)
    before = net.predict(x)
    assert_bitwise(before, by_layers(net, x))
    change(net)
    after = by_layers(net, x)
    assert not np.array_equal(before, after)
    for _ in range(2):
        assert_bitwise(net.predict(x), after)


@pytest.mark.parametrize(
    ("layer", "name", "value"),
    [("Convolution1", "stride", 0), ("Pooling1", "mode", "least"), ("LayerNormalization1", "eps", -1.0),
     ("BatchNormalization1", "momentum", 1.0), ("BatchNormalization2", "running_mean", np.zeros(5, np.float32))],
)  # fmt: skip
def test_what_is_not_allowed_gets_the_error_of_the_layer(layer, name, value):
    net, x = network(), images(40)
    net.predict(x)
    setattr(net.layers[layer], name, value)
    with pytest.raises(ValueError, match=f"{name}: expected"):
        net.predict(x)


@in_place
@pytest.mark.parametrize("samples", [3, 300])
@pytest.mark.parametrize(
    ("layer", "name", "shape"),
    [("Convolution1", "W", (4, 2, 1, 9)), ("Convolution1", "W", (8, 1, 3, 3)), ("LayerNormalization1", "gamma", (5, 1)),
     ("BatchNormalization1", "running_mean", (2, 2)), ("BatchNormalization2", "beta", (6, 1))],
)  # fmt: skip
def test_a_shape_that_is_set_in_place_gets_the_error_of_the_layer(layer, name, shape, samples):
    net, x = network(), images(samples)
    net.predict(x)
    getattr(net.layers[layer], name).shape = shape
    with pytest.raises(ValueError, match="expected"):
        net.predict(x)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_predicts_by_its_own_arrays(again):
    net, x = network(), images(60)
    before = net.predict(x)
    twin = again(net)
    twin.layers["BatchNormalization1"] = copy.deepcopy(twin.layers["BatchNormalization1"])
    twin.layers["BatchNormalization1"].running_mean = np.ones(4, np.float32)
    assert_bitwise(twin.predict(x), by_layers(twin, x))
    if again is not copy.copy:  # whose twin has the same layers
        assert_bitwise(net.predict(x), before)


@pytest.mark.parametrize(
    "given",
    [
        images(40, np.float64), (10 * images(40)).astype(np.uint8), images(40).astype(">f4"), images(40)[:, ::-1],
        np.asfortranarray(images(40)), images(80)[::2], images(40).transpose(0, 1, 3, 2), images(0),
    ],
)  # fmt: skip
def test_any_other_x_goes_through_the_layers(given):
    net = network()
    assert_bitwise(net.predict(given), by_layers(net, given))


@pytest.mark.parametrize("shape", [(2, 8, 8), (128,), (40, 128), (40, 3, 8, 8)])
def test_images_that_do_not_fit_get_the_error_of_the_layer(shape):
    net = network()
    net.predict(images(40))
    with pytest.raises(ValueError, match="expected") as expected:
        by_layers(net, np.ones(shape, np.float32))
    with pytest.raises(ValueError, match="expected") as error:
        net.predict(np.ones(shape, np.float32))
    assert str(error.value) == str(expected.value)


def test_one_sample_is_no_batch_to_be_normalized():
    net = MultiLayerNetExtend(6, [5], 3, use_batchnorm=True)
    assert_bitwise(net.predict(np.ones((1, 6))), by_layers(net, np.ones((1, 6))))
    with pytest.raises(ValueError, match=r"x: expected \(N, 5\)"):
        net.predict(np.ones(6))


def test_outputs_that_are_images_are_new_arrays_of_their_own():
    net, x = Sequential([Convolution(np.ones((2, 2, 3, 3)), np.ones(2)), ReLU()], SoftmaxWithLoss()), images(50, float)
    first, second = net.predict(x), net.predict(2 * x)
    assert_bitwise(first, by_layers(net, x))
    assert_bitwise(second, by_layers(net, 2 * x))
    assert first.flags.writeable
    assert not np.shares_memory(first, x)


def test_a_prediction_leaves_what_backward_needs():
    net, x, t = network(), images(40), np.zeros(40, int)
    del net.layers["Reshape2"]
    net.loss(x, t)
    expected = copy.deepcopy(net.layers["Convolution1"]).x, copy.deepcopy(net.layers["Pooling1"]).arg_max
    net.predict(2 * x)
    net.accuracy(3 * x, t)
    np.testing.assert_array_equal(net.layers["Convolution1"].x, expected[0])
    np.testing.assert_array_equal(net.layers["Pooling1"].arg_max, expected[1])


def test_validation_of_fit_is_the_loss_and_the_accuracy_of_the_network():
    rng = np.random.default_rng(0)
    net = SimpleConvNet((1, 8, 8), FILTERS, 6, 3, seed=0)
    x, t = rng.standard_normal((60, 1, 8, 8)), rng.integers(0, 3, 60)
    row = net.fit(x, t, seed=0, validation_data=(x, t))
    assert row["val_loss"] == [net.loss(x, t)]
    assert row["val_accuracy"] == [net.accuracy(x, t)]


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_validation_of_bytes_is_in_the_dtype_of_the_parameters(kind):
    rng = np.random.default_rng(0)
    net = SimpleConvNet((1, 8, 8), FILTERS, 6, 3, dtype=np.float32, seed=0)
    x, t = rng.integers(0, 256, (60, 1, 8, 8)).astype(kind), rng.integers(0, 3, 60)
    row = net.fit(x, t, seed=0, scale=1 / 255, validation_data=(x, t))
    assert keeps_nothing(net)
    assert row["val_loss"] == [net.loss(x.astype(np.float32) * np.float32(1 / 255), t)]


@pytest.mark.parametrize("stack", [[Flatten(), ReLU()], [Pooling(2, 2), ReLU()]])
def test_stacks_without_parameters_predict_by_themselves(stack):
    net, x = Sequential(stack, SoftmaxWithLoss()), images(30)
    assert_bitwise(net.predict(x), by_layers(net, x))
