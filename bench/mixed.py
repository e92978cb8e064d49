"""Calls in a program that uses NumPy too: each begins soon after a product, without a pause.

The threads of NumPy's BLAS spin for a tenth of a second after their work, on cores that fastbp's threads want. The
other files of the suite pause until they sleep. Here a product of 600×600 runs before each call, and both libraries
choose their threads. `1 thread` is fastbp on one thread.
"""

import functools

import numpy as np

import fastbp
from fastbp import TwoLayerNet

from . import engine
from .suite import IMPLEMENTATIONS, Ratio, Recorded, Time, in_turns, on_both

SIZE = 600  # of the product
AFTER = (0, 20, 60)  # milliseconds from the end of the product to the call
ROUNDS = 9
SECONDS = 20  # for all rounds of one delay on a busy machine
STEPS = 20  # by layers, in one call
PREDICTED = 10_000
ONE = "1 thread"


def predict():
    x = np.random.default_rng(0).random((PREDICTED, 784), np.float32)
    return on_both(lambda: functools.partial(TwoLayerNet(784, 50, 10, dtype="float32", seed=0).predict, x))


def steps():
    def repeated(step):
        def call():
            for _ in range(STEPS):
                step()

        return call

    return {implementation: repeated(step) for implementation, step in engine.step("float32").items()}


CALLS = {
    "fit, an epoch of 5,000": functools.partial(engine.epoch, "784-50-10, batch 100, SGD", "float32"),
    "predict, 10,000": predict,
    "20 steps by layers, batch 100": steps,
}


def setup_cache():
    found = {}
    for milliseconds in AFTER:
        cases = {(name, milliseconds): functools.partial(functions, name) for name in CALLS}
        found |= in_turns(cases, **after_a_product(milliseconds), rounds=ROUNDS, at_most=SECONDS)
    return found


def after_a_product(milliseconds):
    """Settings of `measure.samples` for single calls that begin so long after a product."""
    a = np.ones((SIZE, SIZE))
    return {"before": lambda: np.dot(a, a), "pause": milliseconds / 1e3, "settling": 0}


def functions(name):
    """A call on fastbp's threads, on one thread, and in NumPy; each has its own network."""
    return {**CALLS[name](), ONE: on_one_thread(CALLS[name]()["fastbp"])}


def on_one_thread(function):
    def call():
        with fastbp.num_threads(1):
            function()

    return call


class MixedTimes(Time):
    """A call that begins so many milliseconds after a product of NumPy in the same process."""

    params = (tuple(CALLS), AFTER, (*IMPLEMENTATIONS, ONE))
    param_names = ("call", "ms after a product", "impl")


class MixedRatios(Ratio):
    """fastbp after a product against NumPy after a product."""

    params = (tuple(CALLS), AFTER)
    param_names = ("call", "ms after a product")


class MixedThreadRatios(Recorded):
    """fastbp's choice of threads after a product against one thread: above 1 the choice is a loss."""

    params = (tuple(CALLS), AFTER)
    param_names = ("call", "ms after a product")
    unit = "fastbp/fastbp on 1 thread"
    against = ONE
    setup = Ratio.setup

    def track_ratio_to_one_thread(self, *_):
        return self.result()
