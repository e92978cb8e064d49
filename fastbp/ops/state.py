"""A network in training as its kernels see it: a table of layers, and the memory that they share.

Each row of the table is a map and an activation, h_out = activation(z), z = map(h_in). Its delta is the gradient of the
loss by z. What belongs to the samples of a batch lies in one flat workspace, row by row. The parameters lie in one flat
vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import carray, typeof, types

from fastbp.runtime.elementary import zero
from fastbp.runtime.gemm.epilogue import finish
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.groups import groups_of
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import address_of, aligned, at, call_at, load, located, pointer_to, shift, store, view
from fastbp.runtime.vectors import REGISTER_BYTES, sum_of_products

# Columns of the table. Addresses of kernels (0: none): of the map forward and backward, of the gradient of its
# parameters, of its sums over a slice of the batch, and of those that it needs before it can go forward. Words for
# epilogues: of the activation and its slope, and where the activation's settings begin. The sizes, D in and M out.
FORWARD, BACKWARD, GRADIENT, SUMS, STATISTICS, EPILOGUE, SLOPE, SETTINGS_AT, D_IN, M_OUT = range(10)
# Where W and b begin among the parameters. Where h_in, z, h_out, what the slope reads (z or h_out), the delta and the
# delta of the row before (-1: not formed) begin in the workspace. Where sums of squares of W begin.
W_AT, B_AT, H_IN, Z_OUT, H_OUT, KEPT, DELTA, DELTA_BEFORE, SQUARES_AT = range(10, 19)
# Where the coefficients for W and for b begin in those of a step. Rows of W, their width, and the size of b.
W_GIVEN_AT, B_GIVEN_AT, W_ROWS, W_WIDTH, B_SIZE = range(19, 24)
# What lies side by side in memory (below). Where the layer keeps numbers of each sample, in the workspace; where its
# sums begin, and how many there are for a slice; where its running statistics begin.
LAYOUT, MEMORY_AT, SUMS_AT, SUMS_SIZE, RUNNING_AT = range(24, 29)
# Channels, height and width of a sample in and out; (D, 1, 1) where it is no image.
IN_C, IN_H, IN_W, OUT_C, OUT_H, OUT_W = range(29, 35)
# Where a convolution and the pooling in the next row are one: the pixels of a side of a window; else 0. The outputs of
# the convolution are then nowhere in memory.
POOL = 35
# Addresses of the map forward for a share of the inputs of all samples, and of the gradient that also goes forward with
# the next sample; 0: none.
FORWARD_IN_STAGES, GRADIENT_AND_NEXT = 36, 37
# Words of the layer's own begin at WORD.
WORD, WORDS = 38, 5
COLUMNS = WORD + WORDS

# Layouts. ROWS: the features of a sample, (N, D). LANES: the samples of a slice of the batch, (D, S) for each slice.
# Rows or slices lie one after the other, so samples i0:i1 begin at element i0·D in either.
ROWS, LANES = range(2)

# Columns of the coefficients of a step: what the optimizer takes, of which it says how many; then what is added to the
# gradient, WEIGHT_DECAY·W, and PENALTY·W, which also adds PENALTY/2·ΣW² to the objective. There are two such rows for a
# step: the second is for parameters that do not decay.
WEIGHT_DECAY, PENALTY, COEFFICIENTS = 6, 7, 8

# Elements of a weight matrix whose gradient is formed and then used, while it is in the second-level cache. The deltas
# are copied for each chunk: with a quarter of it a step of Adam at 784-256-10 takes 1.1 times as long.
CHUNK = 200_704


# Of a batch: how many samples. Where the first row takes them from x itself, the address of x, and that of the number
# of each sample there; else 0. How many rows of the table have gone forward before the regions begin.
SAMPLES, SOURCE, CHOSEN, STAGED, BATCH = range(5)


class Network(NamedTuple):
    """What is trained, and where the work is done."""

    multiply: Any  # address of `gemm.multiply`
    loss: Any  # address of a kernel like `loss`
    update: Any  # address of a kernel like `update`
    subtracts: Any  # 1 where the update is W -= rate·dW, else 0
    layers: Any  # (layers, COLUMNS) of intp
    counters: Any  # (layers,) of intp: how many steps there have been
    scales: Any  # (layers,) of the parameters' dtype: a number of each layer's own
    settings: Any  # float64, of the activations
    params: Any  # flat
    slots: Any  # (·, params): the optimizer's state
    workspace: Any  # flat
    scratch: Any  # (parts, ·): see `gemm`
    gradients: Any  # (parts, ·): of CHUNK weights and their biases, and a rate
    labels: Any  # (N,) of intp, of a batch
    targets_at: Any  # where the targets of a batch begin in the workspace
    sample_losses: Any  # (N,) of float64
    sample_hits: Any  # (N,) of float64: whether the largest output is at the class of t
    loss_settings: Any  # float64
    loss_scratch: Any  # (3, N), of the parameters' dtype
    ends_in_lanes: Any  # 1 where the outputs of the last row lie in lanes, all in one slice, else 0
    squares: Any  # float64: the sum of squares of each ROW_GRAIN rows of every W, before the update
    batch: Any  # (BATCH,) of intp: see SAMPLES
    gathers: Any  # 1 where the first row takes its samples by `chosen_rows`, else 0
    takes_indices: Any  # 1 where the first row takes them by `indices_of`, else 0
    work: Any  # multiply-adds of a sample
    regions: Any  # (·, REGION) of intp: the parallel regions of a step, see `fastbp.engine.steps`
    sums: Any  # of each slice: sums over its samples
    running: Any  # running statistics
    counts: Any  # (parts, ·) of intp: how far each part is in a product, see `gemm.stages`


@kernel
def samples(network_at, number, part, i0, i1):
    """What each map does with samples i0:i1 of the batch, which are part number `part`.

    Forward: z and h_out. Backward: the delta of the row before. Its `statistics` are sums over the samples that it
    needs before it goes forward, its `sums` are those of its gradient, before it goes backward.
    """


@kernel
def stage(network_at, number, part, parts, N):
    """What a map does with one of `parts` shares of the inputs of all N samples, for z and h_out.

    Shares are those of `gradient`.
    """


@kernel
def gradient(network_at, number, part, parts, N, coefficients):
    """What each map with parameters does for one of `parts` shares of them: form their gradient and update them."""


@kernel
def gradient_and_next(network_at, number, coefficients):
    """What a map does between two steps of one sample each: `gradient`, then z and h_out of the next sample.

    The inputs of the next sample lie behind those of this one, and then take their place.
    """


@kernel
def loss(network_at, count, i0, i1):
    """What each loss does: the losses of rows i0:i1 and the gradient by the outputs, of the mean over `count` samples.

    A loss of classes sets the hits, too.
    """


@kernel
def update(network_at, begin, grad, count, coefficients):
    """What each update does: change `count` parameters from `begin` on by their gradients."""


@kernel
def predict(out, N, C, scratch):
    """What a loss makes of outputs (N, C), in place, for a prediction; `scratch` is 2·N numbers."""


def address_of_map(function: Any, network: Network) -> int:
    """The address of a kernel like `samples`; 0 for None."""
    return 0 if function is None else _address_of(function, network, lambda _: (types.intp,) * 4)


def address_of_stage(function: Any, network: Network) -> int:
    """The address of a kernel like `stage`; 0 for None."""
    return 0 if function is None else _address_of(function, network, lambda _: (types.intp,) * 4)


def address_of_gradient(function: Any, network: Network) -> int:
    """The address of a kernel like `gradient`; 0 for None."""
    numbers = types.CPointer(types.float64)
    return 0 if function is None else _address_of(function, network, lambda _: (*(types.intp,) * 4, numbers))


def address_of_gradient_and_next(function: Any, network: Network) -> int:
    """The address of a kernel like `gradient_and_next`; 0 for None."""
    numbers = types.CPointer(types.float64)
    return 0 if function is None else _address_of(function, network, lambda _: (types.intp, numbers))


def address_of_loss(function: Any, network: Network) -> int:
    """The address of a kernel like `loss`."""
    return _address_of(function, network, lambda _: (types.intp, types.intp, types.intp))


def address_of_update(function: Any, network: Network) -> int:
    """The address of a kernel like `update`."""
    return _address_of(
        function, network, lambda element: (types.intp, element, types.intp, types.CPointer(types.float64))
    )


def _address_of(function: Any, network: Network, arguments: Callable[[Any], tuple[Any, ...]]) -> int:
    """The address of a kernel whose first argument is a network, and whose others may be pointers to parameters.

    It is kept: looking a compiled kernel up takes 0.3 ms. Networks of one dtype have one type.
    """
    key = function, network.params.dtype
    if key not in _addresses:
        element = types.CPointer(typeof(network.params.dtype.type(0)))
        _addresses[key] = address_of(function, (types.CPointer(typeof(network)), *arguments(element)))
    return _addresses[key]


_addresses: dict[tuple[Any, Any], int] = {}


@kernel
def rows_of(workspace, begin, width, i0, i1):
    """Rows i0:i1 of what lies in the workspace from `begin` on, `width` wide."""
    return carray(at(workspace, begin + i0 * width), (i1 - i0, width))


@kernel
def slice_at(network_at, begin, C, H, W, i0, i1):
    """Samples i0:i1 of what lies in lanes in the workspace from `begin` on, as (C, H, W, S)."""
    return carray(at(view(network_at).workspace, begin + i0 * C * H * W), (C, H, W, i1 - i0))


@kernel
def chosen_rows(network_at, number):
    """The rows of x and the address of their numbers, 0 where they are in the workspace, for a row of the table.

    Who takes them from there also copies them to where h_in lies.
    """
    network = view(network_at)
    chosen = network.batch[CHOSEN] if number == 0 else 0
    return located(at(network.workspace, 0), network.batch[SOURCE]), chosen


@kernel
def indices_of(network_at, i):
    """The indices of sample i of the batch, which the first row of the table takes, in x."""
    network = view(network_at)
    x, chosen = pointer_to(np.intp, network.batch[SOURCE]), pointer_to(np.intp, network.batch[CHOSEN])
    return shift(x, load(shift(chosen, i)) * network.layers[0, D_IN])


@kernel
def activate(network_at, number, i0, i1):
    """h_out from z, for rows i0:i1 of a layer."""
    network = view(network_at)
    layer, M = network.layers[number], network.layers[number, M_OUT]
    z, h = at(network.workspace, layer[Z_OUT] + i0 * M), at(network.workspace, layer[H_OUT] + i0 * M)
    finish(layer[EPILOGUE], z, M, i1 - i0, M, h, M, at(network.settings, layer[SETTINGS_AT]))


@kernel
def apply_slope(network_at, number, delta, i0, i1):
    """Multiply rows i0:i1 of a layer's delta, which begins at `delta`, by the slope of its activation."""
    network = view(network_at)
    layer, M = network.layers[number], network.layers[number, M_OUT]
    d, kept = at(network.workspace, delta + i0 * M), at(network.workspace, layer[KEPT] + i0 * M)
    finish(layer[SLOPE], d, M, i1 - i0, M, kept, M, at(network.settings, layer[SETTINGS_AT]))


