"""`fit` gives what the loop of gradients and updates gives, and stops, warns and reports as people expect."""

import copy
import os
import pickle
import subprocess
import sys
import time
import warnings
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastbp import (
    Sequential,
    StopTraining,
    TwoLayerNet,
    files,
    num_threads,
    saving,
    set_num_threads,
    use_reference,
)
from fastbp.layers import (
    Affine,
    Convolution,
    Dropout,
    ExpWithLoss,
    Identity,
    IdentityWithLoss,
    Pooling,
    ReLU,
    Sigmoid,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.optimizers import SGD, Adam, optimizer
from fastbp.training import run as training_run
from tests.compare import TOLERANCE
from tests.subprocesses import ROOT, run_python

OPTIMIZERS = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]


def affine(rng, D, M, dtype=np.float64):
    W = rng.standard_normal((D, M)) / D**0.5
    return Affine(W.astype(dtype), (0.1 * rng.standard_normal(M)).astype(dtype))


def deep(dtype=np.float64, seed=1):
    rng = np.random.default_rng(seed)
    layers = [
        affine(rng, 20, 30, dtype), ReLU(), Dropout(0.3, seed=5), affine(rng, 30, 17, dtype), Tanh(),
        affine(rng, 17, 12, dtype), Sigmoid(), Identity(), affine(rng, 12, 5, dtype),
    ]  # fmt: skip
    return Sequential(layers, SoftmaxWithLoss())


def data(samples=250, D=20, C=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((samples, D)), rng.integers(0, C, samples)


def fit_by_hand(network, x, t, *, epochs, batch_size, optimizer, seed):
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch_size):
            batch = order[start : start + batch_size]
            optimizer.update(network.params, network.gradient(x[batch], t[batch]))
            losses.append(network.last_layer.loss)
    return losses


