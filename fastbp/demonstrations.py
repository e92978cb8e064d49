"""What the command `fastbp train` trains: networks by name, how, and on what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import DTypeLike

from fastbp.checks import Array
from fastbp.convolutional import DeepConvNet, LeNet, SimpleConvNet
from fastbp.data import Dataset
from fastbp.network import Sequential, TwoLayerNet

__all__ = ["NETWORKS", "Demonstration", "accuracy", "as_taken", "defaults", "layers", "network", "pairs"]

_MEASURED = 10_000  # images at most in an accuracy
_AT_ONCE = 500  # of them, which keeps the outputs of convolutions small


@dataclass(frozen=True)
class Demonstration:
    """A network, and how it is trained unless somebody says otherwise."""

    make: Callable[..., Sequential]
    epochs: int
    optimizer: str
    lr: float
    dtype: str
    takes_images: bool = True


def _two_layers(pixels: int, **settings: Any) -> TwoLayerNet:
    return TwoLayerNet(pixels, 50, 10, **settings)


NETWORKS = {
    "two-layer": Demonstration(_two_layers, 30, "sgd", 0.3, "float64", takes_images=False),
    # The book's two as its scripts train them.
    "simple-conv": Demonstration(SimpleConvNet, 20, "adam", 0.001, "float32"),
    "deep-conv": Demonstration(DeepConvNet, 20, "adam", 0.001, "float32"),
    "lenet": Demonstration(LeNet, 10, "adam", 0.001, "float32"),
}


def defaults(setting: str) -> str:
    """What the networks have, such as "30 for two-layer; 20 for simple-conv, deep-conv"."""
    names: dict[object, list[str]] = {}
    for name, demonstration in NETWORKS.items():
        names.setdefault(getattr(demonstration, setting), []).append(name)
    return "; ".join(f"{value} for {', '.join(found)}" for value, found in names.items())


def as_taken(name: str, data: Dataset) -> Dataset:
    """The data as a network takes them: rows, or images (N, C, H, W).

    Raises
    ------
    ValueError
        If the network takes images, and the rows are none of squares.
    """
    if not NETWORKS[name].takes_images:
        return data
    pixels = data.x_train.shape[1]
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise ValueError(
            f"--data-dir: expected square images for --network {name}, got images of {pixels} pixels; "
            f"choose --network two-layer"
        )
    train, test = (x.reshape(-1, 1, side, side) for x, _ in pairs(data))
    return replace(data, x_train=train, x_test=test)


def network(name: str, data: Dataset, dtype: DTypeLike, seed: int) -> Sequential:
    """A new network for data that `as_taken` gave.

    Raises
    ------
    ValueError
        If the images are too small for it.
    """
    sample = data.x_train.shape[1:]
    try:
        return NETWORKS[name].make(sample[0] if len(sample) == 1 else sample, dtype=dtype, seed=seed)
    except ValueError as error:
        raise ValueError(
            f"--network: expected one for images of {'×'.join(map(str, sample[1:]))} pixels, got {name}, which needs "
            f"larger ones; choose simple-conv or deep-conv, or --data mnist"
        ) from error


def pairs(data: Dataset) -> Iterator[tuple[Array, Array]]:
    """The images to train with and those to test with, each with their labels."""
    yield data.x_train, data.t_train
    yield data.x_test, data.t_test


def accuracy(network: Sequential, x: Array, t: Array) -> float:
    """The share of hits of the first 10,000 images."""
    x, t = x[:_MEASURED], t[:_MEASURED]
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(x), _AT_ONCE)]
    return sum(network.accuracy(x[part], t[part]) * len(t[part]) for part in parts) / len(t)


def layers(network: Sequential) -> str:
    """The layers of a network with the shapes of their weights, and how many parameters there are."""
    found = []
    for name, layer in network.layers.items():
        W = getattr(layer, "W", None)
        found.append(name if W is None else f"{name} {'×'.join(map(str, W.shape))}")
    return f"{', '.join(found)}: {sum(value.size for value in network.params.values()):,} parameters"
