"""Training: `Sequential.fit` and what belongs to it, and the book's loop of epochs.

`fit` has the loop over epochs, `run` the steps of one. `display`, `screen`, `checkpoint`, `best`, `history` and
`interrupts` each do one thing around them. What training asks of a network is `protocol.Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastbp.checks import generator, whole_number
from fastbp.optimizers import Optimizer
from fastbp.training.fit import Progress, fit
from fastbp.training.protocol import Network

if TYPE_CHECKING:
    from fastbp.data import Dataset  # `import fastbp` is sooner without it

__all__ = ["Epoch", "train"]


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean over its samples, each before the update by its batch.
    train_accuracy, test_accuracy : float
        After the epoch.
    seconds : float
        Spent on its steps, without the accuracies.
    """

    number: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float


def train(
    network: Network,
    data: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    after_steps: Callable[[int], None] = lambda _: None,
) -> Iterator[Epoch]:
    """Train `network` on `data` by `fit`, and yield an `Epoch` after each.

    Each sample is used once per epoch, in an order drawn from `seed`. The last batch of an epoch may be smaller.

    Parameters
    ----------
    network : Sequential
        Its parameters are changed in place.
    data : Dataset
    optimizer : Optimizer
    epochs, batch_size : int
        At least 1.
    seed : int
        At least 0, of the order of the samples.
    after_steps : callable
        Called between steps, about 20 times a second, with the number of steps since the last call.

    Raises
    ------
    TypeError, ValueError
        If epochs, batch_size or seed is not such an integer.
    """
    whole_number("epochs", epochs, 1, "give the number of passes over the data")
    order, told = generator(seed), 0

    def tell(progress: Progress) -> None:
        nonlocal told
        after_steps(progress.step - told)
        told = progress.step % progress.steps

    for number in range(1, epochs + 1):
        history = fit(
            network, data.x_train, data.t_train, batch_size=batch_size, optimizer=optimizer, seed=order,
            on_steps=tell, on_nan="ignore", verbose=False,
        )  # fmt: skip
        train_accuracy = network.accuracy(data.x_train, data.t_train)
        test_accuracy = network.accuracy(data.x_test, data.t_test)
        yield Epoch(
            number, float(history["loss"][0]), train_accuracy, test_accuracy, float(history["seconds"][0])
        )  # fmt: skip