def assert_same_parameters(network, other, tolerance=0.0):
    for key, value in network.params.items():
        np.testing.assert_allclose(value, other.params[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_gives_what_a_loop_of_gradients_and_updates_gives(name, dtype):
    x, t = data()
    x = x.astype(dtype)
    fitted, looped = deep(dtype), deep(dtype)
    ours, theirs = optimizer(name), optimizer(name)
    ours.weight_decay = theirs.weight_decay = 1e-3
    history = fitted.fit(x, t, epochs=25, batch_size=64, optimizer=ours, seed=3, record_steps=True)
    losses = fit_by_hand(looped, x, t, epochs=25, batch_size=64, optimizer=theirs, seed=3)
    assert_same_parameters(fitted, looped, 1e-12 if dtype is np.float64 else 1e-5)
    np.testing.assert_allclose(history.steps, losses, rtol=TOLERANCE[np.dtype(dtype)])
    assert ours.iter == theirs.iter == 100
    for state in ours.state_names():
        for key, value in getattr(ours, state).items():
            np.testing.assert_allclose(value, getattr(theirs, state)[key], atol=TOLERANCE[np.dtype(dtype)])


@pytest.mark.parametrize(
    ("loss", "outputs", "make_target"),
    [
        (SoftmaxWithLoss, 5, lambda rng, x: rng.dirichlet(np.ones(5), len(x))),
        (IdentityWithLoss, 3, lambda rng, x: x[:, :3]),
        (SigmoidWithLoss, 2, lambda rng, x: (x[:, :2] > 0.5).astype(float)),
        (ExpWithLoss, 2, lambda rng, x: rng.poisson(3 * x[:, :2]).astype(float)),
    ],
)
def test_every_loss_and_its_targets(loss, outputs, make_target):
    x, _ = data()
    t = make_target(np.random.default_rng(2), x)
    fitted, looped = (Sequential([affine(np.random.default_rng(1), 20, outputs), Identity()], loss()) for _ in range(2))
    fitted.fit(x, t, epochs=5, batch_size=64, optimizer=SGD(0.1), seed=0)
    fit_by_hand(looped, x, t, epochs=5, batch_size=64, optimizer=SGD(0.1), seed=0)
    assert_same_parameters(fitted, looped, 1e-13)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    activations=st.lists(st.sampled_from([ReLU, Sigmoid, Tanh, Identity]), min_size=4, max_size=4),
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    starts_with_activation=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_stack_of_layers(widths, activations, samples, batch_size, starts_with_activation, dtype):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((samples, 7)).astype(dtype), rng.integers(0, 3, samples)

    def network():
        draw = np.random.default_rng(1)
        layers = [Tanh()] if starts_with_activation else []
        for D, M, activation in zip([7, *widths], widths, activations, strict=False):
            layers += [affine(draw, D, M, dtype), activation()]
        return Sequential([*layers, affine(draw, widths[-1], 3, dtype)], SoftmaxWithLoss())

    fitted, looped = network(), network()
    fitted.fit(x, t, epochs=3, batch_size=batch_size, optimizer=SGD(0.1), seed=0)
    with use_reference():
        fit_by_hand(looped, x, t, epochs=3, batch_size=min(batch_size, samples), optimizer=SGD(0.1), seed=0)
    assert_same_parameters(fitted, looped, 1e-12 if dtype is np.float64 else 2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit(dtype):
    x, t = data(300, 784, 10)
    networks = []
    for n in (1, 2, 3, 7):
        network = TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)
        with num_threads(n):
            network.fit(x.astype(dtype), t, epochs=3, batch_size=101, optimizer="adam", seed=0)
        networks.append(network)
    for other in networks[1:]:
        assert_same_parameters(networks[0], other)


def test_images_of_bytes_are_scaled_on_the_way():
    x = np.random.default_rng(0).integers(0, 256, (90, 5, 4), np.uint8)
    t = data(90)[1]
    of_bytes, of_floats = deep(), deep()
    of_bytes.fit(x, t, optimizer="sgd", seed=0, scale=1 / 255)
    of_floats.fit(x.reshape(90, 20) * (1 / 255), t, optimizer="sgd", seed=0)
    assert_same_parameters(of_bytes, of_floats)


def test_a_memory_mapped_file_is_read_as_it_is(tmp_path):
    x, t = data()
    np.save(tmp_path / "x.npy", x)
    mapped, loaded = deep(), deep()
    mapped.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), t, seed=0)
    loaded.fit(x, t, seed=0)
    assert_same_parameters(mapped, loaded)


def test_a_second_fit_goes_on_with_the_optimizer_and_with_edited_parameters():
    x, t = data()
    fitted, looped = deep(), deep()
    ours, theirs = Adam(0.01), Adam(0.01)
    for network, step in ((fitted, None), (looped, theirs)):
        for seed in (0, 1):
            if step is None:
                network.fit(x, t, epochs=2, batch_size=64, optimizer=ours, seed=seed)
            else:
                fit_by_hand(network, x, t, epochs=2, batch_size=64, optimizer=step, seed=seed)
            network.params["W1"] *= 0.5
            network.params["b2"] = np.ones(17)
    assert_same_parameters(fitted, looped, 1e-13)


def test_two_fits_with_one_generator_are_the_epochs_of_a_longer_fit():
    x, t = data()
    whole, parts = deep(), deep()
    whole.fit(x, t, epochs=5, batch_size=64, seed=3)
    generator = np.random.default_rng(3)
    parts.fit(x, t, epochs=2, batch_size=64, seed=generator)
    parts.fit(x, t, epochs=3, batch_size=64, seed=generator)
    assert_same_parameters(parts, whole)


def test_rates_by_step():
    x, t = data()
    fitted, looped = deep(), deep()
    fitted.fit(x, t, epochs=3, batch_size=50, optimizer=SGD(lambda step: 0.5 / (1 + step)), seed=0)
    fit_by_hand(looped, x, t, epochs=3, batch_size=50, optimizer=SGD(0.5 / np.arange(1, 16)), seed=0)
    assert_same_parameters(fitted, looped)


