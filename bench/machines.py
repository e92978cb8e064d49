"""Steps by several ranks over MPI, here and on a cluster: `python -m bench.machines`, a minute and a half.

Three tables. The first is measured: steps by ranks of one thread each on this machine, beside as many threads of one
process, with the bytes that come to each rank and the time that it waits. The second says what one rank alone takes for
the parts of a step, measured while the other cores do the same. The third is a model of 2 to 64 machines of one rank
with one thread each: the parts of the step, divided as ranks divide them, and what `fastbp.ranks` moves, at the speed
of a network. Beside it stands the same for a ring that adds all gradients, with a step that is divided without a
remainder. The model is held against the first table, at the speed that MPI has between two ranks here.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from bench.suite import threads
from bench.table import Ratio, Table, digits, duration, print_machine
from fastbp import DeepConvNet, Sequential, SimpleConvNet, TwoLayerNet
from fastbp.engine import plan, steps
from fastbp.ops import state
from fastbp.optimizers import SGD
from fastbp.ranks.division import Divided, rows_of, slices_of
from fastbp.ranks.messages import Messages
from fastbp.runtime.cores import available_cores
from fastbp.runtime.threads import team

# Networks in float32 with SGD, and samples of a batch.
NETWORKS: dict[str, tuple[Callable[[], Sequential], int]] = {
    "784-50-10": (lambda: TwoLayerNet(784, 50, 10, seed=0, dtype=np.float32), 100),
    "784-256-10": (lambda: TwoLayerNet(784, 256, 10, seed=0, dtype=np.float32), 1000),
    "784-1024-10": (lambda: TwoLayerNet(784, 1024, 10, seed=0, dtype=np.float32), 1024),
    "784-4096-10": (lambda: TwoLayerNet(784, 4096, 10, seed=0, dtype=np.float32), 100),
    "SimpleConvNet": (lambda: SimpleConvNet(seed=0, dtype=np.float32), 100),
    "DeepConvNet": (lambda: DeepConvNet(seed=0, dtype=np.float32), 100),
}
BARS = {"784-1024-10": 1.3, "DeepConvNet": 1.25}
MEASURED = ("784-50-10", "784-256-10", "784-1024-10", "SimpleConvNet", "DeepConvNet")
MACHINES = (2, 4, 8, 16, 32, 64)

# Gb/s of a network, and the seconds that a message of MPI needs on it, about: over TCP, and by remote access to memory.
LINKS = {10: 20e-6, 25: 10e-6, 100: 4e-6}
SMALL, LARGE = 1024, 400_000  # numbers of an Allgather that tell the speed here
SECONDS, ROUNDS = 0.25, 5


class Link(NamedTuple):
    """Seconds for a message, and for a byte."""

    message: float
    byte: float

    def takes(self, ranks: int, messages: int, size: float) -> float:
        """Seconds for messages among ranks in which a rank gets so many bytes."""
        return messages * self.message * math.log2(ranks) + size * self.byte


class Parts(NamedTuple):
    """Seconds of a step on one thread: all of it, its weights, the inputs of others, what the loop in Python adds."""

    step: float
    weights: float
    inputs: float
    loop: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="*", help=argparse.SUPPRESS)  # what a rank does
    work = parser.parse_args().work
    if work:
        with threads(1):
            found = MPI.COMM_WORLD.gather(_WORKS[work[0]](*work[1:]))
        if found is not None:
            print(json.dumps(found))
        return
    print_machine()
    ranks = min(2, available_cores())
    link = Link(*_by_ranks(ranks, "link")[0])
    print(f"an Allgather of two ranks here: {duration(link.message)}, and {digits(1e-9 / link.byte)} GB/s")
    measured = _print_measured(ranks)
    parts = _print_parts(ranks)
    _print_model(parts, {name: seconds for name, seconds in measured.items() if name in parts}, link, ranks)


def _print_measured(ranks: int) -> dict[str, float]:
    """The first table; seconds of a step by network."""
    shown = Table((f"1x{ranks}", f"{ranks}x1", "waiting", "bytes"), "\na step by ranks x threads, and of each rank", 34)
    found = {}
    for name in MEASURED:
        alone = _by_ranks(1, "one", name, str(ranks))[0]
        each = _by_ranks(ranks, "divided", name)
        found[name] = max(seconds for seconds, _, _ in each)
        ratio = Ratio(found[name] / alone, f"of 1x{ranks}", BARS.get(name))
        shown.row(_named(name), duration(alone), duration(found[name]), notes=[ratio])
        for rank, (seconds, waited, received) in enumerate(each):
            shown.row(f"  rank {rank}", None, duration(seconds), duration(waited), f"{received:,.0f}")
    return found


def _print_parts(ranks: int) -> dict[str, Parts]:
    """The second table."""
    shown = Table(("step", "weights", "inputs", "loop"), "\nparts of a step on one thread, all cores at work", 34)
    found = {}
    for name in NETWORKS:
        each = _by_ranks(ranks, "parts", name)
        found[name] = Parts(*(max(values) for values in zip(*each, strict=True)))
        shown.row(_named(name), *map(duration, found[name]))
    return found


def _print_model(parts: dict[str, Parts], measured: dict[str, float], link: Link, ranks: int) -> None:
    """The third table, and how the model stands to what was measured."""
    columns = [str(count) for count in MACHINES]
    shown = Table(columns, "\nspeed-up by machines: fastbp / ring of gradients", names=34, width=13)
    lost = []
    for name in NETWORKS:
        for speed, message in LINKS.items():
            network = Link(message, 8e-9 / speed)
            pairs = [
                (_speed_up(name, parts[name], network, count), _speed_up_of_ring(name, parts[name], network, count))
                for count in MACHINES
            ]
            shown.row(f"{_named(name)}, {speed} Gb/s", *(f"{ours:.1f} / {ring:.1f}" for ours, ring in pairs))
            behind = [str(count) for count, (ours, ring) in zip(MACHINES, pairs, strict=True) if ours < 0.95 * ring]
            slower = [str(count) for count, (ours, _) in zip(MACHINES, pairs, strict=True) if ours < 1]
            lost += [f"{_named(name)} at {speed} Gb/s: {', '.join(behind)}"] if behind else []
            lost += [f"{_named(name)} at {speed} Gb/s is slower than on one: {', '.join(slower)}"] if slower else []
    print("\nwhere the ring of gradients is ahead by a twentieth or more, or machines do not pay:")
    print("\n".join(lost or ["nowhere"]))
    print(f"\nthe model of {ranks} ranks on this machine against what was measured:")
    for name, seconds in measured.items():
        modelled = parts[name].step / _speed_up(name, parts[name], link, ranks)
        print(f"{_named(name)}: {duration(modelled)} for {duration(seconds)}, {modelled / seconds:.2f}")


def _speed_up(name: str, parts: Parts, link: Link, ranks: int) -> float:
    """How many times as fast a step is as on one machine: by the rank that has most to do."""
    network, N = _engine(name, _Kept)[1].network, NETWORKS[name][1]
    rows = np.diff(rows_of(network, N, ranks)).max() / N
    sizes = [(slices_of(row, ranks), row) for row in network.layers if row[state.GRADIENT]]
    most = sum(np.diff(edges).max() * row[state.W_WIDTH] for edges, row in sizes)
    slices = most / max(1, sum(row[state.W_ROWS] * row[state.W_WIDTH] for _, row in sizes))
    taken = (parts.step - parts.weights) * rows + parts.weights * slices + parts.loop
    taken += parts.inputs * (1 - rows) * slices
    traffic = [Divided(_Counted(rank, ranks), network).traffic(N) for rank in {0, ranks // 2, ranks - 1}]
    moved = max(sum(link.takes(ranks, *wait) for wait in waits) for waits in traffic)
    return parts.step / (taken + moved)


def _speed_up_of_ring(name: str, parts: Parts, link: Link, ranks: int) -> float:
    size = sum(value.nbytes for value in NETWORKS[name][0]().params.values())
    return parts.step / (parts.step / ranks + link.takes(ranks, 2, 2 * (ranks - 1) / ranks * size))


class _Counted(NamedTuple):
    """In the place of messages, where only bytes are counted."""

    rank: int
    size: int

    def sharing(self, *_: Any) -> None:
        """Nothing travels."""

    scattering = sharing


class _Kept(plan.Alone):
    """Keeps the network of an engine."""

    def __init__(self, network: Any) -> None:
        self.network = network


def _engine(name: str, divide: Callable[[Any], Any], count: int = 1) -> tuple[Callable[[int], None], Any]:
    """A function that does steps of a network, and its division."""
    make, N = NETWORKS[name]
    net, made = make(), []
    rng, shape = np.random.default_rng(0), (784,) if name[0].isdigit() else (1, 28, 28)

    def kept(network: Any) -> Any:
        made.append(divide(network))
        return made[0]

    layers, optimizer = list(net.layers.values()), SGD(1e-4)
    engine = plan.Engine(
        layers, net.last_layer, optimizer, net.params, np.dtype(np.float32), shape, N,
        threads=lambda: count, divide=kept,
    )  # fmt: skip
    engine.read()
    x = rng.random((4 * N, 784), dtype=np.float32)
    data = x, rng.integers(0, 10, 4 * N), np.empty((0, 10), np.float32), 1.0

    def run(number: int) -> None:
        for _ in range(0, number, 4):
            engine.train(data, rng.permutation(4 * N), np.empty(0), 0, 4, np.zeros(4), np.zeros(4), True)

    return run, made[0]


def _named(name: str) -> str:
    return f"{name}, batch {NETWORKS[name][1]}"


# What ranks do.


def _by_ranks(ranks: int, *work: str) -> Any:
    """What each rank of a new program found."""
    command = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), sys.executable, "-m", "bench.machines"]
    done = subprocess.run([*command, *work], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(work)}: expected to end well, got {done.stderr}; try it alone")
    return json.loads(done.stdout)


def _link() -> tuple[float, float]:
    comm = MPI.COMM_WORLD
    seconds = []
    for size in (SMALL, LARGE):
        numbers = np.zeros(size * comm.size, np.float32)
        seconds.append(_least(lambda numbers=numbers: comm.Allgather(MPI.IN_PLACE, numbers)))
    byte = (seconds[1] - seconds[0]) / (4 * (LARGE - SMALL) * max(1, comm.size - 1))
    return seconds[0] - 4 * SMALL * byte, byte


def _one(name: str, count: str) -> float:
    with threads(int(count)):
        run, _ = _engine(name, plan.alone, int(count))
        return _seconds_of_step(run)


def _divided(name: str) -> tuple[float, float, float]:
    messages = Messages(MPI.COMM_WORLD)
    run, division = _engine(name, lambda network: Divided(messages, network))
    seconds = _seconds_of_step(run)
    waited = messages.seconds
    count = 4 * max(1, int(SECONDS / seconds / 8))
    run(count)
    received = sum(size for _, size in division.traffic(NETWORKS[name][1]))
    return seconds, (messages.seconds - waited) / count, received


def _parts(name: str) -> Parts:
    run, kept = _engine(name, _Kept)
    step, network = _seconds_of_step(run), kept.network
    alone, coefficients = team(1), np.zeros(2 * state.COEFFICIENTS)
    threads_at = alone.ctypes.data
    weights = _least(lambda: steps.weights_of_rank(threads_at, network, 0, len(network.layers), 0, 1, coefficients))
    by_self, _ = _engine(name, lambda network: Divided(Messages(MPI.COMM_SELF), network))
    x, N = np.zeros((4 * NETWORKS[name][1], 784), np.float32), NETWORKS[name][1]
    nothing = np.empty(0, np.intp), np.empty((0, 10), np.float32), np.empty(0), np.float32(1)
    order, inputs = np.arange(N), 0.0
    if name[0].isdigit():
        data = steps.Data(x, *nothing)
        inputs = _least(lambda: steps.inputs_of_others(threads_at, network, data, order, 0, 0, 0, 784))
    return Parts(step, weights, inputs, max(0.0, _seconds_of_step(by_self) - step))


def _seconds_of_step(run: Callable[[int], None]) -> float:
    run(4)
    return _least(lambda: run(4)) / 4


def _least(call: Callable[[], Any]) -> float:
    """The least mean of some rounds, which all ranks begin together."""
    call()
    began = time.perf_counter()
    call()
    count = max(1, int(SECONDS / ROUNDS / max(1e-7, time.perf_counter() - began)))
    count = MPI.COMM_WORLD.bcast(count)
    rounds = []
    for _ in range(ROUNDS):
        MPI.COMM_WORLD.Barrier()
        began = time.perf_counter()
        for _ in range(count):
            call()
        rounds.append((time.perf_counter() - began) / count)
    return min(rounds)


_WORKS: dict[str, Callable[..., Any]] = {"link": _link, "one": _one, "divided": _divided, "parts": _parts}

if __name__ == "__main__":
    main()
