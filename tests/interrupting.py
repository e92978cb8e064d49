"""Runs that are interrupted at random moments, for a process of their own.

Another process sends SIGINT, one or several at a time, at any moment. After each run that one of them ended, what the
run has changed is compared with every step of an unbroken run, and the run goes on to its end.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import warnings

import numpy as np

from fastbp import Sequential
from fastbp.layers import Affine, Dropout, ReLU, SoftmaxWithLoss, Tanh
from fastbp.optimizers import Adam
from fastbp.training import run as training_run

SENDER = """
import os, random, signal, sys, time
pid, longest = int(sys.argv[1]), float(sys.argv[2])
while True:
    time.sleep(random.uniform(0, longest))
    for _ in range(random.choice([1, 1, 5])):
        os.kill(pid, signal.SIGINT)
        time.sleep(random.uniform(0, 2e-5))
"""


class Interrupted:
    """Calls a function that SIGINT may end, up to three times in a burst; at other times SIGINT does nothing."""

    def __init__(self):
        self._left = 0
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number, frame):
        guards = 0  # of two or more, the outer one catches what is raised here
        while frame is not None and guards < 2:
            guards += frame.f_code is Interrupted._guarded.__code__
            frame = frame.f_back
        if self._left and guards == 2:
            self._left -= 1
            raise KeyboardInterrupt

    def __call__(self, function):
        """Whether it came to its end."""
        self._left = 3
        is_finished = self._guarded(function, 4)
        self._left = 0
        return bool(is_finished)

    def _guarded(self, function, depth):
        # A further signal may arrive in the handling of the one before.
        try:
            if depth:
                return self._guarded(function, depth - 1)
            function()
            return True
        except KeyboardInterrupt:
            return False


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


class Fit:
    """One network and what belongs to it: `batch` samples of 60 in a step, in the engine or layer by layer."""

    samples = 60

    def __init__(self, width, batch, is_looped=False, on_steps=None):
        rng = np.random.default_rng(0)
        self.x, self.t = rng.random((self.samples, width)), rng.integers(0, 5, self.samples)
        layers = [Affine(rng.standard_normal((width, width)), np.zeros(width)), Tanh(), Dropout(0.3, seed=1)]
        layers += [Affine(rng.standard_normal((width, 5)), np.zeros(5)), ReLU(), Dropout(0.3, seed=2)]
        self.network, self.optimizer = Sequential(layers, SoftmaxWithLoss()), Adam(0.01)
        if is_looped:
            layers[1].backward = layers[1].backward  # with a method of its own it is not the engine's
        self.generator, self.batch, self.on_steps = np.random.default_rng(3), batch, on_steps
        self.steps = -(-self.samples // batch)

    def run(self, epochs, **more):
        self.network.fit(
            self.x, self.t, epochs=epochs, batch_size=self.batch, optimizer=self.optimizer, seed=self.generator,
            record_steps=True, **({"on_steps": self.on_steps} | more),
        )  # fmt: skip

    def snapshot(self):
        state = [array for name in ("m", "v") for array in (getattr(self.optimizer, name) or {}).values()]
        steps = [layer.step for layer in self.network.layers.values() if isinstance(layer, Dropout)]
        return digest(*self.network.params.values(), *state), steps, self.generator.bit_generator.state

    def unbroken(self, epochs):
        """What a run has changed after each step, and the losses."""
        seen = {0: self.snapshot()}
        stretch, training_run.STRETCH = training_run.STRETCH, 0.0  # a callback after each step
        self.run(epochs, on_steps=lambda _: seen.setdefault(self.optimizer.iter, self.snapshot()))
        training_run.STRETCH = stretch
        return seen, self.network.history.steps

    def is_whole(self, seen, losses):
        """Whether all is of one and the same step."""
        done, history = self.optimizer.iter, self.network.history
        expected = seen[done]
        epochs = {done // self.steps} if done % self.steps else {done // self.steps, done // self.steps - 1}
        return (
            self.snapshot() == (expected if done else (expected[0], expected[1], self.snapshot()[2]))
            and np.array_equal(history.steps, losses[:done])
            and len(history) in {max(count, 0) for count in epochs}
        )


def interrupted_fits(count, epochs, **settings):
    """Until so many runs were interrupted: how many were not whole, and how many did not go on to the same end."""
    seen, losses = Fit(**settings).unbroken(epochs)
    last, torn, astray, done = seen[max(seen)], 0, 0, 0
    interrupted = Interrupted()
    training_run.STRETCH = 3e-4
    with subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid()), "0.02"]) as sender:
        while done < count:
            fit = Fit(**settings)
            if interrupted(lambda: fit.run(epochs)) or not fit.optimizer.iter:  # noqa: B023
                continue
            done += 1
            torn += not fit.is_whole(seen, losses)
            if fit.steps == 1 and fit.optimizer.iter < epochs:
                fit.run(epochs - fit.optimizer.iter)
                astray += fit.snapshot() != last
        sender.kill()
    return torn, astray


def python_work(_):
    """A callback that takes some time in Python."""
    sum(random.random() for _ in range(200))


def interrupted_estimators(count, **settings):
    """The same for MLPClassifier: how many were not whole."""
    from fastbp.sklearn import MLPClassifier, training  # noqa: PLC0415 - optional

    rng = np.random.default_rng(0)
    X, y = rng.random((60, 8)), rng.integers(0, 5, 60)

    def snapshot(model):
        optimizer = model._optimizer
        return (
            digest(*model.coefs_, *model.intercepts_, *optimizer.ms, *optimizer.vs),
            digest(model._random_state.get_state()[1]),
        )

    def classifier():
        return MLPClassifier((8,), max_iter=60, tol=0, n_iter_no_change=1000, random_state=0, **settings)

    seen = {}

    def look(run):
        run.write()
        seen[run._estimator._optimizer.t] = snapshot(run._estimator)

    plain, training._Run.look_at_interrupts = training._Run.look_at_interrupts, look
    training_run.STRETCH = 0.0
    warnings.simplefilter("ignore")
    whole = classifier().fit(X, y)
    training._Run.look_at_interrupts, training_run.STRETCH = plain, 3e-4
    interrupted, torn, done = Interrupted(), 0, 0
    with subprocess.Popen([sys.executable, "-c", SENDER, str(os.getpid()), "0.02"]) as sender:
        while done < count:
            model = classifier()
            interrupted(lambda: model.fit(X, y))  # noqa: B023
            reached = getattr(getattr(model, "_optimizer", None), "t", 0)
            if not 0 < reached < max(seen):
                continue
            done += 1
            steps = max(seen) // 60
            torn += not (
                snapshot(model) == seen[reached]
                and model.loss_curve_ == whole.loss_curve_[: model.n_iter_]
                and model.n_iter_ == reached // steps
                and model.t_ == 60 * model.n_iter_
            )
        sender.kill()
    return torn
