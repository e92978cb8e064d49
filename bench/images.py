"""Convolutional networks of the book: the gradient of a batch of 100 images, against plain NumPy and against the limit.

`python -m bench.images` prints two tables. One is the convolutions of the book's networks and of LeNet-5 alone, as
shares of the multiply-add peak. The other compares `fastbp.book` with the book's own classes, where the variable
FASTBP_BOOK names a clone of its repository: times, ratios, and the peak memory of a step.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import statistics
import sys

import numpy as np

import fastbp
from fastbp import layers
from fastbp.optimizers import SGD, Adam

from . import book, flops
from .cases import DTYPES
from .processes import run
from .suite import IMPLEMENTATIONS, Limit, Ratio, Time, in_turns, missing_from, threads
from .table import Table, duration, print_machine
from .tree import measure, peak

THREADS = (1, 2)
BATCH = 100

# Name, C, height and width, filters, size of a filter, pad.
CONVOLUTIONS = (
    ("LeNet-5, first", 1, 28, 6, 5, 2),
    ("LeNet-5, second", 6, 14, 16, 5, 0),
    ("SimpleConvNet", 1, 28, 30, 5, 0),
    ("DeepConvNet, first", 1, 28, 16, 3, 1),
    ("DeepConvNet, second", 16, 28, 16, 3, 1),
    ("DeepConvNet, third", 16, 14, 32, 3, 1),
    ("DeepConvNet, fourth", 32, 14, 32, 3, 2),
    ("DeepConvNet, fifth", 32, 8, 64, 3, 1),
    ("DeepConvNet, sixth", 64, 8, 64, 3, 1),
)


def _stack(module, dtype, filters, hidden):
    """Convolutions (FN, C, size, pad), each with ReLU, and None for a pooling; then affine layers of those widths."""
    rng, stack = np.random.default_rng(0), []

    def weights(*shape):
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(dtype)

    for given in filters:
        if given is None:
            stack.append(module.Pooling(2, 2, 2))
            continue
        F, C, size, pad = given
        stack += [module.Convolution(weights(F, C, size, size), np.zeros(F, dtype), 1, pad), module.Relu()]
    stack += [module.Flat()] if module is book else []
    for D, M in itertools.pairwise(hidden):
        stack += [module.Affine(weights(M, D).T.copy(), np.zeros(M, dtype)), module.Relu()]
    return stack[:-1]


_DEEP = (
    *((16, 1, 3, 1), (16, 16, 3, 1), None),
    *((32, 16, 3, 1), (32, 32, 3, 2), None),
    *((64, 32, 3, 1), (64, 64, 3, 1), None),
)
NETWORKS = {
    "SimpleConvNet": (((30, 1, 5, 0), None), (4320, 100, 10)),
    "LeNet-5": (((6, 1, 5, 2), None, (16, 6, 5, 0), None), (400, 120, 84, 10)),
    "DeepConvNet": (_DEEP, (1024, 50, 10)),
}
# The name of an epoch of `fit`: the class of the network, and its optimizer.
EPOCHS = {
    "SimpleConvNet, SGD": ("SimpleConvNet", SGD),
    "LeNet-5, SGD": ("LeNet", SGD),
    "DeepConvNet, Adam": ("DeepConvNet", Adam),
}
BATCHES = 5


def setup_cache():
    found, least = {}, {}
    for n in THREADS:
        cases = {(name, dtype, n): functools.partial(gradient, name, dtype) for name in NETWORKS for dtype in DTYPES}
        with threads(n):
            found |= in_turns(cases, rounds=3)
        cases = {(name, dtype, n): functools.partial(epoch, name, dtype) for name in EPOCHS for dtype in DTYPES}
        with threads(n):
            found |= in_turns(cases, rounds=7)
        for name, dtype in itertools.product(EPOCHS, DTYPES):
            filters, widths = NETWORKS[name.partition(",")[0]]
            operations = flops.of_training_on_images(28, filters, widths, BATCHES * BATCH)
            least[name, dtype, n] = operations / peak.multiply_add_peak(dtype, n)
    return {**found, "least": least}


def epoch(name, dtype):
    """One epoch of `fit`; the twins in NumPy would take minutes."""
    kind, optimizer = EPOCHS[name]
    missing_from(fastbp, kind)
    rng = np.random.default_rng(0)
    x, t = rng.random((BATCHES * BATCH, 1, 28, 28)).astype(dtype), rng.integers(0, 10, BATCHES * BATCH)
    fit = getattr(fastbp, kind)(dtype=dtype, seed=0).fit
    settings = {"epochs": 1, "batch_size": BATCH, "optimizer": optimizer(1e-3), "seed": 0, "verbose": False}
    return {"fastbp": functools.partial(fit, x, t, **settings)}


def gradient(name, dtype):
    """Forward and backward of a batch, without the gradient by the images on fastbp's side."""
    missing_from(layers, "Convolution")
    rng = np.random.default_rng(1)
    x, t = rng.random((BATCH, 1, 28, 28)).astype(dtype), rng.integers(0, 10, BATCH)

    def once(stack, loss):
        out = x
        for layer in stack:
            out = layer.forward(out)
        loss.forward(out, t)
        dout = loss.backward()
        for layer in reversed(stack[1:]):
            dout = layer.backward(dout)
        getattr(stack[0], "backward_parameters", stack[0].backward)(dout)

    modules = layers, book
    both = (functools.partial(once, _stack(each, dtype, *NETWORKS[name]), each.SoftmaxWithLoss()) for each in modules)
    return dict(zip(IMPLEMENTATIONS, both, strict=True))