def test_the_last_batch_may_be_short_or_left_out():
    x, t = data(250)
    kept, dropped = deep(), deep()
    assert len(kept.fit(x, t, batch_size=100, record_steps=True).steps) == 3
    assert len(dropped.fit(x, t, batch_size=100, record_steps=True, drop_last=True).steps) == 2


def test_the_history_holds_what_the_epochs_came_to():
    x, t = data()
    network = deep()
    history = network.fit(x, t, epochs=4, optimizer="adam", validation_data=(x[:50], t[:50]), seed=0)
    assert history.columns == ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
    assert history is network.history
    assert history["val_loss"][-1] == network.loss(x[:50], t[:50])
    assert history["val_accuracy"][-1] == network.accuracy(x[:50], t[:50])


def test_the_accuracy_is_that_of_the_samples_before_their_update():
    x, t = data(60)
    network = TwoLayerNet(20, 8, 5, seed=0)
    expected = network.accuracy(x, t)
    assert network.fit(x, t, batch_size=60)["accuracy"][0] == expected


def test_it_waits_for_a_better_epoch_and_restores_the_best():
    x, t = data(60)
    network = deep()
    history = network.fit(
        x, t, epochs=500, optimizer=Adam(0.02), validation_data=data(60, seed=9), patience=3, seed=0
    )  # fmt: skip
    best = int(history.best("val_loss")["epoch"])
    assert len(history) == best + 3 < 500
    assert network.loss(*data(60, seed=9)) == history["val_loss"].min()


def test_callbacks_see_the_network_as_it_is_and_may_stop_the_run():
    x, t = data()
    network = deep()
    seen = []

    def on_epoch(progress):
        seen.append((progress.epoch, progress.network.params["W1"].copy()))
        if progress.epoch == 3:
            raise StopTraining

    steps = []
    history = network.fit(x, t, epochs=9, batch_size=25, on_epoch=on_epoch, on_steps=lambda p: steps.append(p.step))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert len(history) == 3
    assert steps[-1] == 10
    assert not np.array_equal(seen[0][1], seen[1][1])
    np.testing.assert_array_equal(network.params["W1"], seen[2][1])


def test_what_a_callback_changes_counts():
    x, t = data()
    network = deep()

    def freeze(progress):
        progress.network.params["W1"][...] = 0

    network.fit(x, t, batch_size=250, on_steps=freeze)
    assert np.all(network.params["W1"] == 0)


@pytest.mark.parametrize("is_custom", [False, True], ids=["engine", "layer by layer"])
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_loss_that_is_lost_stops_the_run_before_the_step(is_custom):
    x, t = data()
    network = custom() if is_custom else deep()
    x[np.random.default_rng(0).permutation(250)[130]] = np.nan
    expected = copy.deepcopy(network)
    with pytest.raises(FloatingPointError, match=r"got nan at step 6 of epoch 1 \(1\.\d+ the step before\)"):
        network.fit(x, t, batch_size=25, seed=0)
    assert np.all(np.isfinite(network.params["W1"]))
    assert not np.array_equal(network.params["W1"], expected.params["W1"])
    network.fit(x, t, batch_size=25, seed=0, on_nan="ignore")
    assert np.all(np.isnan(network.params["W1"]))


@pytest.mark.parametrize("is_custom", [False, True], ids=["engine", "layer by layer"])
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_validation_loss_that_is_lost_stops_the_run_after_the_epoch(is_custom):
    x, t = data()
    network, whole = (custom() if is_custom else deep() for _ in range(2))
    validation = data(50, seed=9)

    def spoil(progress):
        if progress.epoch == 2:
            validation[0][7] = np.nan

    settings = {"batch_size": 25, "seed": 0, "validation_data": validation, "on_epoch": spoil, "patience": 2}
    with pytest.raises(
        FloatingPointError, match=r"^validation_data: .* val_loss, got nan after epoch 3, whose loss is 1"
    ):
        network.fit(x, t, epochs=9, **settings)
    whole.fit(x, t, epochs=3, batch_size=25, seed=0)
    assert_same_parameters(network, whole)
    assert len(network.history) == 3
    assert np.isnan(network.history["val_loss"][2])
    assert len(deep().fit(x, t, epochs=9, on_nan="ignore", **settings)) == 2


