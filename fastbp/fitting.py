"""`fit`: whole training runs in compiled code, with what people expect around them.

A network of fastbp's own layers is trained by `fastbp.engine` some steps at a time, so that Ctrl-C, progress and
callbacks come between two steps. Any other network is trained layer by layer, with the same results and the same calls.
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import engine, optimizers
from fastbp.history import History
from fastbp.implementation import is_reference
from fastbp.layers import Affine, SigmoidWithLoss, SoftmaxWithLoss, shares_of_mean
from fastbp.validation import (
    FLOAT32,
    FLOAT64,
    INTP,
    Array,
    DType,
    as_array,
    binary_target,
    generator,
    sample_weights,
    target,
    whole_number,
    working,
)

if TYPE_CHECKING:
    from fastbp.network import Sequential

# Seconds of compiled steps between two looks at Ctrl-C, callbacks and the progress bar.
STRETCH = 0.05

FilePath = str | os.PathLike[str]

ValidationData = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]

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

    network: Sequential
    epoch: int
    step: int
    steps: int
    loss: float
    history: History


def fit(
    network: Sequential,
    x: ArrayLike,
    t: ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    optimizer: optimizers.Optimizer | str,
    seed: int | np.random.Generator | None,
    sample_weight: ArrayLike | None,
    scale: float,
    drop_last: bool,
    validation_data: ValidationData | None,
    patience: int | None,
    on_epoch: Callback | None,
    on_steps: Callback | None,
    on_nan: str,
    record_steps: bool,
    checkpoint: FilePath | None,
    every: int | timedelta,
    resume: FilePath | None,
    verbose: bool | None,
) -> History:
    """`Sequential.fit`, where its arguments are described."""
    run = Run(network, x, t, batch_size, optimizer, seed, scale, drop_last, sample_weight)
    whole_number("epochs", epochs, 1, "give the number of passes over the data")
    if patience is not None:
        whole_number("patience", patience, 1, "give the number of epochs to wait for a better one")
    if on_nan not in ("stop", "ignore"):
        raise ValueError(f"on_nan: expected 'stop' or 'ignore', got {on_nan!r}; choose one of these")
    best = Best(network, patience, "val_loss" if validation_data is not None else "loss")
    # It knows networks, which know this module.
    from fastbp.checkpoint import Checkpoints  # noqa: PLC0415

    checkpoints = Checkpoints(network, run, best, checkpoint, every)
    if resume is None:
        network.history = History()
    else:
        checkpoints.resume(resume)
    history, epoch = network.history, run.epochs
    with _Display(run, epochs, verbose) as display:
        try:
            while epoch < epochs and not best.is_over():
                epoch += 1
                for stretch in run.epoch(keeps_bad=on_nan == "ignore"):
                    display.show(epoch, stretch)
                    if record_steps:
                        history.extend_steps(stretch.losses)
                    if on_steps is not None:
                        run.write()
                        on_steps(Progress(network, epoch, stretch.step, run.steps, stretch.loss, history))
                    checkpoints.between_steps()
                row = _row(run, epoch, stretch, validation_data)
                history.append(**row, seconds=run.seconds)
                best.look(row)
                display.epoch(row)
                checkpoints.after_epoch(is_last=epoch == epochs or best.is_over())
                if on_epoch is not None:
                    on_epoch(Progress(network, epoch, run.steps, run.steps, stretch.loss, history))
        except StopTraining:
            pass
    best.restore()
    return history


def _row(run: Run, epoch: int, stretch: _Stretch, validation_data: ValidationData | None) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": epoch, "loss": stretch.loss}
    if run.classifies:
        row["accuracy"] = stretch.accuracy
    if validation_data is not None:
        row |= run.validate(*validation_data)
    return row


@dataclass(frozen=True)
class _Stretch:
    """Some steps that were just done, and what the epoch has come to with them."""

    step: int
    losses: Array
    loss: float
    accuracy: float


class Pace:
    """How many steps take about as long as a look at Ctrl-C, callbacks and the progress bar may wait."""

    def __init__(self) -> None:
        self._size = 1

    def stretches(self, steps: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Divide `steps` steps from the `first`: first and last of some, to be done before the next are asked for."""
        while first < steps:
            last, start = min(first + self._size, steps), time.perf_counter()
            yield first, last
            seconds = (time.perf_counter() - start) / (last - first)
            self._size = max(1, min(2 * self._size, int(STRETCH / seconds)))
            first = last


