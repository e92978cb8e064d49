"""Compiled and eager graphs: a part of the suite, and `python -m bench.graph` against NumPy, JAX and plain Python.

JAX is a peer, not a requirement; its column is empty where it is not installed. All figures of a row are measured in
turns in one run.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import suite
from bench.cases import DTYPES
from bench.processes import empty_and_warm, seconds
from bench.scalars import Scalar
from bench.table import Table, digits, duration, print_machine
from bench.tree import measure
from fastbp import graph
from fastbp.graph import Variable

SIZE = 1_000_000
SIZES = (10_000, SIZE)
THREADS = (1, 2)
ROUNDS = 7
HIDDEN = 16
POINTS = 100

# ReLU is called first, because Numba needs 0.2 to 0.3 s in every process before its first kernel runs.
PREPARATION = """
import numpy as np
from bench.graph import expression
from fastbp import functions, graph
a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
"""
FIRST_CALLS = ("functions.relu(a)", "graph.compile(expression).value_and_grad(a, b)")


def expression(a: Any, b: Any) -> Any:
    return (graph.exp(-a * b) / (1 + graph.exp(-a)) * graph.tanh(b)).sum()


def square(x: Any, y: Any) -> Any:
    return ((x + y) ** 2).sum()


def setup_cache():
    """A compiled graph on one thread and on two, and an eager graph of numbers on a tenth of the points."""
    found = {}
    for threads in THREADS:
        with suite.threads(threads):
            cases = {
                (size, dtype, threads): functools.partial(functions, size, dtype) for size in SIZES for dtype in DTYPES
            }
            found |= suite.in_turns(cases, rounds=7, block=0.02, settling=0.01)
    return found | suite.in_turns(
        {("eager",): lambda: _on_numbers(POINTS // 10)}, rounds=7, block=0.02, settling=0.01, pause=0
    )


class Compiled(suite.Time):
    """Value and both gradients of a compiled expression."""

    params = (SIZES, DTYPES, THREADS, suite.IMPLEMENTATIONS)
    param_names = ("size", "dtype", "threads", "impl")


class CompiledRatios(suite.Ratio):
    """A compiled expression against NumPy code written by hand."""

    params = (SIZES, DTYPES, THREADS)
    param_names = ("size", "dtype", "threads")


class Eager(suite.Time):
    """Loss and gradients of a small network of single numbers; `numpy` means scalars in plain Python."""

    params = (("eager",), suite.IMPLEMENTATIONS)
    param_names = ("graph", "impl")


class EagerRatios(suite.Ratio):
    """Eager variables against scalars in plain Python."""

    params = (("eager",),)
    param_names = ("graph",)


def functions(size: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Value and gradients of the expression by a compiled graph and by NumPy."""
    a, b = np.random.default_rng(0).standard_normal((2, size)).astype(dtype)
    g = graph.compile(expression)
    return {"fastbp": lambda: g.value_and_grad(a, b), "numpy": lambda: _numpy_expression(a, b)}


def main() -> None:
    """Print the table."""
    print_machine()
    table = Table(("fastbp", "NumPy", "JAX jit"), f"{SIZE:,} elements, value and both gradients", names=50)
    for dtype in DTYPES:
        _elementwise(table, f"exp(-ab)/(1+exp(-a))·tanh(b) summed, {dtype}", expression, _numpy_expression, dtype)
    for dtype in DTYPES:
        _elementwise(table, f"(x+y)² summed, {dtype}", square, _numpy_square, dtype)
    _first_calls()
    _network()


def _elementwise(table: Table, name: str, f: Any, numpy: Any, dtype: str) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, SIZE)).astype(dtype)
    g = graph.compile(f)
    functions: dict[str, Callable[[], Any]] = {"fastbp": lambda: g.value_and_grad(a, b), "NumPy": lambda: numpy(a, b)}
    jax = _jax(f, a, b)
    if jax is not None:
        functions["JAX"] = jax
    if f is square:
        functions["copy"] = _copy(a, b)
    seconds = measure.medians(functions, rounds=ROUNDS)
    own = seconds["fastbp"]
    notes = [f"{peer} {digits(seconds[peer] / own)}" for peer in ("NumPy", "JAX") if peer in seconds]
    if f is square:
        speed = f"{4 * a.nbytes / own / 1e9:.0f} GB/s"
        notes.append(f"{speed}, {seconds['copy'] / own:.0%} of a copy of both inputs on all threads")
    table.row(name, *(duration(seconds.get(peer)) for peer in ("fastbp", "NumPy", "JAX")), notes=notes)


def _numpy_expression(a: Any, b: Any) -> Any:
    e, f, t = np.exp(-a * b), np.exp(-a), np.tanh(b)
    q = e / (1 + f)
    y = q * t
    return y.sum(), (y * (f / (1 + f) - b), q * (1 - t * t) - a * y)


