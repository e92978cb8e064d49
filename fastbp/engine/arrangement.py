"""How samples come into the workspace, and from one layout to the other.

A network that begins with images takes a batch straight into lanes. Between a layer that takes lanes and one that takes
rows stands a row of the table that moves nothing but elements.
"""

from __future__ import annotations

from fastbp.ops.contract import Map
from fastbp.ops.prediction import activate_in_place, row_at
from fastbp.ops.state import (
    D_IN,
    DELTA,
    DELTA_BEFORE,
    H_IN,
    LANES,
    LAYOUT,
    Z_OUT,
    activate,
    apply_slope,
)
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import at, itemsize, load, shift, store, view
from fastbp.runtime.turning import places_like, turn, turn_rows
from fastbp.runtime.vectors import REGISTER_BYTES


@kernel
def gather_rows(x, D, samples, i0, i1, width, scale, out):
    """Rows i0:i1 of out = the first `width` of the D numbers of the rows of x that `samples` names, times `scale`."""
    for i in range(i0, i1):
        row, out_row = shift(x, load(shift(samples, i)) * D), shift(out, i * width)
        for k in range(width):
            store(shift(out_row, k), load(shift(row, k)) * scale)


@kernel
def gather_lanes(x, D, samples, i0, i1, scale, out):
    """The same for a slice i0:i1, with its samples side by side: (D, S) from element i0·D of out on."""
    S, places, registers = i1 - i0, places_like(samples), REGISTER_BYTES // itemsize(out)
    for first in range(0, S, registers):
        count = min(registers, S - first)
        for lane in range(count):
            store(shift(places, lane), load(shift(samples, i0 + first + lane)) * D)
        turn_rows(x, places, count, D, scale, shift(out, i0 * D + first), S)


@kernel
def _turn_samples(network_at, number, source, target, i0, i1, to_lanes):
    network = view(network_at)
    D, S = network.layers[number, D_IN], i1 - i0
    given, turned = at(network.workspace, source + i0 * D), at(network.workspace, target + i0 * D)
    if to_lanes:
        turn(given, S, D, turned)
    else:
        turn(given, D, S, turned)


@kernel
def _forward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    _turn_samples(network_at, number, layer[H_IN], layer[Z_OUT], i0, i1, layer[LAYOUT] != LANES)
    activate(network_at, number, i0, i1)


@kernel
def _backward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    _turn_samples(network_at, number, layer[DELTA], layer[DELTA_BEFORE], i0, i1, layer[LAYOUT] == LANES)
    apply_slope(network_at, number - 1, layer[DELTA_BEFORE], i0, i1)


@kernel
def _copy(network_at, number, source, target, i0, i1):
    network = view(network_at)
    D = network.layers[number, D_IN]
    given, copied = at(network.workspace, source), at(network.workspace, target)
    for k in range(i0 * D, i1 * D):
        store(shift(copied, k), load(shift(given, k)))


@kernel
def _copy_forward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    _copy(network_at, number, layer[H_IN], layer[Z_OUT], i0, i1)
    activate(network_at, number, i0, i1)


@kernel
def _copy_backward(network_at, number, part, i0, i1):
    layer = view(network_at).layers[number]
    _copy(network_at, number, layer[DELTA], layer[DELTA_BEFORE], i0, i1)
    apply_slope(network_at, number - 1, layer[DELTA_BEFORE], i0, i1)


@kernel
def _predict(multiply_at, layer_at, h, out, N, scratch):
    layer = row_at(layer_at)
    if layer[LAYOUT] == LANES:
        turn(h, layer[D_IN], N, out)
    else:
        turn(h, N, layer[D_IN], out)
    activate_in_place(layer, out, N)


@kernel
def _predict_copied(multiply_at, layer_at, h, out, N, scratch):
    layer = row_at(layer_at)
    for k in range(N * layer[D_IN]):
        store(shift(out, k), load(shift(h, k)))
    activate_in_place(layer, out, N)


# The map of an activation without a layer before it.
COPY = Map(_copy_forward, _copy_backward, predict=_predict_copied)

# LAYOUT of its row is that of its input; the output has the other one.
TURN = Map(_forward, _backward, predict=_predict)


@kernel
def gather(data, workspace, layout, D, samples, i0, i1, begin):
    """Samples i0:i1 of a batch, as the first row of the table takes them."""
    out = at(workspace, begin)
    if layout == LANES:
        gather_lanes(at(data.x, 0), D, samples, i0, i1, data.scale, out)
    else:
        gather_rows(at(data.x, 0), D, samples, i0, i1, D, data.scale, out)
