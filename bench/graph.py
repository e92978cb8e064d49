"""Graphs, compiled and eager: for the suite, and `python -m bench.graph` prints fastbp against NumPy, JAX and Python.

JAX is a peer, not a requirement; where it is not installed its column is empty. Figures of a row are measured in
turns in one run.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import suite
from bench.cases import DTYPES
from bench.scalars import Scalar
from bench.tree import measure
from fastbp import get_num_threads, graph
from fastbp.graph import Variable

try:
    from fastbp.kernels._shared import shared_kernel
except ImportError:  # a commit before that module
    from fastbp.kernels._jit import shared_kernel

SIZE = 1_000_000
SIZES = (10_000, SIZE)
THREADS = (1, 2)
ROUNDS = 7
HIDDEN = 16
POINTS = 100

# Numba needs 0.2 to 0.3 s in every process before its first kernel runs, whatever that is: ReLU's here.
FIRST_CALLS = """
import time
import numpy as np
from bench.graph import expression
from fastbp import functions, graph
a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
for call in (lambda: functions.relu(a), lambda: graph.compile(expression).value_and_grad(a, b)):
    start = time.perf_counter()
    call()
    print(time.perf_counter() - start)
"""


def expression(a: Any, b: Any) -> Any:
    return (graph.exp(-a * b) / (1 + graph.exp(-a)) * graph.tanh(b)).sum()


def square(x: Any, y: Any) -> Any:
    return ((x + y) ** 2).sum()


def setup_cache():
    """A compiled graph on one thread and on two, and an eager one of numbers on a tenth of the points."""
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

    def track_time(self, *_):
        return self.result()


class CompiledRatios(suite.Ratio):
    """A compiled expression against the same in NumPy, written by hand."""

    params = (SIZES, DTYPES, THREADS)
    param_names = ("size", "dtype", "threads")

    def track_ratio(self, *_):
        return self.result()


class Eager(suite.Time):
    """Loss and gradients of a small network of single numbers; `numpy` stands for scalars in plain Python."""

    params = (("eager",), suite.IMPLEMENTATIONS)
    param_names = ("graph", "impl")

    def track_time(self, *_):
        return self.result()


class EagerRatios(suite.Ratio):
    """Eager variables against scalars in plain Python."""

    params = (("eager",),)
    param_names = ("graph",)

    def track_ratio(self, *_):
        return self.result()


def functions(size: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Value and gradients of the expression by a compiled graph and by NumPy."""
    a, b = np.random.default_rng(0).standard_normal((2, size)).astype(dtype)
    g = graph.compile(expression)
    return {"fastbp": lambda: g.value_and_grad(a, b), "numpy": lambda: _numpy_expression(a, b)}


def main() -> None:
    """Print the table."""
    print(f"{get_num_threads()} threads; NumPy {np.__version__}{_jax_version()}")
    print(f"{f'{SIZE:,} elements, value and both gradients':<52}{'fastbp':>10}{'NumPy':>10}{'JAX jit':>10}  ratios")
    for dtype in DTYPES:
        _elementwise(f"exp(-ab)/(1+exp(-a))·tanh(b) summed, {dtype}", expression, _numpy_expression, dtype)
    for dtype in DTYPES:
        _elementwise(f"(x+y)² summed, {dtype}", square, _numpy_square, dtype, bandwidth=True)
    _first_calls()
    _network()


