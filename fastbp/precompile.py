"""Kernels compiled ahead of their first use, for container images and the nodes of a cluster: `fastbp compile`.

A kernel compiles where it is first called with arguments of some dtype, and is then kept in the cache. So the steps
here call what a program would call, on a few numbers: networks learn and predict, by compiled steps and layer by layer.
Their sizes, and the number of layers, do not matter to what is compiled.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastbp import layers
from fastbp.checks import FLOAT32, FLOAT64, Array, DType
from fastbp.kernels import get_num_threads, num_threads
from fastbp.layers import Affine, SoftmaxWithLoss
from fastbp.network import Sequential
from fastbp.ops.contract import ACTIVATIONS, LOSSES, OPTIMIZERS, TWINS
from fastbp.optimizers import SGD, Adam

__all__ = ["COMMON", "EVERYTHING", "Step", "run"]

# Features, classes, pixels of a side of an image, rows of a large matrix.
D, C, SIDE, LONG = 8, 3, 8, 256

# Samples. Kernels for arrays of 20,000 elements let other Python threads run, and work on some of 50,000 is divided
# among threads: labels and scores are of any of these sizes.
FEW, SEVERAL, MANY = SIZES = 5, 8_000, 50_000

# Samples of a batch which `fit` keeps along the lanes of vectors where layers are as small as here.
IN_LANES = 40


class Step(NamedTuple):
    """Some kernels: what they are for, and what compiles them."""

    name: str
    run: Callable[[], None]


def run(steps: Iterable[Step]) -> Iterator[int]:
    """Do the steps; yields after each how many are done.

    The threads are started, on a machine of one core, too, because others have the cache as well.
    """
    with num_threads(max(2, get_num_threads())), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few numbers are no data to learn from
        for done, step in enumerate(steps, 1):
            step.run()
            yield done


class _Draw:
    """Draws arrays and layers of a dtype."""

    def __init__(self, dtype: DType) -> None:
        self.dtype, self._rng = dtype, np.random.default_rng(0)

    def numbers(self, *shape: int) -> Array:
        return self._rng.random(shape).astype(self.dtype)

    def labels(self, N: int) -> Array:
        return np.arange(N) % C

    def affine(self, D: int, M: int) -> Affine:
        return Affine(self.numbers(D, M), self.numbers(M))

    def scales(self, *shape: int) -> tuple[Array, Array]:
        return self.numbers(*shape), self.numbers(*shape)


_Layers = Callable[[_Draw], list[Any]]

# Layers between samples of D features. A layer stands first and behind another one.
_OF_ROWS: dict[str, _Layers] = {
    "Affine": lambda d: [d.affine(D, D), d.affine(D, D)],
    "MatMul": lambda d: [layers.MatMul(d.numbers(D, D)), layers.MatMul(d.numbers(D, D))],
    "Dropout": lambda d: [layers.Dropout(0.5, seed=0), d.affine(D, D), layers.Dropout(0.5, seed=0)],
    "BatchNormalization": lambda d: [layers.BatchNormalization(*d.scales(D)) for _ in range(2)],
    "LayerNormalization": lambda d: [layers.LayerNormalization(*d.scales(D)) for _ in range(2)],
    "Reshape": lambda d: [d.affine(D, D), layers.Reshape((2, D // 2)), layers.Flatten()],
}

# Layers of images of one channel. What they put out lies in memory otherwise than what they are given first.
_OF_IMAGES: dict[str, _Layers] = {
    "Convolution": lambda d: [
        layers.Convolution(d.numbers(2, 1, 3, 3), d.numbers(2), pad=1),
        layers.ReLU(),
        layers.Convolution(d.numbers(2, 2, 3, 3), d.numbers(2), pad=1),
    ],
    "Convolution and Pooling": lambda d: [
        layers.Convolution(d.numbers(2, 1, 3, 3), d.numbers(2), pad=1),
        layers.ReLU(),
        layers.Pooling(2, 2, stride=2),
    ],
    "Pooling": lambda _: [layers.Pooling(3, 3, stride=2, pad=1), layers.Pooling(3, 3, stride=2, pad=1)],
    "average Pooling": lambda _: [layers.Pooling(2, 2, stride=2, mode="average") for _ in range(2)],
    "BatchNormalization": lambda d: [layers.BatchNormalization(*d.scales(1)) for _ in range(2)],
    "LayerNormalization": lambda d: [layers.LayerNormalization(*d.scales(1, SIDE, SIDE)) for _ in range(2)],
    "Dropout": lambda _: [layers.Dropout(0.5, seed=0), layers.Pooling(3, 3, 1, 1), layers.Dropout(0.5, seed=0)],
}


def _network(d: _Draw, between: list[Any], loss: Any, sample: tuple[int, ...]) -> Sequential:
    """Layers with an affine one after them, to C outputs."""
    out = np.zeros((1, *sample), int if isinstance(between[0], layers.Embedding) else d.dtype)
    for layer in between:
        out = layer.forward(out)
    return Sequential([*between, d.affine(out.size, C)], loss)


def _use(network: Sequential, x: Array, t: Array, by_layers: bool = True) -> None:
    """Learn and predict, few samples and many of them, by compiled steps and layer by layer."""
    for N in (FEW, IN_LANES):
        network.fit(x[:N], t[:N], seed=0)
    for N in SIZES:
        loss: Any = network.last_layer
        scores = network.predict(x[:N])
        loss.forward(scores, t[:N])
        loss.forward(scores, t[:N], sample_weight=np.ones(N))
        if by_layers:
            network.gradient(x[:N], t[:N])


def _dense(dtype: DType, activations: Iterable[str], by_layers: bool) -> None:
    d = _Draw(dtype)
    for name in activations:
        between = [d.affine(D, D), ACTIVATIONS[name].layer(), ACTIVATIONS[name].layer(), d.affine(D, D)]
        network = _network(d, between, SoftmaxWithLoss(), (D,))
        x, t = d.numbers(MANY, D), d.labels(MANY)
        _use(network, x, t, by_layers)
        network.fit((9 * x[:FEW]).astype(np.uint8), np.eye(C, dtype=dtype)[t[:FEW]], scale=1 / 255)
        network.accuracy(x, t)


def _between(dtype: DType, make: _Layers, sample: tuple[int, ...]) -> None:
    d = _Draw(dtype)
    _use(_network(d, make(d), SoftmaxWithLoss(), sample), d.numbers(MANY, *sample), d.labels(MANY))


def _embedding(dtype: DType) -> None:
    d = _Draw(dtype)
    network = _network(d, [layers.Embedding(d.numbers(C, D)), layers.Flatten()], SoftmaxWithLoss(), (2,))
    _use(network, np.tile(d.labels(MANY)[:, np.newaxis], 2), d.labels(MANY))


def _losses(dtype: DType) -> None:
    d = _Draw(dtype)
    for record in LOSSES.values():
        t = np.repeat(np.eye(C, dtype=dtype), -(-MANY // C), axis=0)[:MANY]
        _use(Sequential([d.affine(D, C)], record.layer()), d.numbers(MANY, D), t)
    for N in SIZES:
        softmax = layers.Softmax()
        y = softmax.forward(d.numbers(N, C))
        softmax.backward(d.numbers(N, C))
        for t in (d.labels(N), np.eye(C, dtype=dtype)[d.labels(N)]):
            loss = layers.CrossEntropyError()
            loss.forward(y, t)
            loss.backward()


def _optimizers(dtype: DType, kinds: Iterable[type]) -> None:
    d = _Draw(dtype)
    for kind in kinds:
        network = Sequential([d.affine(D, C)], SoftmaxWithLoss())
        network.fit(d.numbers(FEW, D), d.labels(FEW), optimizer=kind(weight_decay=0.1), seed=0)
        for size in (D, LONG):
            kind(weight_decay=0.1).update({"W": d.numbers(size, size)}, {"W": d.numbers(size, size)})


def _functions(dtype: DType) -> None:
    """Those of graphs, and of the book's ReLU."""
    d = _Draw(dtype)
    for N in SIZES:
        for name in ("exp", "sin", "cos", "log"):
            TWINS[f"{name}_forward"].kernel(d.numbers(N), d.numbers(N))
        TWINS["power_forward"].kernel(d.numbers(N), d.numbers(N), d.numbers(N))
        TWINS["relu_mask"].kernel(d.numbers(N), np.zeros(N, np.bool_))


