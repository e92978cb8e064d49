"""fastbp beside other work: `python -m bench.busy [SECTION ...]`, under three minutes for all sections.

The first sections time an epoch of 784-50-10 (10,000 images, batches of 100, SGD, float32). Its columns are fastbp with
the threads that `fit` chooses, with one thread and with all threads, then NumPy, PyTorch and JAX. The machine is quiet,
or has processes that only spin, or gives half a core, or has just finished a product of NumPy in the same process.
Further sections time cross-validation, and a Python thread that counts beside a large step. All cells of a row are
measured in turns. A cell has the 10th, 50th and 90th percentile. Ratios of the medians follow, each with its bar.
Functions import scikit-learn and joblib, because asv imports this file where they are not installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench import mixed, processes
from bench.sections import Row, Seconds, print_sections, ratio
from bench.sklearn import bundled, classifiers
from bench.table import Ratio
from fastbp.benchmark import peers, tasks
from fastbp.benchmark.measure import samples
from fastbp.engine.thread_choice import ThreadChoice

TASK = tasks.Task((784, 50, 10), 100)
LARGE = tasks.Task((784, 1024, 10), 1024, samples=4096)
ROUNDS = 12
SECONDS = 10  # for a row; after two rounds none begins later
LAST = 160  # seconds after which no row begins
PAUSE = 0.12  # seconds in which the spinning threads of a BLAS go to sleep
CLASSIFIER: dict[str, Any] = {"hidden_layer_sizes": (50, 20), "random_state": 0}
COUNTING = 0.15  # seconds in which the thread counts alone
AFTER = (0, 20, 60, 100, 300)  # milliseconds after a product; the last two only for epochs

Functions = dict[str, Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    start = time.perf_counter()
    print_sections("busy", __doc__.splitlines()[0], SECTIONS, arguments, names=43, width=18, last=LAST)
    for name, reason in _reasons.items():
        print(f"{name}: {reason}")
    print(f"{time.perf_counter() - start:4.0f} s: done", file=sys.stderr)


def of_one_thread(figures: Seconds, at_most: float | None = None) -> Ratio:
    return Ratio(ratio(figures, "fastbp", mixed.ONE), "of 1 thread", at_most)


# Epochs on a quiet machine, beside processes that spin, and with half a core.


_reasons: dict[str, str] = {}  # the reason why a library is missing, by its name


def on_all_threads(function: Callable[[], object]) -> Callable[[], object]:
    """On all threads, whatever they cost: the choice of `fit` takes them each time, and learns nothing of it."""

    def call() -> None:
        decides: dict[str, Any] = {"next": lambda _, steps: (True, steps), "note": lambda *_: None}
        with mock.patch.multiple(ThreadChoice, **decides):
            function()

    return call


@functools.cache
def epochs(task: tasks.Task) -> Functions:
    """An epoch by column; the first call of each compiles it."""
    data = tasks.noise(task)
    own = {name: peers.Fastbp(task, *data) for name in ("fastbp", mixed.ONE, "all threads")}
    functions: Functions = {
        "fastbp": functools.partial(own["fastbp"].epochs, 1),
        mixed.ONE: mixed.on_one_thread(functools.partial(own[mixed.ONE].epochs, 1)),
        "all threads": on_all_threads(functools.partial(own["all threads"].epochs, 1)),
    }
    for peer in peers.available(task, (peers.Lean, peers.Torch, peers.JaxScan), data, _reasons):
        functions[peer.name] = functools.partial(peer.epochs, 1)
    for function in functions.values():
        function()
    return functions


def in_turns(functions: Functions) -> Seconds:
    """Seconds of single calls; a pause and an uncounted call come before each."""
    return samples(functions, rounds=ROUNDS, block=0, settling=0.01, pause=PAUSE, at_most=SECONDS)


def quiet() -> Iterator[Row]:
    found = in_turns(epochs(TASK))
    better = min((mixed.ONE, "all threads"), key=lambda name: float(np.median(found[name])))
    yield Row("epoch, quiet", found, (Ratio(ratio(found, "fastbp", better), f"of {better}, the better", 1.03),))


def neighbour() -> Iterator[Row]:
    functions = epochs(TASK)
    with spinning(1):
        found = in_turns(functions)
    yield Row("epoch, beside a spinning process", found, (of_one_thread(found, 1.15),))


def neighbours() -> Iterator[Row]:
    functions = epochs(TASK)
    with spinning(2):
        found = in_turns(functions)
    yield Row("epoch, beside two of them", found, (of_one_thread(found),))


SPIN = """
import os, sys
parent, cpu = map(int, sys.argv[1:])
if cpu >= 0:
    os.sched_setaffinity(0, {cpu})
