"""`fit`: a training run, with validation, early stopping, callbacks, progress and checkpoints around its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp.checks import whole_number
from fastbp.files import FilePath
from fastbp.optimizers import Optimizer
from fastbp.ranks.company import Alone, Company, Ranks
from fastbp.training.at_once import at_work
from fastbp.training.best import Best
from fastbp.training.checkpoint import Checkpoints
from fastbp.training.display import Display
from fastbp.training.divergence import check_validation
from fastbp.training.history import History
from fastbp.training.protocol import Network
from fastbp.training.run import Run, Stretch, ValidationData
from fastbp.training.screen import tells_of_compiling

Callback = Callable[["Progress"], None]


class StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised by a callback of `fit` to end the run at a finished step.

    Examples
    --------
    >>> def after_two(progress):
    ...     if progress.epoch == 2:
    ...         raise StopTraining
    >>> len(network.fit(x, t, epochs=10, on_epoch=after_two))
    2
    """


@dataclass(frozen=True)
class Progress:
    """How far a run of `fit` has come, as its callbacks see it.

    Attributes
    ----------
    network : Sequential
        With the parameters of this moment.
    epoch : int
        From 1.
    step : int
        Steps done in this epoch.
    steps : int
        Steps of an epoch.
    loss : float
        Mean over the samples of this epoch so far, each before the update by its batch.
    history : History
        Of the finished epochs.

    Examples
    --------
    >>> def halve(progress):
    ...     optimizer.lr /= 2
    ...     print(progress.epoch, progress.step, progress.steps)
    >>> optimizer = fastbp.optimizers.SGD(0.1)
    >>> history = network.fit(x, t, epochs=2, batch_size=2, optimizer=optimizer, on_epoch=halve)
    1 3 3
    2 3 3
    >>> optimizer.lr
    0.025
    """

    network: Network
    epoch: int
    step: int
    steps: int
    loss: float
    history: History