def _estimators(dtype: DType) -> None:
    """`fastbp.sklearn`, where scikit-learn is installed: its losses cut probabilities off."""
    try:
        estimators = importlib.import_module("fastbp.sklearn")
    except ImportError:
        return
    d = _Draw(dtype)
    x, t = d.numbers(MANY, D), d.labels(MANY)
    settings: dict[str, Any] = {"hidden_layer_sizes": (D,), "max_iter": 1, "random_state": 0}
    for targets in (t, t > 0, np.eye(C, dtype=int)[t]):
        model = estimators.MLPClassifier(**settings).fit(x[:50], targets[:50])
        model.partial_fit(x[:50], targets[:50])
        model.predict_proba(x)
    for loss in ("squared_error", "poisson"):
        for solver in ("adam", "sgd", "lbfgs"):
            estimators.MLPRegressor(loss, **settings, solver=solver).fit(x[:FEW], x[:FEW, 0]).predict(x)


def _of(dtype: DType) -> Iterator[Step]:
    """Every kernel in a dtype."""

    def step(name: str, function: Callable[..., None], *arguments: Any) -> Step:
        return Step(f"{dtype} {name}", lambda: function(dtype, *arguments))

    yield from (step(name, _dense, [name], True) for name in ACTIVATIONS)
    yield from (step(name, _between, make, (D,)) for name, make in _OF_ROWS.items())
    yield from (step(f"{name} of images", _between, make, (1, SIDE, SIDE)) for name, make in _OF_IMAGES.items())
    yield step("Embedding", _embedding)
    yield step("losses", _losses)
    yield step("optimizers", _optimizers, [kind for kind, update in OPTIMIZERS.items() if update.update is not None])
    yield step("functions", _functions)
    yield step("estimators", _estimators)


COMMON = [
    Step("float32 fit and predict", lambda: _dense(FLOAT32, ["relu", "logistic", "tanh"], by_layers=False)),
    Step("float32 optimizers", lambda: _optimizers(FLOAT32, [SGD, Adam])),
]
"""What affine layers in float32 need to learn classes with SGD or Adam, and to predict."""

EVERYTHING = [*_of(FLOAT32), *_of(FLOAT64)]
"""Every kernel of layers, losses and optimizers, in both dtypes; not those that `graph.compile` makes."""
