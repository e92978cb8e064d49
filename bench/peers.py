"""Steps and epochs of training against other libraries: `python -m bench.peers [--rows TEXT] [--as-users]`.

The table has the peers of `fastbp bench` (`fastbp.benchmark.peers`) and two more: the book's classes, and torch.compile
of a network with its loss. It has more networks. An epoch has 10,000 images of MNIST. Each library runs on two threads,
after a pause in which the threads of the library before go to sleep. With `--as-users` there are no pauses, every call
counts, and each library chooses its threads, as in a program that uses all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
from typing import Any

from bench import book, mnist
from bench.suite import threads
from bench.table import Table, duration, print_machine
from fastbp import get_num_threads
from fastbp.benchmark import peers
from fastbp.benchmark.peak import multiply_add_peak
from fastbp.benchmark.peers import Peer, Task

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
)


class Book(Peer):
    name = "book"

    @staticmethod
    def takes(task: Task) -> bool:
        return len(task.widths) == 3 and task.optimizer == "SGD"

    def start(self, params: list[Any]) -> None:
        named = dict(zip(("W1", "b1", "W2", "b2"), params, strict=True))
        self.network = book.TwoLayerNet(named, book, self.task.activation.capitalize())
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
    peers.Fastbp, peers.Lean, Book, peers.Torch, TorchCompile, peers.Jax, peers.JaxScan, peers.ScikitLearn,
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
        table = Table((*(peer.name for peer in PEERS), "ratio", "of peak"), names=38)
        reasons: dict[str, str] = {}
        for task in TASKS:
            if options.rows in task.name:
                rounds = AS_USERS if options.as_users else 11 if task.steps else 5
                found = peers.seconds_in_turns(task, PEERS, _data(task), reasons, rounds, as_users=options.as_users)
                seconds = {name: statistics.median(values) for name, values in found.items()}
                own, *others = seconds.values()
                cells = (duration(seconds.get(peer.name)) for peer in PEERS)
                table.row(task.name, *cells, min(others) / own, task.flops / own / peak)
    for name, reason in reasons.items():
        print(f"{name}: {reason}")


def _data(task: Task) -> tuple[Any, Any, list[Any]]:
    """Images where they fit the task, else noise; parameters to start with."""
    if task.widths[0] != 784:
        return peers.noise(task)
    return *mnist.images("float32", task.steps * task.batch or task.samples), peers.parameters(task)


if __name__ == "__main__":
    main()
