"""What training asks of a network."""

from __future__ import annotations

from typing import Protocol

from numpy.typing import ArrayLike

from fastbp.checks import Array
from fastbp.contents import Stack
from fastbp.files import FilePath
from fastbp.optimizers import Optimizer
from fastbp.training.history import History

__all__: list[str] = []  # the methods are described where they are written, in `fastbp.network`


class Network(Stack, Protocol):
    """What training and its callbacks ask of a network, as `fastbp.Sequential` has it."""

    history: History
    weight_decay_lambda: float

    def own_methods(self) -> list[str]: ...

    def penalty(self) -> float: ...

    def predict(self, x: ArrayLike, train_flg: bool = False) -> Array: ...

    def loss(
        self, x: ArrayLike, t: ArrayLike, train_flg: bool = False, sample_weight: ArrayLike | None = None
    ) -> float: ...

    def accuracy(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> float: ...

    def gradient(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, Array]: ...

    def save(self, path: FilePath, optimizer: Optimizer | None = None) -> None: ...
