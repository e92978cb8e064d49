"""fastbp, its reference in NumPy and the libraries installed here, timed in turns: what `fastbp bench` prints.

A figure is the median of the turns, with the quartiles around it. The limit of a task is the time that the
multiply-adds of its products take at the machine's peak (`fastbp.benchmark.peak`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastbp.benchmark.machine import blas_threads, describe
from fastbp.benchmark.peers import (
    Fastbp,
    Jax,
    JaxScan,
    Lean,
    Reference,
    ScikitLearn,
    Task,
    Torch,
    noise,
    seconds_in_turns,
)
from fastbp.kernels import get_num_threads

PEERS = (Fastbp, Reference, Lean, Torch, Jax, JaxScan, ScikitLearn)
TASKS = (
    Task((784, 50, 10), 100, steps=50),
    Task((784, 1024, 10), 128, steps=5),
    Task((784, 50, 10), 1, steps=1000),
    Task((784, 50, 10), 100, samples=2000),
    Task((784, 256, 128, 10), 200, optimizer="Adam", samples=2000),
)
ROUNDS = 5
SECONDS = 7  # for a row, in which a quiet machine has done all rounds


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some seconds."""

    low: float
    median: float
    high: float

    @staticmethod
    def of(seconds: list[float]) -> Spread:
        """Of two figures or more."""
        return Spread(*statistics.quantiles(seconds, n=4, method="inclusive"))


@dataclass(frozen=True)
class Row:
    """A task, its limit, and the seconds of a step or epoch by the name of the peer."""

    task: Task
    limit: float
    seconds: dict[str, list[float]]

    @property
    def spreads(self) -> dict[str, Spread]:
        """`seconds` in short."""
        return {name: Spread.of(values) for name, values in self.seconds.items()}


@dataclass
class Comparison:
    """The rows so far, the machine they were measured on, and why peers are missing."""

    machine: dict[str, Any] = field(default_factory=describe)
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def run(self) -> Iterator[Row]:
        """Measure the rows, one after the other."""
        for task in TASKS:
            with blas_threads(get_num_threads()):
                seconds = seconds_in_turns(task, PEERS, noise(task), self.missing, ROUNDS, SECONDS)
            self.rows.append(Row(task, task.flops / self.machine["peak_flops"], seconds))
            yield self.rows[-1]

    def head(self) -> str:
        """The machine, and the titles of the columns."""
        machine = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
        return (
            f"{machine['processor']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors; "
            f"Python {machine['python']}, {machine['system']}\n"
            f"{versions}; BLAS: {machine['blas']}\n"
            f"float32, {machine['threads']} threads (JAX takes what it likes); multiply-add peak "
            f"{machine['peak_flops'] / 1e9:.0f} GFLOP/s\n"
            "Median ± half the distance between the quartiles: µs of a step, ms of an epoch of 2,000 samples.\n"
            "limit: the products' multiply-adds at the peak. next: the time of the fastest other against fastbp's.\n\n"
            f"{'':<37}{''.join(f'{peer.name:>15}' for peer in PEERS)}{'limit':>9}{'next':>6}"
        )

    def line(self, row: Row) -> str:
        """A row of the table."""
        unit = 1e6 if row.task.steps else 1e3
        spreads = row.spreads
        cells = [f"{_cell(spreads[peer.name], unit) if peer.name in spreads else '-':>15}" for peer in PEERS]
        own, *others = (spread.median for spread in spreads.values())
        return f"{row.task.name:<37}{''.join(cells)}{_digits(row.limit * unit):>9}{min(others) / own:>6.2f}"

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        rows = [
            {
                "task": row.task.name,
                "unit": "step" if row.task.steps else "epoch",
                "multiply_add_flops": row.task.flops,
                "limit_seconds": row.limit,
                "seconds": {
                    name: {"median": spread.median, "low": spread.low, "high": spread.high, "turns": row.seconds[name]}
                    for name, spread in row.spreads.items()
                },
            }
            for row in self.rows
        ]
        return {"machine": self.machine, "missing": self.missing, "rows": rows}


def _cell(spread: Spread, unit: float) -> str:
    return f"{_digits(spread.median * unit)} ± {_digits((spread.high - spread.low) / 2 * unit)}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
