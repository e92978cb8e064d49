"""`fastbp.sklearn` against scikit-learn: `python -m bench.sklearn [--rows TEXT] [--search]`.

Both estimators of a row have the same arguments and data and do the same iterations. Their predictions are compared
first. Then they are measured in turns in one run, each on two threads. `--rows` selects the rows whose name contains
TEXT. `--search` times a grid search in two processes instead, and counts their start and imports. Functions import
scikit-learn and joblib, because asv imports this file where they are not installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench import mnist
from bench.suite import threads
from bench.table import Table, duration, print_machine
from fastbp.benchmark.measure import medians

THREADS = 2
ROUNDS = 5
MODULES = {"scikit-learn": "sklearn.neural_network", "fastbp": "fastbp.sklearn"}


@dataclass(frozen=True)
class Row:
    """Calls of one method of the classifier."""

    name: str
    data: Callable[[], tuple[Any, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    predicts: int = 0  # the number of rows to predict; 0: the call is `fit`


def table(samples: int, features: int, dtype: str) -> tuple[Any, Any]:
    """Samples of two classes."""
    datasets = importlib.import_module("sklearn.datasets")
    X, y = datasets.make_classification(samples, features, n_informative=features // 2, random_state=0)
    return X.astype(dtype), y


def bundled(name: str) -> tuple[Any, Any]:
    """One of scikit-learn's own data sets."""
    found: tuple[Any, Any] = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return found


def scaled(name: str) -> tuple[Any, Any]:
    """The same with features of mean 0 and variance 1."""
    X, y = bundled(name)
    return importlib.import_module("sklearn.preprocessing").StandardScaler().fit_transform(X), y


def _of_both_dtypes(name: str, data: Callable[[str], tuple[Any, Any]], predicts: int = 0, **settings: Any) -> list[Row]:
    dtypes = ("float32", "float64")
    return [Row(f"{name}, {dtype}", functools.partial(data, dtype), settings, predicts) for dtype in dtypes]


ROWS = (
    Row("fit digits, 1,797 x 64, defaults", lambda: scaled("digits")),
    Row("fit breast_cancer, 569 x 30, defaults", lambda: scaled("breast_cancer")),
    *_of_both_dtypes("fit 10,000 images, (100,), adam", mnist.images, max_iter=3, batch_size=200),
    *_of_both_dtypes(
        "fit 10,000 images, (256, 128), adam", mnist.images,
        hidden_layer_sizes=(256, 128), max_iter=2, batch_size=200,
    ),
    *_of_both_dtypes(
        "fit 50,000 x 20, (64, 64), adam", functools.partial(table, 50_000, 20),
        hidden_layer_sizes=(64, 64), max_iter=3, batch_size=256,
    ),
    Row(
        "fit 500 x 10, (16,), lbfgs, float64", lambda: table(500, 10, "float64"),
        {"hidden_layer_sizes": (16,), "solver": "lbfgs", "max_iter": 200, "tol": 0},
    ),
    *_of_both_dtypes("predict_proba 10,000 x 784", mnist.images, 10_000, max_iter=1),
    *_of_both_dtypes("predict_proba 1 x 784", mnist.images, 1, max_iter=1),
)  # fmt: skip


def classifiers() -> dict[str, Any]:
    """The class of each library."""
    return {name: importlib.import_module(module).MLPClassifier for name, module in MODULES.items()}


def measured(row: Row) -> dict[str, float]:
    """Median seconds of one call by each library."""
    X, y = row.data()
    models = {name: classifier(random_state=0, **row.settings).fit(X, y) for name, classifier in classifiers().items()}
    rows = X[: row.predicts or 100]
    np.testing.assert_allclose(*(model.predict_proba(rows) for model in models.values()), atol=0.05)
    if row.predicts:
        return medians({name: functools.partial(model.predict_proba, rows) for name, model in models.items()})
    return medians({name: functools.partial(model.fit, X, y) for name, model in models.items()}, rounds=ROUNDS)


def search() -> dict[str, float]:
    """Seconds of a grid search by each library, with the start of its two processes."""
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows whose name contains TEXT")
    parser.add_argument("--search", action="store_true", help="a grid search in two processes instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # optimizations that have not converged
    print_machine()
    shown = Table((*MODULES, "ratio"), "median", width=14)
    if options.search:
        _print_row(shown, "grid search, 18 fits in 2 processes", search())
        return
    with threads(THREADS):
        for row in ROWS:
            if options.rows in row.name:
                _print_row(shown, row.name, measured(row))


def _print_row(shown: Table, name: str, seconds: dict[str, float]) -> None:
    theirs, own = seconds.values()
    shown.row(name, duration(theirs), duration(own), theirs / own)


if __name__ == "__main__":
    main()