@kernel
def scratch_of(network_at, part):
    """Scratch of one part for a product."""
    scratch = view(network_at).scratch
    return aligned(at(scratch[part % len(scratch)], 0), REGISTER_BYTES)


@kernel
def gradients_of(network_at, part):
    """Memory of one part for gradients. Where parts are those of several ranks, their numbers go on, but not memory."""
    gradients = view(network_at).gradients
    return gradients[part % len(gradients)]


@kernel
def update_parameters(network_at, begin, grad, size, width, squares_at, coefficients):
    """Update parameters from `begin` on, rows of `width`, by their gradients; note the squares of what is penalized."""
    network, given = view(network_at), carray(coefficients, COEFFICIENTS)
    if given[WEIGHT_DECAY] + given[PENALTY] != 0:
        W = network.params[begin : begin + size]
        decay, dW = W.dtype.type(given[WEIGHT_DECAY] + given[PENALTY]), carray(grad, size)
        for k in range(size):
            dW[k] += decay * W[k]
        if given[PENALTY] != 0:
            for row in range(0, size, ROW_GRAIN * width):
                rows, count = at(W, row), min(ROW_GRAIN * width, size - row)
                network.squares[squares_at + row // (ROW_GRAIN * width)] = sum_of_products((rows, rows), (), count)
    call_at(network.update, update, (network_at, begin, grad, size, coefficients))


@kernel
def sums_of(network_at, number, part):
    """Pointer to the sums of a slice."""
    network = view(network_at)
    return at(network.sums, network.layers[number, SUMS_AT] + part * network.layers[number, SUMS_SIZE])


@kernel
def update_by_sums(network_at, number, part, parts, N, coefficients):
    """`gradient` where each slice has left its share of dW, and of db after it, at the beginning of its sums.

    The shares are added in the order of the slices.
    """
    network = view(network_at)
    layer, dW = network.layers[number], at(gradients_of(network_at, part), 0)
    rows, width, size, slices = layer[W_ROWS], layer[W_WIDTH], layer[W_ROWS] * layer[W_WIDTH], groups_of(N)
    i0, i1 = boundary(rows, ROW_GRAIN, part, parts), boundary(rows, ROW_GRAIN, part + 1, parts)
    W_given, b_given = shift(coefficients, layer[W_GIVEN_AT]), shift(coefficients, layer[B_GIVEN_AT])
    count = max(ROW_GRAIN, CHUNK // width // ROW_GRAIN * ROW_GRAIN)
    for start in range(i0, i1, count):
        begin, end = start * width, min(start + count, i1) * width
        add_slices(network_at, number, slices, begin, end - begin, dW)
        squares_at = layer[SQUARES_AT] + start // ROW_GRAIN
        update_parameters(network_at, layer[W_AT] + begin, dW, end - begin, width, squares_at, W_given)
    if i0 == 0 and i1 > 0:
        count, squares_at = layer[B_SIZE], layer[SQUARES_AT] + (rows + ROW_GRAIN - 1) // ROW_GRAIN
        add_slices(network_at, number, slices, size, count, dW)
        update_parameters(network_at, layer[B_AT], dW, count, count, squares_at, b_given)


@kernel
def add_slices(network_at, number, slices, begin, count, out):
    """out = the sum over slices of `count` of their sums, from number `begin` on."""
    for part in range(slices):
        given = shift(sums_of(network_at, number, part), begin)
        for i in range(count):
            store(shift(out, i), load(shift(given, i)) + (load(shift(out, i)) if part else zero(load(out))))


@kernel
def end_of(network_at, i0, i1):
    """Rows i0:i1 of the last layer's output and delta, and their losses."""
    network = view(network_at)
    layer = network.layers[len(network.layers) - 1]
    h = rows_of(network.workspace, layer[H_OUT], layer[M_OUT], i0, i1)
    return h, rows_of(network.workspace, layer[DELTA], layer[M_OUT], i0, i1), network.sample_losses[i0:i1]


@kernel
def targets_of(network_at, i0, i1):
    """Rows i0:i1 of the targets of a batch."""
    network = view(network_at)
    C = network.layers[len(network.layers) - 1, M_OUT]
    return rows_of(network.workspace, network.targets_at, C, i0, i1)


@kernel
def parameters_of(network_at, begin, count):
    """`count` parameters from `begin` on."""
    return view(network_at).params[begin : begin + count]


@kernel
def slot_of(network_at, number, begin, count):
    """What one slot of the optimizer's state has for them."""
    return view(network_at).slots[number, begin : begin + count]


@kernel
def coefficient(coefficients, number):
    """A coefficient of a step."""
    return load(shift(coefficients, number))
