"""Files that an earlier fastbp wrote: they load, predict what they predicted and train on to the same bits.

`python -m tests.test_old_files FOLDER` wrote them. They stay as they are, whatever a later fastbp writes: a new format
gets files of its own, in another folder.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp
from bench.cases import LAYERS, Draw
from fastbp import Sequential, StopTraining, TwoLayerNet, layers, optimizers, saving
from tests.test_trained_bits import FUSES, columns_of, numbers, sha256, state_of, whole_numbers

try:
    import sklearn

    from fastbp.sklearn import MLPClassifier, MLPRegressor

    SKLEARN = sklearn.__version__
except ImportError:
    SKLEARN = None

FILES = Path(__file__).parent / "fixtures" / "old_files"
TABLE = FILES / "expected.json"
EXPECTED = json.loads(TABLE.read_text()) if TABLE.exists() else {}
SAMPLES, FEATURES, CLASSES = 45, 6, 4

on_this_cpu = pytest.mark.skipif(
    not FUSES, reason="a CPU without fused multiply-add rounds twice: its bits are its own"
)
with_sklearn = pytest.mark.skipif(
    EXPECTED.get("scikit-learn") != SKLEARN,
    reason=f"scikit-learn {EXPECTED.get('scikit-learn')} pickled the estimators, {SKLEARN} may refuse them",
)

# What the networks and runs are


def samples(dtype: Any) -> np.ndarray:
    return numbers(1, SAMPLES, FEATURES).astype(dtype)


def labels() -> np.ndarray:
    return whole_numbers(2, CLASSES, SAMPLES)


def affine(rows: int, columns: int, dtype: Any) -> layers.Affine:
    return layers.Affine(
        (numbers(rows, rows, columns) / 2).astype(dtype), (numbers(columns, columns) / 8).astype(dtype)
    )


def adam_network() -> Sequential:
    stack = [
        affine(FEATURES, 9, np.float64),
        layers.ReLU(),
        layers.Dropout(0.25, seed=5),
        affine(9, 7, np.float64),
        layers.Sigmoid(),
        affine(7, CLASSES, np.float64),
    ]
    return Sequential(stack, layers.SoftmaxWithLoss())


def momentum_network() -> Sequential:
    named = {
        "in": affine(FEATURES, 9, np.float32),
        "curve": layers.Tanh(),
        "hidden": affine(9, 3, np.float32),
        "line": layers.Identity(),
    }
    return Sequential(named, layers.IdentityWithLoss())


def two_layer_net() -> TwoLayerNet:
    network = TwoLayerNet(FEATURES, 9, CLASSES, dtype=np.float32, seed=0)
    for key, value in network.params.items():
        value[...] = numbers(len(key) + value.size, *value.shape) / 2
    return network


def adam() -> optimizers.Adam:
    return optimizers.Adam(0.03125, 0.75, 0.875, weight_decay=0.0625)


# Each with its optimizer, which None leaves out of the file, and its targets.
NETWORKS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None, Any]] = {
    "adam": (adam_network, adam, labels()),
    "momentum": (
        momentum_network,
        partial(optimizers.Momentum, np.arange(24, 0, -1) / 128, 0.875),
        numbers(3, SAMPLES, 3).astype(np.float32),
    ),
    "two_layer_net": (two_layer_net, None, labels()),
}


def rest() -> Sequential:
    """The classes that are in none of the networks; no stack of them can be trained."""
    kinds = "AddLayer", "MulLayer", "Softmax", "SigmoidWithLoss", "ExpWithLoss"
    return Sequential([getattr(layers, kind)() for kind in kinds], layers.CrossEntropyError())


def fitted(network: Any, optimizer: Any, t: Any) -> Any:
    x = samples(network.params["W1"].dtype)
    return network.fit(x, t, epochs=2, batch_size=16, optimizer=optimizer, seed=9, verbose=False)


def predictions(network: Any) -> str:
    return sha256([network.predict(samples(network.params["W1"].dtype))])


def trained_on(network: Any, t: Any) -> str:
    optimizer = network.optimizer or optimizers.SGD(0.25)
    history = fitted(network, optimizer, t)
    return sha256([*columns_of(history), *network.params.values(), *state_of(optimizer)])


def run(**arguments: Any) -> str:
    """Four epochs of a run with all that a checkpoint has to hold, or as many as the arguments say."""
    network, optimizer, x = adam_network(), adam(), samples(np.float64)
    arguments = {
        "epochs": 4,
        "batch_size": 16,
        "seed": 9,
        "sample_weight": whole_numbers(4, 12, SAMPLES) / 8,
        "validation_data": (x[:20] / 2, labels()[:20]),
        "patience": 4,
        "record_steps": True,
        "verbose": False,
    } | arguments
    history = network.fit(x, labels(), optimizer=optimizer, **arguments)
    steps = [layer.step for layer in network.layers.values() if isinstance(layer, layers.Dropout)]
    return sha256([*columns_of(history), *network.params.values(), *state_of(optimizer), *steps])


CHECKPOINTS = ("after_an_epoch", "between_steps")

VALUES = {
    "none": None,
    "numbers": [True, 3, 2**70, 0.1, float("inf")],
    "text": {"of": "any", "language": "é 字"},
    "one": np.float32(0.1),
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
}
ARRAYS = {
    "bytes": np.arange(5, dtype=np.uint8),
    "big-endian": np.arange(3, dtype=">f8"),
    "empty": np.empty((0, 4), np.float32),
    "a number": np.array(0.5),
}


def objects() -> dict[str, list[Any]]:
    """An object of each class of layers, of the book's network, and of each class of optimizers after an update."""
    updated = [getattr(optimizers, name)() for name in optimizers.__all__ if name != "optimizer"]
    for optimizer in updated:
        optimizer.update({"W1": np.ones(2)}, {"W1": np.ones(2)})
    made = {"Dropout": layers.Dropout(0.25, seed=5)}
    draw = Draw("float64", (4, 3, 2))
    named = [made.get(case.name) or case.layer(draw) for case in LAYERS]
    return {"layers": named, "networks": [two_layer_net()], "optimizers": updated}


