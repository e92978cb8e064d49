"""Steps and epochs of training against other libraries: `python -m bench.peers [--rows TEXT] [--as-users]`.

The table has the peers of `fastbp bench` (`fastbp.benchmark.peers`) and two more: the book's classes, and torch.compile
of a network with its loss. It has more networks. An epoch has 10,000 images of MNIST; the run of LeNet-5 trains on
60,000, each of them six times, and is fastbp's alone. Each library runs on two threads,
after a pause in which the threads of the library before go to sleep. With `--as-users` there are no pauses, every call
counts, and each library chooses its threads, as in a program that uses all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import statistics
from typing import Any

from bench import book, mnist
from bench.suite import threads
from bench.table import Table, duration, print_machine
from fastbp import DeepConvNet, LeNet, SimpleConvNet, get_num_threads, layers
from fastbp.benchmark import peers
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.benchmark.peers import Peer
from fastbp.benchmark.tasks import Task, noise, parameters

THREADS = 2
AS_USERS = 25  # rounds of single calls

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
    Task(SimpleConvNet, 100, steps=10),
    Task(LeNet, 100, steps=10),
    Task(DeepConvNet, 100, steps=5, optimizer="Adam"),
    Task(LeNet, 100, optimizer="Adam", samples=60_000, epochs=10),
)
# For the tasks with images, whose slowest peer takes a second for a step.
ROUNDS, SECONDS = 5, 120


class Book(Peer):
    """The book's layers, `bench.book`."""

    name = "book"

    def start(self, params: list[Any]) -> None:
        values, stack, is_flat = iter(params), [], bool(self.task.widths)
        for layer in self.task.stack():
            if isinstance(layer, layers.Affine):
                stack += [] if is_flat else [book.Flat()]
                stack.append(book.Affine(next(values), next(values)))
                is_flat = True
            elif isinstance(layer, layers.Convolution):
                stack.append(book.Convolution(next(values), next(values), layer.stride, layer.pad))
            elif isinstance(layer, layers.Pooling):
                stack.append(book.Pooling(layer.pool_h, layer.pool_w, layer.stride))
            else:
                stack.append(book.Relu() if isinstance(layer, layers.ReLU) else book.Tanh())
        optimizer = getattr(book, self.task.optimizer)(self.rate)
        self.network = book.Network(stack, book.SoftmaxWithLoss(), optimizer)
        self.step = self.network.step

    def params(self) -> list[Any]:
        return list(self.network.params.values())


class TorchCompile(peers.Torch):
    name = "t.compile"

    def compiled(self, loss: Any) -> Any:
        torch = importlib.import_module("torch")
        torch._dynamo.reset()
        compiled = torch.compile(loss)
        try:
            compiled(*self.batches[0])
        except torch._dynamo.exc.TorchDynamoException as error:
            raise peers.UnavailableError(str(error).strip().splitlines()[0]) from None
        return compiled


PEERS = (
    peers.Fastbp, peers.Lean, Book, peers.Torch, peers.TorchChannelsLast, TorchCompile, peers.Jax, peers.JaxScan,
    peers.ScikitLearn,
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time training against other libraries.")
    parser.add_argument("--rows", metavar="TEXT", default="", help="only rows whose name contains TEXT")
    parser.add_argument("--as-users", action="store_true", help="no pauses, and the threads that each library chooses")
    options = parser.parse_args()
    with contextlib.nullcontext() if options.as_users else threads(THREADS):
        peak = multiply_add_peak("float32", get_num_threads())
        how = "no pauses, each library chooses its threads" if options.as_users else f"{THREADS} threads"
        print_machine(f"float32, {how}, peak {peak / 1e9:.0f} GFLOP/s; ratio: the fastest other library to fastbp")
        table = Table((*(peer.name for peer in PEERS), "ratio", "of peak"), names=44, width=13)
        reasons: dict[str, str] = {}
        for task in TASKS:
            if options.rows in task.name:
                _print_row(table, task, reasons, peak, options.as_users)
    for name, reason in reasons.items():
        print(f"{name}: {reason}")


def _print_row(table: Table, task: Task, reasons: dict[str, str], peak: float, as_users: bool) -> None:
    rounds = AS_USERS if as_users else 11 if task.steps and task.widths else ROUNDS
    at_most = math.inf if task.widths else SECONDS
    found = peers.seconds_in_turns(task, PEERS, _data(task), reasons, rounds, at_most, as_users)
    seconds = {name: statistics.median(values) for name, values in found.items()}
    own, *others = seconds.values()
    cells = (duration(seconds.get(peer.name)) for peer in PEERS)
    ratio = min(others) / own if others else None
    table.row(task.name, *cells, ratio, task.flops / own / peak, notes=filter(None, [task.note]))


def _data(task: Task) -> tuple[Any, Any, list[Any]]:
    """Images where they fit the task, else noise; parameters to start with."""
    if math.prod(task.shape) != 784:
        return noise(task)
    x, t = mnist.images("float32", task.steps * task.batch or task.samples)
    return x.reshape(-1, *task.shape), t, parameters(task)


if __name__ == "__main__":
    main()