class Doubled(ReLU):
    """A layer that the engine does not know."""


def custom():
    rng = np.random.default_rng(1)
    return Sequential([affine(rng, 20, 30), Doubled(), affine(rng, 30, 5)], SoftmaxWithLoss())


def test_a_layer_of_another_class_is_trained_layer_by_layer_and_said_to_be():
    x, t = data()
    fitted, looped = custom(), custom()
    with pytest.warns(UserWarning, match="layer by layer, as the engine cannot: it knows no Doubled"):
        history = fitted.fit(x, t, epochs=2, batch_size=64, seed=0)
    fit_by_hand(looped, x, t, epochs=2, batch_size=64, optimizer=optimizer("sgd"), seed=0)
    assert_same_parameters(fitted, looped)
    assert history["accuracy"][0] > 0


class Halved(TwoLayerNet):
    """A network with a gradient of its own."""

    def gradient(self, x, t):
        return {key: grad / 2 for key, grad in super().gradient(x, t).items()}


def test_a_network_with_a_gradient_of_its_own_is_trained_by_it():
    x, t = data()
    fitted, plain = Halved(20, 8, 5, seed=0), TwoLayerNet(20, 8, 5, seed=0)
    with pytest.warns(UserWarning, match="it knows no gradient"):
        fitted.fit(x, t, optimizer=SGD(0.2), seed=0)
    plain.fit(x, t, optimizer=SGD(0.1), seed=0)
    assert_same_parameters(fitted, plain, 1e-15)


