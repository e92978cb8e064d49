"""`fit`: a training run, with validation, early stopping, callbacks, progress and checkpoints around its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import ArrayLike

from fastbp.files import FilePath
from fastbp.optimizers import Optimizer
from fastbp.training.best import Best
from fastbp.training.checkpoint import Checkpoints
from fastbp.training.display import Display
from fastbp.training.history import History
from fastbp.training.protocol import Network
from fastbp.training.run import Run, Stretch, ValidationData
from fastbp.validation import whole_number

Callback = Callable[["Progress"], None]


class StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised by a callback of `fit` to end the run at a finished step."""


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
    """

    network: Network
    epoch: int
    step: int
    steps: int
    loss: float
    history: History


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
    every: int | timedelta = 1,
    resume: FilePath | None = None,
    verbose: bool | None = None,
) -> History:
    """Train the network in compiled code, and return what the run came to.

    Batches, forward, loss, backward and update run in one kernel for any stack of fastbp's own layers, with the
    results of `optimizer.update(network.params, network.gradient(x, t))` for each batch. A network with a layer,
    loss or optimizer of another class is trained by just that loop, which a warning then says. The parameters are
    changed in place, in the layers' own arrays. Ctrl-C waits some hundredths of a second for the end of a step, and
    leaves parameters, optimizer, dropout, generator and history as they are after it. Where a layer of another
    class does not come to an end, a further Ctrl-C leaves its step undone.

    Parameters
    ----------
    x : array_like (samples, D)
        float32, float64 and uint8 are read as they are, a batch at a time, also from a memory-mapped file; other
        dtypes are converted at once. More axes are flattened to D.
    t : array_like
        Targets as the loss layer takes them.
    epochs : int
        Passes over the data.
    batch_size : int
        Samples of a step. The last batch of an epoch may be smaller.
    optimizer : Optimizer or str
        An object of `fastbp.optimizers`, which keeps its state from one fit to the next, or a name such as "adam".
    seed : int or numpy.random.Generator, optional
        Of the order of the samples, in which each comes once in an epoch; without it no two runs are alike. A
        generator goes on: two fits with one are the epochs of a longer fit.
    sample_weight : array_like (samples,), optional
        What each sample counts for, finite and at least 0. The loss of a batch is sum(w·loss)/sum(w), its delta at
        the output w·(y - t)/sum(w); accuracies and the means of an epoch are weighted alike. A batch in which all
        weights are 0 has the loss 0.0 and the gradient 0.
    scale : float
        What x is multiplied by, such as 1/255 for images of bytes.
    drop_last : bool
        Leave out a last batch that is smaller.
    validation_data : (x, t) or (x, t, sample_weight), optional
        Gives `val_loss` and, for classes, `val_accuracy` of each epoch.
    patience : int, optional
        Stop after so many epochs without a smaller `val_loss` (without validation data: `loss`); the parameters are
        then, as at the end of any such run, those of the best epoch.
    on_epoch, on_steps : callable, optional
        Called with a `Progress` after each epoch, and about 20 times a second between two steps. What they change
        of the network and the optimizer counts from the next step on: rates, ratios and seeds of dropout, arrays,
        layers; with what no step can be done raises an error then. Raising `fastbp.StopTraining` ends the run.
    on_nan : "stop" or "ignore"
        Whether a loss that is not finite ends the run with an error.
    record_steps : bool
        Keep the loss of every step in `history.steps`.
    checkpoint : path, optional
        File that holds all that the run needs to go on, written after `on_epoch` with what that changed. It is
        replaced at once: a run that is killed at any moment leaves a whole one.
    every : int or datetime.timedelta
        The checkpoint is written after so many epochs; or after so much time, also between two steps of an epoch,
        as `timedelta(minutes=10)`. In either case also after the last epoch.
    resume : path, optional
        A checkpoint to go on from, to `epochs` epochs in all. With the same arguments and data the end is bitwise
        that of a run that never stopped; the file may be the one for `checkpoint`. A rate or another setting that
        a callback had changed goes on as changed, unless fit is given another one than then; masks of dropout go on
        with the seeds in the file.
    verbose : bool, optional
        Show a progress bar on a terminal, elsewhere a line for each epoch. Without it: only on a terminal.

    Returns
    -------
    History
        Columns epoch, loss and, for classes, accuracy (over the samples of the epoch, each before the update by its
        batch), those of the validation data, and seconds.

    Raises
    ------
    TypeError, ValueError
        For data that does not fit the network, and for settings out of range. All are checked before the first
        step, and nothing is changed then.
    FileNotFoundError, OSError
        If `resume` does not exist, or `checkpoint` cannot be written.
    FloatingPointError
        At a loss that is not finite. The parameters are those before that step.
    """
    run = Run(self, x, t, batch_size, optimizer, seed, scale, drop_last, sample_weight, on_nan)
    _check_settings(epochs, patience, {"on_epoch": on_epoch, "on_steps": on_steps})
    run.set_validation_data(validation_data)
    best = Best(self, patience, "loss" if validation_data is None else "val_loss")
    checkpoints = Checkpoints(self, run, best, checkpoint, every)
    reached = None if resume is None else checkpoints.read(resume)
    with run.interrupts:
        self.history = history = History() if reached is None else checkpoints.resume(reached)
        with Display(run, epochs, verbose) as display, suppress(StopTraining):
            while run.epochs < epochs and not best.is_over():
                for stretch in run.epoch():
                    if record_steps:
                        history.extend_steps(stretch.losses)
                    display.show(stretch)
                    _call(on_steps, self, run, stretch)
                    checkpoints.between_steps()
                    if stretch.step < run.steps:
                        run.look_at_interrupts()
                row = run.row(stretch)
                history.append(**row, seconds=run.seconds)
                best.note(row)
                display.print(row)
                run.look_at_interrupts()
                try:
                    _call(on_epoch, self, run, stretch)
                except StopTraining:
                    checkpoints.after_epoch(is_last=True)
                    raise
                checkpoints.after_epoch(is_last=run.epochs == epochs or best.is_over())
        best.restore()
    return history


def _check_settings(epochs: int, patience: int | None, callbacks: dict[str, Callback | None]) -> None:
    whole_number("epochs", epochs, 1, "give the number of passes over the data")
    if patience is not None:
        whole_number("patience", patience, 1, "give the number of epochs to wait for a better one")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(
                f"{name}: expected a function of the progress, got {type(callback).__name__}; pass one, or leave it out"
            )


def _call(callback: Callback | None, network: Network, run: Run, stretch: Stretch) -> None:
    if callback is None:
        return
    history = network.history
    try:
        with run.paused():
            callback(Progress(network, stretch.epoch, stretch.step, run.steps, stretch.loss, history))
    finally:
        network.history = history  # the callback may have fitted the network
