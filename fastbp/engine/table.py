"""The table of a network: its layers in rows of machine words, and where in memory everything lies.

A row is a map and the activation after it. A layer takes its samples in rows, in lanes, or in either (`Map.layout`).
Where two layers do not agree, a row between them turns the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastbp.checks import Array, DType
from fastbp.engine.arrangement import COPY, TURN
from fastbp.engine.steps import (
    BACKWARD_FROM,
    BACKWARD_TO,
    FORWARD_FROM,
    FORWARD_TO,
    IS_SLICED,
    REGION,
    SUMS_FROM,
)
from fastbp.ops import state
from fastbp.ops.contract import LAYERS, Activation, LayerRecord, Map, Shape, settings_of
from fastbp.ops.state import COEFFICIENTS, COLUMNS, LANES, ROWS
from fastbp.runtime.gemm import epilogue
from fastbp.runtime.gemm.multiply import ROW_GRAIN
from fastbp.runtime.groups import most_groups
from fastbp.runtime.threads import WORTH_A_REGION
from fastbp.runtime.vectors import VECTOR_BYTES


class Mapped(NamedTuple):
    """A layer with a map, and the shapes of a sample that it takes and gives."""

    layer: Any
    record: LayerRecord
    shape: Shape
    out: Shape


def mapped(layers: Iterable[Any], shape: Shape) -> Iterator[Mapped]:
    """Known layers with the shapes of a sample between them, checked.

    Raises
    ------
    ValueError
        If a layer does not fit what comes to it.
    """
    whose = "x: expected samples"
    for layer in layers:
        record = LAYERS[type(layer)]
        out = shape if record.map is None else record.map.shape(layer, shape, whose)
        yield Mapped(layer, record, shape, out)
        shape = out
        if record.map is not None and record.map.gradient is not None:
            whose = "layers: expected outputs"


class Row(NamedTuple):
    """A row of a table: what it does to samples of a shape that lie in a layout, and the layers that it stands for."""

    kind: Map
    shape: Shape
    out: Shape
    layout: int
    layer: Mapped | None = None
    activation: Mapped | None = None

    def put_shapes(self, columns: Any) -> None:
        """Set the columns of the table that say what the row takes and gives."""
        columns[state.D_IN], columns[state.M_OUT] = math.prod(self.shape), math.prod(self.out)
        columns[state.LAYOUT] = self.layout
        columns[state.IN_C : state.IN_W + 1] = _image(self.shape)
        columns[state.OUT_C : state.OUT_W + 1] = _image(self.out)


def arranged(
    layers: list[Mapped], moves: Callable[[Map], bool], layout: int | None = None, ends_in_lanes: bool = False
) -> list[Row]:
    """A row for each map that moves anything, with the activation after it, and for each turn between two of them.

    The samples come in `layout`; None: in that of the first layer. They end in rows, or as the last layer leaves them
    where it `ends_in_lanes`. A single number of each sample lies the same in both.
    """
    wanted = [None if each.record.map is None else each.record.map.layout(each.shape) for each in layers]
    if layout is None:
        layout = next((each for each in wanted if each is not None), ROWS)
    rows: list[Row] = []
    for each, wish in zip(layers, wanted, strict=True):
        if wish not in (None, layout):
            rows.append(Row(TURN, each.shape, each.shape, layout))
            layout = wish
        if each.record.map is None:
            if not rows or rows[-1].activation is not None:
                rows.append(Row(COPY, each.shape, each.shape, layout))
            rows[-1] = rows[-1]._replace(activation=each)
        elif moves(each.record.map):
            rows.append(Row(each.record.map, each.shape, each.out, layout, each))
    out = layers[-1].out
    if not rows:
        rows.append(Row(COPY, out, out, layout))
    if layout == LANES and not ends_in_lanes and math.prod(out) > 1:
        rows.append(Row(TURN, out, out, layout))
    return rows


# Widths of dense layers, inputs and outputs, up to which samples in lanes are faster, and the least number of samples.
# On one thread, in float32, a step of 24-8-2 with 200, 100, 48, 32 samples takes 0.74, 0.74, 0.83, 0.84 of its time in
# rows, of 4-10-3 with 150 and 32 0.70 and 0.80, of 64-8-10 with 200 0.72. Layers of 16 outputs fill a vector: 64-16-10
# takes 0.96, 30-16-1 with 100 1.09, 13-32-3 1.09, 64-32-10 1.23. Wide inputs take long to turn: 200-4-2 takes 1.05. In
# float64 24-8-2 takes 0.85, 0.97, 0.98, 0.96, and the others of the first kind 0.77 to 1.0 (`bench.layouts`).
WIDEST_INPUT, WIDEST_OUTPUT, LEAST_SAMPLES = 64, 12, 32


def is_small(stack: list[Mapped], batch_size: int) -> bool:
    """Whether a stack of dense layers takes its samples in lanes, all of a batch side by side.

    One thread then does all.
    """
    dense = [each for each in stack if each.record.map is not None and each.record.map.in_lanes is not None]
    if not dense or not all(_goes_in_lanes(each) for each in stack) or batch_size < LEAST_SAMPLES:
        return False
    sizes = [(math.prod(each.shape), math.prod(each.out)) for each in dense]
    is_narrow = all(D <= WIDEST_INPUT and M <= WIDEST_OUTPUT for D, M in sizes)
    return is_narrow and batch_size * sum(D * M for D, M in sizes) < WORTH_A_REGION


def _goes_in_lanes(each: Mapped) -> bool:
    """Whether a layer takes samples in lanes, and forms no sums over them."""
    kind = each.record.map
    if kind is None or kind.in_lanes is not None or kind.forward is None:
        return True
    return kind.layout(each.shape) is None and kind.sums is None and kind.statistics is None


def _in_lanes(each: Mapped) -> Mapped:
    kind = each.record.map
    if kind is None or kind.in_lanes is None:
        return each
    return each._replace(record=replace(each.record, map=kind.in_lanes))


class _Allotment:
    """Places in a flat array, each at the beginning of a cache line."""

    def __init__(self, dtype: DType) -> None:
        self._line = VECTOR_BYTES // dtype.itemsize
        self.size = 0

    def take(self, count: int) -> int:
        begin = self.size
        self.size += -(-count // self._line) * self._line
        return begin


class Table:
    """The table of a network.

    Attributes
    ----------
    rows : ndarray (rows, COLUMNS)
    places : list of int
        Where each parameter begins.
    counted : list of (int, layer, str)
        The rows, layers and attributes that count steps.
    running : list of (slice, layer, str)
        Where running statistics lie, and the layers and attributes.
    gathers : bool
        Whether the first row takes samples from x itself.
    takes_indices : bool
        Whether the samples are indices.
    work_of_sample : int
        Multiply-adds, about.
    regions : ndarray (·, REGION)
    ends_in_lanes : bool
        Whether the outputs of the last row lie in lanes, for a loss that takes them so.
    """

    def __init__(
        self, layers: Iterable[Any], shape: Shape, batch_size: int, dtype: DType, loss_takes_lanes: bool
    ) -> None:
        self.parameters, self.work = _Allotment(np.dtype(np.float64)), _Allotment(dtype)
        self.sums, self.statistics = _Allotment(dtype), _Allotment(dtype)
        self.places: list[int] = []
        self.counted: list[tuple[int, Any, str]] = []
        self.running: list[tuple[slice, Any, str]] = []
        self._kinds: list[tuple[Map, Activation | None]] = []
        self._settings: list[float] = []
        self._scales: list[float] = []
        self._dtype, self._batch_size = dtype, batch_size
        self._rows: list[Array] = []
        stack = [*mapped(layers, shape)]
        self._is_small = is_small(stack, batch_size)
        self.ends_in_lanes = self._is_small and loss_takes_lanes
        if self._is_small:
            stack = [_in_lanes(each) for each in stack]
        for row in arranged(stack, lambda kind: kind.forward is not None, None, self.ends_in_lanes):
            self._add(row)
        self.rows = np.array(self._rows)
        self._pool_with_convolutions()
        self._place_samples()
        self._place_squares()
        self.gathers, self.takes_indices = self._kinds[0][0].gathers, self._kinds[0][0].check_indices is not None
        self.work_of_sample = self._work()
        self.regions = self._regions()
        self.settings, self.scales = np.array([*self._settings, 0.0]), np.array(self._scales, dtype)
        # It tells plans of the same sizes apart. Addresses are no part of it: they differ from run to run.
        names = [type(each.layer).__name__ for each in stack]
        self.key = (str(names), self.rows.tobytes(), self.settings.tobytes())

    def _add(self, row: Row) -> None:
        columns = np.full(COLUMNS, -1, np.intp)
        row.put_shapes(columns)
        columns[[state.W_ROWS, state.W_WIDTH, state.B_SIZE, state.SUMS_SIZE, state.POOL]] = 0
        self._rows.append(columns)
        self._kinds.append((row.kind, None if row.activation is None else row.activation.record.activation))
        self._scales.append(1.0)
        if row.layer is not None:
            self._describe(row.layer, row.kind)
        if row.activation is not None:
            columns[state.SETTINGS_AT] = len(self._settings)
            self._settings += settings_of(row.activation.record, row.activation.layer)

    def _describe(self, each: Mapped, kind: Map) -> None:
        """What the last row has of its layer."""
        row, layer = self._rows[-1], each.layer
        self._place_parameters(row, each.record, layer)
        row[state.POOL] = kind.pool(layer)
        words = kind.words(layer)
        row[state.WORD : state.WORD + len(words)] = words
        self._scales[-1] = kind.scale(layer)
        row[state.MEMORY_AT] = self.work.take(self._batch_size * kind.memory(layer, each.shape, each.out))
        row[state.SUMS_SIZE] = kind.sums_size(layer, each.shape)
        row[state.SUMS_AT] = self.sums.take(int(row[state.SUMS_SIZE]) * most_groups(self._batch_size))
        if kind.counter:
            self.counted.append((len(self._rows) - 1, layer, kind.counter))
        values = sum(getattr(layer, name).size for name in kind.running)
        row[state.RUNNING_AT] = place = self.statistics.take(values)
        for name in kind.running:
            begin, place = place, place + getattr(layer, name).size
            self.running.append((slice(begin, place), layer, name))

    def _place_parameters(self, row: Array, record: LayerRecord, layer: Any) -> None:
        columns = (state.W_AT, state.W_GIVEN_AT), (state.B_AT, state.B_GIVEN_AT)
        names = getattr(layer, "parameter_names", ())
        if len(names) > len(columns):
            raise ValueError(
                f"{type(layer).__name__}: expected at most {len(columns)} parameters, got {', '.join(names)}; "
                f"give fastbp.ops.state columns for more"
            )
        for name, (place, given_at) in zip(names, columns, strict=False):
            value = getattr(layer, name)
            row[place] = self.parameters.take(value.size)
            row[given_at] = 0 if name in record.decayed else COEFFICIENTS
            self.places.append(int(row[place]))
            if place == state.W_AT:
                row[[state.W_ROWS, state.W_WIDTH]] = len(value), math.prod(value.shape[1:])
            else:
                row[state.B_SIZE] = value.size

    def _pool_with_convolutions(self) -> None:
        """Let a convolution and the pooling after it be one, where the slopes read nothing that is then not kept."""
        for number, row in enumerate(self.rows):
            pool, row[state.POOL] = row[state.POOL], 0
            if not number or not pool:
                continue
            (kind, before), (_, after) = self._kinds[number - 1 : number + 1]
            if kind.pools and (before is None or not (before.reads_input or after)):
                self.rows[number - 1 : number + 1, state.POOL] = pool

    def _place_samples(self) -> None:
        """Where activations and deltas lie. Deltas before the first layer with parameters are not formed."""
        size, first = self._batch_size, self._first_with_parameters()
        # One sample has the next one behind it.
        self.rows[0, state.H_IN] = self.work.take(max(2, size) * int(self.rows[0, state.D_IN]))
        for number, row in enumerate(self.rows):
            if number:
                row[state.H_IN] = self.rows[number - 1, state.H_OUT]
                if number > first:
                    row[state.DELTA_BEFORE] = self.rows[number - 1, state.DELTA]
            is_pooled = row[state.POOL] and self._kinds[number][0].pools
            outputs = 0 if is_pooled else size * int(row[state.M_OUT])
            activation = self._kinds[number][1]
            row[state.H_OUT] = row[state.Z_OUT] = row[state.KEPT] = self.work.take(outputs)
            if activation is not None and activation.reads_input:
                row[state.Z_OUT] = row[state.KEPT] = self.work.take(outputs)
            row[state.DELTA] = self.work.take(outputs)
            row[state.SETTINGS_AT] = max(0, row[state.SETTINGS_AT])
        self.targets_at = self.work.take(size * int(self.rows[-1, state.M_OUT]))

    def _first_with_parameters(self) -> int:
        with_parameters = [kind.gradient is not None for kind, _ in self._kinds]
        return with_parameters.index(True) if any(with_parameters) else 0

    def _place_squares(self) -> None:
        """Where sums of squares of parameters begin, and how many there are."""
        grains = -(-self.rows[:, state.W_ROWS] // ROW_GRAIN)
        grains += self.rows[:, state.B_GIVEN_AT] == 0  # one for a b that decays
        self.rows[:, state.SQUARES_AT] = np.cumsum(grains) - grains
        self.squares = int(grains.sum())

    def _work(self) -> int:
        """Multiply-adds of a sample forward, about: each parameter counts for each place of the output."""
        places = self.rows[:, state.OUT_H] * self.rows[:, state.OUT_W]
        parameters = self.rows[:, state.W_ROWS] * self.rows[:, state.W_WIDTH] + self.rows[:, state.B_SIZE]
        work = places * parameters
        if self.takes_indices:  # it has no product; each step has an update
            work[0] = self.rows[0, state.M_OUT] + parameters[0] // self._batch_size
        return int(np.sum(work))

    def _regions(self) -> Array:
        """The parallel regions of the samples of a step.

        A layer with statistics ends one, forward and backward. So do the last layers where they need no slices, as
        affine ones: of more samples at once each thread reads W less often.
        """
        first, tail = self._first_with_parameters(), 0 if self._is_small else self._first_without_slices()
        last, whole = len(self.rows) - 1, [number for number, kind in enumerate(self._maps()) if kind.statistics]
        behind, begins = [number for number in reversed(whole) if number > first], [0, *whole]
        starts, sums_from, stops = [last, *behind], [last, *(number - 1 for number in behind)], [*behind, first]
        if 0 < tail <= last:
            begins.append(tail)
            if first < tail:
                starts[1:1], sums_from[1:1], stops[:0] = [tail - 1], [tail - 1], [tail]
        forward, backward = len(begins), len(starts) - 1
        regions = np.full((forward + backward, REGION), -1, np.intp)
        regions[:, FORWARD_FROM] = [*begins, *[last + 1] * backward]
        regions[:, FORWARD_TO] = [*begins[1:], *[last + 1] * (backward + 1)]
        regions[:, BACKWARD_TO] = 0
        regions[forward - 1 :, [BACKWARD_FROM, SUMS_FROM, BACKWARD_TO]] = np.transpose([starts, sums_from, stops])
        regions[:, IS_SLICED] = tail > 0
        if begins[-1] == tail:
            regions[forward - 1, IS_SLICED] = 0
        return regions

    def _first_without_slices(self) -> int:
        """The first of the last rows that take samples in rows and form no sums."""
        lanes = self.rows[:, state.LAYOUT] == LANES
        sliced = [is_lane or kind.sums is not None for is_lane, kind in zip(lanes, self._maps(), strict=True)]
        return max((number + 1 for number, is_sliced in enumerate(sliced) if is_sliced), default=0)

    def _maps(self) -> list[Map]:
        return [kind for kind, _ in self._kinds]

    def link(self, network: state.Network) -> None:
        """Complete the table: the addresses of kernels."""
        for row, (kind, activation) in zip(self.rows, self._kinds, strict=True):
            for column, function in (
                (state.FORWARD, kind.forward),
                (state.BACKWARD, kind.backward),
                (state.SUMS, kind.sums),
                (state.STATISTICS, kind.statistics),
            ):
                row[column] = state.address_of_map(function, network)
            row[state.FORWARD_IN_STAGES] = state.address_of_stage(kind.stage, network)
            row[state.GRADIENT_AND_NEXT] = state.address_of_gradient_and_next(kind.gradient_and_next, network)
            row[state.GRADIENT] = state.address_of_gradient(kind.gradient, network)
            row[[state.EPILOGUE, state.SLOPE]] = epilogue.NONE
            if activation is not None:
                row[state.EPILOGUE] = epilogue.checked(activation.epilogue(self._dtype))
                row[state.SLOPE] = epilogue.checked(activation.slope_epilogue(self._dtype))


def _image(shape: Shape) -> Shape:
    return shape if len(shape) == 3 else (math.prod(shape), 1, 1)