def estimators() -> dict[str, tuple[Any, Any, Any]]:
    """Each with its samples and targets; the widths make the start values the same everywhere."""
    shared = {"batch_size": 16, "random_state": 3, "learning_rate_init": 0.03125}
    classifier = MLPClassifier((5,), **shared, beta_1=0.75, beta_2=0.875)
    regressor = MLPRegressor(hidden_layer_sizes=(5,), **shared, solver="sgd", activation="tanh", momentum=0.875)
    x = numbers(1, SAMPLES, 19)
    names = np.array(["no", "yes"])[whole_numbers(2, 2, SAMPLES)]
    return {
        "classifier": (classifier, x, names),
        "regressor": (regressor, x.astype(np.float32), numbers(2, SAMPLES)),
    }


def estimated(model: Any, x: Any) -> str:
    return sha256([model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)])


def fitted_on(model: Any, x: Any, y: Any) -> str:
    model.partial_fit(x, y)
    return sha256([*model.coefs_, *model.intercepts_, model.loss_curve_])


# The tests


@on_this_cpu
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_predicts_and_trains_on_as_when_it_was_saved(name):
    made, _, t = NETWORKS[name]
    network = fastbp.load(FILES / f"{name}.npz")
    assert type(network) is type(made())
    assert list(network.layers) == list(made().layers)
    assert predictions(network) == EXPECTED[name]["predictions"]
    assert trained_on(network, t) == EXPECTED[name]["trained on"]


@pytest.mark.parametrize("name", NETWORKS)
def test_an_optimizer_comes_back_with_its_settings(name):
    _, made, _ = NETWORKS[name]
    loaded = fastbp.load(FILES / f"{name}.npz").optimizer
    if made is None:
        assert loaded is None
        return
    assert type(loaded) is type(made())
    assert loaded.iter == 6
    for setting in made().setting_names():
        np.testing.assert_array_equal(getattr(loaded, setting), getattr(made(), setting))


def test_layers_of_every_class_are_in_a_file_and_load():
    loaded = [fastbp.load(FILES / f"{name}.npz") for name in (*NETWORKS, "rest")]
    kinds = {type(layer) for network in loaded for layer in (*network.layers.values(), network.last_layer)}
    assert len(kinds) == 14
    assert [type(layer) for layer in loaded[-1].layers.values()] == [type(layer) for layer in rest().layers.values()]


def test_arrays_and_values_come_back():
    arrays, meta = saving.read(FILES / "values.npz")
    assert arrays.keys() == ARRAYS.keys()
    assert meta.keys() == VALUES.keys()
    pairs = [(arrays[name], array) for name, array in ARRAYS.items()]
    pairs += [(meta.pop(name), VALUES[name]) for name in ("one", "array")]
    for got, expected in pairs:
        assert type(got) is type(expected)
        assert (got.shape, got.dtype, got.tobytes()) == (expected.shape, expected.dtype, expected.tobytes())
    assert meta == {name: value for name, value in VALUES.items() if name in meta}


