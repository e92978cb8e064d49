"""Whole training steps in compiled code, for any stack of layers: a network is a table that these kernels walk along.

A step is two parallel regions, however deep the network. *Rows*: each thread takes a slice of the batch through every
layer, the loss, and back to the first delta. *Weights*: each thread takes a slice of every weight matrix through
its gradient and its update, some rows at a time, while they are in the cache. Nothing is summed across threads and
nothing is allocated, and the gradient by the network's input is not formed.

Every layer of the table is a linear map and an activation, h out = activation(map(h in)); its delta is the gradient of
the loss by what goes into the activation. What belongs to the samples of a batch lies in one flat workspace, row
by row; the parameters lie in one flat vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, typeof, types

from fastbp.kernels import updates
from fastbp.kernels._jit import kernel, unlocked_kernel
from fastbp.kernels._threads import WORTH_A_REGION, in_parallel, parts_of
from fastbp.kernels.activations import DERIVATIVE, IDENTITY, SUBTRACT, finish
from fastbp.kernels.dropout import is_kept
from fastbp.kernels.gemm import ROW_GRAIN, boundary, multiply, ones, zeros
from fastbp.kernels.losses import (
    clipped_sigmoid_cross_entropy_of_rows,
    difference_of_rows,
    poisson_deviance_of_rows,
    sigmoid_cross_entropy_of_rows,
    softmax_cross_entropy_of_rows,
    squared_error_of_rows,
)
from fastbp.kernels.pointers import address_of, aligned, at, call_at, load, place, seen, shift, store
from fastbp.kernels.vectors import REGISTER_BYTES, sum_in_double, sum_of_products

# Columns of the table of layers: the map and the activation, the sizes (D in, M out), where W and b begin among the
# parameters, where h in, h out, the delta and the delta before (-1: not formed) begin in the workspace, and where sums
# of squares of W do.
MAP, ACTIVATION, D_IN, M_OUT, W_AT, B_AT, H_IN, H_OUT, DELTA, DELTA_BEFORE, SQUARES_AT, FIELDS = range(12)

# Maps: x·W + b, x itself, or dropout of x, which has its seed and its threshold in place of W_AT and B_AT.
AFFINE, NOTHING, DROPOUT = 0, 1, 2

# Columns of the rates of a step, of which an optimizer takes the first ones that it needs.
# WEIGHT_DECAY·W is added to the gradient; PENALTY·W, too, and its PENALTY/2·ΣW² to the objective.
RATE, SECOND, THIRD, FOURTH, WEIGHT_DECAY, PENALTY, RATES = range(7)

_SGD, _MOMENTUM, _NESTEROV = updates.sgd_update.kernel, updates.momentum_update.kernel, updates.nesterov_update.kernel
_ADAGRAD, _RMSPROP, _ADAM = updates.adagrad_update.kernel, updates.rmsprop_update.kernel, updates.adam_update.kernel

# Elements of a weight matrix whose gradient is formed and then used, while it is in the second-level cache. The deltas
# are copied for each chunk: with a quarter of it a step of Adam at 784-256-10 takes 1.1 times as long.
CHUNK = 200_704


class Network(NamedTuple):
    """What `run_steps` trains, and where it works."""

    multiply: Any  # the address of `gemm.multiply`
    loss: Any  # the address of one of the losses below
    clip: Any  # probabilities count in it as at least this and at most 1 - this; 0: the loss is that of the logits
    largest: Any  # -log(clip)
    update: Any  # the address of one of the updates below
    subtracts: Any  # 1 where that is `sgd`, else 0
    layers: Any  # (layers, FIELDS) of intp
    dropout_steps: Any  # (layers,) intp: how often a mask was drawn before
    dropout_scales: Any  # (layers,) of the parameters' dtype: what a kept value is multiplied by
    params: Any  # flat
    slots: Any  # (2, params) or fewer: the optimizer's state
    workspace: Any  # flat
    room: Any  # (parts, ·): see `gemm`
    gradients: Any  # (parts, ·): of CHUNK weights and their biases, and a rate
    sample_losses: Any  # (N,) float64
    sample_hits: Any  # (N,) float64: whether the largest output is at the class of t
    softmax: Any  # (2, N): the largest of each row of logits, and the sum of exponentials
    squares: Any  # float64: the sum of squares of each ROW_GRAIN rows of every W, before the update


class Data(NamedTuple):
    """What it learns from."""

    x: Any  # (samples, D), of the parameters' dtype or uint8
    labels: Any  # (samples,) intp, or (0,)
    targets: Any  # (samples, C) of the parameters' dtype, or (0, C)
    shares: Any  # in the order of the epoch, float64: what a sample counts for in the mean of its batch; or (0,): 1/N
    scale: Any  # what x is multiplied by, of the parameters' dtype
    batch_labels: Any  # (N,) intp
    targets_at: Any  # where the targets of a batch begin in the workspace


@unlocked_kernel
def run_steps(
    team, network, data, order, batch_size, first, last, rates,
    step_losses, step_hits, step_penalties, keeps_bad,
):  # fmt: skip
    """Do steps `first` to `last` of an epoch; returns how many are done.

    Step s takes the samples order[s·batch_size:(s + 1)·batch_size]. It puts its loss, its share of hits and its
    penalty, all before the update, at place s of the arrays for them. Unless `keeps_bad` it stops before the update
    where the loss is not finite.
    """
    network_at, data_at = place(network), place(data)
    for step in range(first, last):
        samples = order[step * batch_size : (step + 1) * batch_size]
        shares = data.shares[step * batch_size : (step + 1) * batch_size]
        N = len(samples)
        count = 1 if len(shares) else N
        for number in range(len(network.layers)):
            network.dropout_steps[number] += 1
        # The threads may have been set to more since the room for them was made.
        is_shared = 1 < parts_of(team) <= len(network.room) and N * len(network.params) >= WORTH_A_REGION
        if not is_shared:
            rows_part(np.intp(0), np.intp(1), network_at, data_at, samples, shares, count)
        else:
            in_parallel(team, parts_of(team), rows_part, (network_at, data_at, samples, shares, count))
        step_losses[step] = sum_in_double((at(network.sample_losses, 0),), (), N) / count
        step_hits[step] = sum_in_double((at(network.sample_hits, 0),), (), N) / count
        if not keeps_bad and not np.isfinite(step_losses[step]):
            for number in range(len(network.layers)):
                network.dropout_steps[number] -= 1
            return step - first
        if not is_shared:
            weights_part(np.intp(0), np.intp(1), network_at, N, rates[step])
        else:
            in_parallel(team, parts_of(team), weights_part, (network_at, N, rates[step]))
        if rates[step, PENALTY] != 0:
            squares = sum_in_double((at(network.squares, 0),), (), len(network.squares))
            step_penalties[step] = rates[step, PENALTY] / 2 * squares
    return last - first


@kernel
def rows_part(part, parts, network_at, data_at, samples, shares, count):
    """A slice of the batch: forward, loss, deltas."""
    network, data = seen(network_at), seen(data_at)
    N = len(samples)
    i0, i1 = boundary(N, ROW_GRAIN, part, parts), boundary(N, ROW_GRAIN, part + 1, parts)
    if i0 == i1:
        return
    layers, workspace = network.layers, network.workspace
    D, chosen = layers[0, D_IN], at(samples, 0)
    _gather_rows(at(data.x, 0), D, chosen, i0, i1, data.scale, at(workspace, layers[0, H_IN]))
    room = aligned(at(network.room[part], 0), REGISTER_BYTES)
    for number in range(len(layers)):
        _forward(number, network_at, i0, i1, room)
    given = at(data.labels, 0), at(data.targets, 0), at(data.batch_labels, 0), data.targets_at
    call_at(network.loss, loss_of_rows, (network_at, chosen, *given, np.intp(count), i0, i1))
    end = layers[len(layers) - 1]
    if len(shares):
        _weigh(end, network_at, shares, i0, i1)
    M = end[M_OUT]
    d, y = at(workspace, end[DELTA]), at(workspace, end[H_OUT])
    finish(DERIVATIVE + end[ACTIVATION], shift(d, i0 * M), M, i1 - i0, M, shift(y, i0 * M), M)
    for number in range(len(layers) - 1, 0, -1):
        if layers[number, DELTA_BEFORE] < 0:
            return
        _backward(number, network_at, i0, i1, room)


@kernel
def _rows(workspace, begin, width, i0, i1):
    """Rows i0:i1 of what lies in the workspace from `begin` on, `width` wide."""
    return carray(at(workspace, begin + i0 * width), (i1 - i0, width))


@kernel
def _map_rows(number, network_at, source, target, i0, i1):
    """A layer without weights, forward or backward: rows i0:i1 from `source` to `target`, or dropped on the way."""
    network = seen(network_at)
    layer, workspace = network.layers[number], network.workspace
    width = layer[D_IN]
    if layer[MAP] == NOTHING:
        for k in range(i0 * width, i1 * width):
            workspace[target + k] = workspace[source + k]
        return
    scale = network.dropout_scales[number]
    for k in range(i0 * width, i1 * width):
        kept = is_kept(layer[W_AT], network.dropout_steps[number] - 1, k, layer[B_AT])
        workspace[target + k] = workspace[source + k] * scale if kept else workspace.dtype.type(0)


@kernel
def _gather_rows(x, D, samples, i0, i1, scale, out):
    """Rows i0:i1 of out = the rows of x, D wide, that `samples` names there, times `scale`."""
    for i in range(i0, i1):
        row, out_row = shift(x, load(shift(samples, i)) * D), shift(out, i * D)
        for j in range(D):
            store(shift(out_row, j), load(shift(row, j)) * scale)


@kernel
def _forward(number, network_at, i0, i1, room):
    """h out = activation(map(h in)) for rows i0:i1."""
    network = seen(network_at)
    layer = network.layers[number]
    D, M = layer[D_IN], layer[M_OUT]
    zero, one = np.intp(0), np.intp(1)  # as constants they would compile `multiply` once more
    h, out = at(network.workspace, layer[H_IN]), at(network.workspace, layer[H_OUT])
    if layer[MAP] == AFFINE:
        W, b = at(network.params, layer[W_AT]), at(network.params, layer[B_AT])
        product = (
            h, D, one, W, M, one, b, one, b, zero,
            out, M, i0, i1, zero, M, D, layer[ACTIVATION], out, M, room,
        )  # fmt: skip
        call_at(network.multiply, multiply, product)
        return
    _map_rows(number, network_at, layer[H_IN], layer[H_OUT], i0, i1)
    finish(layer[ACTIVATION], shift(out, i0 * M), M, i1 - i0, M, shift(out, i0 * M), M)


@kernel
def _backward(number, network_at, i0, i1, room):
    """The delta of the layer before, from this layer's, for rows i0:i1."""
    network = seen(network_at)
    layer = network.layers[number]
    D, M = layer[D_IN], layer[M_OUT]
    zero, one = np.intp(0), np.intp(1)
    action = DERIVATIVE + network.layers[number - 1, ACTIVATION]
    h, d = at(network.workspace, layer[H_IN]), at(network.workspace, layer[DELTA])
    before = at(network.workspace, layer[DELTA_BEFORE])
    if layer[MAP] == AFFINE:
        W = at(network.params, layer[W_AT])
        product = (
            d, M, one, W, one, M, zeros(d), zero, d, zero,
            before, D, i0, i1, zero, D, M, action, h, D, room,
        )  # fmt: skip
        call_at(network.multiply, multiply, product)
        return
    _map_rows(number, network_at, layer[DELTA], layer[DELTA_BEFORE], i0, i1)
    finish(action, shift(before, i0 * D), D, i1 - i0, D, shift(h, i0 * D), D)


