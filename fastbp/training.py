"""The book's training: shuffled batches, a gradient and an update for each, accuracies after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastbp.data import Dataset
from fastbp.fitting import Run
from fastbp.network import Sequential
from fastbp.optimizers import Optimizer
from fastbp.validation import whole_number

__all__ = ["Epoch", "train"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean over its samples, each before the update by its batch.
    train_accuracy, test_accuracy : float
        After the epoch.
    seconds : float
        Spent on its steps, the accuracies not counted.
    """

    number: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float


def train(
    network: Sequential,
    data: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    after_steps: Callable[[int], None] = lambda _: None,
) -> Iterator[Epoch]:
    """Train `network` on `data`, and yield an `Epoch` after each.

    Each sample is used once per epoch, in an order drawn from `seed`; the last batch of an epoch may be short.

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
        Called between steps, some 20 times a second, with how many there have been since.

    Raises
    ------
    TypeError, ValueError
        If epochs, batch_size or seed is not such an integer.
    """
    whole_number("epochs", epochs, 1, "give the number of passes over the data")
    run = Run(network, data.x_train, data.t_train, batch_size, optimizer, seed)
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        with run.interrupts:
            for stretch in run.epoch(keeps_bad=True):
                run.look_at_interrupts()
                with run.standing():
                    after_steps(len(stretch.losses))
        seconds = time.perf_counter() - start
        train_accuracy = network.accuracy(data.x_train, data.t_train)
        test_accuracy = network.accuracy(data.x_test, data.t_test)
        yield Epoch(number, stretch.loss, train_accuracy, test_accuracy, seconds)
