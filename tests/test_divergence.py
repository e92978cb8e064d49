"""A rate that is too large: fit warns where losses grow, and of nothing else."""

import warnings

import numpy as np
import pytest

from fastbp import Sequential, TwoLayerNet, use_reference
from fastbp.cli import main
from fastbp.data import load_digits
from fastbp.layers import Affine, IdentityWithLoss
from fastbp.optimizers import SGD, Adam

DIGITS = load_digits()
X, T = DIGITS.x_train, DIGITS.t_train
HUGE = r"^fit: expected a loss that falls, got a mean of \S+ in epoch 1 after 2.303 at the first step \(outputs of 0 "


def fitted(optimizer, network=None, **settings):
    network = TwoLayerNet(64, 50, 10, seed=0) if network is None else network
    return network.fit(X, T, optimizer=optimizer, seed=0, **{"epochs": 3} | settings)


@pytest.mark.parametrize("optimizer", [SGD(50.0), SGD(1e4), Adam(1.0), SGD(lambda step: 50.0), SGD(np.full(45, 50.0))])
def test_a_huge_rate_warns_once_where_fit_is_called(optimizer):
    with pytest.warns(UserWarning, match=HUGE + r"have 2\.303\); give a smaller rate$") as caught:
        fitted(optimizer)
    assert [warning.filename for warning in caught] == [__file__]


def test_layer_by_layer_as_in_compiled_code():
    with pytest.warns(UserWarning, match=HUGE), use_reference():
        fitted(SGD(50.0))


@pytest.mark.parametrize("optimizer", [SGD(0.3), SGD(1.0), Adam(0.01)])
def test_usual_rates_do_not(optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(optimizer)


def test_a_loss_that_begins_high_and_falls_does_not():
    network = TwoLayerNet(64, 50, 10, weight_init_std=1.0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fitted(SGD(0.01), network)
    assert history["loss"][0] > 3 * np.log(10)


def test_a_first_batch_that_is_small_by_chance_does_not():
    """The loss of one sample says little: a network that is trained goes on with batches of one."""
    network = TwoLayerNet(64, 50, 10, seed=0)
    fitted(SGD(0.3), network, epochs=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fitted(SGD(0.05), network, batch_size=1, record_steps=True)
    assert history["loss"][0] > 3 * history.steps[0]


@pytest.mark.parametrize(("rate", "warns"), [(0.1, False), (3.0, True)])
def test_numbers_are_held_against_those_of_zeros(rate, warns, rng):
    x = rng.standard_normal((200, 4))
    network = Sequential([Affine(np.zeros((4, 1)), np.zeros(1))], IdentityWithLoss())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network.fit(
            x, x[:, 0] + 5, optimizer=SGD(rate), epochs=1, seed=0, batch_size=20, sample_weight=np.arange(200) + 1
        )
    assert len(caught) == warns


def test_the_command_says_it_in_a_line(capsys):
    assert main(["train", "--lr", "50", "--epochs", "2"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("fastbp: warning: fit: expected a loss that falls, got a mean of ")
    assert err.count("\n") == 1