def _elementwise(name: str, f: Any, numpy: Any, dtype: str, bandwidth: bool = False) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, SIZE)).astype(dtype)
    g = graph.compile(f)
    functions: dict[str, Callable[[], Any]] = {"fastbp": lambda: g.value_and_grad(a, b), "NumPy": lambda: numpy(a, b)}
    jax = _jax(f, a, b)
    if jax is not None:
        functions["JAX"] = jax
    if bandwidth:
        da, db = np.empty_like(a), np.empty_like(b)
        functions["copy"] = lambda: _copy(a, b, da, db)
    seconds = measure.medians(functions, rounds=ROUNDS)
    ratios = [f"NumPy {seconds['NumPy'] / seconds['fastbp']:.1f}"]
    if jax is not None:
        ratios.append(f"JAX {seconds['JAX'] / seconds['fastbp']:.1f}")
    if bandwidth:
        moved = 4 * a.nbytes / 1e9
        ratios.append(
            f"{moved / seconds['fastbp']:.0f} GB/s, {seconds['copy'] / seconds['fastbp']:.0%} of what a copy of both "
            f"inputs on all threads reaches"
        )
    shown = "".join(f"{seconds[n] * 1e3:7.2f} ms" if n in seconds else f"{'-':>10}" for n in ("fastbp", "NumPy", "JAX"))
    print(f"{name:<52}{shown}  {', '.join(ratios)}")


def _numpy_expression(a: Any, b: Any) -> Any:
    e, f, t = np.exp(-a * b), np.exp(-a), np.tanh(b)
    q = e / (1 + f)
    y = q * t
    return y.sum(), (y * (f / (1 + f) - b), q * (1 - t * t) - a * y)


def _numpy_square(x: Any, y: Any) -> Any:
    total = x + y
    return np.dot(total, total), (2 * total, 2 * total)


@shared_kernel
def _copy(a, b, c, d):
    for i in range(a.size):
        c[i] = a[i]
        d[i] = b[i]


def _jax(f: Any, a: Any, b: Any) -> Callable[[], Any] | None:
    try:
        import jax  # noqa: PLC0415 - a peer
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    formulas = {expression: _jax_expression, square: lambda x, y: ((x + y) ** 2).sum()}
    jitted = jax.jit(jax.value_and_grad(formulas[f], argnums=(0, 1)))
    x, y = jax.numpy.asarray(a), jax.numpy.asarray(b)
    return lambda: jax.block_until_ready(jitted(x, y))


def _jax_expression(a: Any, b: Any) -> Any:
    import jax.numpy as jnp  # noqa: PLC0415

    return (jnp.exp(-a * b) / (1 + jnp.exp(-a)) * jnp.tanh(b)).sum()


def _jax_version() -> str:
    try:
        import jax  # noqa: PLC0415
    except ImportError:
        return ""
    return f", JAX {jax.__version__}"


def _first_calls() -> None:
    runs: list[list[float]] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as cache:
            runs.append([*_first_calls_in_a_process(cache), *_first_calls_in_a_process(cache)])
    start, empty, warm_start, warm = (1e3 * statistics.median(column) for column in zip(*runs, strict=True))
    print("compile and first call of the expression, float32, in a new process (ReLU's first call before it):")
    print(f"  from nothing {empty:.0f} ms ({start:.0f} ms), from the cache {warm:.0f} ms ({warm_start:.0f} ms)")


def _first_calls_in_a_process(cache: str) -> list[float]:
    command = [sys.executable, "-c", FIRST_CALLS]
    done = subprocess.run(command, env=os.environ | {"FASTBP_CACHE": cache}, stdout=subprocess.PIPE, check=True)
    return [float(line) for line in done.stdout.split()]


def network(relu: Callable[[Any], Any], inputs: list[Any], parameters: Any) -> Any:
    """A 2-16-16-1 network on single numbers, or on whatever stands for them."""
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
    print(f"a 2-{HIDDEN}-{HIDDEN}-1 network of single numbers on {POINTS} points, loss and all gradients, float64:")
    print(
        f"  plain Python {seconds['numpy'] * 1e3:.0f} ms, eager variables {seconds['fastbp'] * 1e3:.0f} ms "
        f"({seconds['numpy'] / seconds['fastbp']:.1f} times as fast), compiled over arrays "
        f"{seconds['compiled'] * 1e6:.0f} µs ({seconds['fastbp'] / seconds['compiled']:,.0f} times as fast as eager)"
    )


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
    """The same by a compiled graph over the arrays of all points."""
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