class Run:
    """The data and the steps of a run, and how far it has come.

    Attributes
    ----------
    epochs : int
        Finished ones.
    step : int
        Finished ones of the epoch that has begun.
    losses, hits : ndarray (steps,)
        What the steps of that epoch came to, the first `step` of them.
    seconds : float
        Spent on that epoch, or the last one.
    before : dict
        Where the generator stood before it drew the order of that epoch.
    """

    def __init__(
        self,
        network: Sequential,
        x: ArrayLike,
        t: ArrayLike,
        batch_size: int,
        optimizer: optimizers.Optimizer | str,
        seed: int | np.random.Generator | None,
        scale: float = 1.0,
        drop_last: bool = False,
        sample_weight: ArrayLike | None = None,
    ) -> None:
        self._network, self._scale = network, float(scale)
        self.optimizer, self._pace = optimizers.optimizer(optimizer), Pace()
        self.generator = np.random.default_rng() if seed is None else generator(seed)
        self.batch_size = whole_number("batch_size", batch_size, 1, "give the number of samples of a step")
        layers, loss = list(network.layers.values()), network.last_layer
        dtype = _common_dtype(layers)
        self._x = _samples(x, dtype or FLOAT64)
        samples = len(self._x)
        self.batch_size = min(self.batch_size, samples)
        self.steps = samples // self.batch_size if drop_last else -(-samples // self.batch_size)
        self.samples = self.steps * self.batch_size if drop_last else samples
        self._weights = None if sample_weight is None else _weights(sample_weight, samples, network)
        self.epochs, self.step, self.seconds = 0, 0, 0.0
        self.losses, self.hits = np.zeros(self.steps), np.zeros(self.steps)
        self.before = self.generator.bit_generator.state
        self._is_written = True
        unknown = [*engine.unknown(layers, loss, self.optimizer), *network.own_methods()]
        if not _are_apart(list(network.params.values())):
            unknown.append("parameters that share memory or cannot be written")
        # The engine's networks do not predict here: that would compile the product of layers as well (3 s).
        outputs = self._predicted_outputs() if unknown else engine.output_size(layers, self._x.shape[1])
        self.classifies = isinstance(loss, SoftmaxWithLoss)
        self._labels, self._targets = _targets(t, (samples, outputs), dtype or FLOAT64, loss)
        self._engine = None
        if unknown or dtype is None:
            reason = f"it knows no {', '.join(unknown)}" if unknown else "its layers are not all float32 or float64"
            warnings.warn(f"fit: this network is trained layer by layer, as the engine cannot: {reason}", stacklevel=4)
        elif not is_reference():
            self._engine = engine.Engine(
                layers, loss, self.optimizer, network.params, dtype, self._x.shape[1], self.batch_size
            )

    def epoch(self, keeps_bad: bool) -> Iterator[_Stretch]:
        """Do the steps of one epoch, or what is left of it, a stretch at a time.

        The network has its parameters after the epoch, after an error, and where `write` is called after a stretch.
        """
        began = time.perf_counter() - (self.seconds if self.step else 0.0)
        self.before = self.generator.bit_generator.state
        order = self.generator.permutation(len(self._x))[: self.samples]
        shares, counts = self._shares(order)
        try:
            for first, stop in self._pace.stretches(self.steps, self.step):
                self._read()
                done = self._do(order, shares, first, stop, keeps_bad)
                if done < stop - first:
                    _not_finite(first + done, self.losses)
                self.step, self.seconds = stop, time.perf_counter() - began
                averages = (_average(values[:stop], counts[:stop]) for values in (self.losses, self.hits))
                yield _Stretch(stop, self.losses[first:stop], *averages)
        finally:
            self.write()
        self.epochs, self.step, self.before = self.epochs + 1, 0, self.generator.bit_generator.state

    def _shares(self, order: Array) -> tuple[Array, Array]:
        """What each sample of an order counts for in its batch, (0,) where all are alike; and what each batch does."""
        sizes = np.full(self.steps, self.batch_size)
        sizes[-1] = len(order) - (self.steps - 1) * self.batch_size
        if self._weights is None:
            return np.empty(0), sizes
        weights = self._weights[order]
        totals = np.add.reduceat(weights, np.arange(self.steps) * self.batch_size)
        return shares_of_mean(weights, np.repeat(totals, sizes)), totals

    def write(self) -> None:
        """Give the network and the optimizer what they are after this step; the next one begins with what is there."""
        if self._engine is not None and not self._is_written:
            self._engine.write()
        self._is_written = True

    def _read(self) -> None:
        if self._engine is not None and self._is_written:
            self._engine.read()
        self._is_written = False

    def _predicted_outputs(self) -> int:
        predicted = as_array("predict(x)", self._network.predict(_scaled(self._x[:1], self._scale)))
        return int(predicted.shape[-1])

    def validate(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """The loss and, for classes, the accuracy on other data."""
        x, weights = _scaled(as_array("x", x), self._scale), where_given(sample_weight)
        row = {"val_loss": self._network.loss(x, t, **weights)}
        if self.classifies:
            row["val_accuracy"] = self._network.accuracy(x, t, **weights)
        return row

    def _do(self, order: Array, shares: Array, first: int, last: int, keeps_bad: bool) -> int:
        if self._engine is not None:
            data = self._x, self._labels, self._targets, self._scale
            return self._engine.train(data, order, shares, first, last, self.losses, self.hits, keeps_bad)
        for step in range(first, last):
            places = slice(step * self.batch_size, (step + 1) * self.batch_size)
            batch = order[places]
            x, t = _scaled(self._x[batch], self._scale), (self._labels if len(self._labels) else self._targets)[batch]
            weights = None if self._weights is None else self._weights[batch]
            gradients = self._network.gradient(x, t, **where_given(weights))
            self.losses[step] = self._network.last_layer.loss
            if self.classifies:
                self.hits[step] = _share_of_hits(self._network.last_layer, t, shares[places])
            if not keeps_bad and not np.isfinite(self.losses[step]):
                return step - first
            self.optimizer.update(self._network.params, gradients)
        return last - first


class Best:
    """The parameters of the best epoch, and how many epochs there have been since."""

    def __init__(self, network: Sequential, patience: int | None, column: str) -> None:
        self._network, self._patience, self._column = network, patience, column
        self.value, self.since = np.inf, 0
        self.params: dict[str, Array] = {}

    def look(self, row: dict[str, Any]) -> None:
        """Take note of an epoch."""
        if self._patience is None:
            return
        self.since += 1
        if row[self._column] < self.value:
            self.value, self.since = row[self._column], 0
            self.params = {key: value.copy() for key, value in self._network.params.items()}

    def is_over(self) -> bool:
        """Whether the run has waited long enough for a better epoch."""
        return self._patience is not None and self.since >= self._patience

    def restore(self) -> None:
        """Make the network the one of the best epoch."""
        for key, value in self.params.items():
            self._network.params[key][...] = value


class _Display:
    """Shows a run: a progress bar on a terminal, else a line for each epoch, or nothing."""

    def __init__(self, run: Run, epochs: int, verbose: bool | None) -> None:
        self._run, self._bar, self._lines = run, None, False
        terminal = sys.stderr.isatty()
        if verbose is False or (verbose is None and not terminal):
            return
        try:
            from tqdm.auto import tqdm  # noqa: PLC0415 - optional
        except ImportError:
            self._lines = True
            return
        self._lines = not terminal
        if terminal:
            self._bar = tqdm(total=epochs * run.samples, unit=" samples", unit_scale=True)
        self._shown = 0

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, epoch: int, stretch: _Stretch) -> None:
        if self._bar is None:
            return
        samples = (epoch - 1) * self._run.samples + round(self._run.samples * stretch.step / self._run.steps)
        self._bar.update(samples - self._shown)
        self._shown = samples
        words = {"epoch": epoch, "loss": f"{stretch.loss:.4f}"}
        if self._run.classifies:
            words["accuracy"] = f"{stretch.accuracy:.4f}"
        self._bar.set_postfix(words)

    def epoch(self, row: dict[str, Any]) -> None:
        if self._lines:
            words = (f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}: {', '.join(words)}", file=sys.stderr, flush=True)


