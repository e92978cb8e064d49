"""Training steps in compiled code, for any stack of layers: the kernels walk along the table of a network.

A step is two parallel regions, however deep the network. *Rows*: each thread takes a slice of the batch through every
layer, the loss, and back to the first delta. *Weights*: each thread takes a slice of every weight matrix through
its gradient and its update. Nothing is summed across threads and nothing is allocated, and the gradient by the
network's input is not formed. What a layer, a loss and an optimizer do is called by the addresses in the table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.ops.state import (
    BACKWARD,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    FORWARD,
    GRADIENT,
    H_IN,
    M_OUT,
    PENALTY,
    Z_OUT,
    activate,
    apply_slope,
    backward,
    forward,
    gradient,
    loss,
    rows_of,
    scratch_of,
)
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.gemm.tile import ones
from fastbp.runtime.jit import kernel, unlocked_kernel
from fastbp.runtime.pointers import at, call_at, load, record_pointer, shift, store, view
from fastbp.runtime.threads import WORTH_A_REGION, in_parallel, parts_of
from fastbp.runtime.vectors import sum_in_double


class Data(NamedTuple):
    """What a network learns from."""

    x: Any  # (samples, D), of the parameters' dtype or uint8
    labels: Any  # (samples,) intp, or (0,)
    targets: Any  # (samples, C) of the parameters' dtype, or (0, C)
    sample_shares: Any  # in the order of the epoch, float64: what a sample counts for in its batch; or (0,): 1/N
    scale: Any  # what x is multiplied by, of the parameters' dtype


@unlocked_kernel
def run_steps(
    team, network, data, order, batch_size, first, last, coefficients,
    step_losses, step_hits, step_penalties, continue_on_nan,
):  # fmt: skip
    """Do steps `first` to `last` of an epoch; returns how many are done.

    Step s takes the samples order[s·batch_size:(s + 1)·batch_size]. It puts its loss, its share of hits and its
    penalty, all before the update, at place s of the arrays for them. Where the loss is not finite it stops before the
    update, unless it is to `continue_on_nan`.
    """
    network_at, data_at = record_pointer(network), record_pointer(data)
    for step in range(first, last):
        samples = order[step * batch_size : (step + 1) * batch_size]
        shares = data.sample_shares[step * batch_size : (step + 1) * batch_size]
        N = len(samples)
        count = 1 if len(shares) else N
        for number in range(len(network.layers)):
            network.counters[number] += 1
        # The threads may have been set to more since the scratch for them was made.
        is_shared = 1 < parts_of(team) <= len(network.scratch) and N * len(network.params) >= WORTH_A_REGION
        if not is_shared:
            rows_part(np.intp(0), np.intp(1), network_at, data_at, samples, shares, count)
        else:
            in_parallel(team, parts_of(team), rows_part, (network_at, data_at, samples, shares, count))
        step_losses[step] = sum_in_double((at(network.sample_losses, 0),), (), N) / count
        step_hits[step] = sum_in_double((at(network.sample_hits, 0),), (), N) / count
        if not continue_on_nan and not np.isfinite(step_losses[step]):
            for number in range(len(network.layers)):
                network.counters[number] -= 1
            return step - first
        if not is_shared:
            weights_part(np.intp(0), np.intp(1), network_at, N, coefficients[step])
        else:
            in_parallel(team, parts_of(team), weights_part, (network_at, N, coefficients[step]))
        if coefficients[step, PENALTY] != 0:
            squares = sum_in_double((at(network.squares, 0),), (), len(network.squares))
            step_penalties[step] = coefficients[step, PENALTY] / 2 * squares
    return last - first


@kernel
def rows_part(part, parts, network_at, data_at, samples, shares, count):
    """A slice of the batch: forward, loss, deltas."""
    network, data = view(network_at), view(data_at)
    N = len(samples)
    i0, i1 = boundary(N, ROW_GRAIN, part, parts), boundary(N, ROW_GRAIN, part + 1, parts)
    if i0 == i1:
        return
    layers, last = network.layers, len(network.layers) - 1
    D, chosen = layers[0, D_IN], at(samples, 0)
    _gather_rows(at(data.x, 0), D, chosen, i0, i1, data.scale, at(network.workspace, layers[0, H_IN]))
    _gather_targets(network_at, data_at, chosen, i0, i1)
    scratch = scratch_of(network_at, part)
    for number in range(last + 1):
        if layers[number, FORWARD]:
            call_at(layers[number, FORWARD], forward, (network_at, np.intp(number), i0, i1, scratch))
        else:
            _copy_rows(network_at, layers[number, D_IN], layers[number, H_IN], layers[number, Z_OUT], i0, i1)
            activate(network_at, number, i0, i1)
    call_at(network.loss, loss, (network_at, np.intp(count), i0, i1))
    if len(shares):
        _weigh(network_at, shares, i0, i1)
    apply_slope(network_at, last, layers[last, DELTA], i0, i1)
    for number in range(last, 0, -1):
        before = layers[number, DELTA_BEFORE]
        if before < 0:
            return
        if layers[number, BACKWARD]:
            call_at(layers[number, BACKWARD], backward, (network_at, np.intp(number), i0, i1, scratch))
        else:
            _copy_rows(network_at, layers[number, D_IN], layers[number, DELTA], before, i0, i1)
            apply_slope(network_at, number - 1, before, i0, i1)


@kernel
def _gather_rows(x, D, samples, i0, i1, scale, out):
    """Rows i0:i1 of out = the rows of x, D wide, that `samples` names there, times `scale`."""
    for i in range(i0, i1):
        row, out_row = shift(x, load(shift(samples, i)) * D), shift(out, i * D)
        for j in range(D):
            store(shift(out_row, j), load(shift(row, j)) * scale)


@kernel
def _gather_targets(network_at, data_at, samples, i0, i1):
    """Labels or targets of rows i0:i1 of the batch."""
    network, data = view(network_at), view(data_at)
    if len(data.labels):
        labels = at(data.labels, 0)
        for i in range(i0, i1):
            network.labels[i] = load(shift(labels, load(shift(samples, i))))
        return
    targets, C = at(data.targets, 0), network.layers[len(network.layers) - 1, M_OUT]
    _gather_rows(targets, C, samples, i0, i1, load(ones(targets)), at(network.workspace, network.targets_at))


@kernel
def _copy_rows(network_at, width, source, target, i0, i1):
    """The map of an activation without a layer before it, forward or backward."""
    workspace = view(network_at).workspace
    for k in range(i0 * width, i1 * width):
        workspace[target + k] = workspace[source + k]


@kernel
def _weigh(network_at, shares, i0, i1):
    """Losses, hits and deltas of rows i0:i1 of the last layer, times the shares of their samples."""
    network = view(network_at)
    layer = network.layers[len(network.layers) - 1]
    d = rows_of(network.workspace, layer[DELTA], layer[M_OUT], i0, i1)
    for i in range(i1 - i0):
        share = shares[i0 + i]
        network.sample_losses[i0 + i] *= share
        network.sample_hits[i0 + i] *= share
        for j in range(layer[M_OUT]):
            d[i, j] *= d.dtype.type(share)


@kernel
def weights_part(part, parts, network_at, N, coefficients):
    """A slice of the parameters of every layer: their gradient and their update."""
    layers = view(network_at).layers
    for number in range(len(layers)):
        if layers[number, GRADIENT]:
            given = np.intp(number), part, parts, np.intp(N), at(coefficients, 0)
            call_at(layers[number, GRADIENT], gradient, (network_at, *given))
