"""fastbp where others work too: `python -m bench.busy [SECTION ...]`, under three minutes for all sections.

What an epoch of 784-50-10 takes (10,000 images, batches of 100, SGD, float32) with the threads that `fit` takes by
itself, on one thread, in NumPy, PyTorch and JAX: on a quiet machine, beside processes that only spin, with half a
core, and soon after a product of NumPy in the same process. Then cross-validation, two fits at once, a grid search in
threads, and a Python thread that counts beside a large step. `all threads` are the same epochs without the choice that
`fit` has. Within a row everything takes turns. A row shows the 10th, 50th and 90th percentile, then ratios of the
medians, and whether they hold what is promised. scikit-learn and its company are imported in functions: asv imports
this file where they are not installed.
"""

from __future__ import annotations

import argparse
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
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench import mixed
from fastbp import get_num_threads, num_threads
from fastbp.benchmark import peers
from fastbp.benchmark.machine import blas
from fastbp.benchmark.measure import samples

ROOT = Path(__file__).resolve().parents[1]
TASK = peers.Task((784, 50, 10), 100)
LARGE = peers.Task((784, 1024, 10), 1024, samples=4096)
ROUNDS = 12
SECONDS = 10  # for a row, after which no round begins but for two
LAST = 160  # seconds after which no row begins
PAUSE = 0.12  # in which the threads of a BLAS that spin go to sleep
CLASSIFIER: dict[str, Any] = {"hidden_layer_sizes": (50, 20), "random_state": 0}
FIT_EPOCHS = 4  # of each of two fits
COUNTING = 0.15  # seconds that the counting thread has for itself
AFTER = (0, 20, 60, 100, 300)  # milliseconds after a product; the last two only for epochs

Functions = dict[str, Callable[[], object]]
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """A figure against another, and the bar that it is held to, if any."""

    value: float
    of: str
    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        text = f"{self.value:.2f} {self.of}"
        if self.at_most is not None:
            return f"{text} (at most {self.at_most}: {'held' if self.value <= self.at_most else 'MISSED'})"
        if self.at_least is not None:
            return f"{text} (at least {self.at_least}: {'held' if self.value >= self.at_least else 'MISSED'})"
        return text


@dataclass(frozen=True)
class Row:
    """Figures by column, and the ratios that matter; `scale` makes milliseconds of seconds."""

    name: str
    figures: Seconds
    ratios: tuple[Ratio, ...] = ()
    scale: float = 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    chosen = parser.parse_args(arguments).sections
    if unknown := [name for name in chosen if name not in SECTIONS]:
        parser.error(f"SECTION: expected some of {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    warnings.simplefilter("ignore")  # that an optimization hasn't converged yet
    start = time.perf_counter()
    print(f"{os.cpu_count()} cores, fastbp takes {get_num_threads()} threads; NumPy {np.__version__} with {blas()}")
    if hasattr(os, "getloadavg"):
        print(f"load before the run: {os.getloadavg()[0]:.1f} (what is called quiet here is quiet if this is near 0)")
    print("10th, 50th and 90th percentile, ms", flush=True)
    columns: list[str] = []
    for name in chosen or SECTIONS:
        print(f"{time.perf_counter() - start:4.0f} s: {name}", file=sys.stderr, flush=True)
        if time.perf_counter() - start > LAST:
            print(f"{name}: left out, as {LAST} s are over; run it alone: python -m bench.busy {name}", flush=True)
            continue
        try:
            for row in SECTIONS[name]():
                if [*row.figures] != columns:
                    columns = [*row.figures]
                    print(f"\n{'':<43}{''.join(f'{column:>18}' for column in columns)}")
                print(_line(row), flush=True)
                if time.perf_counter() - start > LAST:
                    print(f"{name}: {LAST} s are over; further rows, if it has any, are left out", flush=True)
                    break
        except (ImportError, peers.UnavailableError) as error:
            print(f"{name}: left out: {error}", flush=True)
    for name, reason in _reasons.items():
        print(f"{name}: {reason}")
    print(f"{time.perf_counter() - start:4.0f} s: done", file=sys.stderr)


def _line(row: Row) -> str:
    cells = "".join(f"{_cell(values, row.scale):>18}" for values in row.figures.values())
    return f"{row.name:<43}{cells}   {', '.join(map(str, row.ratios))}".rstrip()


def _cell(values: list[float], scale: float) -> str:
    percentiles = np.percentile(np.array(values) * scale, [10, 50, 90])
    return " ".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in percentiles)


def ratio(figures: Seconds, one: str, other: str) -> float:
    """The median of one column against that of another."""
    return float(np.median(figures[one]) / np.median(figures[other]))


def of_one_thread(figures: Seconds, at_most: float | None = None) -> Ratio:
    return Ratio(ratio(figures, "fastbp", mixed.ONE), "of 1 thread", at_most)


# Epochs, beside processes that spin and with half a core.


_reasons: dict[str, str] = {}  # why a library is missing, by its name


class _AllThreads:
    """In place of the engine's own choice: all threads, whatever they cost."""

    def next(self, steps: int) -> tuple[bool, int]:
        return True, steps

    def note(self, seconds: float, steps: int) -> None: ...


