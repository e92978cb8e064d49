"""Searches and pools: `python -m bench.searches [SECTION ...]`, about two minutes for all sections.

- `search`: a grid search of 18 fits, serial and in two jobs of joblib's threads, of its processes, and of Dask, whose
  processes are there before. Its data are scikit-learn's digits, and a larger table where Python has less of the work.
- `pool`: fits of 784-50-10 in a pool of Python threads, one to as many as there are cores, with the kernel threads that
  `fit` chooses.
- `copies`: copies and pickles of a network with its optimizer, and of an estimator, against copies and pickles of their
  arrays alone.

All columns of a row are measured in turns. A cell has the 10th, 50th and 90th percentile. Ratios are of medians.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench import mixed
from bench.busy import Functions
from bench.sections import Row, print_sections, ratio
from bench.sklearn import bundled, classifiers, table
from bench.table import Ratio
from fastbp import TwoLayerNet
from fastbp.benchmark.measure import samples
from fastbp.optimizers import Adam
from fastbp.runtime.cores import available_cores

ROUNDS = 5
SECONDS = 40  # for a row; after two rounds none begins later
PAUSE = 0.12  # seconds in which the spinning threads of a BLAS go to sleep
JOBS = 2
EPOCHS, IMAGES = 4, 10_000
COPIED = (784, 256, 10)


# Searches.


def search() -> Iterator[Row]:
    """Figures by backend."""
    yield _search("digits, (50, 20)", bundled("digits"), {"hidden_layer_sizes": (50, 20), "max_iter": 30}, 1.6)
    sizes = {"hidden_layer_sizes": (64, 64), "max_iter": 10}
    yield _search("30,000 x 20, (64, 64)", table(30_000, 20, "float64"), sizes, 1.7)


def _search(name: str, data: tuple[Any, Any], settings: dict[str, Any], bar: float) -> Row:
    joblib, selection = importlib.import_module("joblib"), importlib.import_module("sklearn.model_selection")
    grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 3e-3, 1e-2]}
    model = classifiers()["fastbp"](**settings, random_state=0)

    def fit() -> None:
        selection.GridSearchCV(model, grid, cv=3).fit(*data)

    def in_jobs(backend: str) -> None:
        with joblib.parallel_config(backend, n_jobs=JOBS):
            fit()

    with contextlib.ExitStack() as clusters:
        functions: Functions = {"serial": fit, "serial, 1 thread": mixed.on_one_thread(fit)}
        functions |= {backend: functools.partial(in_jobs, backend) for backend in ("threading", "loky")}
        functions |= {kind: functools.partial(_in_dask, in_jobs, client) for kind, client in _clients(clusters)}
        for function in functions.values():
            function()  # starts the processes, and compiles
        found = samples(functions, rounds=ROUNDS, settling=0, pause=PAUSE, at_most=SECONDS)
    bars = {"threading": bar}
    ratios = [
        Ratio(ratio(found, "serial, 1 thread", other), f"times serial on 1 thread: {other}", at_least=bars.get(other))
        for other in [*found][2:]
    ]
    return Row(name, found, (*ratios, Ratio(ratio(found, "serial", "threading"), "times serial: threading")))


def _clients(clusters: contextlib.ExitStack) -> Iterator[tuple[str, Any]]:
    """Dask's clusters of this machine by name; none where Dask is not installed."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        print(f"search in Dask: left out: {error}", flush=True)
        return
    kinds = {"Dask, threads": (1, JOBS, False), "Dask, processes": (JOBS, 1, True)}
    for kind, (workers, threads, processes) in kinds.items():
        settings = {"n_workers": workers, "threads_per_worker": threads, "processes": processes}
        cluster = clusters.enter_context(distributed.LocalCluster(dashboard_address=None, **settings))
        yield kind, clusters.enter_context(distributed.Client(cluster, set_as_default=False))


def _in_dask(in_jobs: Callable[[str], None], client: Any) -> None:
    with client.as_current():
        in_jobs("dask")