def test_the_reference_trains_it_too():
    x, t = data()
    compiled, plain = deep(), deep()
    compiled.fit(x, t, epochs=3, optimizer="adam", seed=0)
    with use_reference(), warnings.catch_warnings():
        warnings.simplefilter("error")
        plain.fit(x, t, epochs=3, optimizer="adam", seed=0)
    assert_same_parameters(compiled, plain, 1e-12)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs: expected at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected an integer"),
        ({"optimizer": "fast"}, ValueError, "fast"),
        ({"on_nan": "stay"}, ValueError, "on_nan: expected 'stop' or 'ignore'"),
        ({"patience": 0}, ValueError, "patience: expected at least 1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"t": np.full(250, 7)}, ValueError, "t: expected labels from 0 to 4, got 7"),
        ({"t": np.zeros(3, int)}, ValueError, "t: expected labels of shape"),
        ({"x": np.zeros((250, 3))}, ValueError, "x: expected"),
        ({"x": np.zeros((0, 20))}, ValueError, "x: expected at least one sample"),
        ({"x": np.zeros(250)}, ValueError, "x: expected at least one sample"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(change, error, match):
    x, t = data()
    network = deep()
    with pytest.raises(error, match=match):
        network.fit(**{"x": x, "t": t, **change})
    assert_same_parameters(network, deep())


def test_binary_targets_are_checked():
    network = Sequential([affine(np.random.default_rng(1), 20, 1)], SigmoidWithLoss())
    before = copy.deepcopy(network)
    x, _ = data()
    with pytest.raises(ValueError, match="t: expected"):
        network.fit(x, np.full(250, 2.0))
    assert_same_parameters(network, before)


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_tied_weights_are_updated_by_both_gradients():
    x, t = data(D=5)

    def tied():
        W = np.random.default_rng(1).standard_normal((5, 5))
        return Sequential([Affine(W, np.zeros(5)), Tanh(), Affine(W, np.zeros(5))], SoftmaxWithLoss())

    fitted, looped = tied(), tied()
    fitted.fit(x, t, batch_size=64, optimizer=SGD(0.1), seed=0)
    fit_by_hand(looped, x, t, epochs=1, batch_size=64, optimizer=SGD(0.1), seed=0)
    assert_same_parameters(fitted, looped)


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_parameter_that_cannot_be_written_is_named_before_training():
    network = deep()
    network.params["W1"].flags.writeable = False
    with pytest.raises(ValueError, match=r"params\['W1'\]: expected an array that can be written to"):
        network.fit(*data())


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_method_replaced_on_a_layer_is_called():
    x, t = data()
    network = deep()
    calls = []
    layer = network.layers["Tanh1"]
    plain = layer.forward
    layer.forward = lambda x: calls.append(1) or plain(x)
    network.fit(x, t, batch_size=50)
    assert len(calls) >= 5


def test_more_threads_set_in_the_middle_of_a_run_harm_nothing():
    x, t = data(600, 784, 10)
    fitted, plain = (TwoLayerNet(784, 50, 10, seed=0) for _ in range(2))
    with num_threads(1):
        plain.fit(x, t, epochs=3, seed=0)
        fitted.fit(x, t, epochs=3, seed=0, on_epoch=lambda _: set_num_threads(64))
    assert_same_parameters(fitted, plain)


def test_ctrl_c_leaves_a_finished_step():
    code = """
import os, signal, threading, time
import numpy as np
import fastbp
rng = np.random.default_rng(0)
x, t = rng.random((20000, 100)), rng.integers(0, 10, 20000)
network = fastbp.TwoLayerNet(100, 50, 10, seed=0)
network.fit(x, t)
signal.signal(signal.SIGINT, signal.default_int_handler)
sent, begun = [], threading.Event()
def send():
    begun.wait()
    time.sleep(0.3)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    network.fit(x, t, epochs=100000, on_epoch=lambda progress: begun.set())
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0] < 2, len(network.history) > 0, np.isfinite(network.loss(x, t)))
"""
    assert run_python(code) == "True True True"


def test_two_fits_in_two_threads_and_in_a_forked_child():
    code = """
import hashlib, os, threading
import numpy as np
import fastbp
rng = np.random.default_rng(0)
x, t = rng.random((1000, 784)), rng.integers(0, 10, 1000)
def digest():
    network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
    network.fit(x, t, epochs=2, seed=0)
    return hashlib.sha256(b"".join(value.tobytes() for value in network.params.values())).hexdigest()
results = [digest()]
threads = [threading.Thread(target=lambda: results.append(digest())) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = os.fork()
if child == 0:
    os._exit(0 if digest() == results[0] else 1)
print(len(set(results)), len(results), os.waitpid(child, 0)[1])
"""
    assert run_python(code) == "1 3 0"


def run_with_checkpoints(path, resume=None, epochs=12, patience=None):
    x, t = data(300)
    network = deep()
    network.fit(
        x, t, epochs=epochs, batch_size=64, optimizer=Adam(lambda step: 0.02 / (1 + step)), seed=0, checkpoint=path,
        resume=resume, validation_data=data(50, seed=9), patience=patience,
    )  # fmt: skip
    return network


@pytest.mark.parametrize("patience", [None, 3])
def test_a_run_resumed_from_its_checkpoint_ends_as_one_that_never_stopped(tmp_path, patience):
    path = tmp_path / "run.npz"
    whole = run_with_checkpoints(tmp_path / "whole.npz", epochs=40, patience=patience)
    run_with_checkpoints(path, epochs=5, patience=patience)
    resumed = run_with_checkpoints(path, path, epochs=40, patience=patience)
    assert_same_parameters(resumed, whole)
    for column in ("epoch", "loss", "accuracy", "val_loss"):
        np.testing.assert_array_equal(resumed.history[column], whole.history[column])


@pytest.fixture
def stop_writing(monkeypatch):
    """A function after which the first checkpoint of the second epoch from some step on ends its run.

    There is one stretch for each step.
    """
    monkeypatch.setattr(training_run, "STRETCH", 0.0)
    write = files.write

    def stop_from(step):
        def write_and_stop(path, arrays, meta):
            write(path, arrays, meta)
            if meta["checkpoint"]["epochs"] == 1 and meta["checkpoint"]["step"] >= step:
                raise StopTraining

        monkeypatch.setattr(files, "write", write_and_stop)

    return stop_from


@pytest.mark.parametrize("stopped_at", [1, 8])
@pytest.mark.parametrize("kind", ["engine", "layer by layer", "weighted", "with patience"])
@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_checkpoint_within_an_epoch_goes_on_from_that_step(tmp_path, kind, stopped_at, stop_writing):
    make = custom if kind == "layer by layer" else deep

    def settings():
        return {
            "epochs": 4, "batch_size": 10, "optimizer": Adam(0.02), "seed": 0, "record_steps": True,
            "sample_weight": np.random.default_rng(1).random(300) if kind == "weighted" else None,
            "patience": 2 if kind == "with patience" else None, "validation_data": data(50, seed=9),
        }  # fmt: skip

    whole, killed, resumed = make(), make(), make()
    whole.fit(*data(300), **settings())
    stop_writing(stopped_at)
    killed.fit(*data(300), checkpoint=tmp_path / "run.npz", every=timedelta(microseconds=1), **settings())
    checkpoint = saving.read(tmp_path / "run.npz")[1]["checkpoint"]
    assert checkpoint["epochs"] == 1
    assert checkpoint["step"] == stopped_at
    seen = []
    resumed.fit(*data(300), resume=tmp_path / "run.npz", on_steps=seen.append, **settings())
    assert (seen[0].epoch, seen[0].step) == (2, checkpoint["step"] + 1)
    assert_same_parameters(resumed, whole)
    np.testing.assert_array_equal(resumed.history.steps, whole.history.steps)
    for column in set(whole.history.columns) - {"seconds"}:
        np.testing.assert_array_equal(resumed.history[column], whole.history[column])


def test_a_checkpoint_holds_what_a_callback_changed(tmp_path, stop_writing):
    def halve(progress):
        if (progress.epoch, progress.step) == (2, 1):
            progress.network.params["W1"][...] *= 0.5

    arguments = {"batch_size": 10, "epochs": 2, "seed": 0, "on_steps": halve}
    whole, killed, resumed = deep(), deep(), deep()
    whole.fit(*data(300), **arguments)
    stop_writing(1)
    killed.fit(*data(300), checkpoint=tmp_path / "run.npz", every=timedelta(microseconds=1), **arguments)
    resumed.fit(*data(300), resume=tmp_path / "run.npz", **arguments)
    assert_same_parameters(resumed, whole)


def test_a_checkpoint_is_written_after_so_much_time_and_after_the_last_epoch(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training_run, "STRETCH", 0.0)
    monkeypatch.setattr(files, "write", lambda path, arrays, meta: written.append(meta["checkpoint"]))

    def pass_some_time(_):
        now[0] += 25.0

    deep().fit(
        *data(300), epochs=4, batch_size=150, on_steps=pass_some_time, checkpoint=tmp_path / "run.npz",
        every=timedelta(minutes=1),
    )  # fmt: skip
    # The two steps of an epoch end at 25 and 50, 75 and 100, 125 and 150, 175 and 200 seconds.
    assert [(content["epochs"], content["step"]) for content in written] == [(1, 1), (3, 0), (4, 0)]


@pytest.mark.parametrize(
    ("every", "error", "match"),
    [
        (0, ValueError, "every: expected at least 1, got 0; give the number of epochs .*, or a datetime.timedelta"),
        (0.5, TypeError, "every: expected an integer, got float; give the number of epochs"),
        (timedelta(), ValueError, "every: expected a time longer than 0, got 0:00:00; give one such as"),
        (timedelta(seconds=-1), ValueError, "every: expected a time longer than 0"),
    ],
    ids=repr,
)
def test_an_interval_that_is_none_is_named(every, error, match, tmp_path):
    network = deep()
    with pytest.raises(error, match=match):
        network.fit(*data(), checkpoint=tmp_path / "run.npz", every=every)
    assert_same_parameters(network, deep())


def test_an_interval_without_a_checkpoint_is_named():
    network = deep()
    with pytest.raises(ValueError, match=r"^every: expected a checkpoint beside it, got 5 alone; name the file"):
        network.fit(*data(), every=5)
    assert_same_parameters(network, deep())


@pytest.mark.parametrize(("last", "least"), [((3, 50), 3), ((4, 2), 4)], ids=["after an epoch", "between steps"])
def test_epochs_that_a_checkpoint_has_behind_it_are_named(last, least, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "STRETCH", 0.0)
    path, network, given = tmp_path / "run.npz", deep(), {"batch_size": 5, "seed": 0}

    def end(progress):
        if (progress.epoch, progress.step) > last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deep().fit(
            *data(), epochs=9, checkpoint=path, every=timedelta(microseconds=1), on_steps=end, on_epoch=end, **given
        )
    with pytest.raises(
        ValueError, match=rf"^epochs: expected at least {least}, .*, got {least - 1}; give the number of"
    ):
        network.fit(*data(), epochs=least - 1, resume=path, **given)
    assert_same_parameters(network, deep())
    assert len(network.fit(*data(), epochs=least, resume=path, **given)) == least


def run_of_long_epochs(path, epochs, resume=None, every=None):
    """Epochs of some tenths of a second, so that most moments are in the midst of one."""
    x, t = data(100_000)
    network = deep(np.float32)
    network.fit(
        x, t, epochs=epochs, batch_size=1, optimizer=Adam(1e-4), seed=0, checkpoint=path, every=every, resume=resume
    )
    return network


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_end(tmp_path):
    path = tmp_path / "run.npz"
    code = f"""
import os, sys
from datetime import timedelta
sys.path.insert(0, {str(ROOT)!r})
from tests.test_fit import run_of_long_epochs
path = {str(path)!r}
every = timedelta(milliseconds=30) if sys.argv[1:] == ["by time"] else 1
run_of_long_epochs(path, 1_000_000, path if os.path.exists(path) else None, every)
"""
    rng = np.random.default_rng(0)
    steps = []
    for kill in range(12):
        process = subprocess.Popen([sys.executable, "-c", code, "by epochs" if kill % 4 == 3 else "by time"])
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.wait()
        reached = saving.read(path)[1]["checkpoint"]
        steps.append(reached["step"])
    assert sum(step > 0 for step in steps) >= 3
    epochs = reached["epochs"] + 2
    run_of_long_epochs(path, epochs, path)
    arrays, meta = saving.read(path)
    assert (meta["checkpoint"]["epochs"], meta["checkpoint"]["step"]) == (epochs, 0)
    whole = run_of_long_epochs(tmp_path / "whole.npz", epochs)
    for key, value in whole.params.items():
        np.testing.assert_array_equal(arrays[f"parameter {key}"], value)
    assert set(os.listdir(tmp_path)) == {"run.npz", "whole.npz"}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", {"seed": 1}),
        ("x", {"x": data(300)[0][::-1]}),
        ("x", {"x": data(300)[0].astype(np.float32)}),
        ("t", {"t": data(300)[1][::-1]}),
        ("scale", {"scale": 0.5}),
        ("sample_weight", {"sample_weight": np.ones(300)}),
        ("validation_data", {"validation_data": data(50, seed=8)}),
        ("validation_data", {"validation_data": None}),
    ],
)
def test_a_run_does_not_go_on_with_what_is_not_its_own(name, given, tmp_path):
    path = tmp_path / "run.npz"
    x, t = data(300)
    settings = {"x": x, "t": t, "epochs": 2, "batch_size": 64, "seed": 0, "validation_data": data(50, seed=9)}
    deep().fit(**settings, checkpoint=path)
    other = deep()
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, as for the run of .*run\.npz, got .*without resume$"):
        other.fit(**settings | given, resume=path)
    assert_same_parameters(other, deep())


