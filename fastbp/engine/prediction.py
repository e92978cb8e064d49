"""A network's predictions by compiled code over the arrays of its layers, while these are as they were."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from typing import Any

import numpy as np

from fastbp import allocation
from fastbp.checks import FLOAT32, FLOAT64, Array, DType
from fastbp.engine import predict
from fastbp.ops import prediction
from fastbp.ops.contract import HANDS_ON, LAYERS, LayerRecord, Shape, is_reference, settings_of
from fastbp.runtime import threads
from fastbp.runtime.gemm.epilogue import NONE, checked
from fastbp.runtime.gemm.multiply import ROW_GRAIN, address_of_multiply, scratch_for
from fastbp.runtime.headers import MOST_AXES, noted

# Another subclass of ndarray may have a product of its own.
_PLAIN = np.ndarray, np.memmap

# A layer with its class and its arrays by name.
_Known = tuple[Any, type, list[tuple[str, Array]]]

# Multiply-adds below which the GIL is kept and memory is that of the call before.
FEW = threads.WORTH_A_REGION


class Prediction:
    """What a stack of layers predicts, computed by one pass of compiled code.

    The table for that pass is kept. It is valid while the layers are the same objects of the same classes with the same
    arrays and settings, and these arrays have the same memory, shape, strides and dtype. All of that is looked at
    before each pass. The numbers in the arrays may change. Copies and pickles begin without a table.
    """

    def __init__(self) -> None:
        self._table: _Table | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction, ()

    def outputs(self, layers: Collection[Any], x: Any) -> Array | None:
        """The outputs for samples x, a new array; None where only the layers' own `forward` can say.

        That is for an x of another dtype than the parameters or of another memory order, for layers whose records have
        no kernel for predictions or of which something was replaced, and under `use_reference`.
        """
        if type(x) is not np.ndarray or is_reference():
            return None
        shape, size, flags = x.shape, x.size, x.flags
        if not size or not shape or not flags.c_contiguous or not flags.aligned:
            return None
        N, sample = (1, shape) if len(shape) == 1 else (shape[0], shape[1:])
        table = self._table
        if table is None or not table.is_for(layers, sample, x.dtype):
            table = self._table = _tabled(list(layers), sample, x.dtype)
        if table is None or (len(shape) == 1 and not table.takes_one):
            return None
        out_shape = table.out if len(shape) == 1 else (N, *table.out)
        if N * table.weights < FEW:
            out = np.empty(out_shape, table.dtype)
            return out if table.predict_few(x, out, N) else None
        if N < ROW_GRAIN * threads.most_parts() > ROW_GRAIN:
            return None  # the products of layers divide columns among threads, too
        out = allocation.empty(out_shape, table.dtype)
        return out if table.predict(x.reshape(N, -1), out.reshape(N, -1), N) else None


class _Table:
    """The table of a stack, and what it was made of."""

    def __init__(self, known: list[_Known], shapes: list[Shape], rows: list[list[int]], settings: list[Array]) -> None:
        self._known = known
        self._shape, self.out = shapes[0], shapes[-1]
        self.takes_one = all(len(each) == 1 for each in shapes)  # to a layer one sample (C, H) would be a batch
        records = [(layer, LAYERS[kind]) for layer, kind, _ in known]
        self._set = [(layer, record, _traits(record, layer)) for layer, record in records if record.settings]
        self._settings = settings  # the table has their addresses
        arrays = [array for _, _, own in known for _, array in own]
        self._noted = np.array([noted(array) for array in arrays], np.intp)
        self._rows = np.array(rows, np.intp)
        sizes = self._rows[:, [prediction.D_IN, prediction.M_OUT]]
        self._widest, self._longest = int(sizes[:, 1].max()), int(sizes.max())
        self.weights, self.dtype = int(np.sum(sizes[:, 0] * sizes[:, 1])), arrays[0].dtype
        self._multiply = address_of_multiply(self.dtype)
        tables = self._noted.ctypes.data, len(self._noted), self._rows.ctypes.data, len(self._rows)
        self._where = self._multiply, *tables
        self._working = self._memory_for(1)

    def is_for(self, layers: Collection[Any], shape: Shape, dtype: DType) -> bool:
        """Whether the stack is what the table was made of, but for what the arrays themselves say."""
        if shape != self._shape or dtype is not self.dtype or len(layers) != len(self._known):
            return False
        for layer, (known, kind, arrays) in zip(layers, self._known):  # noqa: B905 - strict takes 0.1 µs
            if layer is not known or type(layer) is not kind:
                return False
            attributes = layer.__dict__
            if "forward" in attributes:
                return False
            for name, array in arrays:
                if attributes.get(name) is not array:
                    return False
        return not self._set or all(_traits(record, layer) == traits for layer, record, traits in self._set)

    def predict_few(self, x: Array, out: Array, N: int) -> bool:
        """Write the outputs for a few samples to `out`. False where an array is not as it was."""
        room, memory = self._working  # another thread may put more there
        if N > room:
            room, memory = self._working = self._memory_for(N)
        done: bool = predict.predict_few(*self._where, id(x), id(out), N, room * self._widest, memory)
        return done

    def _memory_for(self, N: int) -> tuple[int, Array]:
        """Room for N rows of two hidden layers, and scratch behind it."""
        scratch = scratch_for(self._longest, self.dtype.itemsize)
        return N, np.empty(2 * N * self._widest + scratch, self.dtype)

    def predict(self, x: Array, out: Array, N: int) -> bool:
        """The same for many, on all threads."""
        if not predict.are_as_noted(self._noted):
            return False
        threads.start()
        team, rows = threads.team(sys.maxsize), predict.rows_of_a_block(N, self._longest, self.weights)
        hidden = np.empty((team[0], 2, rows * self._widest), self.dtype)
        scratch = np.empty((team[0], scratch_for(self._longest, self.dtype.itemsize)), self.dtype)
        where = team.ctypes.data, self._multiply, 0, self._rows
        predict.predict(*where, x, out, rows, hidden, scratch, False)
        return True


def _traits(record: LayerRecord, layer: Any) -> Any:
    """What a layer is beside its arrays, checked."""
    return settings_of(record, layer), record.map and record.map.words(layer)


def _tabled(layers: list[Any], shape: Shape, dtype: DType) -> _Table | None:
    """The table of a stack for samples of a shape; None where only its `forward` can predict."""
    rows: list[list[int]] = []
    known: list[_Known] = []
    settings: list[Array] = []
    is_ended, shapes = True, [shape]  # the last row has its activation, or there is none
    for layer in layers:
        record = LAYERS.get(type(layer))
        if record is None or not _predicts(record) or "forward" in vars(layer):
            return None
        own = [getattr(layer, name) for name in record.arrays]
        if not all(_is_readable(array, dtype) for array in own):
            return None
        known.append((layer, type(layer), list(zip(record.arrays, own, strict=True))))
        if record.map is not None:
            try:
                shapes.append(record.map.shape(layer, shapes[-1], ""))
            except (TypeError, ValueError):
                return None  # the layer says it in its own words
            if not shapes[-1]:
                return None
            if record.map.predict is HANDS_ON:
                continue
            places = [*(array.ctypes.data for array in own), 0, 0][:2]
            sizes = [math.prod(each) for each in shapes[-2:]]
            rows.append([predict.address_of_map(type(layer), dtype), *places, *sizes, NONE, 0])
            is_ended = False
        if record.activation is not None:
            if is_ended:
                rows.append([0, 0, 0, *[math.prod(shapes[-1])] * 2, NONE, 0])
            settings.append(np.array([*settings_of(record, layer), 0.0]))
            word = checked(record.activation.in_place(dtype))
            rows[-1][prediction.EPILOGUE], rows[-1][prediction.SETTINGS_AT] = word, settings[-1].ctypes.data
            is_ended = True
    return _Table(known, shapes, rows, settings) if any(own for _, _, own in known) else None


def _predicts(record: LayerRecord) -> bool:
    """Whether there is a kernel for predictions, or nothing to be done."""
    return record.activation is not None if record.map is None else record.map.predict is not None


def _is_readable(array: Any, dtype: DType) -> bool:
    """Whether kernels read a parameter of this dtype where it is."""
    return (
        type(array) in _PLAIN
        and (dtype is FLOAT32 or dtype is FLOAT64)
        and array.dtype is dtype
        and array.ndim <= MOST_AXES
        and array.size > 0
        and array.flags.c_contiguous
        and array.flags.aligned
    )
