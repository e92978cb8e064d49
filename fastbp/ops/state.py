"""A network in training as its kernels see it: a table of layers, and the memory that they share.

Each row of the table is a map and an activation, h_out = activation(z), z = map(h_in). Its delta is the gradient of the
loss by z. What belongs to the samples of a batch lies in one flat workspace, row by row. The parameters lie in one flat
vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import carray, typeof, types

from fastbp.runtime.gemm.epilogue import finish
from fastbp.runtime.gemm.multiply import ROW_GRAIN
from fastbp.runtime.jit import kernel
from fastbp.runtime.pointers import address_of, aligned, at, call_at, load, shift, view
from fastbp.runtime.vectors import REGISTER_BYTES, sum_of_products

# Columns of the table. Addresses of kernels: of the map forward, backward and of its gradient (0: none); words for
# epilogues: of the activation and its slope, and where the activation's settings begin. The sizes, D in and M out.
FORWARD, BACKWARD, GRADIENT, EPILOGUE, SLOPE, SETTINGS_AT, D_IN, M_OUT = range(8)
# Where W and b begin among the parameters. Where h_in, z, h_out, what the slope reads (z or h_out), the delta and the
# delta of the row before (-1: not formed) begin in the workspace. Where sums of squares of W begin.
W_AT, B_AT, H_IN, Z_OUT, H_OUT, KEPT, DELTA, DELTA_BEFORE, SQUARES_AT = range(8, 17)
# Two words of the layer's own. Where the coefficients for W and for b begin in those of a step.
WORD, SECOND_WORD, W_GIVEN_AT, B_GIVEN_AT, COLUMNS = range(17, 22)

# Columns of the coefficients of a step: what the optimizer takes, of which it says how many; then what is added to the
# gradient, WEIGHT_DECAY·W, and PENALTY·W, which also adds PENALTY/2·ΣW² to the objective. There are two such rows for a
# step: the second is for parameters that do not decay.
WEIGHT_DECAY, PENALTY, COEFFICIENTS = 6, 7, 8

# Elements of a weight matrix whose gradient is formed and then used, while it is in the second-level cache. The deltas
# are copied for each chunk: with a quarter of it a step of Adam at 784-256-10 takes 1.1 times as long.
CHUNK = 200_704


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
    loss_scratch: Any  # (2, N), of the parameters' dtype
    squares: Any  # float64: the sum of squares of each ROW_GRAIN rows of every W, before the update


@kernel
def forward(network_at, number, i0, i1, scratch):
    """What each map does forward: z and h_out of rows i0:i1 of a layer. `scratch` is for a product."""


@kernel
def backward(network_at, number, i0, i1, scratch):
    """What each map does backward: the delta of the row before, for rows i0:i1 of the batch."""


@kernel
def gradient(network_at, number, part, parts, N, coefficients):
    """What each map with parameters does for one of `parts` shares of them: form their gradient and update them."""


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
    """The address of a kernel like `forward` or `backward`."""
    element = types.CPointer(typeof(network.params.dtype.type(0)))
    return _address_of(function, network, (types.intp, types.intp, types.intp, element))


def address_of_gradient(function: Any, network: Network) -> int:
    """The address of a kernel like `gradient`."""
    return _address_of(function, network, (*(types.intp,) * 4, types.CPointer(types.float64)))


def address_of_loss(function: Any, network: Network) -> int:
    """The address of a kernel like `loss`."""
    return _address_of(function, network, (types.intp, types.intp, types.intp))


def address_of_update(function: Any, network: Network) -> int:
    """The address of a kernel like `update`."""
    element = types.CPointer(typeof(network.params.dtype.type(0)))
    return _address_of(function, network, (types.intp, element, types.intp, types.CPointer(types.float64)))


def _address_of(function: Any, network: Network, arguments: tuple[Any, ...]) -> int:
    """The address of a kernel whose first argument is a network.

    It is kept: looking a compiled kernel up takes 0.3 ms. Networks of one dtype have one type.
    """
    key = function, network.params.dtype
    if key not in _addresses:
        _addresses[key] = address_of(function, (types.CPointer(typeof(network)), *arguments))
    return _addresses[key]


_addresses: dict[tuple[Any, Any], int] = {}


@kernel
def rows_of(workspace, begin, width, i0, i1):
    """Rows i0:i1 of what lies in the workspace from `begin` on, `width` wide."""
    return carray(at(workspace, begin + i0 * width), (i1 - i0, width))


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
    return aligned(at(view(network_at).scratch[part], 0), REGISTER_BYTES)


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
