"""Steps and epochs of training against other libraries: `python -m bench.peers [--rows TEXT] [--as-users]`.

What `fastbp bench` compares (`fastbp.benchmark.peers`) on more networks, with the book's classes and torch.compile of
the network with its loss. An epoch is one of 10,000 images of MNIST. Each library runs on two threads, after a pause
in which the threads of the one before go to sleep. With `--as-users` there are no pauses and every call counts, as in
a program that uses all of them, and each library takes as many threads as it likes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import book
from fastbp import get_num_threads, num_threads
from fastbp.benchmark.machine import blas_threads
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.benchmark.peers import (
    Fastbp,
    Jax,
    JaxScan,
    Lean,
    Peer,
    ScikitLearn,
    Task,
    Torch,
    UnavailableError,
    noise,
    parameters,
    seconds_in_turns,
)  # fmt: skip
from fastbp.data import read_idx
from fastbp.validation import Array

THREADS = 2
AS_USERS = 25  # rounds, of single calls
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"

TASKS = (
    Task((784, 50, 10), 100, steps=50),
    Task((784, 256, 10), 100, steps=25),
    Task((784, 1024, 10), 128, steps=10),
    Task((784, 1024, 10), 1024, steps=5),
    Task((784, 50, 10), 1, steps=1000),
    Task((24, 8, 2), 200, steps=200, activation="tanh"),
    Task((784, 50, 10), 100),
    Task((784, 50, 10), 100, optimizer="Adam"),
    Task((784, 256, 128, 10), 200, optimizer="Adam"),
)


class BookTanh:
    def forward(self, x: Array) -> Array:
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout: Array) -> Array:
        return dout * (1 - self.out**2)


class Book(Peer):
    name = "book"

    @staticmethod
    def takes(task: Task) -> bool:
        return len(task.widths) == 3 and task.optimizer == "SGD"

    def start(self, params: list[Array]) -> None:
        relu = book.Relu if self.task.activation == "relu" else BookTanh
        kinds = types.SimpleNamespace(Affine=book.Affine, Relu=relu, SoftmaxWithLoss=book.SoftmaxWithLoss)
        self.network = book.TwoLayerNet(dict(zip(("W1", "b1", "W2", "b2"), params, strict=True)), kinds)
        self.step = self.network.step

    def params(self) -> list[Array]:
        return list(self.network.params.values())


class TorchCompile(Torch):
    name = "t.compile"

    def compiled(self, loss: Any) -> Any:
        torch = importlib.import_module("torch")
        torch._dynamo.reset()
        compiled = torch.compile(loss)
        try:
            compiled(*self.batches[0])
        except torch._dynamo.exc.TorchDynamoException as error:
            raise UnavailableError(str(error).strip().splitlines()[0]) from None
        return compiled


PEERS = (Fastbp, Lean, Book, Torch, TorchCompile, Jax, JaxScan, ScikitLearn)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time training against other libraries.")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only rows whose name contains TEXT")
    parser.add_argument("--as-users", action="store_true", help="no pauses, and the threads that each library takes")
    options = parser.parse_args()
    chosen = [task for task in TASKS if options.rows in task.name]
    with _threads(options.as_users):
        peak = multiply_add_peak("float32", get_num_threads())
        how = "without pauses, threads as each library takes them" if options.as_users else f"{THREADS} threads"
        print(f"float32, {how}; multiply-add peak {peak / 1e9:.0f} GFLOP/s; a step in µs, an epoch in ms")
        print(f"{'':<38}{''.join(f'{peer.name:>10}' for peer in PEERS)}{'ratio':>8}{'of peak':>9}", flush=True)
        reasons: dict[str, str] = {}
        for task in chosen:
            rounds = AS_USERS if options.as_users else 11 if task.steps else 5
            found = seconds_in_turns(task, PEERS, _data(task), reasons, rounds, as_users=options.as_users)
            _print(task, {name: statistics.median(values) for name, values in found.items()}, peak)
    for name, reason in reasons.items():
        print(f"{name}: {reason}")


@contextlib.contextmanager
def _threads(as_users: bool) -> Iterator[None]:
    if as_users:
        yield
        return
    with num_threads(THREADS), blas_threads(THREADS):
        yield


def _data(task: Task) -> tuple[Array, Array, list[Array]]:
    """Images of MNIST where its files are and fit the task, else noise; parameters to start with."""
    if task.widths[0] != 784 or not MNIST.is_dir():
        return noise(task)
    samples = task.steps * task.batch or task.samples
    images, labels = (read_idx(MNIST / f"t10k-{file}-ubyte.gz") for file in ("images-idx3", "labels-idx1"))
    x = images[:samples].reshape(samples, -1) / np.float32(255)
    return x, labels[:samples].astype(np.intp), parameters(task)


def _print(task: Task, seconds: dict[str, float], peak: float) -> None:
    unit = 1e6 if task.steps else 1e3
    columns = "".join(f"{seconds[peer.name] * unit:>10.1f}" if peer.name in seconds else f"{'-':>10}" for peer in PEERS)
    own, *others = seconds.values()
    print(f"{task.name:<38}{columns}{min(others) / own:>8.2f}{task.flops / own / peak:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