# Pools of Python threads.


def pool() -> Iterator[Row]:
    """As many fits in each column, twice as many as cores."""
    rng = np.random.default_rng(0)
    x, t = rng.random((IMAGES, 784), np.float32), rng.integers(0, 10, IMAGES)
    cores = available_cores()
    networks = [TwoLayerNet(784, 50, 10, dtype="float32", seed=seed) for seed in range(2 * cores)]

    def fit(network: TwoLayerNet) -> None:
        network.fit(x, t, epochs=EPOCHS, seed=0)

    def in_pool(workers: int) -> None:
        with ThreadPoolExecutor(workers) as executor:
            list(executor.map(fit, networks))

    alone = functools.partial(in_pool, 1)
    functions: Functions = {"one after the other": alone, "the same, 1 thread": mixed.on_one_thread(alone)}
    counts = sorted({min(2**power, cores) for power in range(1, cores.bit_length() + 1)} - {1})
    functions |= {f"{workers} Python threads": functools.partial(in_pool, workers) for workers in counts}
    for function in functions.values():
        function()
    found = samples(functions, rounds=ROUNDS, settling=0, pause=PAUSE, at_most=SECONDS)
    ratios = [
        Ratio(
            ratio(found, "the same, 1 thread", f"{workers} Python threads"),
            f"times 1 thread, in {workers}",
            at_least=0.85 * workers,
        )
        for workers in counts
    ]
    yield Row(f"{len(networks)} fits of 784-50-10, {EPOCHS} epochs", found, tuple(ratios))


# Copies.


def copies() -> Iterator[Row]:
    """A network with its optimizer, and an estimator, with Adam's state."""
    rng = np.random.default_rng(0)
    x, t = rng.random((200, COPIED[0]), np.float32), rng.integers(0, COPIED[-1], 200)
    network, optimizer = TwoLayerNet(*COPIED, dtype="float32", seed=0), Adam()
    network.fit(x, t, optimizer=optimizer, seed=0)
    arrays = [*network.params.values(), *_arrays(optimizer.m), *_arrays(optimizer.v)]
    yield _copied("network and Adam", (network, optimizer), arrays)
    model = classifiers()["fastbp"](COPIED[1:-1], random_state=0).partial_fit(x, t, classes=range(COPIED[-1]))
    arrays = [*model.coefs_, *model.intercepts_, *model._optimizer.ms, *model._optimizer.vs]
    # scikit-learn keeps a second copy of the parameters there.
    arrays += [array.copy() for array in [*model.coefs_, *model.intercepts_]] if hasattr(model, "_best_coefs") else []
    yield _copied("estimator", model, arrays)


def _arrays(state: Any) -> list[Any]:
    return [*state.values()]


def _copied(name: str, thing: Any, arrays: list[Any]) -> Row:
    functions: Functions = {
        "copies of arrays": lambda: [array.copy() for array in arrays],
        "deepcopy": functools.partial(copy.deepcopy, thing),
        "pickle of arrays": functools.partial(_sent, arrays),
        "pickle": functools.partial(_sent, thing),
    }
    found = samples(functions, rounds=4 * ROUNDS, block=0.01, settling=0.01, pause=0, at_most=SECONDS)
    ratios = (
        Ratio(ratio(found, "deepcopy", "copies of arrays"), "of copies"),
        Ratio(ratio(found, "pickle", "pickle of arrays"), "of pickles of arrays"),
    )
    size = sum(array.nbytes for array in arrays)
    return Row(f"{name}, {size / 1e6:.1f} MB", found, ratios)


def _sent(thing: Any) -> None:
    pickle.loads(pickle.dumps(thing, protocol=5))


SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {"search": search, "pool": pool, "copies": copies}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the processes
    print_sections("searches", __doc__.splitlines()[0], SECTIONS, arguments, names=36, width=21, is_below=True)


if __name__ == "__main__":
    main()
