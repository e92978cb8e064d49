"""The book's training loop (`common/trainer.py`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from fastbp.checks import Array
from fastbp.training.trainer import described

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "Trainer", "np", "os", "sys"]

_OPTIMIZERS: dict[str, Any] = {
    kind.__name__.lower(): kind for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)
}


class Trainer:
    """Train a network on batches that are drawn with replacement, and print the loss of each.

    A sample may occur twice in a batch, and in an epoch not at all. The loss of a step is that after its update. An
    epoch is N/mini_batch_size steps; where that is not whole, accuracies are taken at the steps that it divides.

    Parameters
    ----------
    network : object
        With `params`, `gradient(x, t)`, `loss(x, t)` and `accuracy(x, t)`.
    x_train, t_train, x_test, t_test : ndarray
    epochs, mini_batch_size : int
    optimizer : str
        The name of a class of `fastbp.book.optimizer`, in capitals or not.
    optimizer_param : mapping
        What it is made with.
    evaluate_sample_num_per_epoch : int, optional
        How many samples, the first ones, the accuracies of an epoch are taken of; all without it.
    verbose : bool

    Attributes
    ----------
    train_loss_list : list
        The loss of each step.
    train_acc_list, test_acc_list : list
        The accuracies after the first step of each epoch.
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, Any] = {"lr": 0.01},
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.network = network
        self.verbose = verbose
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs, self.batch_size = epochs, mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.optimizer = _OPTIMIZERS[optimizer.lower()](**optimizer_param)
        self.train_size = len(x_train)
        self.iter_per_epoch = max(self.train_size / mini_batch_size, 1)
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = self.current_epoch = 0
        self.train_loss_list: list[Any] = []
        self.train_acc_list: list[Any] = []
        self.test_acc_list: list[Any] = []

    __repr__ = described

    def train_step(self) -> None:
        """Do a step: draw a batch, update, and keep the loss; at the first step of an epoch also accuracies."""
        batch = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[batch], self.t_train[batch]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._say(f"train loss:{loss}")
        if self.current_iter % self.iter_per_epoch == 0:
            self._evaluate()
        self.current_iter += 1

    def train(self) -> None:
        """Do all steps, then print the accuracy of all test samples."""
        for _ in range(self.max_iter):
            self.train_step()
        accuracy = self.network.accuracy(self.x_test, self.t_test)
        self._say("=============== Final Test Accuracy ===============")
        self._say(f"test acc:{accuracy}")

    def _evaluate(self) -> None:
        self.current_epoch += 1
        some = slice(self.evaluate_sample_num_per_epoch)
        train = self.network.accuracy(self.x_train[some], self.t_train[some])
        test = self.network.accuracy(self.x_test[some], self.t_test[some])
        self.train_acc_list.append(train)
        self.test_acc_list.append(test)
        self._say(f"=== epoch:{self.current_epoch}, train acc:{train}, test acc:{test} ===")

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)