class Images(Time):
    """The gradient of a convolutional network."""

    params = (tuple(NETWORKS), DTYPES, THREADS, IMPLEMENTATIONS)
    param_names = ("network", "dtype", "threads", "impl")


class ImagesRatios(Ratio):
    """That gradient against one on plain NumPy, by matrices of windows."""

    params = (tuple(NETWORKS), DTYPES, THREADS)
    param_names = ("network", "dtype", "threads")


class ImagesEpochs(Time):
    """An epoch of `fit`."""

    params = (tuple(EPOCHS), DTYPES, THREADS, IMPLEMENTATIONS[:1])
    param_names = ("network", "dtype", "threads", "impl")


class ImagesLimits(Limit):
    """An epoch of `fit` against the multiply-add peak of as many cores."""

    params = (tuple(EPOCHS), DTYPES, THREADS)
    param_names = ("network", "dtype", "threads")


def main() -> None:
    """Print both tables."""
    print_machine()
    for n in THREADS:
        for dtype in DTYPES:
            with threads(n):
                _print_convolutions(dtype, n)
    clone = os.environ.get("FASTBP_BOOK")
    if not clone:
        print("\nFASTBP_BOOK names no clone of the book's repository: no comparison with its classes")
        return
    sys.path[:0] = [clone, f"{clone}/ch07", f"{clone}/ch08"]
    for n in THREADS:
        table = Table(("book", "fastbp", "ratio"), f"\n{n} thread(s), batch {BATCH}", names=70)
        with threads(n):
            for dtype in DTYPES:
                _print_networks(table, dtype)
    _print_memory(clone)


def _print_convolutions(dtype: str, n: int) -> None:
    top = peak.multiply_add_peak(dtype, n)
    print(f"\n{dtype}, {n} thread(s), batch {BATCH}; multiply-add peak {top / 1e9:.0f} GFLOP/s; shares of it")
    table = Table(("forward", "dx", "dW", "backward"), "convolution", names=24, width=12)
    for name, C, H, F, size, pad in CONVOLUTIONS:
        rng = np.random.default_rng(0)
        x, W = (
            rng.standard_normal((BATCH, C, H, H)).astype(dtype),
            rng.standard_normal((F, C, size, size)).astype(dtype),
        )
        before = layers.ReLU().forward(layers.Convolution(np.ones((C, C, 1, 1), dtype), np.zeros(C, dtype)).forward(x))
        layer = layers.Convolution(W, np.zeros(F, dtype), 1, pad)
        dout = layers.ReLU().forward(layer.forward(before))
        seconds = measure.medians(
            {
                "forward": functools.partial(layer.forward, before),
                "dW": functools.partial(layer.backward_parameters, dout),
                "backward": functools.partial(layer.backward, dout),
            },
            rounds=3,
        )
        operations = 2 * C * size * size * dout.size
        dx = seconds["backward"] - seconds["dW"]
        shares = (seconds["forward"], dx, seconds["dW"], seconds["backward"] / 2)
        table.row(name, *(operations / value / top for value in shares))