@on_this_cpu
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_run_goes_on_from_a_checkpoint_to_where_an_unbroken_one_ends(name):
    unbroken = run()
    assert unbroken == EXPECTED["run"]
    assert run(resume=FILES / f"{name}.npz") == unbroken


@on_this_cpu
def test_a_pickled_network_predicts_and_trains_on():
    network = pickle.loads((FILES / "network.pickle").read_bytes())
    assert len(network.history) == 2
    assert predictions(network) == EXPECTED["adam"]["predictions"]
    assert trained_on(network, labels()) == EXPECTED["adam"]["trained on"]


def test_pickled_layers_and_optimizers_come_back():
    loaded = pickle.loads((FILES / "objects.pickle").read_bytes())
    today = objects()
    for name, things in loaded.items():
        assert {type(thing) for thing in things} <= {type(thing) for thing in today[name]}
    for network in loaded["networks"]:
        x, t = np.ones((2, len(network.params["W1"]))), np.array([0, 1])
        network.gradient(x, t)
        assert np.isfinite(network.loss(x, t))
    assert len(loaded["layers"]) == 15
    assert len(loaded["optimizers"]) == 6
    by_class = {type(made): made for made in today["optimizers"]}
    for optimizer in loaded["optimizers"]:
        made = by_class[type(optimizer)]
        settings = made.setting_names()
        assert [getattr(optimizer, name) for name in settings] == [getattr(made, name) for name in settings]
        assert optimizer.iter == 1
        for name in made.state_names():
            np.testing.assert_allclose(getattr(optimizer, name)["W1"], getattr(made, name)["W1"], rtol=1e-15)


@on_this_cpu
@with_sklearn
@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_pickled_estimator_predicts_and_goes_on(name):
    made, x, y = estimators()[name]
    model = pickle.loads((FILES / f"{name}.pickle").read_bytes())
    assert type(model) is type(made)
    assert model.get_params() == made.get_params()
    assert estimated(model, x) == EXPECTED[name]["predictions"]
    assert fitted_on(model, x, y) == EXPECTED[name]["trained on"]


# How the files were written


def write_network(name: str, folder: Path) -> dict[str, str]:
    made, optimizer, t = NETWORKS[name]
    network, optimizer = made(), None if optimizer is None else optimizer()
    fitted(network, optimizer or "sgd", t)
    network.optimizer = optimizer
    network.save(folder / f"{name}.npz", optimizer)
    predicted = predictions(network)
    if name == "adam":
        (folder / "network.pickle").write_bytes(pickle.dumps(network))
    return {"predictions": predicted, "trained on": trained_on(network, t)}


def write_checkpoints(folder: Path) -> None:
    after_an_epoch, between_steps = (folder / f"{name}.npz" for name in CHECKPOINTS)
    run(epochs=1, checkpoint=after_an_epoch)
    calls = []

    def stop(progress: Any) -> None:
        """Before the second checkpoint: the first is written after one step, as no run begins with more at a time."""
        calls.append(progress.step)
        if len(calls) == 2:
            raise StopTraining

    often = timedelta(microseconds=1)
    run(resume=after_an_epoch, checkpoint=between_steps, every=often, on_steps=stop)
    content = saving.read(between_steps)[1]["checkpoint"]
    assert (content["epochs"], content["step"]) == (1, 1)


def write_estimator(name: str, folder: Path) -> dict[str, str]:
    model, x, y = estimators()[name]
    for _ in range(3):
        model.partial_fit(x, y, **({"classes": np.unique(y)} if name == "classifier" else {}))
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(model))
    return {"predictions": estimated(model, x), "trained on": fitted_on(model, x, y)}


def write_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Any] = {"scikit-learn": SKLEARN, "run": run()}
    expected |= {name: write_network(name, folder) for name in NETWORKS}
    rest().save(folder / "rest.npz")
    saving.write(folder / "values.npz", ARRAYS, VALUES)
    write_checkpoints(folder)
    (folder / "objects.pickle").write_bytes(pickle.dumps(objects()))
    expected |= {name: write_estimator(name, folder) for name in ("classifier", "regressor")}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
