"""A network's predictions by compiled code over the arrays of its layers, while these are as they were."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from typing import Any

import numpy as np

from fastbp import allocation
from fastbp.checks import FLOAT32, FLOAT64, INTP, Array, DType
from fastbp.engine import predict
from fastbp.engine.table import Mapped, Row, arranged, mapped
from fastbp.ops import prediction
from fastbp.ops.contract import (
    HANDS_ON,
    LAYERS,
    LayerRecord,
    Map,
    Shape,
    checked_indices,
    is_reference,
    layer_of_indices,
    settings_of,
    takes_indices,
)
from fastbp.ops.state import (
    D_IN,
    EPILOGUE,
    LANES,
    LAYOUT,
    M_OUT,
    OUT_H,
    OUT_W,
    ROWS,
    SETTINGS_AT,
    W_ROWS,
    W_WIDTH,
    WORD,
)
from fastbp.runtime import threads
from fastbp.runtime.gemm.epilogue import NONE, checked
from fastbp.runtime.gemm.multiply import ROW_GRAIN, address_of_multiply, scratch_for
from fastbp.runtime.headers import MOST_AXES, noted
from fastbp.runtime.vectors import REGISTER_BYTES

# Another subclass of ndarray may have a product of its own.
_PLAIN = np.ndarray, np.memmap

# A layer with its class and its arrays by name.
_Known = tuple[Any, type, list[tuple[str, Array]]]

# Where the addresses of a layer's arrays stand, in the order of its record.
_PLACES = prediction.W_AT, prediction.B_AT, prediction.MEAN_AT, prediction.VAR_AT

# Multiply-adds below which the GIL is kept and memory is that of the call before.
FEW = threads.WORTH_A_REGION


class Prediction:
    """What a stack of layers predicts, computed by one pass of compiled code.

    Each thread takes some samples at a time through all layers, in memory for these alone.

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

        That is for an x of floats of another dtype than the parameters or of another memory order, for layers whose
        records have no kernel for predictions or of which something was replaced, and under `use_reference`.

        Raises
        ------
        ValueError
            If x is integers, the first layer takes indices, and they are out of its range.
        """
        if type(x) is not np.ndarray or is_reference():
            return None
        shape, size, flags, dtype = x.shape, x.size, x.flags, x.dtype
        if not size or not shape:
            return None
        if dtype is not FLOAT32 and dtype is not FLOAT64:
            return self._outputs_of_indices(layers, x) if dtype.kind in "iu" else None
        if not flags.c_contiguous or not flags.aligned:
            return None
        N, sample = (1, shape) if len(shape) == 1 else (shape[0], shape[1:])
        table = self._table_for(layers, sample, dtype)
        if table is None or (len(shape) == 1 and not table.takes_one):
            return None
        return _predicted(table, x, N, table.out if len(shape) == 1 else (N, *table.out))

    def _outputs_of_indices(self, layers: Collection[Any], x: Array) -> Array | None:
        first = layer_of_indices(layers)
        if first is None or (x.ndim == 1 and first is not next(iter(layers))):  # others take one axis for one sample
            return None
        table = self._table_for(layers, x.shape[1:], INTP)
        if table is None:
            return None
        indices = checked_indices(first, x.copy())  # nobody else can change a copy after the check
        return _predicted(table, indices.reshape(len(x), -1).view(table.dtype), len(x), (len(x), *table.out))

    def _table_for(self, layers: Collection[Any], sample: Shape, dtype: DType) -> _Table | None:
        table = self._table
        if table is None or not table.is_for(layers, sample, dtype):
            table = self._table = _tabled(list(layers), sample, dtype)
        return table


def _predicted(table: _Table, x: Array, N: int, out_shape: Shape) -> Array | None:
    if N * table.work < FEW:
        out = np.empty(out_shape, table.dtype)
        return out if table.predict_few(x, out, N) else None
    if N < ROW_GRAIN * threads.most_parts() > ROW_GRAIN:
        return None  # the products of layers divide columns among threads, too
    out = allocation.empty(out_shape, table.dtype)
    return out if table.predict(x.reshape(N, -1), out.reshape(N, -1), N) else None


class _Table:
    """The table of a stack, and what it was made of."""

    def __init__(self, known: list[_Known], stack: list[Mapped], given: DType, dtype: DType) -> None:
        rows, shapes = arranged(stack, _has_kernel, ROWS), [stack[0].shape, *(each.out for each in stack)]
        self._known, self._shape, self.out, self._given, self.dtype = known, shapes[0], shapes[-1], given, dtype
        records = [(layer, LAYERS[kind]) for layer, kind, _ in known]
        self._set = [(layer, record, _traits(record, layer)) for layer, record in records if record.settings]
        # To a layer one sample (C, H) would be a batch, and a layer with statistics takes none but batches.
        has_statistics = any(row.kind.statistics is not None for row in rows)
        self.takes_one = not has_statistics and all(len(shape) == 1 for shape in shapes)
        arrays = {id(layer): [array for _, array in own] for layer, _, own in known}
        self._noted = np.array([noted(array) for own in arrays.values() for array in own], np.intp)
        self._settings = [_settings(row) for row in rows]  # the table has their addresses
        columns = [_columns(row, arrays, own, dtype) for row, own in zip(rows, self._settings, strict=True)]
        self._rows = np.array(columns, np.intp)
        sizes = [(each[D_IN], each[M_OUT]) for each in columns]
        self._widest, self._largest = max(M for _, M in sizes), max(max(pair) for pair in sizes)
        # W has a row for each number that a product takes. A normalization takes as many numbers as gamma has. One that
        # takes indices has no product.
        heights = [1 if row.kind.check_indices else each[W_ROWS] for row, each in zip(rows, columns, strict=True)]
        self._longest = max(max(D, M) if D == height else height for (D, M), height in zip(sizes, heights, strict=True))
        self._kept = max(_kept(row) for row in rows)
        wide = zip(heights, columns, strict=True)
        weights = (height * each[W_WIDTH] * each[OUT_H] * each[OUT_W] for height, each in wide)
        self.work = sum(D for D, _ in sizes) + sum(weights)
        is_lane = any(each[LAYOUT] == LANES for each in columns)
        # 0 where no sample lies in lanes
        self._slice = predict.samples_of_a_slice(max(map(sum, sizes)), dtype.itemsize) if is_lane else 0
        self._multiply = address_of_multiply(dtype)
        tables = self._noted.ctypes.data, len(self._noted), self._rows.ctypes.data, len(self._rows)
        self._where = self._multiply, *tables
        self._working = 0, np.empty(0, dtype)

    def is_for(self, layers: Collection[Any], shape: Shape, dtype: DType) -> bool:
        """Whether the stack is what the table was made of, but for what the arrays themselves say."""
        if shape != self._shape or dtype is not self._given or len(layers) != len(self._known):
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
        """Room for N samples of two hidden layers, and scratch behind it."""
        return N, np.empty(2 * N * self._widest + self._scratch(N), self.dtype)

    def _scratch(self, N: int) -> int:
        """Elements of scratch for N samples."""
        itemsize = self.dtype.itemsize
        return max(scratch_for(self._longest, itemsize), N * self._kept + REGISTER_BYTES // itemsize)

    def predict(self, x: Array, out: Array, N: int) -> bool:
        """The same for many, on all threads."""
        if not predict.are_as_noted(self._noted):
            return False
        threads.start()
        team = threads.team(sys.maxsize)
        parts = int(team[0])
        if self._slice:
            samples = min(self._slice, N, N // parts + ROW_GRAIN)
        else:
            samples = predict.rows_of_a_block(N, self._largest, self.work)
        hidden = allocation.empty((parts, 2, samples * self._widest), self.dtype)
        scratch = allocation.empty((parts, self._scratch(samples)), self.dtype)
        where = team.ctypes.data, self._multiply, 0, self._rows
        predict.predict(*where, x, out, samples, self.work, hidden, scratch, False)
        return True


def _traits(record: LayerRecord, layer: Any) -> Any:
    """What a layer is beside its arrays, checked."""
    if record.map is None:
        return settings_of(record, layer)
    return record.map.words(layer), None if record.map.predict is HANDS_ON else record.map.scale(layer)


def _tabled(layers: list[Any], shape: Shape, given: DType) -> _Table | None:
    """The table of a stack for samples of a shape and a dtype; None where only its `forward` can predict."""
    known: list[_Known] = []
    first = layer_of_indices(layers) if given is INTP else None
    for layer in layers:
        record = LAYERS.get(type(layer))
        if record is None or not _predicts(record) or "forward" in vars(layer):
            return None
        if takes_indices([layer]) and layer is not first:
            return None  # it is given floats
        known.append((layer, type(layer), [(name, getattr(layer, name)) for name in record.arrays]))
    arrays = [array for _, _, own in known for _, array in own]
    if not arrays or type(arrays[0]) not in _PLAIN:
        return None
    dtype = arrays[0].dtype if given is INTP else given
    if not all(_is_readable(array, dtype) for array in arrays):
        return None
    try:
        return _Table(known, [*mapped(layers, shape)], given, dtype)
    except (TypeError, ValueError):
        return None  # the layer says it in its own words


def _settings(row: Row) -> Array:
    """The scale of a row, and the settings of its activation."""
    scale = 1.0 if row.layer is None else row.kind.scale(row.layer.layer)
    settings = () if row.activation is None else settings_of(row.activation.record, row.activation.layer)
    return np.array([scale, *settings, 0.0])


def _columns(row: Row, arrays: dict[int, list[Array]], settings: Array, dtype: DType) -> list[int]:
    """A row of the table as kernels see it."""
    columns = [0] * prediction.COLUMNS
    row.put_shapes(columns)
    columns[prediction.KERNEL] = prediction.address_of_map(row.kind, dtype)
    columns[prediction.SCALE_AT], columns[SETTINGS_AT] = settings.ctypes.data, settings[1:].ctypes.data
    function = None if row.activation is None else row.activation.record.activation
    columns[EPILOGUE] = NONE if function is None else checked(function.in_place(dtype))
    if row.layer is not None:
        own, words = arrays[id(row.layer.layer)], row.kind.words(row.layer.layer)
        for place, array in zip(_PLACES, own, strict=False):
            columns[place] = array.ctypes.data
        if own:
            columns[W_ROWS], columns[W_WIDTH] = len(own[0]), math.prod(own[0].shape[1:])
        columns[WORD : WORD + len(words)] = words
    return columns


def _kept(row: Row) -> int:
    """Numbers of each sample that the map of a row keeps."""
    return 0 if row.layer is None else row.kind.memory(row.layer.layer, row.shape, row.out)


def _has_kernel(kind: Map) -> bool:
    return kind.predict is not HANDS_ON


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