def _common_dtype(layers: list[Any]) -> DType | None:
    dtypes = {array.dtype for layer in layers if isinstance(layer, Affine) for array in (layer.W, layer.b)}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= {FLOAT32, FLOAT64} else None


def _samples(x: ArrayLike, dtype: DType) -> Array:
    """x as rows (samples, D) of a dtype that the engine reads: float32, float64 or uint8; others as `dtype`."""
    array = as_array("x", x)
    if array.ndim < 2 or len(array) == 0:
        raise ValueError(
            f"x: expected at least one sample, (samples, D), got shape {array.shape}; give rows of features"
        )
    if array.dtype not in (FLOAT32, FLOAT64, np.uint8):
        array = array.astype(dtype)
    return np.asarray(working(array, array.dtype)).reshape(len(array), -1)


def _scaled(x: Array, scale: float) -> Array:
    return x if scale == 1 and x.dtype.kind == "f" else x * (x.dtype.type(scale) if x.dtype.kind == "f" else scale)


def _are_apart(params: list[Array]) -> bool:
    pairs = itertools.combinations(params, 2)
    return all(value.flags.writeable for value in params) and not any(np.may_share_memory(*pair) for pair in pairs)


def _targets(t: ArrayLike, shape: tuple[int, int], dtype: DType, loss: object) -> tuple[Array, Array]:
    """Labels (samples,) and no targets, or no labels and targets (samples, C)."""
    if isinstance(loss, SoftmaxWithLoss):
        values, _ = target(t, shape, dtype)
    else:
        values = as_array("t", t)
        if values.shape == shape[:1] and shape[1] == 1:
            values = values.reshape(shape)
        if isinstance(loss, SigmoidWithLoss):
            values, _ = binary_target(values, shape, dtype)
        if values.shape != shape:
            raise ValueError(
                f"t: expected shape {shape}, as the predictions, got {values.shape}; give a row per sample"
            )
    if values.ndim == 1:
        return values, np.empty((0, shape[1]), dtype)
    return np.empty(0, INTP), working(values, dtype)