def _on_all_threads(function: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        with mock.patch("fastbp.engine.choice_for", return_value=_AllThreads()):
            function()

    return call


@functools.cache
def epochs(task: peers.Task) -> Functions:
    """An epoch by column, each called once, which compiles."""
    data = peers.noise(task)
    own = {name: peers.Fastbp(task, *data) for name in ("fastbp", mixed.ONE, "all threads")}
    functions: Functions = {
        "fastbp": functools.partial(own["fastbp"].epochs, 1),
        mixed.ONE: mixed.on_one_thread(functools.partial(own[mixed.ONE].epochs, 1)),
        "all threads": _on_all_threads(functools.partial(own["all threads"].epochs, 1)),
    }
    for peer in peers.available(task, (peers.Lean, peers.Torch, peers.JaxScan), data, _reasons):
        functions[peer.name] = functools.partial(peer.epochs, 1)
    for function in functions.values():
        function()
    return functions


def in_turns(functions: Functions) -> Seconds:
    """Seconds of single calls, each after a pause and a call that does not count."""
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
while os.getppid() == parent:  # it ends with the process that began it, however that ends
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def spinning(count: int, cpu: int = -1) -> Iterator[None]:
    """`count` processes that only spin, on one core if it is named."""
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
    """A process with half a core from its start: by a control group, or else as one of two on a core."""
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
    print(f"no control group of half a core: {reason}; one core is shared with a spinning process in its place")
    yield Row("epoch, one core shared by two", found, (of_one_thread(found, 1.15),))


def make_group() -> tuple[Path, str]:
    """A new control group with half a core, and the file that says so."""
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
    """Folders in which a group might be made, the file of its share, and half a core as that file has it."""
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
    """What `in_turns` finds in a new process, which is in its container when it imports fastbp."""
    code = f"""{first}
import json
from bench import busy
from fastbp.benchmark.peers import Task
busy.ROUNDS, busy.SECONDS, busy.PAUSE = {ROUNDS}, {SECONDS}, {PAUSE}
print(json.dumps(busy.in_turns(busy.epochs({TASK!r}))))
"""
    done = subprocess.run([*before, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise peers.UnavailableError(done.stderr.strip())
    found: Seconds = json.loads(done.stdout.splitlines()[-1])
    return found


# In turns with NumPy in one process, without pauses.


def after_products() -> Iterator[Row]:
    functions = {name: function for name, function in epochs(TASK).items() if name != "all threads"}
    yield from _after("epoch", functions, AFTER)
    for name in [*mixed.CALLS][1:]:  # the first is an epoch too
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


# scikit-learn's own data and tools.


def classifiers() -> dict[str, Any]:
    modules = {"fastbp": "fastbp.sklearn", "scikit-learn": "sklearn.neural_network"}
    return {name: importlib.import_module(module).MLPClassifier for name, module in modules.items()}


def digits() -> tuple[Any, Any]:
    found: tuple[Any, Any] = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    return found


def fits(**settings: Any) -> Functions:
    """A fit of the digits by column."""
    X, y = digits()
    return _by_column(lambda model: functools.partial(model.fit, X, y), **settings)


def _by_column(make: Callable[[Any], Callable[[], object]], **settings: Any) -> Functions:
    own, theirs = (classifier(**CLASSIFIER | settings) for classifier in classifiers().values())
    return {"fastbp": make(own), mixed.ONE: mixed.on_one_thread(make(own)), "scikit-learn": make(theirs)}


def validation() -> Iterator[Row]:
    """The five folds of a cross-validation; the ratios are those of their sums."""
    X, y = digits()
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


def search() -> Iterator[Row]:
    """A grid search of 18 fits and one more, in joblib's threads and without."""
    joblib, selection = importlib.import_module("joblib"), importlib.import_module("sklearn.model_selection")
    X, y = digits()
    grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 3e-3, 1e-2]}
    model = classifiers()["fastbp"](**{"max_iter": 30} | CLASSIFIER)

    def serial() -> None:
        selection.GridSearchCV(model, grid, cv=3).fit(X, y)

    def in_threads() -> None:
        with joblib.parallel_backend("threading", n_jobs=2):
            selection.GridSearchCV(model, grid, cv=3).fit(X, y)

    functions = {
        "serial, 1 thread": mixed.on_one_thread(serial),
        "2 jobs, 1 thread": mixed.on_one_thread(in_threads),
        "serial": serial,
        "2 jobs": in_threads,
    }
    in_threads()
    found = samples(functions, rounds=4, settling=0, pause=PAUSE, at_most=SECONDS)
    faster = Ratio(ratio(found, "serial, 1 thread", "2 jobs, 1 thread"), "times serial on 1 thread", at_least=1.6)
    yield Row(
        "grid search in joblib's threads", found, (faster, Ratio(ratio(found, "serial", "2 jobs"), "times serial"))
    )


# Python threads.


def threads() -> Iterator[Row]:
    """Two fits of one kernel thread each."""
    pair = [peers.Fastbp(TASK, *peers.noise(TASK)) for _ in range(2)]

    def fit(peer: peers.Fastbp) -> None:
        peer.epochs(FIT_EPOCHS)

    with ThreadPoolExecutor(2) as pool, num_threads(1):
        found = in_turns(
            {
                "one after the other": lambda: [fit(peer) for peer in pair],
                "in two threads": lambda: list(pool.map(fit, pair)),
            }
        )
    faster = Ratio(ratio(found, "one after the other", "in two threads"), "times as fast", at_least=1.7)
    yield Row("two fits, one kernel thread each", found, (faster,))


def counting() -> Iterator[Row]:
    """How fast a Python thread counts; where the kernel has as many threads as there are cores, they share one."""
    peer = peers.Fastbp(LARGE, *peers.noise(LARGE))
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
    """How many times in a second a Python thread counts on while `work` runs."""
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
    "threads": threads,
    "search": search,
    "counting": counting,
}


if __name__ == "__main__":
    main()
