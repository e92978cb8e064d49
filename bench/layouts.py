"""Steps of small dense networks with their samples in rows and in lanes, on one thread: `python -m bench.layouts`.

`fastbp.engine.table.is_small` chooses by such figures. The table has what it chose in its last column.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from bench.suite import threads
from bench.table import Table, duration, print_machine
from fastbp import layers
from fastbp.benchmark.measure import samples
from fastbp.engine import plan, table
from fastbp.optimizers import SGD

# Widths, samples of a batch, the activation.
NETWORKS = (
    ((24, 8, 2), 200, layers.Tanh),
    ((24, 8, 2), 100, layers.Tanh),
    ((24, 8, 2), 48, layers.ReLU),
    ((24, 8, 2), 32, layers.ReLU),
    ((24, 8, 2), 16, layers.ReLU),
    ((4, 10, 3), 150, layers.ReLU),
    ((4, 10, 3), 32, layers.ReLU),
    ((2, 16, 16, 2), 200, layers.Tanh),
    ((13, 32, 3), 178, layers.ReLU),
    ((30, 16, 1), 100, layers.ReLU),
    ((20, 100, 1), 150, layers.ReLU),
    ((64, 8, 10), 200, layers.ReLU),
    ((64, 16, 10), 200, layers.ReLU),
    ((64, 32, 10), 100, layers.ReLU),
    ((64, 100, 10), 50, layers.ReLU),
    ((200, 4, 2), 200, layers.ReLU),
)
STEPS, ROUNDS = 20, 101


def main() -> None:
    """Print the table for each dtype."""
    print_machine()
    with threads(1):
        for dtype in ("float32", "float64"):
            shown = Table(("rows", "lanes", "ratio", "chosen"), f"\na step, {dtype}, 1 thread", names=44)
            for widths, batch, activation in NETWORKS:
                calls = {in_lanes: _steps(widths, batch, activation, dtype, in_lanes) for in_lanes in (False, True)}
                taken = samples(calls, rounds=ROUNDS, block=0.0005, settling=0.0005, pause=0)
                # The least: a busy neighbour adds to the others.
                rows, lanes = (min(taken[name]) / STEPS for name in calls)
                chosen = (
                    "lanes"
                    if table.is_small([*table.mapped(_stack(widths, activation, dtype), widths[:1])], batch)
                    else "rows"
                )
                name = f"{'-'.join(map(str, widths))} {activation.__name__}, batch {batch}"
                shown.row(name, duration(rows), duration(lanes), rows / lanes, chosen)


def _stack(widths: tuple[int, ...], activation: Any, dtype: str) -> list[Any]:
    rng, stack = np.random.default_rng(0), []
    for D, M in itertools.pairwise(widths):
        W = rng.standard_normal((D, M)) / D**0.5
        stack += [layers.Affine(W.astype(dtype), np.zeros(M, dtype)), activation()]
    return stack[:-1]


def _steps(widths: tuple[int, ...], batch: int, activation: Any, dtype: str, in_lanes: bool) -> Callable[[], None]:
    """Steps of an epoch."""
    stack, rng = _stack(widths, activation, dtype), np.random.default_rng(1)
    loss = layers.SoftmaxWithLoss() if widths[-1] > 1 else layers.IdentityWithLoss()
    params = {
        f"{number}{name}": getattr(each, name)
        for number, each in enumerate(stack)
        for name in getattr(each, "parameter_names", ())
    }
    with mock.patch.object(table, "is_small", return_value=in_lanes):
        engine = plan.Engine(stack, loss, SGD(1e-3), params, np.dtype(dtype), widths[:1], batch)
    engine.read()
    samples = STEPS * batch
    x, order = rng.standard_normal((samples, widths[0])).astype(dtype), rng.permutation(samples)
    labels, targets = rng.integers(0, widths[-1], samples), np.zeros((samples, 1), dtype)
    data = (x, labels, targets[:0], 1.0) if widths[-1] > 1 else (x, labels[:0], targets, 1.0)
    losses, hits = np.zeros(STEPS), np.zeros(STEPS)
    engine.train(data, order, np.empty(0), 0, 0, losses, hits, True)
    return lambda: engine.train(data, order, np.empty(0), 0, STEPS, losses, hits, True) and None


if __name__ == "__main__":
    main()