@kernel
def loss_of_rows(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """What each loss does: the losses of rows i0:i1 and the delta of the last layer, (y - t)/count.

    Where there are labels it sets the hits, too. It is called by its address, so that a run compiles the one that it
    needs: all of them would take 3 s more.
    """


@kernel
def cross_entropy_of_labels(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """Softmax cross-entropy for labels."""
    network = seen(network_at)
    h, d, losses = _at_the_end(network_at, i0, i1)
    tops, totals, chosen = network.softmax[0, i0:i1], network.softmax[1, i0:i1], carray(batch_labels, i1)[i0:i1]
    for i in range(i1 - i0):
        chosen[i] = load(shift(labels, load(shift(samples, i0 + i))))
    softmax_cross_entropy_of_rows(h, chosen, d, losses, tops, totals)
    clip, largest = network.clip, network.largest
    for i in range(i1 - i0):
        network.sample_hits[i0 + i] = _is_first_largest(h, i, chosen[i], tops[i])
        if clip != 0:  # the loss of a probability of 1 - clip is clip; NaN stays
            loss = losses[i]
            losses[i] = clip if loss < clip else largest if loss > largest else loss
    difference_of_rows(d, chosen, 1.0 / count, d)


@kernel
def _is_first_largest(h, i, label, top):
    """Whether np.argmax(h[i]) is `label`: the first of those that equal `top`, the largest, or the first NaN."""
    for j in range(label):
        if h[i, j] == top or np.isnan(h[i, j]):
            return False
    return h[i, label] == top or np.isnan(h[i, label])


@kernel
def cross_entropy_of_distributions(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """Softmax cross-entropy for distributions."""
    network = seen(network_at)
    h, d, losses = _at_the_end(network_at, i0, i1)
    t = _gather_targets(network_at, samples, targets, targets_at, i0, i1)
    tops, totals = network.softmax[0, i0:i1], network.softmax[1, i0:i1]
    softmax_cross_entropy_of_rows(h, t, d, losses, tops, totals)
    for i in range(i1 - i0):
        network.sample_hits[i0 + i] = _is_first_largest(h, i, np.argmax(t[i]), tops[i])
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def sigmoid_cross_entropy(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """Binary cross-entropy of sigmoids."""
    h, d, losses = _at_the_end(network_at, i0, i1)
    t = _gather_targets(network_at, samples, targets, targets_at, i0, i1)
    sigmoid_cross_entropy_of_rows(h, t, d, losses)
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def clipped_sigmoid_cross_entropy(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """The same for clipped probabilities."""
    h, d, losses = _at_the_end(network_at, i0, i1)
    t = _gather_targets(network_at, samples, targets, targets_at, i0, i1)
    clipped_sigmoid_cross_entropy_of_rows(h, t, d, losses, seen(network_at).clip)
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def poisson_deviance(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """Half the Poisson deviance of exponentials."""
    h, d, losses = _at_the_end(network_at, i0, i1)
    t = _gather_targets(network_at, samples, targets, targets_at, i0, i1)
    poisson_deviance_of_rows(h, t, d, losses)
    difference_of_rows(d, t, 1.0 / count, d)


@kernel
def squared_error(network_at, samples, labels, targets, batch_labels, targets_at, count, i0, i1):
    """Half the squared error."""
    h, d, losses = _at_the_end(network_at, i0, i1)
    t = _gather_targets(network_at, samples, targets, targets_at, i0, i1)
    squared_error_of_rows(h, t, losses)
    difference_of_rows(h, t, 1.0 / count, d)


def address_of_loss(loss: Any, network: Network) -> int:
    """The address of one of the losses for what `run_steps` calls it with."""
    element, index = types.CPointer(typeof(network.params).dtype), types.CPointer(types.intp)
    given = index, index, element, index, types.intp
    return address_of(loss, (types.CPointer(typeof(network)), *given, types.intp, types.intp, types.intp))


@kernel
def _at_the_end(network_at, i0, i1):
    """Rows i0:i1 of the last layer's output and delta, and their losses."""
    network = seen(network_at)
    layer = network.layers[len(network.layers) - 1]
    h = _rows(network.workspace, layer[H_OUT], layer[M_OUT], i0, i1)
    return h, _rows(network.workspace, layer[DELTA], layer[M_OUT], i0, i1), network.sample_losses[i0:i1]


@kernel
def _gather_targets(network_at, samples, targets, targets_at, i0, i1):
    """Rows i0:i1 of the targets of a batch, in the workspace."""
    network = seen(network_at)
    C = network.layers[len(network.layers) - 1, M_OUT]
    _gather_rows(targets, C, samples, i0, i1, load(ones(targets)), at(network.workspace, targets_at))
    return _rows(network.workspace, targets_at, C, i0, i1)


@kernel
def _weigh(layer, network_at, shares, i0, i1):
    """Losses, hits and deltas of rows i0:i1 of the last layer, times the shares of their samples."""
    network = seen(network_at)
    d = _rows(network.workspace, layer[DELTA], layer[M_OUT], i0, i1)
    for i in range(i1 - i0):
        share = shares[i0 + i]
        network.sample_losses[i0 + i] *= share
        network.sample_hits[i0 + i] *= share
        for j in range(layer[M_OUT]):
            d[i, j] *= d.dtype.type(share)


@kernel
def weights_part(part, parts, network_at, N, rates):
    """A slice of every weight matrix: its gradient and its update, some rows at a time; and the bias."""
    network = seen(network_at)
    for number in range(len(network.layers)):
        layer = network.layers[number]
        if layer[MAP] != AFFINE:
            continue
        D, M = layer[D_IN], layer[M_OUT]
        i0, i1 = boundary(D, ROW_GRAIN, part, parts), boundary(D, ROW_GRAIN, part + 1, parts)
        is_subtracted = network.subtracts == 1 and rates[WEIGHT_DECAY] + rates[PENALTY] == 0 and D > 1
        rows = D if is_subtracted else max(ROW_GRAIN, CHUNK // M // ROW_GRAIN * ROW_GRAIN)
        for start in range(i0, i1, rows):
            stop = min(start + rows, i1)
            _weights_chunk(layer, part, network_at, N, D, M, start, stop, rates, is_subtracted)


@kernel
def _weights_chunk(layer, part, network_at, N, D, M, start, stop, rates, is_subtracted):
    """Rows start:stop of a layer's W, from which their gradient may be subtracted before it reaches memory."""
    network = seen(network_at)
    gradients = network.gradients[part]
    zero, one = np.intp(0), np.intp(1)
    size = 0 if is_subtracted else (stop - start) * M
    dW, db = gradients[:size], gradients[size : size + M]
    h, d = at(network.workspace, layer[H_IN]), at(network.workspace, layer[DELTA])
    room = aligned(at(network.room[part], 0), REGISTER_BYTES)
    begin = layer[W_AT] + start * M
    out, action, beside = shift(at(dW, 0), -start * M), np.intp(IDENTITY), d
    if is_subtracted:
        out, action, beside = at(network.params, layer[W_AT]), np.intp(SUBTRACT), at(gradients, M)
        gradients[M] = rates[RATE]
    product = (
        h, one, D, d, M, one, zeros(d), zero, at(db, 0), np.intp(start == 0), out, M,
        start, stop, zero, M, N, action, beside, zero, room,
    )  # fmt: skip
    call_at(network.multiply, multiply, product)
    if not is_subtracted:
        W = network.params[begin : begin + size]
        if rates[WEIGHT_DECAY] + rates[PENALTY] != 0:
            decay = W.dtype.type(rates[WEIGHT_DECAY] + rates[PENALTY])
            for k in range(size):
                dW[k] += decay * W[k]
        if rates[PENALTY] != 0:
            for row in range(start, stop, ROW_GRAIN):
                rows, count = at(W, (row - start) * M), (min(row + ROW_GRAIN, stop) - row) * M
                network.squares[layer[SQUARES_AT] + row // ROW_GRAIN] = sum_of_products((rows, rows), (), count)
        call_at(network.update, update, (network_at, begin, at(dW, 0), size, at(rates, 0)))
    if start == 0:
        call_at(network.update, update, (network_at, layer[B_AT], at(db, 0), M, at(rates, 0)))


@kernel
def update(network_at, begin, grad, count, rates):
    """What each update does: it changes `count` parameters from `begin` on by their gradients.

    It is called by its address, so that a run compiles the one that it needs.
    """


@kernel
def sgd(network_at, begin, grad, count, rates):
    _SGD(_params(network_at, begin, count), carray(grad, count), carray(rates, RATES)[RATE])


@kernel
def momentum(network_at, begin, grad, count, rates):
    param, slot, given = _params(network_at, begin, count), _slot(network_at, 0, begin, count), carray(rates, RATES)
    _MOMENTUM(param, carray(grad, count), slot, given[RATE], given[SECOND])


@kernel
def nesterov(network_at, begin, grad, count, rates):
    param, slot, given = _params(network_at, begin, count), _slot(network_at, 0, begin, count), carray(rates, RATES)
    _NESTEROV(param, carray(grad, count), slot, given[RATE], given[SECOND])


@kernel
def adagrad(network_at, begin, grad, count, rates):
    param, slot, given = _params(network_at, begin, count), _slot(network_at, 0, begin, count), carray(rates, RATES)
    _ADAGRAD(param, carray(grad, count), slot, given[RATE], given[SECOND])


@kernel
def rmsprop(network_at, begin, grad, count, rates):
    param, slot, given = _params(network_at, begin, count), _slot(network_at, 0, begin, count), carray(rates, RATES)
    _RMSPROP(param, carray(grad, count), slot, given[RATE], given[SECOND], given[THIRD])


@kernel
def adam(network_at, begin, grad, count, rates):
    param, given = _params(network_at, begin, count), carray(rates, RATES)
    m, v = _slot(network_at, 0, begin, count), _slot(network_at, 1, begin, count)
    _ADAM(param, carray(grad, count), m, v, given[RATE], given[SECOND], given[THIRD], given[FOURTH])


@kernel
def keep_gradient(network_at, begin, grad, count, rates):
    """Change no parameter: the gradient is the state."""
    slot = _slot(network_at, 0, begin, count)
    for k in range(count):
        slot[k] = load(shift(grad, k))


def address_of_update(one: Any, network: Network) -> int:
    """The address of one of the updates for what `weights_part` calls it with."""
    element = types.CPointer(typeof(network.params).dtype)
    return address_of(
        one, (types.CPointer(typeof(network)), types.intp, element, types.intp, types.CPointer(types.float64))
    )


@kernel
def _params(network_at, begin, count):
    return seen(network_at).params[begin : begin + count]


@kernel
def _slot(network_at, number, begin, count):
    return seen(network_at).slots[number, begin : begin + count]
