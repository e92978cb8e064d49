"""A network in the form in which compiled code trains it: a table of its layers over one flat vector of parameters."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fastbp import layers, optimizers
from fastbp.kernels import _threads, gemm
from fastbp.kernels import engine as kernels
from fastbp.kernels.activations import IDENTITY, RELU, SIGMOID, TANH
from fastbp.kernels.dropout import ratio_threshold
from fastbp.kernels.vectors import VECTOR_BYTES
from fastbp.thread_choice import choice_for
from fastbp.validation import Array, DType, parameter, rate, same_shape, whole_number

# What the table of layers holds.
_LARGEST_WORD = 2**63 - 1

# What the engine knows, by exact class: a subclass may do something else.
ACTIVATIONS: dict[type, int] = {
    layers.Identity: IDENTITY,
    layers.ReLU: RELU,
    layers.Sigmoid: SIGMOID,
    layers.Tanh: TANH,
}
LOSSES: dict[type, Any] = {
    layers.ExpWithLoss: kernels.poisson_deviance,
    layers.SoftmaxWithLoss: kernels.cross_entropy_of_distributions,
    layers.IdentityWithLoss: kernels.squared_error,
    layers.SigmoidWithLoss: kernels.sigmoid_cross_entropy,
}


class Gradients:
    """In place of an optimizer: keeps the gradients of the last step, and changes no parameter."""

    weight_decay = 0.0

    def __init__(self) -> None:
        self.iter = 0
        self.gradients: dict[str, Array] | None = None

    def current_rate(self) -> float:
        """Of no use to the step."""
        return 0.0


# For each optimizer its update, its settings beside the rate, and its state in the order of the slots.
OPTIMIZERS: dict[type, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    Gradients: (kernels.keep_gradient, (), ("gradients",)),
    optimizers.SGD: (kernels.sgd, (), ()),
    optimizers.Momentum: (kernels.momentum, ("momentum",), ("v",)),
    optimizers.Nesterov: (kernels.nesterov, ("momentum",), ("v",)),
    optimizers.AdaGrad: (kernels.adagrad, ("eps",), ("h",)),
    optimizers.RMSprop: (kernels.rmsprop, ("decay_rate", "eps"), ("h",)),
    optimizers.Adam: (kernels.adam, ("beta1", "beta2", "eps"), ("m", "v")),
}


def unknown(network_layers: Iterable[Any], loss: Any, optimizer: Any) -> list[str]:
    """Names of the classes that the engine does not know, or of which an object was altered."""
    known = {layers.Affine, layers.Dropout, *ACTIVATIONS, *LOSSES, *OPTIMIZERS}
    parts = (*network_layers, loss, optimizer)
    return sorted({type(part).__name__ for part in parts if type(part) not in known or _is_altered(part)})


def _is_altered(part: Any) -> bool:
    """Whether an object has a method of a step of its own."""
    return not {"forward", "backward", "backward_parameters", "update"}.isdisjoint(vars(part))


def dropout_settings(layer: layers.Dropout) -> tuple[float, int]:
    """Ratio and seed, checked."""
    seed = whole_number("seed", layer.seed, 0, "give a number such as 0", _LARGEST_WORD)
    return rate("dropout_ratio", layer.dropout_ratio, 1), seed


def output_size(network_layers: Iterable[Any], features: int) -> int:
    """The number of outputs of known layers for samples of `features` numbers.

    Raises
    ------
    ValueError
        If a weight matrix does not fit what comes to it.
    """
    size, whose = features, "x: expected samples"
    for layer in network_layers:
        if type(layer) is not layers.Affine:
            continue
        W, b = parameter("W", layer.W, 2), parameter("b", layer.b, 1)
        same_shape("b", b, W.shape[1:], f"one element for each column of W {W.shape}")
        if layer.W.shape[0] != size:
            raise ValueError(
                f"{whose} of {layer.W.shape[0]} numbers, as the rows of W {layer.W.shape} that take them, got {size}; "
                "give each sample as many, or build the network for them"
            )
        size, whose = layer.W.shape[1], "layers: expected outputs"
    return size


class Engine:
    """Trains the layers of a network on batches of up to `batch_size` samples of `features` numbers.

    The parameters and the optimizer's state are copies, in one dtype: `read` takes them from their owners, `write`
    gives the parameters back in place, and makes what the engine trains the optimizer's state, without a copy. Where
    `clips`, probabilities count in the loss as at least the dtype's eps and at most 1 - eps. At most `threads` threads
    work, or as many as `set_num_threads` says; fewer where that is faster.
    """

    def __init__(
        self,
        network_layers: list[Any],
        loss: Any,
        optimizer: Any,
        params: Mapping[str, Array],
        dtype: DType,
        features: int,
        batch_size: int,
        *,
        clips: bool = False,
        threads: int | None = None,
    ) -> None:
        _threads.start()
        self._threads = sys.maxsize if threads is None else threads
        self._params, self._optimizer = params, optimizer
        self._dropouts = [layer for layer in network_layers if type(layer) is layers.Dropout]
        clip = float(np.finfo(dtype).eps) if clips else 0.0
        self._loss, self._chosen = LOSSES[type(loss)], None
        if clips and self._loss is kernels.sigmoid_cross_entropy:
            self._loss = kernels.clipped_sigmoid_cross_entropy
        update, self._settings, self._states = OPTIMIZERS[type(optimizer)]
        self._dtype, self._batch_size = dtype, batch_size
        table, places, size = _tabulate(network_layers, features)
        self._places = dict(zip(params, places, strict=True))
        work = _Allotment(dtype)
        _place_samples(table, work, batch_size)
        self._targets_at = work.take(batch_size * int(table[-1, kernels.M_OUT]))
        squares = _place_squares(table)
        self._is_dropout = table[:, kernels.MAP] == kernels.DROPOUT
        scales = np.ones(len(table), dtype)
        scales[self._is_dropout] = [1 / (1 - dropout_settings(layer)[0]) for layer in self._dropouts]
        network = kernels.Network(
            multiply=gemm.address_of_multiply(dtype),
            loss=0,  # chosen when there are targets
            clip=clip,
            largest=-math.log(clip) if clips else math.inf,
            update=0,
            subtracts=int(update is kernels.sgd),
            layers=table,
            dropout_steps=np.zeros(len(table), np.intp),
            dropout_scales=scales,
            params=np.zeros(size, dtype),
            slots=np.zeros((len(self._states), size), dtype),
            workspace=np.zeros(work.size, dtype),
            **_room(table, dtype, batch_size),
            sample_losses=np.zeros(batch_size),
            sample_hits=np.zeros(batch_size),
            softmax=np.zeros((2, batch_size), dtype),
            squares=np.zeros(squares),
        )
        self._network = network._replace(update=kernels.address_of_update(update, network))
        self._batch_labels = np.zeros(batch_size, np.intp)
        self._choice = choice_for((table.tobytes(), batch_size, dtype))

    @property
    def flat(self) -> Array:
        """All parameters in one vector."""
        flat: Array = self._network.params
        return flat

    @property
    def states(self) -> Array:
        """The optimizer's state, a row like `flat` for each of its kinds."""
        states: Array = self._network.slots
        return states

    def index(self, keys: Iterable[str]) -> Array:
        """Where in `flat` the elements of these parameters lie, one after the other."""
        return np.concatenate([self._places[key] + np.arange(self._params[key].size) for key in keys])

    def read(self) -> None:
        """Take the parameters of the layers, the state of the optimizer and the steps of dropout layers."""
        for key, place in self._places.items():
            value = self._params[key]
            self._network.params[place : place + value.size] = value.reshape(-1)
            for slot, name in zip(self._network.slots, self._states, strict=True):
                state = (getattr(self._optimizer, name) or {}).get(key)
                if state is not None:
                    same_shape(f"params[{key!r}]", value, state.shape, f"as the optimizer's {name}[{key!r}]")
                slot[place : place + value.size] = 0 if state is None else state.reshape(-1)
        remedy = "give a number such as 0"
        steps = [whole_number("step", layer.step, 0, remedy, _LARGEST_WORD) for layer in self._dropouts]
        self._network.dropout_steps[self._is_dropout] = steps

    def write(self) -> None:
        """Give back what `read` took."""
        self.write_parameters()
        for slot, name in zip(self._network.slots, self._states, strict=True):
            state = dict(getattr(self._optimizer, name) or {})
            for key, place in self._places.items():
                value = self._params[key]
                state[key] = slot[place : place + value.size].reshape(value.shape)
            setattr(self._optimizer, name, state)
        for layer, step in zip(self._dropouts, self._network.dropout_steps[self._is_dropout], strict=True):
            layer.step = int(step)

    def write_parameters(self) -> None:
        """Give back the parameters alone."""
        for key, place in self._places.items():
            value = self._params[key]
            value[...] = self._network.params[place : place + value.size].reshape(value.shape)

    def train(
        self,
        data: tuple[Array, Array, Array, float],
        order: Array,
        shares: Array,
        first: int,
        last: int,
        losses: Array,
        hits: Array,
        keeps_bad: bool,
        l2: tuple[Array, Array] | None = None,
    ) -> int:
        """Do steps `first` to `last` of an epoch over `order`; returns how many are done.

        `data` is x, labels, targets and the scale of x. `shares` is what each sample of the order counts for in the
        mean of its batch, or (0,) where all count alike. Losses and hits are those of every step of the epoch.

        `l2` has a number for each step and room for a penalty: number/2·ΣW², over all weights but the biases and before
        the update, which is small with the loss.
        """
        x, labels, targets, scale = data
        self._choose_loss(kernels.cross_entropy_of_labels if len(labels) else self._loss)
        rates, penalties = self._rates(first, last), np.empty(0)
        if l2 is not None:
            rates[:, kernels.PENALTY], penalties = l2[0][:last], l2[1]
        scale = self._dtype.type(scale)
        given = kernels.Data(x, labels, targets, shares, scale, self._batch_labels, self._targets_at)

        def run(team: Array, start: int, stop: int) -> int:
            arguments = given, order, self._batch_size, start, stop, rates, losses, hits, penalties, keeps_bad
            done: int = kernels.run_steps(team.ctypes.data, self._network, *arguments)
            return done

        done = self._run_on_the_faster(run, first, last)
        self._optimizer.iter += done
        return done

    def _run_on_the_faster(self, run: Callable[[Array, int, int], int], first: int, last: int) -> int:
        """Do steps `first` to `last` by `run`, on all threads or on one; returns how many are done."""
        _threads.start()
        team, alone = _threads.team(self._threads), _threads.team(1)
        if first == last:
            return run(alone, first, last)  # compiles what steps need
        step = first
        while step < last:
            is_all, count = self._choice.next(last - step) if team[0] > 1 else (False, last - step)
            began = time.perf_counter()
            done = run(team if is_all else alone, step, step + count)
            step += done
            if team[0] > 1:
                self._choice.note(time.perf_counter() - began, done)
            if done < count:
                break
        return step - first

    def _choose_loss(self, loss: Any) -> None:
        if loss is not self._chosen:
            self._chosen = loss
            self._network = self._network._replace(loss=kernels.address_of_loss(loss, self._network))

    def _rates(self, first: int, last: int) -> Array:
        """What the optimizer takes at each step, in rows by the number of the step."""
        optimizer, before = self._optimizer, self._optimizer.iter
        rates = np.zeros((last, kernels.RATES))
        rates[:, kernels.WEIGHT_DECAY] = optimizer.weight_decay
        rates[:, 1 : 1 + len(self._settings)] = [getattr(optimizer, name) for name in self._settings]
        try:
            for step in range(first, last):
                rates[step, kernels.RATE] = optimizer.current_rate()
                optimizer.iter += 1
        finally:
            optimizer.iter = before
        return rates