def test_a_run_goes_on_without_its_seed_which_is_in_the_file(tmp_path):
    path, (x, t) = tmp_path / "run.npz", data(300)
    whole, other = deep(), deep()
    whole.fit(x, t, epochs=3, seed=0)
    deep().fit(x, t, epochs=2, seed=0, checkpoint=path)
    other.fit(x, t, epochs=3, resume=path)
    assert_same_parameters(other, whole)


def test_a_checkpoint_that_does_not_fit_is_named_and_changes_nothing(tmp_path):
    path = tmp_path / "run.npz"
    run_with_checkpoints(path, epochs=2)
    x, t = data(300)
    other = TwoLayerNet(20, 8, 5, seed=0)
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match="expected a checkpoint of this run, with parameters"):
        other.fit(x, t, resume=path)
    fewer = deep()
    with pytest.raises(ValueError, match="with samples 250, got one with 300"):
        fewer.fit(*data(250), batch_size=64, optimizer="adam", resume=path)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        other.fit(x, t, resume=tmp_path / "cut.npz")
    saving.save(deep(), tmp_path / "network.npz")
    with pytest.raises(ValueError, match="expected a checkpoint of fit, got another file"):
        other.fit(x, t, resume=tmp_path / "network.npz")
    with pytest.raises(FileNotFoundError):
        other.fit(x, t, resume=tmp_path / "none.npz")
    assert_same_parameters(other, before)
    assert_same_parameters(fewer, deep())