while os.getppid() == parent:  # it ends when its parent has ended
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def spinning(count: int, cpu: int = -1) -> Iterator[None]:
    """Run `count` processes that only spin, all on core `cpu` if that is given."""
    command = [sys.executable, "-c", SPIN, str(os.getpid()), str(cpu)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            started.append(subprocess.Popen(command))
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def container() -> Iterator[Row]:
    """A process with half a core: in a control group, or else on a core that it shares with a spinning process."""
    try:
        group, quota = make_group()
    except peers.UnavailableError as error:
        yield from _on_a_shared_core(str(error))
        return
    try:
        enter = f"echo $$ > '{group}/cgroup.procs' && exec \"$@\""
        found = _in_a_process(["sh", "-c", enter, "sh"], "")
    finally:
        group.rmdir()
    yield Row(f"epoch, half a core ({quota})", found, (of_one_thread(found, 1.15),))


def _on_a_shared_core(reason: str) -> Iterator[Row]:
    if not hasattr(os, "sched_setaffinity"):
        raise peers.UnavailableError(f"{reason}; and no process can be bound to a core here")
    cpu = min(os.sched_getaffinity(0))
    with spinning(1, cpu):
        found = _in_a_process([], f"import os; os.sched_setaffinity(0, {{{cpu}}})")
    print(f"no control group of half a core: {reason}; a spinning process shares one core instead")
    yield Row("epoch, one core shared by two", found, (of_one_thread(found, 1.15),))


def make_group() -> tuple[Path, str]:
    """A new control group with half a core, and the name of the file that sets its share."""
    reasons = []
    for parent, file, quota in groups():
        group = parent / f"fastbp-busy-{os.getpid()}"
        try:
            group.mkdir()
            try:
                (group / file).write_text(quota, encoding="ascii")
            except OSError:
                group.rmdir()
                raise
        except OSError as error:
            reasons.append(f"{group / file}: {error.strerror}")
        else:
            return group, file
    raise peers.UnavailableError("; ".join(reasons) or "no control groups are mounted")


def groups() -> Iterator[tuple[Path, str, str]]:
    """Folders that may take a new group, the name of the file that sets its share, and the text for half a core."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for _, folder, kind, options, *_ in mounts:
        for _, controllers, path in own:
            if kind == "cgroup2" and not controllers:
                yield from (
                    (parent, "cpu.max", "50000 100000") for parent in dict.fromkeys((_in(folder, path), Path(folder)))
                )
            elif kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options.split(","):
                yield _in(folder, path), "cpu.cfs_quota_us", "50000"


def _in(folder: str, path: str) -> Path:
    return Path(folder, path.lstrip("/"))


def _in_a_process(before: list[str], first: str) -> Seconds:
    """The figures of `in_turns` in a new process, which enters its container before it imports fastbp."""
    code = f"""{first}
import json
from bench import busy
from fastbp.benchmark.tasks import Task
busy.ROUNDS, busy.SECONDS, busy.PAUSE = {ROUNDS}, {SECONDS}, {PAUSE}
print(json.dumps(busy.in_turns(busy.epochs({TASK!r}))))
"""
    try:
        found: Seconds = json.loads(processes.run(code, before).splitlines()[-1])
    except RuntimeError as error:
        raise peers.UnavailableError(str(error)) from None
    return found


# Soon after a product of NumPy in the same process.


def after_products() -> Iterator[Row]:
    functions = {name: function for name, function in epochs(TASK).items() if name != "all threads"}
    yield from _after("epoch", functions, AFTER)
    for name in [*mixed.CALLS][1:]:  # the first is an epoch as well
        calls = mixed.functions(name)
        yield from _after(
            name, {"fastbp": calls["fastbp"], mixed.ONE: calls[mixed.ONE], "NumPy": calls["numpy"]}, mixed.AFTER
        )
    yield from _after("estimator, 10 iterations", fits(max_iter=10), mixed.AFTER)


def _after(name: str, functions: Functions, after: tuple[int, ...]) -> Iterator[Row]:
    other = "NumPy" if "NumPy" in functions else "scikit-learn"
    for function in functions.values():
        function()
    for milliseconds in after:
        found = samples(functions, rounds=ROUNDS, at_most=SECONDS, **mixed.after_a_product(milliseconds))
        held = milliseconds in mixed.AFTER
        to_other = Ratio(ratio(found, "fastbp", other), f"of {other}", 1.0 if held else None)
        yield Row(f"{name}, {milliseconds} ms after", found, (of_one_thread(found, 1.1 if held else None), to_other))


# scikit-learn's data and tools.


def fits(**settings: Any) -> Functions:
    """A fit of the digits by column."""
    X, y = bundled("digits")
    return _by_column(lambda model: functools.partial(model.fit, X, y), **settings)


def _by_column(make: Callable[[Any], Callable[[], object]], **settings: Any) -> Functions:
    kinds = classifiers()
    own, theirs = (kinds[name](**CLASSIFIER | settings) for name in ("fastbp", "scikit-learn"))
    return {"fastbp": make(own), mixed.ONE: mixed.on_one_thread(make(own)), "scikit-learn": make(theirs)}


def validation() -> Iterator[Row]:
    """The five folds of a cross-validation; the ratios are those of the sums."""
    X, y = bundled("digits")
    folds = list(importlib.import_module("sklearn.model_selection").StratifiedKFold(5).split(X, y))

    def next_fold(model: Any) -> Callable[[], object]:
        turns = itertools.cycle(folds)

        def call() -> None:
            train, test = next(turns)
            model.fit(X[train], y[train]).score(X[test], y[test])

        return call

    for function in fits(max_iter=1).values():
        function()
    for name, count, bar in (
        ("digits, a fold of five, quiet", 0, None),
        ("the same, beside a spinning process", 1, 1.2),
    ):
        with spinning(count):
            found = samples(_by_column(next_fold), rounds=len(folds), settling=0, pause=PAUSE, at_most=SECONDS)
        own, one, theirs = map(sum, found.values())
        yield Row(name, found, (Ratio(own / one, "of 1 thread", bar), Ratio(own / theirs, "of scikit-learn", 1.0)))


# A Python thread beside kernels.


def counting() -> Iterator[Row]:
    """How fast a Python thread counts; it shares a core where the kernel has a thread for each core."""
    peer = peers.Fastbp(LARGE, *tasks.noise(LARGE))
    (x, t), *_ = peer.batches

    def by_layers() -> None:
        for _ in range(LARGE.samples // LARGE.batch):
            peer.optimizer.update(peer.network.params, peer.network.gradient(x, t))

    work = {"fit": functools.partial(peer.epochs, 1), "layers": by_layers}
    columns: Functions = {"alone": lambda: time.sleep(COUNTING)}
    for name, function in work.items():
        function()
        columns |= {f"{name}, 1 thread": mixed.on_one_thread(function), name: function}
    found: Seconds = {name: [] for name in columns}
    stop = time.perf_counter() + SECONDS
    for done in range(ROUNDS):
        if done >= 2 and time.perf_counter() > stop:
            break
        for name, beside in columns.items():
            found[name].append(counted_beside(beside))
    ratios = [
        Ratio(ratio(found, name, "alone"), f"beside {name}", at_least=0.9 if name.endswith("1 thread") else None)
        for name in columns
        if name != "alone"
    ]
    yield Row("a thread counts, millions/s, beside", found, tuple(ratios), scale=1e-6)


def counted_beside(work: Callable[[], object]) -> float:
    """How many times a Python thread counts in a second while `work` runs."""
    count, stopped = 0, False

    def on() -> None:
        nonlocal count
        while not stopped:
            count += 1

    thread = threading.Thread(target=on)
    thread.start()
    try:
        before, start = count, time.perf_counter()
        work()
        after, end = count, time.perf_counter()
    finally:
        stopped = True
        thread.join()
    return (after - before) / (end - start)


SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "quiet": quiet,
    "neighbour": neighbour,
    "neighbours": neighbours,
    "container": container,
    "mixed": after_products,
    "validation": validation,
    "counting": counting,
}


if __name__ == "__main__":
    main()
