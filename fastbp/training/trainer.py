"""The book's training loop as a class (section 6.4), on `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import as_array, generator, whole_number
from fastbp.optimizers import Optimizer
from fastbp.optimizers import optimizer as optimizer_named
from fastbp.training.fit import Progress, fit
from fastbp.training.protocol import Network

__all__ = ["Trainer", "described"]


def described(trainer: Any) -> str:
    """What a trainer trains, and how."""
    network, samples = type(trainer.network).__name__, f"{len(trainer.x_train):,} samples"
    settings = f"epochs={trainer.epochs}, optimizer={trainer.optimizer!r}"
    return f"{type(trainer).__name__}({network}, {samples}, {settings})"


class Trainer:
    """Train a network, and keep the loss of each step and the accuracies of each epoch.

    Each sample is used once in an epoch, in a new order. The loss of a step is that before its update. Accuracies are
    those after an epoch. `fastbp.book.trainer.Trainer` has the book's draws with replacement and its text.

    Parameters
    ----------
    network : Sequential
        Its parameters are changed in place.
    x_train, t_train, x_test, t_test : array_like
        Samples as the network takes them, and their labels.
    epochs : int
        At least 1.
    mini_batch_size : int
        Samples of a step.
    optimizer : str or Optimizer
        An object of `fastbp.optimizers`, or a name such as "adam".
    optimizer_param : mapping, optional
        What the optimizer of a name is made with, such as {"lr": 0.01}.
    evaluate_sample_num_per_epoch : int, optional
        How many samples, the first ones, accuracies are taken of; all without it.
    verbose : bool
        Whether to print a line after each epoch.
    seed : int or numpy.random.Generator, optional
        For the order of the samples. Without it one is drawn from NumPy's global generator, so that `np.random.seed`
        sets it.

    Attributes
    ----------
    optimizer : Optimizer
    train_loss_list : list of float
        The loss of each step.
    train_acc_list, test_acc_list : list of float
        The accuracies after each epoch.

    Raises
    ------
    TypeError, ValueError
        For an argument that is none of these.

    Examples
    --------
    >>> trainer = Trainer(network, x, t, x, t, epochs=2, optimizer="Adam", verbose=False, seed=0)
    >>> trainer.train()
    >>> len(trainer.train_loss_list), trainer.test_acc_list
    (2, [1.0, 1.0])
    """

    def __init__(
        self,
        network: Network,
        x_train: ArrayLike,
        t_train: ArrayLike,
        x_test: ArrayLike,
        t_test: ArrayLike,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str | Optimizer = "SGD",
        optimizer_param: Mapping[str, Any] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.network, self.verbose = network, verbose
        self.x_train, self.t_train = as_array("x_train", x_train), as_array("t_train", t_train)
        self.x_test, self.t_test = as_array("x_test", x_test), as_array("t_test", t_test)
        self.epochs = whole_number("epochs", epochs, 1, "give the number of passes over the data")
        self.batch_size = whole_number("mini_batch_size", mini_batch_size, 1, "give the number of samples of a step")
        if evaluate_sample_num_per_epoch is not None:
            whole_number("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch, 1, "leave it out for all")
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        named = optimizer_named(optimizer)
        if optimizer_param is not None:
            if isinstance(optimizer, Optimizer):
                raise ValueError(
                    "optimizer_param: expected together with the name of an optimizer, got an object; make it with them"
                )
            named = type(named)(**optimizer_param)
        self.optimizer = named
        self._generator = generator(int(np.random.randint(0, 2**31)) if seed is None else seed)
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []

    __repr__ = described

    def train(self) -> None:
        """Do all epochs. A second call goes on training.

        Raises
        ------
        TypeError, ValueError
            If the data does not fit the network.
        FloatingPointError
            At a loss that is not finite.
        """
        history = fit(
            self.network,
            self.x_train,
            self.t_train,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            seed=self._generator,
            on_epoch=self._evaluate,
            record_steps=True,
            verbose=False,
        )
        self.train_loss_list += history.steps.tolist()

    def _evaluate(self, progress: Progress) -> None:
        some = slice(self.evaluate_sample_num_per_epoch)
        train = self.network.accuracy(self.x_train[some], self.t_train[some])
        test = self.network.accuracy(self.x_test[some], self.t_test[some])
        self.train_acc_list.append(train)
        self.test_acc_list.append(test)
        if self.verbose:
            print(f"epoch {progress.epoch}: loss {progress.loss:.4f}, train accuracy {train:.4f}, test {test:.4f}")