FIT = """
import hashlib
import numpy as np
import fastbp
def digest():
    rng = np.random.default_rng(0)
    network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
    network.fit(rng.random((300, 784)), rng.integers(0, 10, 300), epochs=2, seed=0)
    return hashlib.sha256(b"".join(value.tobytes() for value in network.params.values())).hexdigest()
"""


def test_two_processes_of_joblib_give_the_same(tmp_path):
    pytest.importorskip("joblib", reason="joblib comes with scikit-learn, of the demo extra")
    (tmp_path / "fits.py").write_text(FIT)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import joblib, fits
print(len({{fits.digest(), *joblib.Parallel(n_jobs=2)(joblib.delayed(fits.digest)() for _ in range(4))}}))
"""
    assert run_python(code) == "1"


def test_a_copy_and_a_pickle_go_on_the_same_way():
    x, t = data()
    network, optimizer = deep(), Adam(0.01)
    network.fit(x, t, optimizer=optimizer, seed=0)
    pairs = [copy.deepcopy((network, optimizer)), pickle.loads(pickle.dumps((network, optimizer)))]
    for other, its_optimizer in pairs:
        other.fit(x, t, optimizer=its_optimizer, seed=1)
    network.fit(x, t, optimizer=optimizer, seed=1)
    for other, _ in pairs:
        assert_same_parameters(other, network)


@pytest.mark.filterwarnings("ignore:fit. this network is trained layer by layer")
def test_images_come_to_layers_in_their_shape():
    def network():
        rng = np.random.default_rng(0)
        conv = Convolution(rng.standard_normal((3, 2, 3, 3)), np.zeros(3), pad=1)
        return Sequential(
            [conv, ReLU(), Pooling(2, 2), Affine(rng.standard_normal((27, 4)), np.zeros(4))], SoftmaxWithLoss()
        )

    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((10, 2, 6, 6)), rng.integers(0, 4, 10)
    fitted, stepped, optimizer = network(), network(), SGD(0.01)
    history = fitted.fit(x, t, epochs=2, batch_size=10, optimizer=SGD(0.01), seed=0, validation_data=(x, t))
    for _ in range(2):
        optimizer.update(stepped.params, stepped.gradient(x, t))
    for key, value in stepped.params.items():
        np.testing.assert_allclose(fitted.params[key], value, rtol=1e-9)
    assert history["val_loss"][-1] == fitted.loss(x, t)
