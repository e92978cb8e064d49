"""`fastbp.sklearn` against scikit-learn: `python -m bench.sklearn [--rows TEXT] [--search]`.

Both estimators of a row have the same arguments and data, do the same iterations and are measured in turns in one
run, each on two threads; what they come to is compared first. `--rows` takes the rows whose name contains TEXT,
`--search` times a grid search in two processes instead, which are started and load their code in the time.
scikit-learn and its company are imported in functions: asv imports this file where they are not installed.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastbp import num_threads
from fastbp.benchmark.measure import medians
from fastbp.data import read_idx

THREADS = 2
ROUNDS = 5
MODULES = {"scikit-learn": "sklearn.neural_network", "fastbp": "fastbp.sklearn"}
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def mnist(dtype: str) -> tuple[Any, Any]:
    """The 10,000 test images, or numbers in their place where the files are not there."""
    if MNIST.is_dir():
        images, labels = (read_idx(MNIST / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
        return (images.reshape(len(images), -1) / 255).astype(dtype), labels
    rng = np.random.default_rng(0)
    return rng.random((10_000, 784)).astype(dtype), rng.integers(0, 10, 10_000)


def table(samples: int, features: int, dtype: str) -> tuple[Any, Any]:
    datasets = importlib.import_module("sklearn.datasets")
    X, y = datasets.make_classification(samples, features, n_informative=features // 2, random_state=0)
    return X.astype(dtype), y


@dataclass(frozen=True)
class Row:
    """Calls of one method of the classifier."""

    name: str
    data: Callable[[], tuple[Any, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    predicts: int = 0  # so many rows; none: it fits


def _fits(name: str, data: Callable[[str], tuple[Any, Any]], **settings: Any) -> tuple[Row, Row]:
    return tuple(Row(f"fit {name}, {dtype}", lambda d=dtype: data(d), settings) for dtype in ("float32", "float64"))


def _predicts(rows: int) -> tuple[Row, Row]:
    return tuple(
        Row(f"predict_proba {rows:,} x 784, {dtype}", lambda d=dtype: mnist(d), {"max_iter": 1}, rows)
        for dtype in ("float32", "float64")
    )


def bundled(name: str) -> tuple[Any, Any]:
    """One of scikit-learn's own tables, scaled."""
    X, y = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return importlib.import_module("sklearn.preprocessing").StandardScaler().fit_transform(X), y


ROWS = (
    Row("fit digits, 1,797 x 64, defaults", lambda: bundled("digits")),
    Row("fit breast_cancer, 569 x 30, defaults", lambda: bundled("breast_cancer")),
    *_fits("10,000 images, (100,), adam", mnist, max_iter=3, batch_size=200),
    *_fits("10,000 images, (256, 128), adam", mnist, hidden_layer_sizes=(256, 128), max_iter=2, batch_size=200),
    *_fits(
        "50,000 x 20, (64, 64), adam", lambda dtype: table(50_000, 20, dtype),
        hidden_layer_sizes=(64, 64), max_iter=3, batch_size=256,
    ),
    Row(
        "fit 500 x 10, (16,), lbfgs, float64", lambda: table(500, 10, "float64"),
        {"hidden_layer_sizes": (16,), "solver": "lbfgs", "max_iter": 200, "tol": 0},
    ),
    *_predicts(10_000),
    *_predicts(1),
)  # fmt: skip


def classifiers() -> dict[str, Any]:
    """The class of either library."""
    return {name: importlib.import_module(module).MLPClassifier for name, module in MODULES.items()}


def measured(row: Row) -> dict[str, float]:
    """Median seconds of one call by either library."""
    X, y = row.data()
    models = {name: classifier(random_state=0, **row.settings).fit(X, y) for name, classifier in classifiers().items()}
    rows = X[: row.predicts or 100]
    np.testing.assert_allclose(*(model.predict_proba(rows) for model in models.values()), atol=0.05)
    if row.predicts:
        return medians({name: lambda model=model: model.predict_proba(rows) for name, model in models.items()})
    return medians({name: lambda model=model: model.fit(X, y) for name, model in models.items()}, rounds=ROUNDS)


def search() -> dict[str, float]:
    """Seconds of a grid search of either library, in two processes that are started for it."""
    X, y = table(30_000, 20, "float64")
    grid = {"alpha": [1e-5, 1e-3], "learning_rate_init": [1e-3, 3e-3, 1e-2]}
    seconds = {}
    executor = importlib.import_module("joblib.externals.loky")
    selection = importlib.import_module("sklearn.model_selection")
    for name, classifier in classifiers().items():
        model = classifier((64, 64), max_iter=40, tol=0, random_state=0, n_iter_no_change=50)
        executor.get_reusable_executor().shutdown(wait=True)
        start = time.perf_counter()
        selection.GridSearchCV(model, grid, cv=3, n_jobs=2).fit(X, y)
        seconds[name] = time.perf_counter() - start
    return seconds


def _show(name: str, seconds: dict[str, float]) -> None:
    unit, scale = (
        ("s", 1) if max(seconds.values()) > 1 else ("ms", 1e3) if max(seconds.values()) > 1e-3 else ("µs", 1e6)
    )
    theirs, ours = (value * scale for value in seconds.values())
    print(f"{name:50} {theirs:9.1f} {ours:9.1f} {unit}   {theirs / ours:5.2f} times", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", metavar="TEXT")
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # that the optimization hasn't converged yet
    print(f"{'median':50} {'sklearn':>9} {'fastbp':>9}")
    if options.search:
        _show("grid search, 18 fits in 2 processes", search())
        return
    threadpoolctl = importlib.import_module("threadpoolctl")
    with threadpoolctl.threadpool_limits(THREADS), num_threads(THREADS):
        for row in ROWS:
            if options.rows in row.name:
                _show(row.name, measured(row))


if __name__ == "__main__":
    main()