@tells_of_compiling
def fit(
    self: Network,
    x: ArrayLike,
    t: ArrayLike,
    *,
    epochs: int = 1,
    batch_size: int = 100,
    optimizer: Optimizer | str = "sgd",
    seed: int | np.random.Generator | None = None,
    sample_weight: ArrayLike | None = None,
    scale: float = 1.0,
    drop_last: bool = False,
    validation_data: ValidationData | None = None,
    patience: int | None = None,
    on_epoch: Callback | None = None,
    on_steps: Callback | None = None,
    on_nan: str = "stop",
    record_steps: bool = False,
    checkpoint: FilePath | None = None,
    every: int | timedelta | None = None,
    resume: FilePath | None = None,
    verbose: bool | None = None,
    comm: Any = None,
    shards: bool = False,
) -> History:
    """Train the network in compiled code, and return the results of the run.

    One kernel runs batches, forward, loss, backward and update, for any stack of fastbp's own layers. The results are
    those of `optimizer.update(network.params, network.gradient(x, t))` for each batch. A network with a layer, loss or
    optimizer of another class is trained by that loop itself, and a warning says so. The parameters change in place,
    in the layers' own arrays. Ctrl-C waits some hundredths of a second for the end of a step. Parameters, optimizer,
    dropout, generator and history are then as they are after that step. Where a layer of another class does not come
    to an end, a second Ctrl-C abandons its step.

    Parameters
    ----------
    x : array_like (samples, D)
        float32, float64 and uint8 are read as they are, a batch at a time, also from a memory-mapped file. Other
        dtypes are converted at once. More axes are flattened to D. For a network that begins with `Embedding` x is
        integers, also (samples,), which are checked and copied at once.
    t : array_like
        Targets as the loss layer takes them.
    epochs : int
        Passes over the data.
    batch_size : int
        Samples of a step. The last batch of an epoch may be smaller.
    optimizer : Optimizer or str
        An object of `fastbp.optimizers`, which keeps its state from one fit to the next, or a name such as "adam".
    seed : int or numpy.random.Generator, optional
        For the order of the samples. Each sample comes once in an epoch. Without a seed no two runs are alike. A
        generator goes on: two fits with one are the epochs of a longer fit.
    sample_weight : array_like (samples,), optional
        A weight for each sample, finite and at least 0. The loss of a batch is sum(w·loss)/sum(w), and its gradient
        by the output is w·(y - t)/sum(w). Accuracies and the means of an epoch are weighted alike. A batch whose
        weights are all 0 has the loss 0.0 and the gradient 0.
    scale : float
        A factor for x, such as 1/255 for images of bytes.
    drop_last : bool
        Whether to leave out a last batch that is smaller.
    validation_data : (x, t) or (x, t, sample_weight), optional
        Gives `val_loss` and, for classes, `val_accuracy` of each epoch.
    patience : int, optional
        Stop after so many epochs without a smaller `val_loss`, or `loss` where there is no validation data. Any run
        with `patience` ends with the parameters of its best epoch.
    on_epoch, on_steps : callable, optional
        Called with a `Progress`: `on_epoch` after each epoch, `on_steps` between two steps, about 20 times a second.
        Changes to the network and the optimizer count from the next step on: rates, ratios and seeds of dropout,
        arrays, layers. A change that allows no step raises an error at that step. A callback ends the run by raising
        `fastbp.StopTraining`.
    on_nan : "stop" or "ignore"
        Whether a loss that is not finite, also that of the validation data, ends the run with an error.
    record_steps : bool
        Whether to keep the loss of every step in `history.steps`.
    checkpoint : path, optional
        A file with all that the run needs to go on. It is written after `on_epoch`, with the changes of that. It is
        replaced at once: a run that is killed at any moment leaves a whole file.
    every : int or datetime.timedelta, optional
        Write the checkpoint after so many epochs, 1 if nothing is given; or after so much time, such as
        `timedelta(minutes=10)`, also between two steps of an epoch. In either case it is written after the last epoch,
        too.
    resume : path, optional
        A checkpoint to go on from, to `epochs` epochs in all. With the same arguments and data the run ends bitwise as
        one that never stopped. Another integer as the seed is an error, and so are other data, of which a few samples
        are compared. The file may be the one for `checkpoint`. A rate or another setting that a callback had changed
        stays changed, unless fit is given another one than then. Masks of dropout go on with the seeds in the file.
    verbose : bool, optional
        Whether to show a progress bar on a terminal and in a notebook, and elsewhere a line for each epoch. The default
        shows the bar, and elsewhere nothing. Where kernels compile, which happens once, stderr says so.
    comm : mpi4py.MPI.Intracomm, optional
        Train together with the other processes of it, its ranks, which call fit with the same arguments and a network
        with the same parameters. Each has a share of the rows of every batch and of every weight matrix, and of the
        optimizer's state. All end with the same network and history, bitwise those of one process. Each calls back;
        the first shows progress and writes the checkpoint, with which any number of ranks goes on. An error of a rank
        ends all, as does Ctrl-C; after one in the midst of a step the network has the parameters of the last callback,
        checkpoint or beginning, and the optimizer may be ahead of them: resume the checkpoint. Without a seed the first
        rank draws one for all.
    shards : bool
        Whether each rank of `comm` gives samples of its own in x, t and sample_weight, which are one data set after
        those of the ranks before; else all give the same. The order is drawn over all, and what a batch needs travels.

    Returns
    -------
    History
        The columns epoch, loss and, for classes, accuracy; those of the validation data; and seconds. Loss and
        accuracy are means over the samples of the epoch, each before the update by its batch.

    Raises
    ------
    TypeError, ValueError
        For data that does not fit the network, and for settings out of range. All are checked before the first step,
        and nothing is changed then.
    FileNotFoundError, OSError
        If `resume` does not exist, or `checkpoint` cannot be written.
    FloatingPointError
        At a loss that is not finite. The parameters are those before that step, or, where it is that of the validation
        data, those after that epoch, which is in the history.

    Warns
    -----
    UserWarning
        Once, where the mean loss of an epoch is above ten times that of the first step and of outputs that are all 0:
        the rate is too large. Also where a network is trained layer by layer.

    Examples
    --------
    >>> from fastbp.optimizers import Adam
    >>> history = network.fit(x, t, epochs=3, batch_size=2, optimizer=Adam(0.01), seed=0)
    >>> len(history), history.columns
    (3, ('epoch', 'loss', 'accuracy', 'seconds'))
    """
    if shards and comm is None:
        raise ValueError("shards: expected a comm beside it, got none; pass comm=MPI.COMM_WORLD, or leave shards out")
    company: Company = Alone() if comm is None else Ranks(comm, (StopTraining, KeyboardInterrupt))
    with company:
        company.check(lambda: {"shards": shards})
        run = Run(
            self, x, t, batch_size, optimizer, seed, scale, drop_last, sample_weight, on_nan, company, shards
        )  # fmt: skip
        whole_number("epochs", epochs, 1, "give the number of passes over the data")
        if patience is not None:
            whole_number("patience", patience, 1, "give the number of epochs to wait for a better one")
        _check_callbacks(on_epoch=on_epoch, on_steps=on_steps)
        run.set_validation_data(validation_data)
        best = Best(self, patience, "loss" if validation_data is None else "val_loss")
        checkpoints = Checkpoints(run, best, checkpoint, every)
        run.agree(
            seed, epochs=epochs, patience=patience, record_steps=record_steps, on_epoch=on_epoch is not None,
            on_steps=on_steps is not None, checkpoint=checkpoint is not None, every=every, resume=resume is not None,
        )  # fmt: skip
        if checkpoint is not None or resume is not None:
            checkpoints.note_arguments(seed)
        reached = None if resume is None else checkpoints.read(resume, epochs)
        with at_work(), run.interrupts:
            self.history = history = History() if reached is None else checkpoints.resume(reached)
            with Display(run, epochs, verbose) as display, suppress(StopTraining), run.written_at_the_end():
                while run.epochs < epochs and not best.is_over():
                    for stretch in run.epoch():
                        if record_steps:
                            history.extend_steps(stretch.losses)
                        display.show(stretch)
                        _call(on_steps, run, stretch)
                        checkpoints.between_steps()
                        if stretch.step < run.steps:
                            run.look_at_interrupts()
                    row, seconds = company.first((run.row(stretch), run.seconds))
                    history.append(**row, seconds=seconds)
                    if patience is not None:
                        run.write()
                    best.note(row)
                    display.show_epoch(row)
                    if on_nan == "stop":
                        with company.together():
                            check_validation(row)
                    run.look_at_interrupts()
                    try:
                        _call(on_epoch, run, stretch)
                    except StopTraining:
                        checkpoints.after_epoch(is_last=True)
                        raise
                    checkpoints.after_epoch(is_last=run.epochs == epochs or best.is_over())
            best.restore()
    return history


def _check_callbacks(**callbacks: Callback | None) -> None:
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(
                f"{name}: expected a function of the progress, got {type(callback).__name__}; pass one, or leave it out"
            )


def _call(callback: Callback | None, run: Run, stretch: Stretch) -> None:
    if callback is None:
        return
    network, history = run.network, run.network.history
    try:
        with run.paused():
            callback(Progress(network, stretch.epoch, stretch.step, run.steps, stretch.loss, history))
    finally:
        network.history = history  # the callback may have fitted the network
