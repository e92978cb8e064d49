"""Training runs on real images: how well they end, and that both implementations go the same way."""

import copy

import numpy as np
import pytest

from fastbp import TwoLayerNet, use_reference
from fastbp.data import Dataset, load_mnist
from fastbp.optimizers import SGD
from fastbp.training import train


def test_ten_epochs_of_ten_thousand_images_reach_091(mnist_folder):
    data = load_mnist(mnist_folder)
    network = TwoLayerNet(784, 50, 10, seed=0)
    *_, last = train(network, data, SGD(0.1), epochs=10, batch_size=100, seed=0)
    assert last.number == 10
    assert last.test_accuracy >= 0.91


def test_the_first_hundred_steps_are_the_references(mnist_folder):
    data = load_mnist(mnist_folder)
    compiled = TwoLayerNet(784, 50, 10, seed=0)
    reference = copy.deepcopy(compiled)
    list(train(compiled, data, SGD(0.1), epochs=1, batch_size=100, seed=0))
    with use_reference():
        list(train(reference, data, SGD(0.1), epochs=1, batch_size=100, seed=0))
    for key, value in compiled.params.items():
        np.testing.assert_allclose(value, reference.params[key], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_a_bad_setting_is_named(settings, says):
    x, t = np.ones((2, 1)), np.zeros(2, int)
    with pytest.raises(ValueError, match=says):
        list(
            train(
                TwoLayerNet(1, 2, 2, seed=0),
                Dataset("two", x, t, x, t),
                SGD(0.1),
                **({"epochs": 1, "batch_size": 1, "seed": 0} | settings),
            )
        )


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_every_sample_is_used_once_per_epoch_and_the_loss_is_their_mean():
    class Recorder(TwoLayerNet):
        def __init__(self):
            super().__init__(1, 2, 2, seed=0)
            self.seen, self.losses = [], []

        def gradient(self, x, t):
            result = super().gradient(x, t)
            self.seen.append(x[:, 0].tolist())
            self.losses.append(self.last_layer.loss)
            return result

    x = np.arange(7.0).reshape(7, 1)
    network, data = Recorder(), Dataset("seven", x, np.zeros(7, int), x, np.zeros(7, int))
    first, second = train(network, data, SGD(0.0), epochs=2, batch_size=3, seed=0)
    assert [len(batch) for batch in network.seen] == [3, 3, 1, 3, 3, 1]
    for epoch in (network.seen[:3], network.seen[3:]):
        assert sorted(sample for batch in epoch for sample in batch) == x[:, 0].tolist()
    assert network.seen[:3] != network.seen[3:]
    assert np.isclose(first.loss, network.loss(x, np.zeros(7, int)))
    assert np.isclose(second.loss, first.loss)
