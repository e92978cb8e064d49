"""The table of speeds: `python -m bench.speed [--kernels]` times fastbp against NumPy, in turns, in one run."""

from __future__ import annotations

import functools
import statistics
import sys
import types
from collections.abc import Callable

import numpy as np

from bench import book, engine, imports
from bench import kernels as suite_kernels
from bench.cases import LAYERS, Draw
from bench.processes import empty_and_warm, seconds_of_all
from bench.suite import threads
from bench.table import Table, duration, print_machine
from fastbp import TwoLayerNet, kernels, layers, num_threads, reference
from fastbp.benchmark.measure import medians

DTYPES = ("float64", "float32")


def main() -> None:
    """Print the table; `--kernels` adds a row for each kernel."""
    print_machine()
    table = Table(("NumPy", "fastbp", "ratio"), names=70)
    sections = [_network, _affine, _fused, *([_kernels] if "--kernels" in sys.argv else [])]
    for section in sections:
        for dtype in DTYPES:
            section(table, dtype)
    _overhead(table)
    _cold_starts(table)


def _row(table: Table, name: str, numpy: float, fastbp: float, *notes: str) -> None:
    table.row(name, duration(numpy), duration(fastbp), numpy / fastbp, notes=notes)


def _network(table: Table, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.random((100, 784)).astype(dtype), rng.integers(0, 10, 100)
    params = TwoLayerNet(784, 50, 10, dtype=dtype, seed=0).params
    plain, imported = book.TwoLayerNet(params, book), book.TwoLayerNet(params, layers)
    seconds = medians({"book": lambda: plain.step(x, t), "imported": lambda: imported.step(x, t), **engine.step(dtype)})
    name = f"gradient and SGD, 784-50-10, batch 100, {dtype}: TwoLayerNet"
    _row(table, name, seconds["book"], seconds["fastbp"], "against the book's classes")
    _row(table, "  on the reference", seconds["numpy"], seconds["fastbp"], "neither has the gradient by x")
    _row(table, "  the book's code with one import changed", seconds["book"], seconds["imported"])


def _affine(table: Table, dtype: str) -> None:
    """Affine and ReLU forward and backward, by layers and in plain NumPy, which reuses its arrays."""
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

    for n in (1, 2):
        with threads(n):
            seconds = medians({"numpy": in_numpy, "fastbp": by_layers})
        _row(table, f"Affine and ReLU, both ways, 100×784→50, {dtype}, {n} thread(s)", *seconds.values())


def _fused(table: Table, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 1000)).astype(dtype).reshape(-1)
    out, dx, mask = np.empty_like(x), np.empty_like(x), np.empty(x.shape, bool)
    many = rng.standard_normal(1_000_000).astype(dtype)
    powers = np.empty_like(many)

    def loss(N: int, C: int) -> Callable[[types.ModuleType], None]:
        logits, t = rng.standard_normal((N, C)).astype(dtype), rng.integers(0, C, N)
        y, dlogits = np.empty_like(logits), np.empty_like(logits)

        def call(module: types.ModuleType) -> None:
            module.softmax_cross_entropy_forward(logits, t, y)
            module.softmax_cross_entropy_backward(y, t, 1.0, dlogits)

        return call

    def relu(module: types.ModuleType) -> None:
        module.relu_forward(x, out, mask)
        module.relu_backward(out, mask, dx)

    pairs = {
        f"softmax-cross-entropy and gradient, 100×10, {dtype}": loss(100, 10),
        f"softmax-cross-entropy and gradient, 1000×1000, {dtype}, 1 thread": loss(1000, 1000),
        f"exp of 1,000,000, {dtype}, 1 thread": lambda module: module.exp_forward(many, powers),
        f"ReLU forward and backward, 100×1000, {dtype}": relu,
    }
    for name, function in pairs.items():
        with num_threads(1):
            seconds = medians({module: functools.partial(function, module) for module in (reference, kernels)})
        _row(table, name, *seconds.values())


def _kernels(table: Table, dtype: str) -> None:
    for name, case in suite_kernels.CASES.items():
        seconds = medians(suite_kernels.functions(case, dtype), rounds=3)
        _row(table, f"{name}, {dtype}", seconds["numpy"], seconds["fastbp"])


def _overhead(table: Table) -> None:
    functions = {}
    for case in LAYERS:
        draw = Draw("float64", (2, 3, 4))
        layer, inputs, douts = case.layer(draw), case.inputs(draw), case.dout(draw)
        layer.forward(*inputs)
        functions[f"{case.name}.forward"] = functools.partial(layer.forward, *inputs)
        functions[f"{case.name}.backward"] = functools.partial(layer.backward, *douts or (1,))
    for name, seconds in medians(functions, rounds=3).items():
        table.row(f"one call on tiny arrays: {name}", None, duration(seconds))


def _cold_starts(table: Table) -> None:
    train = functools.partial(seconds_of_all, "from fastbp.cli import main; raise SystemExit(main(['train']))")
    starts = {"first fit": functools.partial(imports.waiting, "fit"), "fastbp train on digits": train}
    for name, measure in starts.items():
        empty, warm = empty_and_warm(measure, runs=3)
        table.row(f"{name}, empty cache", None, duration(empty))
        table.row(f"{name}, warm cache", None, duration(statistics.median(warm)))


if __name__ == "__main__":
    main()