def _numpy_square(x: Any, y: Any) -> Any:
    total = x + y
    return np.dot(total, total), (2 * total, 2 * total)


def _copy(a: Any, b: Any) -> Callable[[], object]:
    # asv imports this file beside commits that have no such module.
    from fastbp.runtime.sharing import shared_kernel  # noqa: PLC0415

    @shared_kernel
    def copy(a, b, c, d):
        for i in range(a.size):
            c[i] = a[i]
            d[i] = b[i]

    return functools.partial(copy, a, b, np.empty_like(a), np.empty_like(b))


def _jax(f: Any, a: Any, b: Any) -> Callable[[], Any] | None:
    try:
        import jax  # noqa: PLC0415 - a peer
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)

    def jax_expression(a: Any, b: Any) -> Any:
        return (jax.numpy.exp(-a * b) / (1 + jax.numpy.exp(-a)) * jax.numpy.tanh(b)).sum()

    jitted = jax.jit(jax.value_and_grad(jax_expression if f is expression else f, argnums=(0, 1)))
    x, y = jax.numpy.asarray(a), jax.numpy.asarray(b)
    return lambda: jax.block_until_ready(jitted(x, y))


def _first_calls() -> None:
    measured = functools.partial(seconds, *FIRST_CALLS, preparation=PREPARATION)
    runs = [empty_and_warm(measured, runs=1) for _ in range(3)]
    table = Table(("empty cache", "warm cache"), "compile and first call in a new process", names=50, width=13)
    for number, name in enumerate(("ReLU, first of all", "the expression, after ReLU, float32")):
        empty, warm = zip(*((empty[number], warm[0][number]) for empty, warm in runs), strict=True)
        table.row(name, duration(statistics.median(empty)), duration(statistics.median(warm)))


def network(relu: Callable[[Any], Any], inputs: list[Any], parameters: Any) -> Any:
    """A 2-16-16-1 network on single numbers, or on arrays of them."""
    for outputs in (HIDDEN, HIDDEN, 1):
        sums = []
        for _ in range(outputs):
            total = next(parameters)
            for x in inputs:
                total = total + next(parameters) * x
            sums.append(total if outputs == 1 else relu(total))
        inputs = sums
    return inputs[0]


def _network() -> None:
    functions = {"compiled": _over_arrays(), **_on_numbers(POINTS)}
    agree = [function() for function in functions.values()]
    np.testing.assert_allclose(agree, agree[0], rtol=1e-10)
    seconds = measure.medians(functions, rounds=5)
    plain, eager, compiled = (seconds[name] for name in ("numpy", "fastbp", "compiled"))
    head = f"2-{HIDDEN}-{HIDDEN}-1 of numbers, {POINTS} points, float64"
    table = Table(("plain Python", "eager", "compiled"), head, names=50, width=13)
    notes = [f"eager {digits(plain / eager)} times as fast", f"compiled {digits(eager / compiled)} times as fast again"]
    table.row("loss and all gradients", duration(plain), duration(eager), duration(compiled), notes=notes)


def _on_numbers(points: int) -> dict[str, Callable[[], float]]:
    """The sum of the gradients of a network of single numbers, by eager variables and by plain Python."""
    x, t, parameters = _points_and_parameters(points)
    rows, targets = x.tolist(), t.tolist()

    def step(kind: Any, relu: Callable[[Any], Any]) -> float:
        leaves = [kind(value) for value in parameters]
        loss: Any = kind(0.0)
        for row, target in zip(rows, targets, strict=True):
            difference = network(relu, row, iter(leaves)) + -target
            loss = loss + difference * difference
        loss.backward()
        return float(sum(leaf.grad for leaf in leaves))

    sys.setrecursionlimit(1_000_000)
    return {
        "numpy": functools.partial(step, Scalar, Scalar.relu),
        "fastbp": functools.partial(step, Variable, Variable.relu),
    }


def _over_arrays() -> Callable[[], float]:
    """The same by a compiled graph on the arrays of all points."""
    x, t, parameters = _points_and_parameters(POINTS)
    columns = x[:, 0].copy(), x[:, 1].copy()

    def loss(x1: Any, x2: Any, t: Any, *parameters: Any) -> Any:
        difference = network(graph.relu, [x1, x2], iter(parameters)) - t
        return (difference * difference).sum()

    g = graph.compile(loss)
    return lambda: sum(g.value_and_grad(*columns, t, *parameters)[1][3:])


def _points_and_parameters(points: int) -> tuple[Any, Any, list[float]]:
    rng = np.random.default_rng(0)
    x, t = rng.uniform(-1, 1, (points, 2)), rng.uniform(-1, 1, points)
    count = 3 * HIDDEN + (HIDDEN + 1) * HIDDEN + HIDDEN + 1
    return x, t, rng.uniform(-1, 1, count).tolist()


if __name__ == "__main__":
    main()
