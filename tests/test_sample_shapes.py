"""What `predict`, `loss`, `gradient` and `fit` say to samples of a shape that the network is not made for."""

from contextlib import nullcontext

import numpy as np
import pytest

from fastbp import DeepConvNet, LeNet, Sequential, SimpleConvNet, use_reference
from fastbp.layers import Affine, Convolution, Embedding, Flatten, Pooling, ReLU, SoftmaxWithLoss

CLASSES = 10


def images(*shape, samples=6):
    return np.random.default_rng(0).random((samples, *shape)).astype(np.float32)


def labels(x):
    return np.arange(len(x)) % CLASSES


def sequences(L=3, V=9, D=4):
    layers = [Embedding(np.ones((V, D))), ReLU(), Affine(np.ones((L * D, CLASSES)), np.zeros(CLASSES))]
    return Sequential(layers, SoftmaxWithLoss())


def colours():
    filters, b = np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)
    W = np.ones((100, CLASSES), np.float32)
    layers = [Convolution(filters, b), ReLU(), Pooling(2, 2), Flatten(), Affine(W, np.zeros(CLASSES, np.float32))]
    return Sequential(layers, SoftmaxWithLoss())


def errors(net, x, **more):
    """The errors of all that take x."""
    t, found = labels(x), []
    calls = [
        lambda: net.predict(x),
        lambda: net.accuracy(x, t),
        lambda: net.loss(x, t),
        lambda: net.gradient(x, t),
        lambda: net.fit(x, t, seed=0, **more),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^(x|layers): expected") as error:
            call()
        found.append(str(error.value))
    return found


@pytest.mark.parametrize("way", [nullcontext, use_reference])
@pytest.mark.parametrize("kind", [LeNet, SimpleConvNet, DeepConvNet])
@pytest.mark.parametrize("size", [(20, 28), (28, 24), (40, 40), (6, 6)])
def test_images_of_another_size_are_told_the_one_that_is_expected(kind, size, way):
    net = kind(dtype=np.float32, seed=0)
    before = {key: value.copy() for key, value in net.params.items()}
    with way():
        (said,) = set(errors(net, images(1, *size)))
    assert said == (
        f"x: expected images (N, 1, 28, 28), for whose size the layers are made, got (N, 1, {size[0]}, {size[1]}); "
        "resize them, or build the network for theirs"
    )
    for key, value in before.items():
        np.testing.assert_array_equal(net.params[key], value)


def test_images_that_are_not_square_are_expected_where_the_network_is_made_for_them():
    net = SimpleConvNet((1, 12, 20), dtype=np.float32, seed=0)
    for size in [(12, 12), (30, 20)]:
        (said,) = set(errors(net, images(1, *size)))
        assert said.startswith("x: expected images (N, 1, 12, 20), ")


@pytest.mark.parametrize(("given", "shown"), [((6, 2), "(N, 2)"), ((6, 4), "(N, 4)"), ((6,), "(N,)")])
def test_sequences_of_another_length_are_told_the_one_that_is_expected(given, shown):
    (said,) = set(errors(sequences(), np.zeros(given, int)))
    assert said == (
        f"x: expected sequences (N, 3), for whose size the layers are made, got {shown}; "
        "cut or pad them, or build the network for theirs"
    )


def test_where_no_size_fits_the_layer_says_what_comes_to_it():
    net = colours()
    net.layers["Affine1"].W = np.ones((7, CLASSES), np.float32)
    *by_layers, by_fit = errors(net, images(3, 12, 12))
    assert set(by_layers) == {
        "x: expected one sample (7,) or a batch (N, 7) to multiply W (7, 10), got shape (6, 100); "
        "reshape x, or make W with as many rows as x has features"
    }
    assert by_fit.startswith("layers: expected outputs of 7 numbers")


def test_layers_of_ones_own_are_not_tried():
    class Halves:
        def forward(self, x):
            assert len(x) == 6
            return x[..., ::2]

        def backward(self, dout):
            raise NotImplementedError

    net = Sequential([Halves(), Affine(np.ones((9, 2)), np.zeros(2))], SoftmaxWithLoss())
    with pytest.raises(ValueError, match=r"x: expected one sample \(9,\) or a batch"):
        net.predict(images(1, 4, 4))


def test_images_of_other_channels_are_told_how_many_are_expected():
    said = errors(colours(), images(2, 12, 12))
    assert all("3 channels, as the filters" in each for each in said)
    assert all(each.endswith("give images with as many, or make the filters for them") for each in said)
    said = errors(colours(), images(12, 12, 3))
    assert all("3 channels, as the filters" in each for each in said)
    assert all(
        each.endswith("put the channels before height and width, as x.transpose(0, 3, 1, 2) does") for each in said
    )


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (
            images(1, 14, 56),
            r"x: expected images \(N, 1, 28, 28\), for whose size the layers are made, got \(N, 1, 14, 56\)",
        ),
        (images(784), r"x: expected samples that are images \(N, 1, H, W\), got \(N, 784\)"),
        (images(28, 28), r"x: expected samples that are images \(N, 1, H, W\), got \(N, 28, 28\)"),
        (images(1, 28, 20), r"x: expected 784 numbers for each sample, .* got 560; give \(N, 1, 28, 28\)"),
        (images(1, 28, 28, samples=0), "x: expected at least one sample, .*; give one or more"),
    ],
)
def test_images_to_validate_are_checked_before_the_first_step(x, says):
    net = LeNet(dtype=np.float32, seed=0)
    before = net.params["W1"].copy()
    with pytest.raises(ValueError, match=f"^validation_data: {says}"):
        net.fit(images(1, 28, 28), np.arange(6), seed=0, validation_data=(x, labels(x)))
    np.testing.assert_array_equal(net.params["W1"], before)


@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (np.zeros((6, 3)), TypeError, "x: expected integers, the indices of rows of W, got float64"),
        (np.full((6, 3), 9), ValueError, "x: expected indices from 0 to 8, as W has 9 rows, got 9"),
    ],
)
def test_indices_to_validate_are_checked_before_the_first_step(x, error, says):
    net = sequences()
    with pytest.raises(error, match=f"^validation_data: {says}"):
        net.fit(np.zeros((6, 3), int), np.arange(6), seed=0, validation_data=(x, np.arange(6)))
    np.testing.assert_array_equal(net.params["W1"], np.ones((9, 4)))


@pytest.mark.parametrize("x", [None, {"x": 1}, {1, 2}])
def test_what_is_no_array_at_all_is_asked_for_as_one(x):
    with pytest.raises(
        TypeError, match=rf"x: expected real numbers .*, got {type(x).__name__}.*; pass an array of them"
    ):
        sequences().predict(x)
