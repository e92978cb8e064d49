"""What peers train: a network, its batches, and the samples and parameters to begin with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fastbp import layers
from fastbp.checks import Array
from fastbp.network import Sequential
from fastbp.ops.images import output_size


@dataclass(frozen=True)
class Task:
    """What is trained, and how.

    Attributes
    ----------
    network : tuple of int, or class
        The widths of a stack of affine layers, from the inputs to the classes; or a network for images of 28×28.
    batch : int
    steps : int
        In one timed call; none: epochs of `samples`.
    optimizer, activation : str
    samples : int
    epochs : int
        Of a whole run of `fit`, whose seconds are one figure; 0: a figure is a step or an epoch.
    """

    network: tuple[int, ...] | type[Sequential]
    batch: int
    steps: int = 0
    optimizer: str = "SGD"
    activation: str = "relu"
    samples: int = 10_000
    epochs: int = 0

    @property
    def name(self) -> str:
        """As tables show it."""
        kind = "step" if self.steps else f"{self.epochs} epochs" if self.epochs else "epoch"
        network = "-".join(map(str, self.widths)) if self.widths else cast(type, self.network).__name__
        samples = f" of {self.samples:,}" if self.epochs else ""
        return f"{kind}{samples} {network}, batch {self.batch}, {self.optimizer}"

    @property
    def note(self) -> str:
        """What a reader must know of the network beside its name."""
        return "without dropout" if any(isinstance(layer, layers.Dropout) for layer in self._layers()) else ""

    @property
    def widths(self) -> tuple[int, ...]:
        """Of affine layers; none for a network of images."""
        return self.network if isinstance(self.network, tuple) else ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return self.widths[:1] or (1, 28, 28)

    @property
    def flops(self) -> int:
        """Of the products of a step, of an epoch or of a run; the gradient by x is not needed."""
        sizes = list(self._multiply_adds())
        samples = self.batch if self.steps else self.samples * (self.epochs or 1)
        return 2 * samples * (3 * sum(sizes) - sizes[0])

    @property
    def checked(self) -> int:
        """How many steps peers do before they are compared.

        Few for images: more units come near ReLU's kink there, and pixels of a window are alike, so that rounding soon
        spreads.
        """
        return 5 if self.widths else 2

    def stack(self) -> list[Any]:
        """Its layers, new, with the parameters to begin with.

        Without dropout: each library draws masks of its own.
        """
        return [layer for layer in self._layers() if not isinstance(layer, layers.Dropout)]

    def _layers(self) -> list[Any]:
        if not isinstance(self.network, tuple):
            return list(self.network(dtype=np.float32, seed=0).layers.values())  # type: ignore[call-arg]
        rng = np.random.default_rng(0)
        stack: list[Any] = []
        for D, M in itertools.pairwise(self.network):
            W = rng.standard_normal((D, M), np.float32) / np.float32(math.sqrt(D))
            stack += [layers.Affine(W, np.zeros(M, np.float32))]
            stack += [layers.ReLU() if self.activation == "relu" else layers.Tanh()]
        return stack[:-1]

    def _multiply_adds(self) -> Iterator[int]:
        """Those of a sample forward, by layer."""
        H, W = self.shape[1:] if len(self.shape) > 1 else (1, 1)
        for layer in self.stack():
            if isinstance(layer, layers.Pooling):
                H, W = (output_size(n, layer.pool_h, layer.stride, layer.pad, "pooling") for n in (H, W))
            elif isinstance(layer, layers.Convolution):
                H, W = (output_size(n, layer.W.shape[2], layer.stride, layer.pad, "filters") for n in (H, W))
                yield layer.W.size * H * W
            elif isinstance(layer, layers.Affine):
                yield layer.W.size


def noise(task: Task) -> tuple[Array, Array, list[Array]]:
    """Samples, labels that follow from them, and parameters to start with."""
    rng = np.random.default_rng(0)
    samples = task.steps * task.batch or task.samples
    # Of mean 0, so that a unit is reached by many samples, and none of them moves its weights by much.
    x = rng.random((samples, *task.shape), np.float32) - np.float32(0.5)
    params = parameters(task)
    return x, np.argmax(x.reshape(samples, -1)[:, : params[-1].size], axis=1), params


def parameters(task: Task) -> list[Array]:
    """W and b of each layer to start with."""
    return [array for layer in task.stack() if hasattr(layer, "W") for array in (layer.W, layer.b)]