def _networks(dtype: str, of_book: bool):
    """The book's networks and what is timed of each, by name."""
    convolutional = "fastbp.book.ch07", "fastbp.book.ch08", "fastbp.book.multi_layer_net_extend"
    names = ("simple_convnet", "deep_convnet", "common.multi_layer_net_extend") if of_book else convolutional
    simple, deep, many = (importlib.import_module(name) for name in names)
    plain = importlib.import_module("common.multi_layer_net" if of_book else "fastbp.book.multi_layer_net")
    rng = np.random.default_rng(1)
    images, rows, t = rng.random((BATCH, 1, 28, 28)), rng.random((BATCH, 784)), rng.integers(0, 10, BATCH)
    images, rows, all_images = (each.astype(dtype) for each in (images, rows, rng.random((10_000, 1, 28, 28))))
    np.random.seed(0)
    networks = {
        "SimpleConvNet.gradient": (simple.SimpleConvNet(), "gradient", images, t),
        "DeepConvNet.gradient": (deep.DeepConvNet(), "gradient", images, t),
        "gradient of batch_norm_test's network": (
            many.MultiLayerNetExtend(784, [100] * 5, 10, weight_init_std=0.01, use_batchnorm=True), "gradient", rows, t,
        ),
        "gradient of hyperparameter_optimization's network": (
            plain.MultiLayerNet(784, [100] * 6, 10, weight_decay_lambda=1e-4), "gradient", rows, t
        ),
        "DeepConvNet.accuracy of 10,000 images": (
            deep.DeepConvNet(), "accuracy", all_images, np.resize(t, len(all_images))
        ),
    }  # fmt: skip
    found = {}
    for name, (network, method, *arguments) in networks.items():
        _convert(network, dtype)
        found[name] = functools.partial(getattr(network, method), *arguments)
    return found


def _convert(network, dtype):
    """Give a network of the book, or of `fastbp.book`, parameters of a dtype."""
    stack = network.layers if isinstance(network.layers, list) else network.layers.values()
    for layer in stack:
        for name in ("W", "b", "gamma", "beta"):
            if hasattr(layer, name):
                array = getattr(layer, name)
                key = next(key for key, value in network.params.items() if value is array)
                network.params[key] = array.astype(dtype)
                setattr(layer, name, network.params[key])


def _print_networks(table: Table, dtype: str) -> None:
    ours, theirs = _networks(dtype, of_book=False), _networks(dtype, of_book=True)
    for name, function in ours.items():
        both = {"book": theirs[name], "fastbp": function}
        # The calls after the book's 0.1 to 1 s of NumPy find cold caches and its BLAS's threads still spinning.
        found = measure.samples(both, rounds=1 if "accuracy" in name else 5, block=0.5, settling=0.2, pause=0.3)
        times = {each: statistics.median(values) for each, values in found.items()}
        table.row(f"{name}, {dtype}", *map(duration, times.values()), times["book"] / times["fastbp"])


_STEP = """
import sys
sys.path[:0] = [{clone!r}, {clone!r} + "/ch08"]
import numpy as np
if {of_book}:
    from deep_convnet import DeepConvNet
else:
    from fastbp.book.ch08 import DeepConvNet
network, rng = DeepConvNet(), np.random.default_rng(0)
x, t = rng.random((100, 1, 28, 28)), rng.integers(0, 10, 100)
network.gradient(x[:2], t[:2])  # loads what is compiled
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
before = peak()
network.gradient(x, t)
print(peak() - before)
"""


def _print_memory(clone: str) -> None:
    table = Table(("book", "fastbp", "ratio"), "\npeak memory, MB", names=70)
    found = []
    for of_book in (True, False):
        code = _STEP.format(clone=clone, of_book=of_book)
        run(code)
        found.append(int(run(code)) / 1024)
    table.row("DeepConvNet.gradient, float64", *found, found[1] / found[0])


if __name__ == "__main__":
    main()
