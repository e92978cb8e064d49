"""A run of training: its data, the steps of an epoch, and how far it has come.

`fastbp.engine` trains a network of fastbp's own layers, some steps at a time, so that Ctrl-C, progress and callbacks
come between two steps. Any other network is trained layer by layer, with the same results and the same calls.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from fastbp import optimizers
from fastbp.checks import (
    FLOAT64,
    INTP,
    Array,
    as_array,
    checked_order,
    generator,
    whole_number,
)
from fastbp.engine import plan
from fastbp.engine.shapes import output_size
from fastbp.ops.contract import (
    OPTIMIZERS,
    batch_of,
    checked_indices,
    is_reference,
    layer_of_indices,
    loss_of,
    set_state,
    state_of,
    takes_indices,
)
from fastbp.ops.losses import shares_of_mean
from fastbp.ranks.company import Company
from fastbp.ranks.shards import joined
from fastbp.training.accuracy import accuracy_of, has_its_own, share_of_hits
from fastbp.training.alike import data_words, network_words, words
from fastbp.training.at_once import share
from fastbp.training.divergence import raise_not_finite
from fastbp.training.given import (
    check_samples,
    check_writeable,
    checked_scale,
    common_dtype,
    in_shape,
    labels_and_targets,
    rows_of,
    scaled,
    share_memory,
    validation_parts,
    weights_for,
    where_given,
)
from fastbp.training.interrupts import Abandoned, Interruptible
from fastbp.training.protocol import Network

# Seconds of compiled steps between two looks at Ctrl-C, callbacks and the progress bar.
STRETCH = 0.05

ValidationData = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]


@dataclass(frozen=True)
class Stretch:
    """Some steps that were just done: their losses, and the means of the epoch up to them."""

    epoch: int
    step: int
    losses: Array
    loss: float
    accuracy: float


class Pace:
    """How many steps are done between two looks at Ctrl-C, callbacks and the progress bar, by their time."""

    def __init__(self) -> None:
        self._size = 1

    def stretch(self, first: int, steps: int) -> tuple[int, int]:
        """The first of the next steps of `steps`, and the first after them."""
        return first, min(first + self._size, steps)

    def took(self, count: int, seconds: float) -> None:
        """Take note of how long `count` steps took."""
        self._size = max(1, min(2 * self._size, int(STRETCH * count / seconds)))


class Run(Interruptible):
    """The data and the steps of a run, and how far it has come.

    Attributes
    ----------
    network : Network
    epochs : int
        How many are finished.
    step : int
        How many steps of the epoch that has begun are finished.
    losses, hits : ndarray (steps,)
        The loss and the share of hits of each step of that epoch, valid up to `step`.
    seconds : float
        Spent on that epoch, or on the last one.
    company : Company
        The processes that train together.
    before : dict
        The state of the generator before it drew the order of that epoch.
    """

    def __init__(
        self,
        network: Network,
        x: ArrayLike,
        t: ArrayLike,
        batch_size: int,
        optimizer: optimizers.Optimizer | str,
        seed: int | np.random.Generator | None,
        scale: float,
        drop_last: bool,
        sample_weight: ArrayLike | None,
        on_nan: str,
        company: Company,
        shards: bool,
    ) -> None:
        super().__init__()
        self.company = company
        self.network, self._scale = network, checked_scale(scale)
        self.optimizer, self._pace = optimizers.optimizer(optimizer), Pace()
        self.generator = np.random.default_rng() if seed is None else generator(seed)
        self.batch_size = whole_number("batch_size", batch_size, 1, "give the number of samples of a step")
        if on_nan not in ("stop", "ignore"):
            raise ValueError(f"on_nan: expected 'stop' or 'ignore', got {on_nan!r}; choose one of these")
        self._continues_on_nan = on_nan == "ignore"
        layers = list(network.layers.values())
        self._takes_indices = takes_indices(layers)
        dtype = INTP if self._takes_indices else common_dtype(layers) or FLOAT64
        self._x, self._sample_shape = rows_of(x, dtype, layers, t), np.shape(x)[1:]
        self._t = as_array("t", t)
        weights = None if sample_weight is None else weights_for(network, sample_weight, len(self._x))
        self._edges: Array | None = None
        self._weights = weights
        if shards:
            self._edges, self._weights = joined(len(self._x), weights, company.gather)
        samples = self._samples_of_all = len(self._x) if self._edges is None else int(self._edges[-1])
        self.batch_size = min(self.batch_size, samples)
        self.steps = samples // self.batch_size if drop_last else -(-samples // self.batch_size)
        self.samples = self.steps * self.batch_size if drop_last else samples
        self._sizes = np.full(self.steps, float(self.batch_size))
        self._sizes[-1] = self.samples - (self.steps - 1) * self.batch_size
        if self._weights is not None and not np.any(self._weights):
            raise ValueError(f"sample_weight: expected a weight above 0, got {samples} zeros; leave sample_weight out")
        self._validation: tuple[Any, ...] | None = None
        self.epochs, self.step, self.seconds = 0, 0, 0.0
        self.losses, self.hits = np.zeros(self.steps), np.zeros(self.steps)
        self.before = self.generator.bit_generator.state
        self._is_written = True
        self._prepare()

    def _prepare(self) -> None:
        """Choose how the network is trained as it is now, and check the targets against its outputs."""
        network, optimizer = self.network, self.optimizer
        layers, loss = list(network.layers.values()), network.last_layer
        dtype, traits = common_dtype(layers), self._traits()
        unknown = [*plan.unknown(layers, loss, optimizer), *network.own_methods()]
        if type(optimizer) in OPTIMIZERS:
            check_writeable(network.params)
        if share_memory(network.params.values()):
            unknown.append("parameters that share memory")
        check_samples((len(self._x), *self._sample_shape), layers)
        self._is_known = not unknown
        # The engine's networks do not predict here: that would compile the product of layers as well (3 s).
        outputs = self._predicted_outputs() if unknown else self._checked_outputs(self._x, self._sample_shape)
        labels, targets = labels_and_targets(self._t, (len(self._x), outputs), dtype or FLOAT64, loss)
        if not len(labels):
            self._t = in_shape(self._t, targets)
        record = loss_of(loss)
        self.classifies, self._outputs = record is not None and record.classifies, outputs
        self._labels, self._targets, self._dtype = labels, targets, dtype or FLOAT64
        # The layers are kept, so that no new one can have the address of an old one.
        self._known_traits, self._known_layers, self._engine = traits, (layers, loss), None
        if unknown or dtype is None:
            reason = f"it knows no {', '.join(unknown)}" if unknown else "its layers are not all float32 or float64"
            self._check_alone(reason)
            warnings.warn(f"fit: this network is trained layer by layer, as the engine cannot: {reason}", stacklevel=5)
        elif is_reference():
            self._check_alone("NumPy trains under use_reference()")
        else:
            self._engine = plan.Engine(
                layers, loss, optimizer, network.params, dtype, self._sample_shape, self.batch_size,
                threads=lambda: self.company.threads(share()),
                divide=lambda network: self.company.divide(network, self._edges),
            )  # fmt: skip
            # No steps: this compiles what steps need, before Ctrl-C has to wait.
            self._train(self._engine, np.arange(0), np.empty(0), 0, 0)

    def _check_alone(self, reason: str) -> None:
        """Raise an error where several ranks are to train what is trained layer by layer."""
        if self.company.size > 1:
            raise ValueError(
                f"comm: expected a network that the engine trains, as it divides the steps, got another: {reason}; "
                f"leave comm out, or take fastbp's own layers"
            )

    def _traits(self) -> list[Any]:
        """What decides on the engine: a callback may change it."""
        layers, loss = list(self.network.layers.values()), self.network.last_layer
        params = self.network.params.values()
        return [
            common_dtype(layers),
            self.network.own_methods(),
            [(id(part), type(part)) for part in (*layers, loss, self.optimizer)],
            plan.unknown(layers, loss, self.optimizer),
            plan.own_words(layers, loss),
            [(value.shape, value.dtype, value.flags.writeable) for value in params],
            share_memory(params),
        ]

    def _checked_outputs(self, x: Array, shape: tuple[int, ...]) -> int:
        """The number of outputs of known layers for x, samples of a shape, checked."""
        layers = list(self.network.layers.values())
        first = layer_of_indices(layers)
        if first is not None:
            checked_indices(first, self._as_taken(x))
        return output_size(layers, shape)

    def _predicted_outputs(self) -> int:
        predicted = as_array("predict(x)", self.network.predict(self._samples(slice(1))))
        return int(predicted.shape[-1])

    def _samples(self, which: Any) -> Array:
        """Samples as the network takes them outside of the engine: scaled, in the shape in which they came."""
        rows = self._as_taken(self._x[which])
        return rows.reshape(len(rows), *self._sample_shape)

    def _as_read(self, x: Array) -> Array:
        """Bytes and integers as the engine reads them: in the parameters' dtype, in which the network predicts fast."""
        is_kept = x.dtype.kind == "f" or self._takes_indices or self._engine is None
        return x if is_kept else x.astype(self._dtype)

    def _as_taken(self, x: Array) -> Array:
        """x scaled; indices as they are."""
        return x if self._takes_indices and self._scale == 1 else scaled(x, self._scale)

    def epoch(self) -> Iterator[Stretch]:
        """Do the steps of one epoch, or what is left of it, a stretch at a time.

        The network has its parameters after an error, and where `write` is called after a stretch or an epoch.
        """
        began = time.perf_counter() - (self.seconds if self.step else 0.0)
        self.before = self.generator.bit_generator.state
        order = self._order()[: self.samples]
        sample_shares, counts = self._sample_shares(order)
        try:
            while self.step < self.steps:
                self._read()
                first, last = self.company.first(self._pace.stretch(self.step, self.steps))
                start = time.perf_counter()
                done = self._do(order, sample_shares, first, last)
                if not done:
                    with self.company.together():
                        raise_not_finite(self.epochs + 1, first, self.losses)
                now = time.perf_counter()
                self._pace.took(done, now - start)
                self.step, self.seconds = first + done, now - began
                averages = (_average(values[: self.step], counts[: self.step]) for values in (self.losses, self.hits))
                yield Stretch(self.epochs + 1, self.step, self.losses[first : self.step], *averages)
        except BaseException as error:
            self.company.tell(error)
            self.write()
            if not self.step:  # an error came before the first step: the order was drawn for nothing
                self.generator.bit_generator.state = self.before
            raise
        self.epochs, self.step, self.before = self.epochs + 1, 0, self.generator.bit_generator.state

    def _order(self) -> Array:
        """The order of the samples in an epoch. A generator of a class of the caller's may say anything."""
        samples = self._samples_of_all
        order = self.generator.permutation(samples)
        return order if type(self.generator) is np.random.Generator else checked_order("seed", order, samples)

    def _sample_shares(self, order: Array) -> tuple[Array, Array]:
        """The share of each sample in its batch, (0,) where all are alike, and the weight of each batch."""
        if self._weights is None:
            return np.empty(0), self._sizes
        weights = self._weights[order]
        totals = np.add.reduceat(weights, np.arange(self.steps) * self.batch_size)
        return shares_of_mean(weights, np.repeat(totals, self._sizes.astype(INTP))), totals

    def write(self) -> None:
        """Write what this step made of the network and the optimizer into them; the next step reads them."""
        if self._engine is not None and not self._is_written and not self.company.is_broken:
            self._engine.write()
        self._is_written = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The same on all ranks, of which an error ends all."""
        with self.company.together(), super().paused():
            yield

    @contextmanager
    def written_at_the_end(self) -> Iterator[None]:
        """The same, where no rank waits for one that has failed."""
        with super().written_at_the_end():
            try:
                yield
            except BaseException as error:
                self.company.tell(error)
                raise

    def look_at_interrupts(self) -> None:
        """Deliver Ctrl-C, if there was one on any rank, now that a step is finished."""
        if self.company.any(self.interrupts.noted > 0):
            self.write()
            with self.company.together():
                self.interrupts.deliver()

    def _read(self) -> None:
        if not self._is_written:
            return
        if self._traits() != self._known_traits:
            self._prepare()
        self.company.check(lambda: network_words(self.network, self.optimizer))
        if self._engine is not None:
            self._engine.read()
        self._is_written = False

    def agree(self, seed: object, **settings: object) -> None:
        """Raise an error where the ranks were not called alike; without a seed all take the first one's generator."""
        self.company.check(
            lambda: {
                "samples of x": self._samples_of_all,
                "x": f"samples {self._sample_shape} of {self._x.dtype}",
                "t": f"targets {self._t.shape[1:]} of {self._t.dtype}",
                "sample_weight": words(self._weights),
                **{f"values of {name}": value for name, value in self.data_words().items()},
            },
            "give all ranks one, or shards=True where each has samples of its own",
        )
        self.company.check(
            lambda: {
                "batch_size": self.batch_size,
                "seed": words(seed),
                "scale": self._scale,
                "drop_last": self.samples < self._samples_of_all,
                "on_nan": self._continues_on_nan,
                "validation_data": self.validation_words(),
                **settings,
            }
        )
        if seed is None:
            self.generator = self.company.first(self.generator)

    def data_words(self) -> dict[str, str]:
        """x and t in words, the same however ranks divide them."""
        held = {"x": self._x, "t": self._labels if len(self._labels) else self._targets}
        if self._edges is None:
            return data_words(held)
        return data_words(held, int(self._edges[self.company.rank]), self.company.gather)

    def validation_words(self) -> str:
        """The validation data in words."""
        if self._validation is None:
            return "None"
        x, t, weights = self._validation
        given = {"x": x, "t": t, **weights}
        return str(data_words({name: np.atleast_1d(value) for name, value in given.items()}))

    def given_words(self) -> dict[str, str]:
        """What a run that goes on must be given once more, in words."""
        weights, validation = words(self._weights), self.validation_words()
        found = {"scale": words(self._scale), "sample_weight": weights, "validation_data": validation}
        return self.data_words() | found

    def set_validation_data(self, given: ValidationData | None) -> None:
        """Check the data that each epoch is validated on, and keep them."""
        if given is None:
            return
        x, t, sample_weight = validation_parts(given)
        try:
            samples = rows_of(x, self._dtype, list(self.network.layers.values()), t)
            if samples.shape[1] != self._x.shape[1]:
                raise ValueError(
                    f"x: expected {self._x.shape[1]} numbers for each sample, as those that are fitted, got "
                    f"{samples.shape[1]}; give {batch_of(self._sample_shape)}"
                )
            if self._is_known:
                self._checked_outputs(as_array("x", x), np.shape(x)[1:])
            shape = len(samples), self._outputs
            t = as_array("t", t)
            _, targets = labels_and_targets(t, shape, self._dtype, self.network.last_layer)
            if sample_weight is not None:
                sample_weight = weights_for(self.network, sample_weight, len(samples))
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation_data: {error}") from None
        self._validation = x, t if self.classifies else in_shape(t, targets), where_given(sample_weight)

    def loss_of_zeros(self) -> float:
        """The loss of outputs that are all 0; infinite for a loss of another class, or where ranks have shards."""
        loss = self.network.last_layer
        if loss_of(loss) is None or len(self._x) < self.samples:
            return math.inf
        forward: Callable[..., float] = loss.forward
        return forward(np.zeros((len(self._x), self._outputs), self._dtype), self._t, **where_given(self._weights))

    def row(self, stretch: Stretch) -> dict[str, Any]:
        """The row of the history for the epoch that ended with this stretch."""
        row: dict[str, Any] = {"epoch": stretch.epoch, "loss": stretch.loss}
        if self.classifies:
            row["accuracy"] = stretch.accuracy
        if self._validation is None:
            return row
        x, t, weights = self._validation
        with self.paused():
            row |= self._validated(self._as_taken(self._as_read(as_array("x", x))), t, weights)
        return row

    def _validated(self, x: Array, t: Array, weights: Mapping[str, Any]) -> dict[str, float]:
        """Loss and accuracy of x by one prediction, of which fastbp's own layers need not keep anything."""
        network, row = self.network, {}
        if network.own_methods():
            row["val_loss"] = network.loss(x, t, **weights)
        else:
            outputs = network.predict(x)
            forward: Callable[..., float] = network.last_layer.forward
            row["val_loss"] = forward(outputs, t, **weights) + network.penalty()
            if self.classifies and not has_its_own(network):
                row["val_accuracy"] = accuracy_of(outputs, t, **weights)
        if self.classifies and "val_accuracy" not in row:
            row["val_accuracy"] = network.accuracy(x, t, **weights)
        return row

    def _do(self, order: Array, sample_shares: Array, first: int, last: int) -> int:
        """Do steps `first` to `last`, or some of them; returns how many, 0 where the first loss is not finite."""
        if self._engine is not None:
            return self._train(self._engine, order, sample_shares, first, last)
        step = first
        while step < last:
            places = slice(step * self.batch_size, (step + 1) * self.batch_size)
            try:
                is_done = self._step(step, order[places], sample_shares[places])
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

    def _train(self, trained: plan.Engine, order: Array, sample_shares: Array, first: int, last: int) -> int:
        x = self._x.view(INTP) if self._takes_indices else self._x
        data = x, self._labels, self._targets, self._scale
        results = self.losses, self.hits, self._continues_on_nan
        decay = self.network.weight_decay_lambda
        if not decay:
            return trained.train(data, order, sample_shares, first, last, *results)
        penalties = np.zeros(last)
        done = trained.train(data, order, sample_shares, first, last, *results, (np.full(last, decay), penalties))
        self.losses[first : first + done] += penalties[first : first + done]
        return done

    def _step(self, step: int, batch: Array, sample_shares: Array) -> bool:
        """Do a step layer by layer if its loss is finite. Else, and after an error, the layers' state is put back."""
        network = self.network
        x, t = self._samples(batch), self._t[batch]
        weights = where_given(None if self._weights is None else self._weights[batch])
        before, is_done = state_of(network.layers.values()), False
        try:
            with self.interrupts.abandoning():
                gradients = network.gradient(x, t, **weights)
            self.losses[step] = cast(float, network.last_layer.loss) + network.penalty()
            if self.classifies:
                self.hits[step] = share_of_hits(cast(Any, network.last_layer).y, t, sample_shares)
            if self._continues_on_nan or np.isfinite(self.losses[step]):
                self.optimizer.update(network.params, gradients)
                is_done = True
        finally:
            if not is_done:
                set_state(network.layers.values(), before)
        return is_done


def _average(values: Array, counts: Array) -> float:
    """The mean over batches by their weights; 0.0 where all weights are 0."""
    total = np.add.reduce(counts)
    return float(np.add.reduce(values * counts) / total) if total else 0.0
