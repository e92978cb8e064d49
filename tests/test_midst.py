"""Copies and pickles that are made in the midst of training go on from there with the same bits."""

import copy
import pickle

import numpy as np
import pytest

from fastbp import Sequential, SimpleConvNet, StopTraining
from fastbp.layers import Affine, BatchNormalization, Dropout, ReLU, SoftmaxWithLoss
from fastbp.ops.contract import OPTIMIZERS
from fastbp.optimizers import Adam

rng = np.random.default_rng(0)
X, T = rng.random((120, 64)), rng.integers(0, 5, 120)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def sent(thing):
    """By pickle with the arrays beside it, as Dask sends it to its workers."""
    buffers = []
    content = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=[bytearray(buffer) for buffer in buffers])


ways = pytest.mark.parametrize("way", [copy.deepcopy, pickled, sent])
optimizers = pytest.mark.parametrize(
    "kind", [kind for kind, record in OPTIMIZERS.items() if record.update is not None], ids=lambda kind: kind.__name__
)


class InOrder(np.random.Generator):
    """Leaves the samples as they are."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def permutation(self, samples):
        return np.arange(samples)


def dense(dtype):
    draw = np.random.default_rng(1)

    def affine(D, M):
        return Affine(draw.standard_normal((D, M)).astype(dtype), np.zeros(M, dtype))

    scales = BatchNormalization(np.ones(20, dtype), np.zeros(20, dtype))
    layers = [affine(64, 20), scales, ReLU(), Dropout(0.3, seed=0), affine(20, 5)]
    return Sequential(layers, SoftmaxWithLoss())


def images(dtype):
    filters = {"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1}
    return SimpleConvNet((1, 8, 8), filters, 10, 5, dtype=dtype, seed=0)


def everything(network, optimizer):
    """What training changes, as bytes."""
    counts = {name: value for name, value in vars(optimizer).items() if not isinstance(value, dict)}
    running = [getattr(layer, "running_mean", None) for layer in network.layers.values()]
    kept = [getattr(optimizer, name) for name in OPTIMIZERS[type(optimizer)].state]
    arrays = [*network.params.values(), *running, *(array for each in kept for array in each.values())]
    return [counts, [array.tobytes() for array in arrays if array is not None]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [dense, images])
@ways
def test_a_copy_from_a_callback_goes_on_as_the_run_did(way, make, dtype):
    check_a_copy_after_an_epoch(way, make, Adam(), dtype)


@optimizers
def test_a_copy_has_the_state_of_every_optimizer(kind):
    check_a_copy_after_an_epoch(pickled, dense, kind(), "float64")


def check_a_copy_after_an_epoch(way, make, trained, dtype):
    network, copies = make(dtype), []
    x = X.reshape(-1, 1, 8, 8) if make is images else X
    generator = np.random.default_rng(2)

    def on_epoch(progress):
        if progress.epoch == 2:
            copies.extend(way((progress.network, trained, generator)))

    network.fit(x, T, epochs=5, batch_size=50, optimizer=trained, seed=generator, on_epoch=on_epoch)
    other, optimizer, generator = copies
    other.fit(x, T, epochs=3, batch_size=50, optimizer=optimizer, seed=generator)
    assert everything(other, optimizer) == everything(network, trained)


@ways
def test_a_copy_between_two_steps_goes_on_with_the_next(way):
    network, trained, copies = dense("float64"), Adam(), []

    def on_steps(progress):
        if 3 < progress.step < progress.steps and not copies:
            copies.extend((*way((network, trained)), progress.step))

    network.fit(X, T, batch_size=5, optimizer=trained, seed=InOrder(), on_steps=on_steps)
    other, optimizer, step = copies
    other.fit(X[5 * step :], T[5 * step :], batch_size=5, optimizer=optimizer, seed=InOrder())
    assert everything(other, optimizer) == everything(network, trained)


@ways
def test_a_copy_in_the_books_loop_goes_on(way):
    network, trained = dense("float64"), Adam()

    def steps(network, optimizer):
        for start in range(0, 100, 20):
            batch = slice(start, start + 20)
            optimizer.update(network.params, network.gradient(X[batch], T[batch]))

    steps(network, trained)
    other, optimizer = way((network, trained))
    steps(network, trained)
    steps(other, optimizer)
    assert everything(other, optimizer) == everything(network, trained)


def test_a_copy_is_no_part_of_the_run_that_it_was_made_in():
    network, copies = dense("float64"), []

    def on_epoch(_):
        copies.append(copy.deepcopy(network))
        copies.append([value.copy() for value in copies[-1].params.values()])

    network.fit(X, T, epochs=2, optimizer="adam", seed=0, on_epoch=on_epoch)
    for value, then in zip(copies[0].params.values(), copies[1], strict=True):
        np.testing.assert_array_equal(value, then)


def state_of(model):
    """What training changes in an estimator, as bytes."""
    optimizer = vars(model._optimizer)
    kept = [optimizer.get(name, []) for name in ("ms", "vs", "velocities")]
    arrays = [*model.coefs_, *model.intercepts_, *(array for each in kept for array in each)]
    return [model.t_, model.loss_curve_, optimizer.get("t"), [array.tobytes() for array in arrays]]


@pytest.fixture
def classifier():
    return pytest.importorskip("fastbp.sklearn").MLPClassifier


SOLVERS = [{"solver": "adam"}, {"solver": "sgd", "learning_rate": "adaptive"}, {"dropout": 0.3}]
solvers = pytest.mark.parametrize("settings", SOLVERS, ids=["adam", "sgd", "dropout"])


@solvers
@ways
def test_an_estimator_between_two_calls_of_partial_fit_goes_on(way, settings, classifier):
    model = classifier((20,), random_state=0, **settings)
    for _ in range(3):
        model.partial_fit(X, T, classes=range(5))
    other = way(model)
    for each in (model, other):
        for _ in range(2):
            each.partial_fit(X, T)
    assert state_of(other) == state_of(model)


@solvers
@ways
def test_an_estimator_copied_in_a_callback_is_one_that_was_stopped_there(way, settings, classifier):
    copies = []

    def copied(model):
        if model.n_iter_ == 3:
            copies.append(way(model))

    def stopped(model):
        if model.n_iter_ == 3:
            raise StopTraining

    whole = classifier((20,), random_state=0, max_iter=5, tol=0, **settings)
    with pytest.warns(UserWarning, match="hasn't converged"):
        whole.fit(X, T, callbacks=copied)
    shorter = classifier((20,), random_state=0, max_iter=5, tol=0, **settings).fit(X, T, callbacks=stopped)
    (other,) = copies
    assert state_of(other) == state_of(shorter)
    assert state_of(other.partial_fit(X, T)) == state_of(shorter.partial_fit(X, T))
    assert whole.n_iter_ == 5