def _share_of_hits(loss: Any, t: Array, shares: Array) -> float:
    labels = t if t.ndim == 1 else np.argmax(t, axis=1)
    hits = np.argmax(loss.y, axis=-1) == labels
    return float(np.sum(shares * hits) if len(shares) else np.mean(hits))


def _average(values: Array, counts: Array) -> float:
    """Over batches that count for so much; 0.0 where they count for nothing."""
    return float(np.average(values, weights=counts)) if np.any(counts) else 0.0


def where_given(sample_weight: ArrayLike | None) -> dict[str, Any]:
    """The argument `sample_weight` where there is one: a layer or network that knows no weights works without."""
    return {} if sample_weight is None else {"sample_weight": sample_weight}


def _weights(sample_weight: ArrayLike, samples: int, network: Sequential) -> Array:
    """The weights of a run, of a network that takes them."""
    methods: dict[str, Callable[..., Any]] = {
        "loss": network.loss,
        "gradient": network.gradient,
        "last_layer.forward": network.last_layer.forward,
    }
    for name, method in methods.items():
        try:
            inspect.signature(method).bind(None, None, sample_weight=None)
        except TypeError:
            raise TypeError(
                f"sample_weight: expected a network and a loss that take it, got one whose {name} does not; "
                f"give that an argument sample_weight=None, or leave the weights out"
            ) from None
    weights = sample_weights(sample_weight, samples)
    if not np.any(weights):
        raise ValueError(f"sample_weight: expected a weight above 0, got {samples} zeros; leave sample_weight out")
    return weights


def _not_finite(step: int, losses: Array) -> None:
    before = f"{losses[step - 1]:.4g} the step before" if step else "no step before it"
    raise FloatingPointError(
        f"loss: expected a finite number, got {losses[step]} at step {step + 1} of the epoch ({before}); the "
        f"parameters are those of the step before; a learning rate too large or a NaN in x is the usual cause "
        f"(on_nan='ignore' goes on all the same)"
    )
