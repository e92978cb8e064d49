"""`SimpleConvNet`, `DeepConvNet` and `LeNet`: the book's layers and numbers, any size of images, files, and errors."""

import numpy as np
import pytest

import fastbp
from fastbp import DeepConvNet, LeNet, SimpleConvNet, gradient_check, use_reference
from fastbp.book import ch07, ch08
from fastbp.layers import Dropout
from fastbp.optimizers import Adam
from tests.compare import assert_same

EITHER = pytest.mark.parametrize("kind", [SimpleConvNet, DeepConvNet, LeNet])


def small(kind, **options):
    """A network for images of 2×12×12 and three classes."""
    if kind is LeNet:
        return LeNet((2, 12, 12), 3, **{"seed": 1} | options)
    filters = {"filter_num": 3, "filter_size": 3, "pad": 1, "stride": 1}
    count, scale = (1, {"weight_init_std": 0.3}) if kind is SimpleConvNet else (6, {})
    return kind((2, 12, 12), *[filters] * count, hidden_size=5, output_size=3, **{"seed": 1} | scale | options)


@pytest.fixture
def data(rng):
    return rng.normal(size=(20, 2, 12, 12)), rng.integers(0, 3, 20)


def shapes(network):
    return [value.shape for value in network.params.values()]


def test_simple_conv_net_has_the_books_layers():
    network = SimpleConvNet()
    assert list(network.layers) == ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]
    assert list(network.params) == ["W1", "b1", "W2", "b2", "W3", "b3"]
    assert shapes(network) == [(30, 1, 5, 5), (30,), (4320, 100), (100,), (100, 10), (10,)]


