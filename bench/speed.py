"""The table of speeds, `python -m bench.speed [--kernels]`: fastbp against NumPy, in turns, in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import types

import numpy as np

from bench import book
from bench.cases import KERNELS, LAYERS, Draw
from fastbp import TwoLayerNet, get_num_threads, kernels, layers, num_threads, reference, use_reference
from fastbp.benchmark.machine import blas, blas_threads
from fastbp.benchmark.measure import medians
from fastbp.optimizers import SGD

BOOK = types.SimpleNamespace(Affine=book.Affine, Relu=book.Relu, SoftmaxWithLoss=book.SoftmaxWithLoss)


def main() -> None:
    """Print the table; `--kernels` adds a row for each kernel."""
    bits = kernels.REGISTER_BYTES * 8
    print(f"{bits}-bit vectors, {get_num_threads()} threads; NumPy {np.__version__} with {blas()}")
    print(f"{'':<58}{'NumPy':>12}{'fastbp':>12}{'ratio':>8}")
    for dtype in ("float64", "float32"):
        _network(dtype)
    for dtype in ("float64", "float32"):
        _affine(dtype)
    for dtype in ("float64", "float32"):
        _fused(dtype)
    if "--kernels" in sys.argv:
        for dtype in ("float64", "float32"):
            _kernels(dtype)
    _overhead()
    _commands()


def _network(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.random((100, 784)).astype(dtype), rng.integers(0, 10, 100)
    network, twin = (TwoLayerNet(784, 50, 10, dtype=dtype, seed=0) for _ in range(2))
    plain, imported = book.TwoLayerNet(network.params, BOOK), book.TwoLayerNet(network.params, layers)
    sgd = SGD(0.1)

    def step(net: TwoLayerNet) -> None:
        sgd.update(net.params, net.gradient(x, t))

    def step_on_reference() -> None:
        with use_reference():
            step(twin)

    seconds = medians(
        {
            "book": lambda: plain.step(x, t),
            "TwoLayerNet": lambda: step(network),
            "book, one import changed": lambda: imported.step(x, t),
            "reference": step_on_reference,
        }
    )
    name = f"gradient and SGD, 784-50-10, batch 100, {dtype}"
    _row(f"{name}: TwoLayerNet", seconds["book"], seconds["TwoLayerNet"], "against the book's classes")
    _row("  the same on the reference", seconds["reference"], seconds["TwoLayerNet"], "no gradient by x in either")
    _row("  the book's code with one import changed", seconds["book"], seconds["book, one import changed"])


def _affine(dtype: str) -> None:
    """Affine and ReLU, forward and backward, by layers and in plain NumPy, which writes to arrays of its own."""
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((100, 784)).astype(dtype), rng.standard_normal((100, 50)).astype(dtype)
    W, b = rng.standard_normal((784, 50)).astype(dtype), rng.standard_normal(50).astype(dtype)
    out, dz, dx, dW, db = (np.empty(shape, dtype) for shape in ((100, 50), (100, 50), x.shape, W.shape, b.shape))
    affine, relu = layers.Affine(W, b), layers.ReLU()

    def in_numpy() -> None:
        np.matmul(x, W, out=out)
        np.add(out, b, out=out)
        np.maximum(out, 0, out=out)
        np.multiply(dout, out > 0, out=dz)
        np.matmul(dz, W.T, out=dx)
        np.matmul(x.T, dz, out=dW)
        np.sum(dz, axis=0, out=db)

    def by_layers() -> None:
        relu.forward(affine.forward(x))
        affine.backward(relu.backward(dout))

    for threads in (1, 2):
        with num_threads(threads), blas_threads(threads):
            seconds = medians({"numpy": in_numpy, "fastbp": by_layers})
        _row(
            f"Affine and ReLU, both ways, 100×784→50, {dtype}, {threads} thread(s)", seconds["numpy"], seconds["fastbp"]
        )


def _fused(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 1000)).astype(dtype).reshape(-1)
    out, dx, mask = np.empty_like(x), np.empty_like(x), np.empty(x.shape, bool)
    batches = [(rng.standard_normal((N, C)).astype(dtype), rng.integers(0, C, N)) for N, C in ((100, 10), (1000, 1000))]
    results = [(np.empty_like(logits), np.empty_like(logits)) for logits, _ in batches]
    many = rng.standard_normal(1_000_000).astype(dtype)
    powers = np.empty_like(many)

    def loss(module: types.ModuleType, size: int) -> None:
        (logits, t), (y, dlogits) = batches[size], results[size]
        module.softmax_cross_entropy_forward(logits, t, y)
        module.softmax_cross_entropy_backward(y, t, 1.0, dlogits)

    def relu(module: types.ModuleType) -> None:
        module.relu_forward(x, out, mask)
        module.relu_backward(out, mask, dx)

    pairs = {
        f"softmax-cross-entropy and gradient, 100×10, {dtype}": lambda module: loss(module, 0),
        f"softmax-cross-entropy and gradient, 1000×1000, {dtype}, 1 thread": lambda module: loss(module, 1),
        f"exp of 1,000,000, {dtype}, 1 thread": lambda module: module.exp_forward(many, powers),
        f"ReLU forward and backward, 100×1000, {dtype}": relu,
    }
    for name, function in pairs.items():
        with num_threads(1):
            seconds = medians({"numpy": lambda f=function: f(reference), "fastbp": lambda f=function: f(kernels)})
        _row(name, seconds["numpy"], seconds["fastbp"])


def _kernels(dtype: str) -> None:
    for case in KERNELS:
        arguments = case.arguments(Draw(dtype, case.size))
        functions = {
            name: lambda module=module, case=case, arguments=arguments: getattr(module, case.kernel)(*arguments)
            for name, module in (("numpy", reference), ("fastbp", kernels))
        }
        seconds = medians(functions, rounds=3)
        _row(f"{case.name}, {dtype}", seconds["numpy"], seconds["fastbp"])


def _overhead() -> None:
    functions = {}
    for case in LAYERS:
        draw = Draw("float64", (2, 3, 4))
        layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
        layer.forward(*inputs)
        functions[f"{case.name}.forward"] = lambda layer=layer, inputs=inputs: layer.forward(*inputs)
        functions[f"{case.name}.backward"] = lambda layer=layer, douts=douts or (1,): layer.backward(*douts)
    for name, seconds in medians(functions, rounds=3).items():
        print(f"{f'one call on tiny arrays: {name}':<70}{seconds * 1e6:>9.1f} µs")


_TRAINING = """
import time, numpy, fastbp
rng = numpy.random.default_rng(0)
network = fastbp.TwoLayerNet(784, 50, 10, seed=0)
start = time.perf_counter()
network.fit(rng.random((200, 784)), rng.integers(0, 10, 200))
print(time.perf_counter() - start)
"""


def _commands() -> None:
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compiled from an empty cache", "loaded from the cache"):
            command = [sys.executable, "-c", _TRAINING]
            environment = os.environ | {"FASTBP_CACHE": cache}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            print(f"{f'all that a run of fit needs, {name}':<70}{float(done.stdout):>10.2f} s")
    with tempfile.TemporaryDirectory() as cache:
        for name, runs in (("an empty", 1), ("a warm", 3)):
            times = []
            for _ in range(runs):
                start = time.perf_counter()
                command = [sys.executable, "-m", "fastbp", "train"]
                subprocess.run(command, env=os.environ | {"FASTBP_CACHE": cache}, stdout=subprocess.DEVNULL, check=True)
                times.append(time.perf_counter() - start)
            print(f"{f'fastbp train on digits, from {name} cache':<70}{np.median(times):>10.1f} s")


def _row(name: str, numpy: float, fastbp: float, remark: str = "") -> None:
    print(f"{name:<58}{numpy * 1e6:>9.1f} µs{fastbp * 1e6:>9.1f} µs{numpy / fastbp:>8.2f}  {remark}".rstrip())


if __name__ == "__main__":
    main()
