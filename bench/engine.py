"""Training steps: the book's loop over layers, and whole epochs of `fit`, on one thread and on two.

An epoch goes once through fifty batches. Its limit is the time of its products at the machine's peak.
"""

import functools
import itertools

import numpy as np

from fastbp import Sequential, TwoLayerNet, layers
from fastbp.optimizers import SGD, Adam

from . import flops
from .cases import DTYPES, HIDDEN, Draw
from .suite import IMPLEMENTATIONS, Limit, Ratio, Time, in_turns, missing_from, on_both, threads
from .tree import peak

THREADS = (1, 2)
# Widths, batch size and optimizer.
NETWORKS = {
    "784-50-10, batch 100, SGD": ((784, 50, 10), 100, SGD),
    "784-256-10, batch 100, Adam": ((784, 256, 10), 100, Adam),
    "784-50-10, batch 1, SGD": ((784, 50, 10), 1, SGD),
}
BATCHES = 50
STEP = "784-50-10, batch 100, gradient and SGD"


def setup_cache():
    found, least = {}, {}
    for n in THREADS:
        cases = {(STEP, dtype, n): functools.partial(step, dtype) for dtype in DTYPES}
        for name, (widths, batch, _) in NETWORKS.items():
            for dtype in DTYPES:
                cases[name, dtype, n] = functools.partial(epoch, name, dtype)
                least[name, dtype, n] = flops.of_training(widths, BATCHES * batch) / peak.multiply_add_peak(dtype, n)
        with threads(n):
            found |= in_turns(cases, rounds=7)
    return {**found, "least": least}


def step(dtype):
    """One gradient and one update of the book's network, layer by layer."""
    draw = Draw(dtype, HIDDEN)
    x, t = draw.positive(draw.N, draw.D), draw.labels() % 10

    def once(network, optimizer):
        optimizer.update(network.params, network.gradient(x, t))

    return on_both(lambda: functools.partial(once, TwoLayerNet(784, 50, 10, dtype=dtype, seed=0), SGD(0.1)))


def epoch(name, dtype):
    """One epoch of `fit`."""
    missing_from(Sequential, "fit")
    widths, batch, optimizer = NETWORKS[name]
    rng = np.random.default_rng(0)
    x = rng.random((BATCHES * batch, widths[0])).astype(dtype)
    t = rng.integers(0, widths[-1], len(x))
    weights = [rng.standard_normal(shape).astype(dtype) / shape[0] for shape in itertools.pairwise(widths)]

    def fit():
        stack = []
        for W in weights:
            stack += [layers.Affine(W.copy(), np.zeros(W.shape[1], dtype)), layers.ReLU()]
        network = Sequential(stack[:-1], layers.SoftmaxWithLoss())
        return functools.partial(
            network.fit, x, t, epochs=1, batch_size=batch, optimizer=optimizer(1e-3), seed=0, verbose=False
        )

    return on_both(fit)


class Training(Time):
    """A step layer by layer, or an epoch of `fit`."""

    params = ((STEP, *NETWORKS), DTYPES, THREADS, IMPLEMENTATIONS)
    param_names = ("network", "dtype", "threads", "impl")


class TrainingRatios(Ratio):
    """Training on the kernels against training on the reference."""

    params = ((STEP, *NETWORKS), DTYPES, THREADS)
    param_names = ("network", "dtype", "threads")


class TrainingLimits(Limit):
    """An epoch of `fit` against the multiply-add peak of as many cores."""

    params = (tuple(NETWORKS), DTYPES, THREADS)
    param_names = ("network", "dtype", "threads")
