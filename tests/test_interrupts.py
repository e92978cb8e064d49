"""Ctrl-C finds a finished step, wherever it arrives, and goes to whom it is meant for."""

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

from fastbp import Sequential, StopTraining
from fastbp.engine import steps as engine_kernels
from fastbp.layers import Affine, Dropout, ReLU, SoftmaxWithLoss
from fastbp.optimizers import Adam
from fastbp.training import interrupts
from fastbp.training.interrupts import Interrupts
from tests.subprocesses import run_python

# The kinds of runs, each with how many were torn and how many then went astray.
KINDS = {
    "steps of an epoch": "interrupted_fits(25, 60, width=8, batch=7)",
    "epochs of a step": "interrupted_fits(25, 60, width=8, batch=60)",
    "a large network": "interrupted_fits(25, 10, width=300, batch=20)",
    "layer by layer": "interrupted_fits(25, 20, width=8, batch=7, is_looped=True)",
    "layer by layer, epochs of a step": "interrupted_fits(25, 60, width=8, batch=60, is_looped=True)",
    "with a callback": "interrupted_fits(25, 60, width=8, batch=60, on_steps=python_work)",
    "an estimator": "interrupted_estimators(25, batch_size=7)",
    "an estimator with dropout": "interrupted_estimators(25, batch_size=60, dropout=0.3)",
}


@pytest.mark.skipif(os.name != "posix", reason="another process cannot send SIGINT")
def test_an_interrupt_at_any_moment_finds_a_finished_step_from_which_the_run_goes_on():
    pytest.importorskip("sklearn", reason="the estimators are scikit-learn's")
    calls = "\n".join(f"print({call})" for call in KINDS.values())
    code = f"import warnings; warnings.simplefilter('ignore'); from tests.interrupting import *\n{calls}"
    got = dict(zip(KINDS, run_python(code, timeout=300).splitlines(), strict=True))
    assert got == {kind: "0" if "estimator" in kind else "(0, 0)" for kind in KINDS}


