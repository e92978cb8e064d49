"""`fit`: whole training runs in compiled code, with what people expect around them.

A network of fastbp's own layers is trained by `fastbp.engine` some steps at a time, so that Ctrl-C, progress and
callbacks come between two steps. Any other network is trained layer by layer, with the same results and the same calls.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import engine, optimizers
from fastbp.history import History
from fastbp.implementation import is_reference
from fastbp.interrupts import Abandoned, Interrupts
from fastbp.layers import Affine, Dropout, ExpWithLoss, SigmoidWithLoss, SoftmaxWithLoss, shares_of_mean
from fastbp.validation import (
    FLOAT32,
    FLOAT64,
    INTP,
    Array,
    DType,
    as_array,
    binary_target,
    checked_order,
    generator,
    parameter,
    sample_weights,
    scalar,
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
    _check_settings(epochs, patience, on_nan, {"on_epoch": on_epoch, "on_steps": on_steps})
    if validation_data is not None:
        validation_data = run.validation_data(validation_data)
    best = Best(network, patience, "val_loss" if validation_data is not None else "loss")
    # It knows networks, which know this module.
    from fastbp.checkpoint import Checkpoints  # noqa: PLC0415

    checkpoints = Checkpoints(network, run, best, checkpoint, every)
    reached = None if resume is None else checkpoints.read(resume)
    with run.interrupts:
        network.history = history = History() if reached is None else checkpoints.resume(reached)
        with _Display(run, epochs, verbose) as display:
            try:
                while run.epochs < epochs and not best.is_over():
                    for stretch in run.epoch(keeps_bad=on_nan == "ignore"):
                        if record_steps:
                            history.extend_steps(stretch.losses)
                        display.show(stretch)
                        _call(on_steps, network, run, stretch)
                        checkpoints.between_steps()
                        if stretch.step < run.steps:
                            run.look_at_interrupts()
                    row = _row(run, stretch, validation_data)
                    history.append(**row, seconds=run.seconds)
                    best.look(row)
                    display.epoch(row)
                    run.look_at_interrupts()
                    try:
                        _call(on_epoch, network, run, stretch)
                    except StopTraining:
                        checkpoints.after_epoch(is_last=True)
                        raise
                    checkpoints.after_epoch(is_last=run.epochs == epochs or best.is_over())
            except StopTraining:
                pass
        best.restore()
    return history


def _check_settings(epochs: int, patience: int | None, on_nan: str, callbacks: dict[str, Callback | None]) -> None:
    whole_number("epochs", epochs, 1, "give the number of passes over the data")
    if patience is not None:
        whole_number("patience", patience, 1, "give the number of epochs to wait for a better one")
    if on_nan not in ("stop", "ignore"):
        raise ValueError(f"on_nan: expected 'stop' or 'ignore', got {on_nan!r}; choose one of these")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise TypeError(
                f"{name}: expected a function of the progress, got {type(callback).__name__}; pass one, or leave it out"
            )


def _call(callback: Callback | None, network: Sequential, run: Run, stretch: _Stretch) -> None:
    if callback is None:
        return
    history = network.history
    try:
        with run.standing():
            callback(Progress(network, stretch.epoch, stretch.step, run.steps, stretch.loss, history))
    finally:
        network.history = history  # the callback may have fitted the network


def _row(run: Run, stretch: _Stretch, validation_data: ValidationData | None) -> dict[str, Any]:
    row: dict[str, Any] = {"epoch": stretch.epoch, "loss": stretch.loss}
    if run.classifies:
        row["accuracy"] = stretch.accuracy
    if validation_data is not None:
        row |= run.validate(*validation_data)
    return row


@dataclass(frozen=True)
class _Stretch:
    """Some steps that were just done, and what the epoch has come to with them."""

    epoch: int
    step: int
    losses: Array
    loss: float
    accuracy: float


class Pace:
    """How many steps take about as long as a look at Ctrl-C, callbacks and the progress bar may wait."""

    def __init__(self) -> None:
        self._size = 1

    def stretch(self, first: int, steps: int) -> tuple[int, int]:
        """First and last of some of `steps` steps, to be done before the next are asked for."""
        return first, min(first + self._size, steps)

    def took(self, count: int, seconds: float) -> None:
        """Take note of how long `count` steps took."""
        self._size = max(1, min(2 * self._size, int(STRETCH * count / seconds)))


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
    interrupts : Interrupts
        To be entered before the first step: between two looks at them the network is not what it was trained to.
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
        self._network, self._scale = network, _checked_scale(scale)
        self.optimizer, self._pace = optimizers.optimizer(optimizer), Pace()
        self.generator = np.random.default_rng() if seed is None else generator(seed)
        self.batch_size = whole_number("batch_size", batch_size, 1, "give the number of samples of a step")
        self._x = _samples(x, _common_dtype(list(network.layers.values())) or FLOAT64)
        self._t = as_array("t", t)
        samples = len(self._x)
        self.batch_size = min(self.batch_size, samples)
        self.steps = samples // self.batch_size if drop_last else -(-samples // self.batch_size)
        self.samples = self.steps * self.batch_size if drop_last else samples
        self._weights = None if sample_weight is None else _weights(sample_weight, samples, network)
        self.epochs, self.step, self.seconds = 0, 0, 0.0
        self.losses, self.hits = np.zeros(self.steps), np.zeros(self.steps)
        self.before = self.generator.bit_generator.state
        self.interrupts = Interrupts()
        self._is_written = True
        self._prepare()

    def _prepare(self) -> None:
        """Choose how the network is trained as it is now, and hold the targets against it."""
        network, optimizer = self._network, self.optimizer
        layers, loss = list(network.layers.values()), network.last_layer
        dtype, traits = _common_dtype(layers), self._traits()
        unknown = [*engine.unknown(layers, loss, optimizer), *network.own_methods()]
        if type(optimizer) in engine.OPTIMIZERS:
            _check_writeable(network.params)
        if not _are_apart(list(network.params.values())):
            unknown.append("parameters that share memory")
        # The engine's networks do not predict here: that would compile the product of layers as well (3 s).
        outputs = self._predicted_outputs() if unknown else engine.output_size(layers, self._x.shape[1])
        labels, targets = _targets(self._t, (len(self._x), outputs), dtype or FLOAT64, loss)
        if not len(labels):
            self._t = self._t.reshape(targets.shape)
        self.classifies, self._outputs = isinstance(loss, SoftmaxWithLoss), outputs
        self._labels, self._targets, self._dtype = labels, targets, dtype or FLOAT64
        # The layers are kept, so that no new one can have the address of an old one.
        self._traits_then, self._layers_then, self._engine = traits, (layers, loss), None
        if unknown or dtype is None:
            reason = f"it knows no {', '.join(unknown)}" if unknown else "its layers are not all float32 or float64"
            warnings.warn(f"fit: this network is trained layer by layer, as the engine cannot: {reason}", stacklevel=5)
        elif not is_reference():
            self._engine = engine.Engine(
                layers, loss, optimizer, network.params, dtype, self._x.shape[1], self.batch_size
            )
            # No steps: what these compile is compiled now, where Ctrl-C need not wait for it.
            self._train(self._engine, np.arange(0), np.empty(0), 0, 0, True)

    def _traits(self) -> list[Any]:
        """What a callback may change so that another engine, or none, is to go on."""
        layers, loss = list(self._network.layers.values()), self._network.last_layer
        dtype, params = _common_dtype(layers), list(self._network.params.values())
        return [
            dtype,
            self._network.own_methods(),
            [(id(part), type(part)) for part in (*layers, loss, self.optimizer)],
            engine.unknown(layers, loss, self.optimizer),
            [engine.dropout_settings(layer) for layer in layers if type(layer) is Dropout],
            [(value.shape, value.dtype, value.flags.writeable) for value in params],
            _are_apart(params),
        ]

    def epoch(self, keeps_bad: bool) -> Iterator[_Stretch]:
        """Do the steps of one epoch, or what is left of it, a stretch at a time.

        The network has its parameters after the epoch, after an error, and where `write` is called after a stretch.
        """
        began = time.perf_counter() - (self.seconds if self.step else 0.0)
        self.before = self.generator.bit_generator.state
        order = checked_order("seed", self.generator.permutation(len(self._x)), len(self._x))[: self.samples]
        shares, counts = self._shares(order)
        try:
            while self.step < self.steps:
                self._read()
                first, last = self._pace.stretch(self.step, self.steps)
                start = time.perf_counter()
                done = self._do(order, shares, first, last, keeps_bad)
                if not done:
                    _not_finite(first, self.losses)
                now = time.perf_counter()
                self._pace.took(done, now - start)
                self.step, self.seconds = first + done, now - began
                averages = (_average(values[: self.step], counts[: self.step]) for values in (self.losses, self.hits))
                yield _Stretch(self.epochs + 1, self.step, self.losses[first : self.step], *averages)
        finally:
            self.write()
            if not self.step:  # an error came before the first step: the order was drawn for nothing
                self.generator.bit_generator.state = self.before
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

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Let others look at the network after this step, change it and interrupt, in a `with` statement."""
        self.write()
        with self.interrupts.let_through():
            yield

    def look_at_interrupts(self) -> None:
        """Give Ctrl-C, if there was one, its way: after this step all is whole."""
        if self.interrupts.noted:
            self.write()
            self.interrupts.deliver()

    def _read(self) -> None:
        if not self._is_written:
            return
        if self._traits() != self._traits_then:
            self._prepare()
        if self._engine is not None:
            self._engine.read()
        self._is_written = False

    def _predicted_outputs(self) -> int:
        predicted = as_array("predict(x)", self._network.predict(_scaled(self._x[:1], self._scale)))
        return int(predicted.shape[-1])

    def validation_data(self, given: ValidationData) -> ValidationData:
        """What `validate` takes, checked."""
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            size = f" of {len(given)}" if isinstance(given, tuple | list) else ""
            raise TypeError(
                f"validation_data: expected (x, t) or (x, t, sample_weight), got {type(given).__name__}{size}; "
                f"pass such a tuple"
            )
        x, t, *weights = given
        try:
            samples = _samples(x, self._dtype)
            if samples.shape[1] != self._x.shape[1]:
                raise ValueError(
                    f"x: expected {self._x.shape[1]} numbers for each sample, as those that are fitted, got "
                    f"{samples.shape[1]}; give as many"
                )
            shape = len(samples), self._outputs
            t = as_array("t", t)
            _targets(t, shape, self._dtype, self._network.last_layer)
            if weights and weights[0] is not None:
                _check_takes_weights(self._network)
                weights = [sample_weights(weights[0], len(samples))]
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None
        if not self.classifies:
            t = t.reshape(shape)
        return (x, t, *weights)  # type: ignore[return-value]

    def validate(self, x: ArrayLike, t: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """The loss and, for classes, the accuracy on other data."""
        with self.standing():
            x, weights = _scaled(as_array("x", x), self._scale), where_given(sample_weight)
            row = {"val_loss": self._network.loss(x, t, **weights)}
            if self.classifies:
                row["val_accuracy"] = self._network.accuracy(x, t, **weights)
        return row

    def _do(self, order: Array, shares: Array, first: int, last: int, keeps_bad: bool) -> int:
        """Do steps `first` to `last`, or some of them; returns how many, 0 where the first loss is not finite."""
        if self._engine is not None:
            return self._train(self._engine, order, shares, first, last, keeps_bad)
        step = first
        while step < last:
            places = slice(step * self.batch_size, (step + 1) * self.batch_size)
            try:
                is_done = self._step(step, order[places], shares[places], keeps_bad)
            except Abandoned:
                if step > first:
                    break
                self.interrupts.deliver()
                continue
            if not is_done:
                break
            step += 1
            if self.interrupts.noted:
                break
        return step - first

    def _train(
        self, trained: engine.Engine, order: Array, shares: Array, first: int, last: int, keeps_bad: bool
    ) -> int:
        data = self._x, self._labels, self._targets, self._scale
        return trained.train(data, order, shares, first, last, self.losses, self.hits, keeps_bad)

    def _step(self, step: int, batch: Array, shares: Array, keeps_bad: bool) -> bool:
        """One step layer by layer, if its loss is finite; else, and after an error, dropout is where it was."""
        network, dropouts = (
            self._network,
            [layer for layer in self._network.layers.values() if isinstance(layer, Dropout)],
        )
        x, t = _scaled(self._x[batch], self._scale), self._t[batch]
        weights = None if self._weights is None else self._weights[batch]
        before, is_done = [layer.step for layer in dropouts], False
        try:
            with self.interrupts.abandoning():
                gradients = network.gradient(x, t, **where_given(weights))
            self.losses[step] = network.last_layer.loss
            if self.classifies:
                self.hits[step] = _share_of_hits(network.last_layer, t, shares)
            if keeps_bad or np.isfinite(self.losses[step]):
                self.optimizer.update(network.params, gradients)
                is_done = True
        finally:
            if not is_done:
                for layer, count in zip(dropouts, before, strict=True):
                    layer.step = count
        return is_done


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
        if not self.params:
            return
        best = {key: value.shape for key, value in self.params.items()}
        shapes = {key: value.shape for key, value in self._network.params.items()}
        if shapes != best:
            raise ValueError(
                f"patience: expected the shapes of the best epoch, {best}, to put its parameters back, got {shapes}; "
                f"leave patience out where a callback changes the shapes"
            )
        _check_writeable(self._network.params)
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

    def show(self, stretch: _Stretch) -> None:
        if self._bar is None:
            return
        samples = (stretch.epoch - 1) * self._run.samples + round(self._run.samples * stretch.step / self._run.steps)
        self._bar.update(samples - self._shown)
        self._shown = samples
        words = {"epoch": stretch.epoch, "loss": f"{stretch.loss:.4f}"}
        if self._run.classifies:
            words["accuracy"] = f"{stretch.accuracy:.4f}"
        self._bar.set_postfix(words)

    def epoch(self, row: dict[str, Any]) -> None:
        if self._lines:
            words = (f"{name} {value:.4f}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}: {', '.join(words)}", file=sys.stderr, flush=True)


def _checked_scale(scale: object) -> float:
    try:
        number = scalar("scale", scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"scale: expected a finite number, got {scale}; give one such as 1/255")
    return number


def _common_dtype(layers: list[Any]) -> DType | None:
    parameters = [
        array
        for layer in layers
        if isinstance(layer, Affine)
        for array in (parameter("W", layer.W, 2), parameter("b", layer.b, 1))
    ]
    dtypes = {array.dtype for array in parameters}
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
    return not any(np.may_share_memory(*pair) for pair in itertools.combinations(params, 2))


def _check_writeable(params: Mapping[str, Array]) -> None:
    for key, value in params.items():
        if not value.flags.writeable:
            raise ValueError(
                f"params[{key!r}]: expected an array that can be written to, got a read-only one; pass a copy"
            )


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
        if isinstance(loss, ExpWithLoss) and not (values >= 0).all():
            raise ValueError(
                f"t: expected counts, at least 0, got {values[~(values >= 0)][0]}; take IdentityWithLoss for others"
            )
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


def _check_takes_weights(network: Sequential) -> None:
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


def _weights(sample_weight: ArrayLike, samples: int, network: Sequential) -> Array:
    """The weights of a run, of a network that takes them."""
    _check_takes_weights(network)
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
