"""A network in the form in which compiled code trains it: a table of its layers over one flat vector of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastbp import layers, optimizers
from fastbp.kernels import _threads, gemm
from fastbp.kernels import engine as kernels
from fastbp.kernels.activations import IDENTITY, RELU, SIGMOID
from fastbp.validation import Array, DType

# What the engine knows, by exact class: a subclass may do something else.
ACTIVATIONS: dict[type, int] = {layers.ReLU: RELU, layers.Sigmoid: SIGMOID}
LOSSES: dict[type, int] = {
    layers.SoftmaxWithLoss: kernels.SOFTMAX_CROSS_ENTROPY,
    layers.IdentityWithLoss: kernels.SQUARED_ERROR,
}

# For each optimizer its number, its settings beside the rate, and its state in the order of the slots.
OPTIMIZERS: dict[type, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    optimizers.SGD: (kernels.SGD, (), ()),
    optimizers.Momentum: (kernels.MOMENTUM, ("momentum",), ("v",)),
    optimizers.Nesterov: (kernels.NESTEROV, ("momentum",), ("v",)),
    optimizers.AdaGrad: (kernels.ADAGRAD, (), ("h",)),
    optimizers.RMSprop: (kernels.RMSPROP, ("decay_rate",), ("h",)),
    optimizers.Adam: (kernels.ADAM, ("beta1", "beta2"), ("m", "v")),
}


def unknown(network_layers: Iterable[Any], loss: Any, optimizer: Any) -> list[str]:
    """Names of the classes that the engine does not know."""
    known = {layers.Affine, *ACTIVATIONS, *LOSSES, *OPTIMIZERS}
    return sorted({type(part).__name__ for part in (*network_layers, loss, optimizer) if type(part) not in known})


class Engine:
    """Trains the layers of a network on batches of up to `batch_size` samples of `features` numbers.

    The parameters are copies, in one dtype, of the layers' own: `read` takes these, `write` changes them in place.
    """

    def __init__(
        self, network_layers: Iterable[Any], loss: Any, optimizer: Any, dtype: DType, features: int, batch_size: int
    ) -> None:
        self._affines = [layer for layer in network_layers if type(layer) is layers.Affine]
        self._optimizer = optimizer
        self._loss = LOSSES[type(loss)]
        self._number, self._settings, self._states = OPTIMIZERS[type(optimizer)]
        self._dtype = dtype
        table, self._places, size = _tabulate(network_layers, features)
        self.outputs = int(table[-1, kernels.M_OUT])
        work = _Allotment(dtype)
        _place_samples(table, work, batch_size)
        self._targets_at = work.take(batch_size * self.outputs)
        parts = _threads.most_parts()
        longest = max(batch_size, int(table[:, [kernels.D_IN, kernels.M_OUT]].max()))
        widest = int(table[:, kernels.M_OUT].max())
        chunk = max(kernels.CHUNK, gemm.ROW_GRAIN * widest) + widest
        self._network = kernels.Network(
            multiply=gemm.address_of_multiply(dtype),
            layers=table,
            params=np.zeros(size, dtype),
            slots=np.zeros((len(self._states), size), dtype),
            workspace=np.zeros(work.size, dtype),
            room=np.zeros((parts, gemm.room_for(longest, dtype.itemsize)), dtype),
            gradients=np.zeros((parts, chunk), dtype),
            sample_losses=np.zeros(batch_size),
            sample_hits=np.zeros(batch_size),
            softmax=np.zeros((2, batch_size), dtype),
        )
        self._batch_size = batch_size
        self._batch_labels = np.zeros(batch_size, np.intp)

    def read(self) -> None:
        """Take the parameters of the layers and the state of the optimizer."""
        for layer, (W_at, b_at) in zip(self._affines, self._places, strict=True):
            for at, value in ((W_at, layer.W), (b_at, layer.b)):
                self._network.params[at : at + value.size] = value.reshape(-1)

    def write(self) -> None:
        """Give the layers their parameters, in place."""
        for layer, (W_at, b_at) in zip(self._affines, self._places, strict=True):
            for at, value in ((W_at, layer.W), (b_at, layer.b)):
                value[...] = self._network.params[at : at + value.size].reshape(value.shape)

    def run(
        self, x: Array, labels: Array, targets: Array, scale: float, order: Array, rates: Array, first: int, last: int,
        step_losses: Array, step_hits: Array, keeps_bad: bool,
    ) -> int:  # fmt: skip
        """Do steps `first` to `last` of an epoch over `order`; returns how many are done."""
        data = kernels.Data(x, labels, targets, self._dtype.type(scale), self._batch_labels, self._targets_at)
        arguments = (
            self._network, data, order, self._batch_size, first, last, self._loss, self._number, rates,
            step_losses, step_hits, keeps_bad,
        )  # fmt: skip
        _threads.start()
        done: int = kernels.run_steps(_threads.TEAM, *arguments)
        return done


class _Allotment:
    """Places in a flat array, each at the beginning of a cache line."""

    def __init__(self, dtype: DType) -> None:
        self._line = gemm.VECTOR_BYTES // dtype.itemsize
        self.size = 0

    def take(self, count: int) -> int:
        begin = self.size
        self.size += -(-count // self._line) * self._line
        return begin


def _tabulate(network_layers: Iterable[Any], features: int) -> tuple[Array, list[tuple[int, int]], int]:
    """The table of layers but for the workspace, where each W and b begins, and the number of parameters."""
    rows: list[list[int]] = []
    places: list[tuple[int, int]] = []
    params = _Allotment(np.dtype(np.float64))
    width = features
    for layer in network_layers:
        kind = type(layer)
        if kind is layers.Affine:
            places.append((params.take(layer.W.size), params.take(layer.b.size)))
            rows.append([kernels.AFFINE, IDENTITY, width, layer.W.shape[1], *places[-1]])
            width = layer.W.shape[1]
        elif rows and rows[-1][kernels.ACTIVATION] == IDENTITY:
            rows[-1][kernels.ACTIVATION] = ACTIVATIONS[kind]
        else:
            rows.append([kernels.NOTHING, ACTIVATIONS[kind], width, width, 0, 0])
    table = np.full((len(rows), kernels.FIELDS), -1, np.intp)
    table[:, : kernels.H_IN] = rows
    return table, places, params.size


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
