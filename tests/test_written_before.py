"""Files and pickles of an earlier fastbp, in `written_before`, go on as what they were made from would.

Each holds what `begun` returns: a run of two epochs, as it was before the package of training had modules of its own.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fastbp import History, Sequential, TwoLayerNet, load
from fastbp.layers import Affine, Dropout, SoftmaxWithLoss, Tanh
from fastbp.optimizers import Adam

FOLDER = Path(__file__).parent / "written_before"
X, T = np.random.default_rng(0).random((30, 6)), np.arange(30) % 3


def network():
    rng = np.random.default_rng(1)
    first, second = (Affine(rng.standard_normal(shape), np.zeros(shape[1])) for shape in ((6, 5), (5, 3)))
    return Sequential([first, Tanh(), Dropout(0.3, seed=7), second], SoftmaxWithLoss())


def fit(net, adam, generator, epochs, **more):
    return net.fit(X, T, epochs=epochs, batch_size=8, optimizer=adam, seed=generator, record_steps=True, **more)


def begun():
    net, adam, generator = network(), Adam(0.01, weight_decay=0.01), np.random.default_rng(2)
    fit(net, adam, generator, 2)
    return net, adam, generator


def assert_same_parameters(net, other):
    assert net.params.keys() == other.params.keys()
    for key, value in net.params.items():
        assert value.dtype == other.params[key].dtype
        np.testing.assert_allclose(value, other.params[key], rtol=1e-13)


def test_a_network_and_its_optimizer_go_on_from_their_file():
    net, adam, _ = begun()
    loaded = load(FOLDER / "network.npz")
    assert_same_parameters(loaded, net)
    fit(loaded, loaded.optimizer, np.random.default_rng(5), 2)
    fit(net, adam, np.random.default_rng(5), 2)
    assert_same_parameters(loaded, net)


def test_a_network_of_the_book_is_one_again():
    loaded = load(FOLDER / "two_layers.npz")
    assert type(loaded) is TwoLayerNet
    assert_same_parameters(loaded, TwoLayerNet(6, 4, 3, seed=0))


def test_a_run_goes_on_from_its_checkpoint():
    net, adam, generator = begun()
    fit(net, adam, generator, 2)
    resumed = network()
    history = fit(
        resumed, Adam(0.01, weight_decay=0.01), 2, 4, resume=FOLDER / "checkpoint.npz", patience=5
    )  # fmt: skip
    assert_same_parameters(resumed, net)
    assert len(history) == 4
    np.testing.assert_allclose(history.steps[-8:], net.history.steps)


def test_a_network_with_its_history_goes_on_from_its_pickle():
    net, adam, generator = begun()
    content = pickle.loads((FOLDER / "network.pickle").read_bytes())
    unpickled = content["network"]
    assert type(content["history"]) is History
    np.testing.assert_allclose(content["history"].steps, net.history.steps)
    assert_same_parameters(unpickled, net)
    fit(unpickled, content["optimizer"], content["generator"], 2)
    fit(net, adam, generator, 2)
    assert_same_parameters(unpickled, net)


@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator", "ignore:Stochastic Optimizer")
def test_an_estimator_goes_on_from_its_pickle():
    MLPClassifier = pytest.importorskip("fastbp.sklearn").MLPClassifier
    unpickled = pickle.loads((FOLDER / "estimator.pickle").read_bytes())
    model = MLPClassifier((5,), random_state=0, max_iter=4, warm_start=True).fit(X, T)
    for _ in range(2):
        for got, expected in zip(
            unpickled.coefs_ + unpickled.intercepts_, model.coefs_ + model.intercepts_, strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-13)
        unpickled.fit(X, T)
        model.fit(X, T)