def test_deep_conv_net_has_the_books_layers():
    network = DeepConvNet()
    block = ["Convolution", "ReLU", "Convolution", "ReLU", "Pooling"]
    assert [type(layer).__name__ for layer in network.layers.values()] == [
        *(3 * block), "Affine", "ReLU", "Dropout", "Affine", "Dropout",
    ]  # fmt: skip
    assert shapes(network)[::2] == [
        (16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (1024, 50),
        (50, 10),
    ]  # fmt: skip
    assert [layer.dropout_ratio for layer in network.layers.values() if isinstance(layer, Dropout)] == [0.5, 0.5]


def test_le_net_has_the_layers_of_le_net_5():
    network = LeNet()
    assert shapes(network)[::2] == [(6, 1, 5, 5), (16, 6, 5, 5), (400, 120), (120, 84), (84, 10)]
    assert list(network.layers)[:6] == ["Conv1", "Relu1", "Pool1", "Conv2", "Relu2", "Pool2"]
    assert list(network.layers)[6:] == ["Affine1", "Relu3", "Affine2", "Relu4", "Affine3"]


@pytest.mark.parametrize(("own", "book"), [(SimpleConvNet, ch07.SimpleConvNet), (DeepConvNet, ch08.DeepConvNet)])
def test_weights_without_a_seed_are_those_of_the_books_class(own, book):
    np.random.seed(3)
    network = own()
    np.random.seed(3)
    expected = book()
    for key, value in expected.params.items():
        assert_same(network.params[key], value)


@EITHER
def test_weights_are_those_of_a_seed(kind):
    first, second = (small(kind, seed=3) for _ in range(2))
    for key, value in first.params.items():
        np.testing.assert_array_equal(value, second.params[key])
    assert np.any(first.params["W1"] != small(kind, seed=4).params["W1"])


def test_a_seed_decides_on_the_masks_of_dropout(data):
    losses = [small(DeepConvNet, seed=3).loss(*data, train_flg=True) for _ in range(2)]
    assert losses[0] == losses[1] != small(DeepConvNet, seed=3).loss(*data)


@EITHER
def test_weights_begin_with_hes_variance_or_with_the_one_that_is_given(kind):
    network = kind(seed=0)
    for W in [value for key, value in network.params.items() if key[0] == "W"]:
        n = W.shape[0] if W.ndim == 2 else W[0].size
        assert W.std() == pytest.approx(0.01 if kind is SimpleConvNet else (2 / n) ** 0.5, rel=0.2)
    assert not any(np.any(value) for key, value in network.params.items() if key[0] == "b")


@EITHER
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_numbers_are_of_the_dtype(kind, dtype, data):
    x, t = data[0].astype(dtype), data[1]
    network = small(kind, dtype=dtype)
    gradients = network.gradient(x, t)
    assert network.predict(x).shape == (20, 3)
    assert {value.dtype for value in (network.predict(x), *network.params.values(), *gradients.values())} == {
        np.dtype(dtype)
    }
    assert [value.shape for value in gradients.values()] == shapes(network)


@EITHER
def test_the_gradient_is_that_of_the_loss(kind, data):
    x, t = data
    assert gradient_check(small(kind), x[:3], t[:3]).passed


@EITHER
def test_the_reference_has_the_same_gradients(kind, data):
    compiled = small(kind).gradient(*data)
    with use_reference():
        plain = small(kind).gradient(*data)
    for key, value in plain.items():
        assert_same(compiled[key], value)


@EITHER
def test_fit_takes_images(kind, data):
    network = small(kind, dtype=np.float32)
    history = network.fit(data[0].astype(np.float32), data[1], epochs=30, batch_size=10, optimizer=Adam(0.01), seed=0)
    assert history["loss"][-1] < history["loss"][0]


@EITHER
def test_a_network_comes_back_from_a_file(kind, data, tmp_path):
    network, optimizer = small(kind), Adam(0.01)
    network.fit(*data, optimizer=optimizer, seed=1)
    network.save(tmp_path / "network", optimizer)
    loaded = fastbp.load(tmp_path / "network")
    assert type(loaded) is kind
    assert list(loaded.layers) == list(network.layers)
    np.testing.assert_array_equal(loaded.predict(data[0]), network.predict(data[0]))
    expected = network.fit(*data, optimizer=optimizer, seed=2)["loss"]
    assert loaded.fit(*data, optimizer=loaded.optimizer, seed=2)["loss"] == expected


@pytest.mark.parametrize("size", [8, 9])
def test_the_books_networks_take_the_small_digits(size):
    for kind in (SimpleConvNet, DeepConvNet):
        assert kind((1, size, size), seed=0).predict(np.zeros((2, 1, size, size))).shape == (2, 10)


def test_images_need_not_be_square_nor_filters_lie_close():
    filters = {"filter_num": 4, "filter_size": 3, "pad": 2, "stride": 3}
    network = SimpleConvNet((3, 10, 16), filters, seed=0)
    assert shapes(network)[:3:2] == [(4, 3, 3, 3), (4 * 2 * 3, 100)]
    assert network.predict(np.zeros((2, 3, 10, 16))).shape == (2, 10)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: LeNet((1, 8, 8)),
            ValueError,
            r"input_dim: expected images large enough for filters of 5 pixels with pad 0, got \(1, 8, 8\), of which "
            r"4×4 pixels come there; give larger images",
        ),
        (lambda: SimpleConvNet((1, 5, 5)), ValueError, "large enough for a pooling of 2 pixels, .* of which 1×1"),
        (lambda: SimpleConvNet((1, 28)), TypeError, r"input_dim: expected \(C, H, W\) of an image, got \(1, 28\)"),
        (lambda: SimpleConvNet((1, 28, 0)), ValueError, r"input_dim\[2\]: expected at least 1, got 0"),
        (lambda: SimpleConvNet(conv_param=5), TypeError, "conv_param: expected a dict, got int"),
        (
            lambda: SimpleConvNet(conv_param={"filter_num": 5}),
            ValueError,
            "conv_param: expected the keys filter_num, filter_size, pad, stride, got filter_num; give one such as",
        ),
        (
            lambda: DeepConvNet(conv_param_3={"filter_num": 5, "filter_size": 3, "pad": -1, "stride": 1}),
            ValueError,
            r"conv_param_3\['pad'\]: expected at least 0, got -1",
        ),
        (lambda: SimpleConvNet(hidden_size=0), ValueError, "hidden_size: expected at least 1, got 0"),
        (lambda: LeNet(output_size=2.5), TypeError, "output_size: expected an integer, got float"),
        (lambda: SimpleConvNet(weight_init_std=-1), ValueError, "weight_init_std: expected a number that is at least"),
        (lambda: LeNet(dtype=np.float16), TypeError, "dtype: expected"),
        (lambda: LeNet(seed=-1), ValueError, "seed: expected at least 0, got -1"),
        (lambda: LeNet().predict(np.zeros((2, 784))), ValueError, r"x: expected images \(N, C, H, W\)"),
    ],
)
def test_a_mistake_is_a_clear_error(make, error, says):
    with pytest.raises(error, match=says):
        make()
