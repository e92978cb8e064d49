"""Training gives the bits that it gave before: named runs against the SHA-256 of what they came to.

`python -m tests.test_trained_bits` writes the table anew. It changes only where a change of bits is wanted.

Every number that goes in is exact, a small multiple of a power of two, and so is every power of a decay rate. Every sum
that NumPy forms has an order that no CPU changes: an epoch has fewer than 8 steps, and sample weights are multiples
of 1/8. So the table holds on every CPU with fused multiply-add.
"""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

from fastbp import Sequential, TwoLayerNet
from fastbp.layers import (
    Affine,
    CrossEntropyError,
    Dropout,
    ExpWithLoss,
    Identity,
    IdentityWithLoss,
    ReLU,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

try:
    from sklearn.exceptions import ConvergenceWarning

    from fastbp.sklearn import MLPClassifier, MLPRegressor
except ImportError:
    MLPClassifier = MLPRegressor = None

TABLE = Path(__file__).parent / "fixtures" / "trained_bits.json"
FUSES = platform.machine().lower() in ("aarch64", "arm64") or get_host_cpu_features().get("fma", False)

SAMPLES, FEATURES, CLASSES = 45, 20, 5
LABELS, DISTRIBUTIONS = "labels", "distributions"

Arrays = dict[str, list[Any]]

PLAIN, MOMENTUM = partial(SGD, 0.25), partial(Momentum, 0.125, 0.875)


def sha256(values: list[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        array = np.asarray(value)
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        digest.update(f"{array.dtype.str} {np.shape(value)} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Multiples of 1/256 from -1 to 1."""
    return np.floor(512 * np.random.default_rng(seed).random(shape)) / 256 - 1


def whole_numbers(seed: int, below: int, *shape: int) -> np.ndarray:
    return np.floor(below * np.random.default_rng(seed).random(shape)).astype(np.intp)


def samples(dtype: Any, count: int = SAMPLES, features: int = FEATURES) -> np.ndarray:
    return numbers(1, count, features).astype(dtype)


def sample_weight(count: int = SAMPLES) -> np.ndarray:
    """Multiples of 1/8, some of them 0."""
    return whole_numbers(3, 12, count) / 8


def targets(kind: Any, dtype: Any, count: int = SAMPLES, outputs: int = CLASSES) -> np.ndarray:
    if kind == LABELS:
        return whole_numbers(2, outputs, count)
    if kind == DISTRIBUTIONS:
        half, quarter = (np.eye(outputs)[whole_numbers(seed, outputs, count)] for seed in (2, 5))
        return (half / 2 + quarter / 4 + np.eye(outputs)[0] / 4).astype(dtype)
    if kind is SigmoidWithLoss:
        return (whole_numbers(2, 5, count, outputs) / 4).astype(dtype)
    if kind is ExpWithLoss:
        return whole_numbers(2, 4, count, outputs).astype(dtype)
    return numbers(2, count, outputs).astype(dtype)


def loss_of(kind: Any) -> Any:
    return SoftmaxWithLoss() if kind in (LABELS, DISTRIBUTIONS) else kind()


def network_of(parts: tuple[Any, ...], loss: Any, dtype: Any, features: int = FEATURES) -> Sequential:
    """A stack of affine layers, by their widths, and layers, by functions that make them."""
    layers, width = [], features
    for number, part in enumerate(parts):
        if isinstance(part, int):
            scale = 2.0 ** -(width.bit_length() // 2)
            W, b = scale * numbers(10 + number, width, part), numbers(30 + number, part) / 8
            layers.append(Affine(W.astype(dtype), b.astype(dtype)))
            width = part
        else:
            layers.append(part())
    return Sequential(layers, loss)


def state_of(optimizer: Any) -> list[Any]:
    states = [getattr(optimizer, name, None) for name in ("m", "v", "h")]
    return [optimizer.iter, *(array for state in states if state for array in state.values())]


def columns_of(history: Any, left_out: tuple[str, ...] = ()) -> list[Any]:
    names = [name for name in history.columns if name not in ("seconds", *left_out)]
    return [*(history[name] for name in names), history.steps]


def results(network: Any, optimizer: Any, losses: list[Any], x: Any, t: Any) -> Arrays:
    return {
        "parameters": list(network.params.values()),
        "state": state_of(optimizer),
        "losses": losses,
        "predictions": [network.predict(x), network.predict(x[:1]), network.loss(x, t)],
        "gradients": list(network.gradient(x, t).values()),
    }


# What is trained
#
# Each run is a function of no arguments, which gives arrays by the part that they are of.


def fitted(
    *parts: Any,
    kind: Any = LABELS,
    optimizer: Callable[[], Any] = PLAIN,
    dtype: Any = np.float32,
    count: int = SAMPLES,
    **more: Any,
) -> Arrays:
    """`fit` of a stack by one of the losses."""
    network, optimizer = network_of(parts, loss_of(kind), dtype), optimizer()
    x, t = samples(dtype, count), targets(kind, dtype, count)
    arguments = {"epochs": 4, "batch_size": 16, "seed": 7, "record_steps": True, "verbose": False} | more
    history = network.fit(x, t, optimizer=optimizer, **arguments)
    return results(network, optimizer, columns_of(history), x, t)


def fitted_to_images(dtype: Any, scale: float, optimizer: Callable[[], Any]) -> Arrays:
    """Images of bytes, wider than a tile of a product and a block of rows."""
    network, optimizer = network_of((50, ReLU, 10), SoftmaxWithLoss(), dtype, 784), optimizer()
    x, t = whole_numbers(1, 256, 200, 784).astype(np.uint8), targets(LABELS, dtype, 200, 10)
    history = network.fit(
        x.reshape(200, 28, 28), t, epochs=2, batch_size=64, optimizer=optimizer, seed=7, scale=scale, verbose=False
    )
    return results(network, optimizer, columns_of(history), x * dtype(scale), t)


def fitted_with_validation(kind: Any, dtype: Any) -> Arrays:
    """A rate so large that patience ends the run and puts the best epoch back."""
    network, optimizer = network_of((33, Tanh, CLASSES), loss_of(kind), dtype), Momentum(0.5, 0.875)
    x, t = samples(dtype), targets(kind, dtype)
    validation = numbers(8, 30, FEATURES).astype(dtype), targets(kind, dtype, 30)
    history = network.fit(
        x,
        t,
        epochs=40,
        batch_size=16,
        optimizer=optimizer,
        seed=7,
        validation_data=validation,
        patience=3,
        verbose=False,
    )
    assert 3 < len(history) < 40
    return results(network, optimizer, columns_of(history), x, t)


def fitted_twice(optimizer: Callable[[], Any], dtype: Any) -> Arrays:
    """Two fits with one generator and one optimizer, the second on fewer samples."""
    parts = 33, ReLU, partial(Dropout, 0.25, 3), CLASSES
    network, optimizer = network_of(parts, SoftmaxWithLoss(), dtype), optimizer()
    x, t, generator = samples(dtype), targets(LABELS, dtype), np.random.default_rng(7)
    losses = []
    for count in (SAMPLES, 20):
        arguments = {"epochs": 2, "batch_size": 16, "optimizer": optimizer, "seed": generator, "verbose": False}
        losses += columns_of(network.fit(x[:count], t[:count], **arguments))
    return results(network, optimizer, losses, x, t)


def fitted_with_callbacks(dtype: Any) -> Arrays:
    """A callback that changes the rate, the decay and the ratio and the seed of dropout."""
    parts = 33, Sigmoid, partial(Dropout, 0.5, 3), CLASSES
    network, optimizer = network_of(parts, SoftmaxWithLoss(), dtype), SGD(0.5)
    x, t = samples(dtype), targets(LABELS, dtype)

    def change(progress: Any) -> None:
        dropout = network.layers["Dropout1"]
        dropout.dropout_ratio, dropout.seed = dropout.dropout_ratio / 2, progress.epoch
        optimizer.lr, optimizer.weight_decay = optimizer.lr / 2, 0.125

    history = network.fit(
        x, t, epochs=4, batch_size=16, optimizer=optimizer, seed=7, on_epoch=change, on_nan="ignore", verbose=False
    )
    return results(network, optimizer, columns_of(history), x, t)


class PlainReLU:
    """A layer of another class."""

    def forward(self, x: Any) -> Any:
        self.mask = x > 0
        return np.where(self.mask, x, x.dtype.type(0))

    def backward(self, dout: Any) -> Any:
        return np.where(self.mask, dout, dout.dtype.type(0))


class Halved(Sequential):
    """A network whose predictions are its own."""

    def predict(self, x: Any, train_flg: bool = False) -> Any:
        return super().predict(x * x.dtype.type(0.5), train_flg)


class HalfSGD(SGD):
    """An optimizer of another class."""

    def rate_at(self, step: int) -> float:
        return super().rate_at(step) / 2


def fitted_by_layers(
    *parts: Any,
    kind: Any = LABELS,
    network_class: type[Sequential] = Sequential,
    optimizer: Callable[[], Any] = MOMENTUM,
    dtype: Any = np.float32,
    weights: Any = None,
) -> Arrays:
    """`fit` of what the engine does not know."""
    network = network_of(parts, loss_of(kind), dtype)
    network, optimizer = network_class(network.layers, network.last_layer), optimizer()
    x, t = samples(dtype), targets(kind, dtype)
    arguments = {"epochs": 3, "batch_size": 16, "seed": 7, "record_steps": True, "verbose": False}
    with pytest.warns(UserWarning, match="trained layer by layer"):
        history = network.fit(x, t, optimizer=optimizer, sample_weight=weights, **arguments)
    # NumPy sums the weights of hits.
    return results(network, optimizer, columns_of(history, () if weights is None else ("accuracy",)), x, t)


def updated_in_a_loop(network: Any, optimizer: Any, dtype: Any, t: Any) -> Arrays:
    """The loop of the book: a gradient and an update for each batch."""
    x, losses = samples(dtype), []
    for step in range(6):
        batch = slice(15 * (step % 3), 15 * (step % 3 + 1))
        optimizer.update(network.params, network.gradient(x[batch], t[batch]))
        losses.append(network.loss(x, t))
    return results(network, optimizer, losses, x, t)


def two_layer_net(dtype: Any) -> Arrays:
    network = TwoLayerNet(FEATURES, 33, CLASSES, dtype=dtype, seed=0)
    network.params["W1"][...] = numbers(10, FEATURES, 33) / 4
    network.params["W2"][...] = numbers(11, 33, CLASSES) / 4
    return updated_in_a_loop(network, Adam(0.0625, 0.75, 0.875), dtype, targets(LABELS, dtype))


def softmax_and_cross_entropy(dtype: Any) -> Arrays:
    network = network_of((33, Identity, CLASSES, Softmax), CrossEntropyError(), dtype)
    return updated_in_a_loop(network, AdaGrad(0.0625), dtype, targets(DISTRIBUTIONS, dtype))


# Estimators
#
# Their start values are uniform between bounds, which are powers of two for these widths: 6 or 24 units in both
# layers of a pair, or for "logistic" 8 or 32.
WIDE = 10, 14, 10
NARROW = 19, 5, 1
LOGISTIC = 25, 7, 1
ADAM = {"solver": "adam", "beta_1": 0.75, "beta_2": 0.875, "learning_rate_init": 0.03125}
STEPS = {"solver": "sgd", "learning_rate_init": 0.125, "momentum": 0.875}


def estimated(
    kind: str,
    widths: tuple[int, ...],
    y: Any,
    *,
    dtype: Any = np.float64,
    weights: Any = None,
    calls: int = 0,
    **params: Any,
) -> Arrays:
    """An estimator after `fit`, or after so many calls of `partial_fit`."""
    features, *hidden, _ = widths
    params = {"batch_size": 16, "max_iter": 5, "random_state": 3} | params
    model = {"classifier": MLPClassifier, "regressor": MLPRegressor}[kind](hidden_layer_sizes=hidden, **params)
    x = samples(dtype, SAMPLES, features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if not calls:
            model.fit(x, y, weights)
    for _ in range(calls):
        classes = {"classes": np.unique(y)} if kind == "classifier" else {}
        model.partial_fit(x, y, **classes)
    predicted = [model.predict(x)]
    if kind == "classifier":
        predicted += [model.predict_proba(x), model.predict_proba(x[:1])]
    return {
        "parameters": [*model.coefs_, *model.intercepts_],
        "losses": [model.n_iter_, model.loss_curve_],
        "predictions": predicted,
    }


def classes(count: int) -> np.ndarray:
    """Labels, each of them at least once."""
    labels = whole_numbers(2, count, SAMPLES)
    labels[:count] = np.arange(count)
    return labels


def named_runs() -> dict[str, Callable[[], Arrays]]:
    runs: dict[str, Callable[[], Arrays]] = {}
    ways = {
        "SGD": partial(SGD, 0.25),
        "SGD with decay": partial(SGD, 0.25, weight_decay=0.0625),
        "Momentum": partial(Momentum, 0.125, 0.875),
        "Nesterov with decay": partial(Nesterov, 0.125, 0.875, weight_decay=0.0625),
        "AdaGrad": partial(AdaGrad, 0.125),
        "RMSprop with decay": partial(RMSprop, 0.03125, 0.875, weight_decay=0.0625),
        "Adam": partial(Adam, 0.03125, 0.75, 0.875),
        "Adam with decay": partial(Adam, 0.03125, 0.75, 0.875, weight_decay=0.0625),
    }
    kinds = {
        "labels": LABELS,
        "distributions": DISTRIBUTIONS,
        "binary": SigmoidWithLoss,
        "squared": IdentityWithLoss,
        "Poisson": ExpWithLoss,
    }
    dtypes = {"float32": np.float32, "float64": np.float64}
    for type_name, dtype in dtypes.items():
        for name, optimizer in ways.items():
            stack = 33, ReLU, 17, Tanh, partial(Dropout, 0.25, 3), CLASSES
            runs[f"fit {name}, {type_name}"] = partial(fitted, *stack, optimizer=optimizer, dtype=dtype)
        for (name, kind), layer in zip(kinds.items(), (Tanh, Sigmoid, ReLU, Identity, Tanh), strict=True):
            runs[f"fit {name} behind {layer.__name__}, {type_name}"] = partial(
                fitted, 33, layer, CLASSES, kind=kind, dtype=dtype
            )
            runs[f"fit {name} with sample weights, {type_name}"] = partial(
                fitted, 9, layer, CLASSES, kind=kind, dtype=dtype, sample_weight=sample_weight()
            )
    runs |= {
        "fit layers without parameters first": partial(fitted, partial(Dropout, 0.5, 3), Tanh, Sigmoid, ReLU, CLASSES),
        "fit layers without parameters last": partial(
            fitted, CLASSES, Sigmoid, partial(Dropout, 0.5, 3), Identity, Tanh
        ),
        "fit one layer": partial(fitted, CLASSES, dtype=np.float64),
        "fit batches of one": partial(fitted, 9, ReLU, CLASSES, batch_size=1, count=7),
        "fit all samples at once": partial(fitted, 70, ReLU, 21, Sigmoid, CLASSES, batch_size=100),
        "fit without the last batch": partial(fitted, 9, ReLU, CLASSES, drop_last=True),
        "fit a rate that is a function": partial(
            fitted, 9, Tanh, CLASSES, optimizer=partial(Momentum, lambda step: 0.5 / (1 + step), 0.875)
        ),
        "fit a rate that is an array": partial(
            fitted,
            9,
            Tanh,
            CLASSES,
            optimizer=partial(Adam, np.arange(17, 0, -1) / 128, 0.75, 0.875),
            dtype=np.float64,
        ),
        "fit bytes, float32": partial(fitted_to_images, np.float32, 1 / 256, partial(SGD, 0.125)),
        "fit bytes, float64": partial(fitted_to_images, np.float64, 1 / 256, partial(Adam, 0.03125, 0.75, 0.875)),
        "fit with validation data, float32": partial(fitted_with_validation, LABELS, np.float32),
        "fit with validation data, float64": partial(fitted_with_validation, IdentityWithLoss, np.float64),
        "fit twice, float32": partial(fitted_twice, partial(Nesterov, 0.125, 0.875), np.float32),
        "fit twice, float64": partial(fitted_twice, partial(Adam, 0.03125, 0.75, 0.875), np.float64),
        "fit with callbacks": partial(fitted_with_callbacks, np.float32),
        "fit a layer of another class": partial(fitted_by_layers, 33, PlainReLU, partial(Dropout, 0.25, 3), CLASSES),
        "fit a layer of another class with sample weights": partial(
            fitted_by_layers, 33, PlainReLU, CLASSES, weights=sample_weight(), dtype=np.float64
        ),
        "fit a network of another class": partial(
            fitted_by_layers, 33, Sigmoid, CLASSES, kind=SigmoidWithLoss, network_class=Halved, dtype=np.float64
        ),
        "fit an optimizer of another class": partial(
            fitted_by_layers, 9, Tanh, CLASSES, kind=ExpWithLoss, optimizer=partial(HalfSGD, 0.25, weight_decay=0.0625)
        ),
        "update TwoLayerNet, float32": partial(two_layer_net, np.float32),
        "update TwoLayerNet, float64": partial(two_layer_net, np.float64),
        "update softmax and cross-entropy, float32": partial(softmax_and_cross_entropy, np.float32),
        "update softmax and cross-entropy, float64": partial(softmax_and_cross_entropy, np.float64),
    }
    if MLPClassifier is None:
        return runs
    classifier, regressor = partial(estimated, "classifier"), partial(estimated, "regressor")
    ten, two, real = classes(10), classes(2), numbers(2, SAMPLES)
    several = classes(2)[:, None] ^ whole_numbers(4, 2, SAMPLES, 10)
    return runs | {
        "classifier sgd constant": partial(classifier, WIDE, ten, **STEPS),
        "classifier sgd invscaling": partial(
            classifier, WIDE, ten, **STEPS | {"learning_rate": "invscaling", "learning_rate_init": 0.5, "power_t": 1.0}
        ),
        "classifier sgd adaptive": partial(
            classifier, NARROW, two, **STEPS, learning_rate="adaptive", n_iter_no_change=1, tol=0.0625, max_iter=20
        ),
        "classifier sgd without Nesterov, float32": partial(
            classifier, WIDE, ten, **STEPS, nesterovs_momentum=False, dtype=np.float32, activation="tanh"
        ),
        "classifier adam": partial(classifier, NARROW, two, **ADAM),
        "classifier adam, float32": partial(classifier, WIDE, ten, **ADAM, dtype=np.float32),
        "classifier adam logistic": partial(classifier, LOGISTIC, two, **ADAM, activation="logistic"),
        "classifier large penalty": partial(classifier, WIDE, ten, **ADAM, alpha=0.5),
        "classifier no penalty": partial(classifier, WIDE, ten, **ADAM, alpha=0.0),
        "classifier sample weights": partial(classifier, WIDE, ten, **ADAM, weights=sample_weight()),
        "classifier class weights": partial(classifier, NARROW, two, **STEPS, class_weight={0: 0.5, 1: 2.0}),
        "classifier early stopping": partial(
            classifier, NARROW, two, **ADAM, early_stopping=True, validation_fraction=0.25
        ),
        "classifier several labels": partial(classifier, WIDE, several, **ADAM),
        "classifier partial_fit": partial(classifier, WIDE, ten, **ADAM, calls=4),
        "classifier partial_fit sgd": partial(classifier, WIDE, ten, **STEPS, calls=4, shuffle=False),
        "classifier activations": partial(
            classifier, (10, 14, 10, 14, 10), ten, **ADAM, activation=["tanh", "identity", "relu"]
        ),
        "classifier dropout": partial(classifier, WIDE, ten, **ADAM, dropout=0.25),
        "regressor sgd": partial(regressor, NARROW, real, **STEPS),
        "regressor adam, float32": partial(regressor, NARROW, real.astype(np.float32), **ADAM, dtype=np.float32),
        "regressor several outputs": partial(regressor, WIDE, numbers(2, SAMPLES, 10), **ADAM, activation="identity"),
        "regressor Poisson": partial(regressor, NARROW, whole_numbers(2, 4, SAMPLES) / 1.0, **ADAM, loss="poisson"),
        "regressor sample weights": partial(regressor, NARROW, real, **STEPS, weights=sample_weight()),
        "regressor early stopping": partial(
            regressor, NARROW, real, **ADAM, early_stopping=True, validation_fraction=0.25
        ),
        "regressor partial_fit": partial(regressor, NARROW, real, **STEPS, calls=4),
    }


RUNS = named_runs()
EXPECTED = json.loads(TABLE.read_text()) if TABLE.exists() else {}


def hashes(name: str) -> dict[str, str]:
    return {part: sha256(values) for part, values in RUNS[name]().items()}


@pytest.mark.skipif(not FUSES, reason="a CPU without fused multiply-add rounds twice: its bits are its own")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_comes_to_the_bits_in_the_table(name):
    assert hashes(name) == EXPECTED[name], name


@pytest.mark.skipif(MLPClassifier is None, reason="without scikit-learn there are no runs of its estimators")
def test_each_line_of_the_table_is_of_a_run_and_no_two_runs_are_alike():
    assert list(EXPECTED) == list(RUNS)
    parameters = [parts["parameters"] for parts in EXPECTED.values()]
    assert len(set(parameters)) == len(parameters)


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(json.dumps({name: hashes(name) for name in RUNS}, indent=1) + "\n")