@pytest.fixture
def handled():
    """The signals that came to a handler, which raises nothing."""
    came = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def handler():
    """The handler that raises KeyboardInterrupt, as it is where tests run in the background, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


class Slow(ReLU):
    """A layer of which a call may do something else."""

    def __init__(self):
        super().__init__()
        self.does = lambda: None

    def forward(self, x):
        self.does()
        return super().forward(x)


def network(activation=ReLU):
    rng = np.random.default_rng(0)
    layers = [Dropout(0.5, seed=0), Affine(rng.random((3, 4)), np.zeros(4)), activation()]
    return Sequential([*layers, Affine(rng.random((4, 2)), np.zeros(2))], SoftmaxWithLoss())


X, T = np.random.default_rng(1).random((10, 3)), np.arange(10) % 2


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_signals_wait_for_the_end_of_what_must_not_be_divided(handler):
    held = Interrupts()
    with held:
        interrupt()
        interrupt()
        assert held.noted >= 1
        with pytest.raises(KeyboardInterrupt):
            held.deliver()
        assert signal.getsignal(signal.SIGINT) is handler
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_at_the_end_is_delivered_after_it(handler):
    done = []

    def run():
        with Interrupts():
            interrupt()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == [1]


def test_every_signal_comes_to_a_handler_that_raises_nothing(handled):
    with Interrupts() as held:
        for count in range(1, 4):
            interrupt()
            assert held.noted == count
        assert handled == []
        held.deliver()
        assert len(handled) == 3
        interrupt()
        assert len(handled) == 3
    assert len(handled) == 4


def test_what_is_let_through_has_the_own_handler(handler):
    with Interrupts() as held:
        assert signal.getsignal(signal.SIGINT) is not handler
        with held.let_through():
            assert signal.getsignal(signal.SIGINT) is handler
            with pytest.raises(KeyboardInterrupt):
                interrupt()
        assert signal.getsignal(signal.SIGINT) is not handler
        interrupt()
        assert held.noted == 1
        with pytest.raises(KeyboardInterrupt):
            held.deliver()


def test_a_callback_may_be_interrupted_and_has_the_own_handler(handler):
    seen = []

    def on_epoch(progress):
        seen.append((signal.getsignal(signal.SIGINT), progress.epoch))
        if progress.epoch == 2:
            interrupt()
            time.sleep(10)

    net = network()
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, T, epochs=9, on_epoch=on_epoch)
    assert seen == [(handler, 1), (handler, 2)]
    assert len(net.history) == 2
    assert net.layers["Dropout1"].step == 2
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_raises_nothing_does_not_change_the_run(handled):
    interrupted, plain = network(), network()
    plain.fit(X, T, epochs=20, batch_size=3, optimizer=Adam(0.1), seed=0)
    interrupted.fit(
        X, T, epochs=20, batch_size=3, optimizer=Adam(0.1), seed=0, on_steps=lambda _: interrupt()
    )  # fmt: skip
    assert len(handled) >= 20
    for key, value in plain.params.items():
        np.testing.assert_array_equal(interrupted.params[key], value)


def test_a_handler_that_a_callback_sets_stays(handled):
    def other(number, frame):
        raise StopTraining

    def on_epoch(progress):
        signal.signal(signal.SIGINT, other)
        interrupt()

    net = network()
    net.fit(X, T, epochs=9, on_epoch=on_epoch)
    assert len(net.history) == 1
    assert signal.getsignal(signal.SIGINT) is other
    assert handled == []


@pytest.mark.parametrize("where", ["callback", "loss", "data"])
def test_the_handler_is_back_after_an_error(handler, where):
    x = X * np.nan if where == "loss" else X[:, :2] if where == "data" else X
    with pytest.raises((ZeroDivisionError, FloatingPointError, ValueError)):
        network().fit(x, T, on_epoch=lambda _: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is handler


def test_another_thread_leaves_the_handler_alone(handler):
    seen = []
    thread = threading.Thread(
        target=lambda: network().fit(X, T, on_steps=lambda _: seen.append(signal.getsignal(signal.SIGINT)))
    )
    with Interrupts():
        pass
    thread.start()
    thread.join()
    assert seen == [handler]


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        net = network()
        net.fit(X, T, epochs=3, on_epoch=lambda _: interrupt())
        assert len(net.history) == 3
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_a_layer_that_does_not_come_to_an_end_is_left_at_a_later_signal(handler, monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.05)

    calls = []

    def hang():
        calls.append(1)
        if len(calls) == 1:  # to see how many outputs there are
            return
        interrupt()
        time.sleep(0.1)
        interrupt()
        time.sleep(60)

    net, optimizer, generator = network(Slow), Adam(0.1), np.random.default_rng(0)
    net.fit(X, T, epochs=3, optimizer=optimizer, seed=generator)
    drawn = generator.bit_generator.state
    before = {key: value.copy() for key, value in net.params.items()}
    net.layers["Slow1"].does = hang
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, T, epochs=3, optimizer=optimizer, seed=generator)
    assert optimizer.iter == 3
    assert generator.bit_generator.state == drawn
    assert net.layers["Dropout1"].step == 3
    for key, value in before.items():
        np.testing.assert_array_equal(net.params[key], value)


@pytest.mark.filterwarnings("ignore:fit. this network")
def test_one_signal_waits_for_the_layers_of_its_step(handler):
    net, optimizer, calls = network(Slow), Adam(0.1), []

    def interrupt_the_second_step():
        calls.append(1)
        if len(calls) == 3:  # the first was to see how many outputs there are
            interrupt()

    net.layers["Slow1"].does = interrupt_the_second_step
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, T, epochs=3, batch_size=2, optimizer=optimizer, seed=0, record_steps=True)
    assert optimizer.iter == net.layers["Dropout1"].step == len(net.history.steps) == 2


def test_an_estimator_stops_at_a_callback_and_keeps_what_it_has_learned(handler):
    MLPClassifier = pytest.importorskip("fastbp.sklearn").MLPClassifier
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2

    def on_iteration(model):
        if model.n_iter_ == 3:
            interrupt()

    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = MLPClassifier((4,), random_state=0, early_stopping=True).fit(X, y, callbacks=[on_iteration])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = MLPClassifier((4,), random_state=0, max_iter=3, early_stopping=True).fit(X, y)
    assert len(model.loss_curve_) == model.n_iter_ == model._optimizer.t == 3
    for got, right in zip(model.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(got, right)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_estimator_that_is_interrupted_in_its_first_iteration_keeps_what_it_has_learned(handler, monkeypatch):
    sklearn_training = pytest.importorskip("fastbp.sklearn.training")
    MLPClassifier = pytest.importorskip("fastbp.sklearn").MLPClassifier
    monkeypatch.setattr(sklearn_training, "_loss", lambda *_: interrupt())
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = MLPClassifier((4,), random_state=0, early_stopping=True).fit(X, y, X_val=X, y_val=y)
    assert model._optimizer.t == 1
    assert model.n_iter_ == 0
    assert model.predict(X).shape == (20,)


@pytest.mark.parametrize("evaluation", [1, 2, 7, 12])
def test_lbfgs_is_left_at_a_finished_iteration(monkeypatch, handler, evaluation):
    MLPClassifier = pytest.importorskip("fastbp.sklearn").MLPClassifier
    Samples = pytest.importorskip("fastbp.sklearn.networks").Samples
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 4)), rng.integers(0, 3, 60)
    evaluations, train = [], Samples.train

    def interrupted(*arguments):
        evaluations.append(None)
        if len(evaluations) == evaluation:
            signal.raise_signal(signal.SIGINT)
        return train(*arguments)

    monkeypatch.setattr(Samples, "train", interrupted)
    model = MLPClassifier((5,), solver="lbfgs", max_iter=40, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    monkeypatch.undo()
    assert model.n_iter_ < 40
    if not model.n_iter_:
        return
    unbroken = MLPClassifier((5,), solver="lbfgs", max_iter=model.n_iter_, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few iterations
        unbroken.fit(X, y)
    for a, b in zip(model.coefs_ + model.intercepts_, unbroken.coefs_ + unbroken.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.loss_ == unbroken.loss_


def test_what_steps_need_is_compiled_before_ctrl_c_is_held_back(monkeypatch, handler):
    handlers, run_steps = [], engine_kernels.run_steps

    def noted(*arguments):
        handlers.append(signal.getsignal(signal.SIGINT) is handler)
        return run_steps(*arguments)

    monkeypatch.setattr(engine_kernels, "run_steps", noted)
    rng = np.random.default_rng(0)
    network = Sequential([Affine(rng.standard_normal((4, 3)), np.zeros(3))], SoftmaxWithLoss())
    network.fit(rng.random((20, 4)), rng.integers(0, 3, 20), batch_size=5)
    assert handlers[0]
    assert len(handlers) > 1
    assert not any(handlers[1:])