def _room(table: Array, dtype: DType, batch_size: int) -> dict[str, Array]:
    """Memory for each thread to work in."""
    parts = _threads.most_parts()
    longest = max(batch_size, int(table[:, [kernels.D_IN, kernels.M_OUT]].max()))
    widest = int(table[:, kernels.M_OUT].max())
    chunk = max(kernels.CHUNK, gemm.ROW_GRAIN * widest) + widest + 1
    return {
        "room": np.zeros((parts, gemm.room_for(longest, dtype.itemsize)), dtype),
        "gradients": np.zeros((parts, chunk), dtype),
    }


class _Allotment:
    """Places in a flat array, each at the beginning of a cache line."""

    def __init__(self, dtype: DType) -> None:
        self._line = VECTOR_BYTES // dtype.itemsize
        self.size = 0

    def take(self, count: int) -> int:
        begin = self.size
        self.size += -(-count // self._line) * self._line
        return begin


def _tabulate(network_layers: Iterable[Any], features: int) -> tuple[Array, list[int], int]:
    """The table of layers but for the workspace, where each parameter begins, and how long the parameters are."""
    rows: list[list[int]] = []
    places: list[int] = []
    params = _Allotment(np.dtype(np.float64))
    width = features
    for layer in network_layers:
        kind = type(layer)
        if kind is layers.Affine:
            places += [params.take(layer.W.size), params.take(layer.b.size)]
            rows.append([kernels.AFFINE, IDENTITY, width, layer.W.shape[1], *places[-2:]])
            width = layer.W.shape[1]
        elif kind is layers.Dropout:
            ratio, seed = dropout_settings(layer)
            threshold = int(ratio_threshold.py_func(ratio))  # a call would compile it
            rows.append([kernels.DROPOUT, IDENTITY, width, width, seed, threshold])
        elif rows and rows[-1][kernels.ACTIVATION] == IDENTITY:
            rows[-1][kernels.ACTIVATION] = ACTIVATIONS[kind]
        else:
            rows.append([kernels.NOTHING, ACTIVATIONS[kind], width, width, 0, 0])
    table = np.full((len(rows), kernels.FIELDS), -1, np.intp)
    table[:, : kernels.H_IN] = rows
    return table, places, params.size


def _place_squares(table: Array) -> int:
    """Complete the table: where sums of squares of weights begin; returns how many there are."""
    grains = np.where(table[:, kernels.MAP] == kernels.AFFINE, -(-table[:, kernels.D_IN] // gemm.ROW_GRAIN), 0)
    table[:, kernels.SQUARES_AT] = np.cumsum(grains) - grains
    return int(grains.sum())


def _place_samples(table: Array, work: _Allotment, batch_size: int) -> None:
    """Complete the table: where activations and deltas lie. Deltas before the first affine layer are not formed."""
    first_affine = int(np.argmax(table[:, kernels.MAP] == kernels.AFFINE))
    table[0, kernels.H_IN] = work.take(batch_size * int(table[0, kernels.D_IN]))
    for number, row in enumerate(table):
        if number:
            row[kernels.H_IN] = table[number - 1, kernels.H_OUT]
            if number > first_affine:
                row[kernels.DELTA_BEFORE] = table[number - 1, kernels.DELTA]
        row[kernels.H_OUT] = work.take(batch_size * int(row[kernels.M_OUT]))
        row[kernels.DELTA] = work.take(batch_size * int(row[kernels.M_OUT]))
