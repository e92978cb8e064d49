"""fastbp, its reference in NumPy and the libraries installed here, timed in turns: what `fastbp bench` prints.

A figure is the median of the turns, with the quartiles around it. The limit of a task is the time that the
multiply-adds of its products take at the machine's peak (`fastbp.benchmark.peak`).
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
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
    Torch,
    TorchChannelsLast,
    seconds_in_turns,
)
from fastbp.benchmark.tasks import Task, noise
from fastbp.convolutional import DeepConvNet, LeNet, SimpleConvNet
from fastbp.kernels import get_num_threads

PEERS = (Fastbp, Reference, Lean, Torch, TorchChannelsLast, Jax, JaxScan, ScikitLearn)
TASKS = (
    Task((784, 50, 10), 100, steps=50),
    Task((784, 1024, 10), 128, steps=5),
    Task((784, 50, 10), 1, steps=1000),
    Task((784, 50, 10), 100, samples=2000),
    Task((784, 256, 128, 10), 200, optimizer="Adam", samples=2000),
    Task(SimpleConvNet, 100, steps=10),
    Task(LeNet, 100, steps=10),
    Task(DeepConvNet, 100, steps=5, optimizer="Adam"),
)
ROUNDS, ROUNDS_AS_USERS = 5, 25  # as users have it, a turn is a single call
SECONDS = 75  # for all rows, in which a quiet machine has done all rounds; none begins later
SCATTER = 0.1  # the most that half the distance between the quartiles may be of the median


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some seconds."""

    low: float
    median: float
    high: float

    @property
    def scatter(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / self.median

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
    """The rows so far, the machine they were measured on, why peers are missing, and what is doubtful.

    `as_users` takes the turns without pauses, and lets each library take as many threads as it likes.
    """

    as_users: bool = False
    machine: dict[str, Any] = field(default_factory=describe)
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> Iterator[Row]:
        """Measure the rows, one after the other; where a busy machine leaves no time, some are left out."""
        start = time.perf_counter()
        for number, task in enumerate(TASKS):
            left = SECONDS - (time.perf_counter() - start)
            row = self._measured(task, left / (len(TASKS) - number)) if left > 0 else None
            if row is None or not row.seconds:
                self._warn(task, f"expected two turns within the {SECONDS} s of all rows, got none")
                continue
            self._judge(row)
            self.rows.append(row)
            yield row

    def _measured(self, task: Task, at_most: float) -> Row:
        rounds = ROUNDS_AS_USERS if self.as_users else ROUNDS
        with contextlib.nullcontext() if self.as_users else blas_threads(get_num_threads()):
            seconds = seconds_in_turns(task, PEERS, noise(task), self.missing, rounds, at_most, self.as_users)
        return Row(task, task.flops / self.machine["peak_flops"], seconds)

    def _judge(self, row: Row) -> None:
        unit, name = _unit(row.task)
        spreads = row.spreads.items()
        wide = [f"{peer} {_cell(spread, unit)} {name}" for peer, spread in spreads if spread.scatter > SCATTER]
        wide += [
            f"{peer.name} none"
            for peer in PEERS
            if peer.takes(row.task) and peer.name not in {*row.seconds, *self.missing}
        ]
        turns = min(map(len, row.seconds.values()))
        if turns < ROUNDS:  # the scatter of so few says little
            wide.insert(0, f"{turns} turns")
        if wide:
            expected = f"{ROUNDS} turns that scatter by at most {SCATTER:.0%}"
            self._warn(row.task, f"expected {expected}, got {', '.join(wide)}")

    def _warn(self, task: Task, what: str) -> None:
        self.warnings.append(f"{task.name}: {what}; close other work and run again")

    def head(self) -> str:
        """The machine, and the titles of the columns."""
        machine = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
        threads = f"{machine['threads']} threads (JAX takes what it likes)"
        if self.as_users:
            threads = "as many threads as each library takes"
        turns = "As in a program that uses all of them: in turns, without pauses.\n" if self.as_users else ""
        return (
            f"{machine['processor']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors; "
            f"Python {machine['python']}, {machine['system']}\n"
            f"{versions}; BLAS: {machine['blas']}\n"
            f"float32, {threads}; multiply-add peak {machine['peak_flops'] / 1e9:.0f} GFLOP/s\n"
            f"{turns}"
            "Median ± half the distance between the quartiles: µs of a step, ms of an epoch of 2,000 samples.\n"
            "limit: the products' multiply-adds at the peak. next: the time of the fastest other against fastbp's.\n"
            f"{''.join(f'{task.name}: {task.note}.{chr(10)}' for task in TASKS if task.note)}\n"
            f"{'':<37}{''.join(f'{peer.name:>15}' for peer in PEERS)}{'limit':>9}{'next':>6}"
        )

    def line(self, row: Row) -> str:
        """A row of the table."""
        unit, _ = _unit(row.task)
        spreads = row.spreads
        cells = [f"{_cell(spreads[peer.name], unit) if peer.name in spreads else '-':>15}" for peer in PEERS]
        own, *others = (spread.median for spread in spreads.values())
        ratio = min(others, default=math.nan) / own
        return f"{row.task.name:<37}{''.join(cells)}{_digits(row.limit * unit):>9}{ratio:>6.2f}"

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
        return {
            "as_users": self.as_users,
            "machine": self.machine,
            "missing": self.missing,
            "rows": rows,
            "warnings": self.warnings,
        }


def _unit(task: Task) -> tuple[float, str]:
    """How many of it a second has, and its name."""
    return (1e6, "µs") if task.steps else (1e3, "ms")


def _cell(spread: Spread, unit: float) -> str:
    return f"{_digits(spread.median * unit)} ± {_digits((spread.high - spread.low) / 2 * unit)}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
