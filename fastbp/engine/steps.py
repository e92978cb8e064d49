"""Training steps in compiled code, for any stack of layers: the kernels walk along the table of a network.

A step is at least two parallel regions. *Samples*: each thread takes a part of the batch through every
layer, the loss, and back to the first delta. *Weights*: each thread takes a slice of every weight matrix through its
gradient and its update. A layer that needs sums over the whole batch ends a region, forward and backward. So do the
last layers where those before take slices of the batch and they need none.

Nothing is allocated, and the gradient by the network's input is not formed. What a layer, a loss and an optimizer do is
called by the addresses in the table. No bit depends on the number of threads. Where a layer forms sums over samples,
the parts of the batch are fixed slices (`fastbp.runtime.groups`); else each thread has one, and nothing is summed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray

from fastbp.engine.arrangement import gather, gather_rows
from fastbp.ops.state import (
    BACKWARD,
    CHOSEN,
    D_IN,
    DELTA,
    DELTA_BEFORE,
    FORWARD,
    FORWARD_IN_STAGES,
    GRADIENT,
    GRADIENT_AND_NEXT,
    H_IN,
    LAYOUT,
    M_OUT,
    PENALTY,
    SAMPLES,
    SOURCE,
    STAGED,
    STATISTICS,
    SUMS,
    W_GIVEN_AT,
    WEIGHT_DECAY,
    apply_slope,
    gradient,
    gradient_and_next,
    loss,
    stage,
)
from fastbp.ops.state import samples as samples_kernel
from fastbp.runtime.elementary import as_like
from fastbp.runtime.gemm.multiply import ROW_GRAIN, boundary
from fastbp.runtime.gemm.stages import share_of_rows, stages
from fastbp.runtime.gemm.tile import ones
from fastbp.runtime.groups import group_of, group_size
from fastbp.runtime.jit import kernel, unlocked_kernel
from fastbp.runtime.pointers import at, call_at, load, record_pointer, shift, store, view
from fastbp.runtime.threads import WORTH_A_REGION, in_parallel, parts_of
from fastbp.runtime.vectors import REGISTER_BYTES, sum_in_double

# Columns of the regions of a step. Rows from FORWARD_FROM up to FORWARD_TO, which is not one of them, go forward. Row
# FORWARD_TO then forms its statistics, if it has any. Where there is no such row, the loss follows. Rows from
# BACKWARD_FROM (-1: none) down to BACKWARD_TO go backward. Those up to SUMS_FROM form their sums before that. Where a
# region IS_SLICED, its parts are the fixed slices of the batch.
FORWARD_FROM, FORWARD_TO, BACKWARD_FROM, SUMS_FROM, BACKWARD_TO, IS_SLICED, REGION = range(7)


# Samples of fewer numbers are copied before they are multiplied: steps of 24-8-2 with batch 200 would take 1.05 times
# as long, where those of 784-50-10 with batch 100 take 0.85 times as long (float32, one thread).
WIDE = 128

# Blocks of the first layer's outputs for each thread beside the first, below which threads would wait for each other
# too long.
STAGES = 4


class Data(NamedTuple):
    """What a network learns from."""

    x: Any  # (samples, D), of the parameters' dtype or uint8; intp where the first row takes indices
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
    network, is_ahead = view(network_at), False
    for step in range(first, last):
        samples, shares = _batch(order, step, batch_size), _batch(data.sample_shares, step, batch_size)
        N = len(samples)
        count = 1 if len(shares) else N
        _begin(network_at, data_at, samples)
        network.batch[STAGED] = is_ahead
        is_shared = _is_shared(team, network_at, N)
        if is_shared and _goes_in_stages(network, N, parts_of(team)):
            network.batch[STAGED] = 1
            network.counts[:] = 0
            in_parallel(team, parts_of(team), stage_part, (network_at, data_at, samples))
        for region in range(len(network.regions)):
            _do_region(team, is_shared, network_at, data_at, region, samples, shares, 0, N)
        step_losses[step], step_hits[step] = _results(network_at, N, count)
        if not continue_on_nan and not np.isfinite(step_losses[step]):
            for number in range(len(network.layers)):
                network.counters[number] -= 1
            return step - first
        is_ahead = batch_size == 1 and step + 1 < last and not is_shared and _goes_ahead(network, coefficients[step])
        _update(team, is_shared, network_at, np.intp(is_ahead), len(network.layers), 0, 1, coefficients[step])
        if is_ahead:
            _update_and_go_ahead(network_at, data_at, at(order, step + 1), coefficients[step])
        if coefficients[step, PENALTY] != 0:
            step_penalties[step] = coefficients[step, PENALTY] / 2 * _sum_of_squares(network_at)
    return last - first


# A step of one rank among several, in pieces: what other ranks need is moved between two of them.


@unlocked_kernel
def begin_step(network, data, samples):
    """Begin a step with these samples."""
    _begin(record_pointer(network), record_pointer(data), samples)


@unlocked_kernel
def samples_of_rank(team, network, data, samples, shares, region, begin, end):
    """Rows begin:end of the batch in one region; where that is sliced they are whole groups."""
    network_at = record_pointer(network)
    is_shared = _is_shared(team, network_at, end - begin)
    _do_region(team, is_shared, network_at, record_pointer(data), region, samples, shares, begin, end)


@unlocked_kernel
def inputs_of_others(team, network, data, samples, begin, end, first, last):
    """Columns first:last of the first layer's inputs, in rows, for the samples of the batch beside begin:end."""
    network_at, data_at, numbers = record_pointer(network), record_pointer(data), at(samples, 0)
    others, parts = len(samples) - (end - begin), parts_of(team)
    if others * (last - first) >= WORTH_A_REGION and 1 < parts:
        in_parallel(team, parts, _inputs_part, (network_at, data_at, numbers, begin, end, others, first, last))
    else:
        _inputs_part(np.intp(0), np.intp(1), network_at, data_at, numbers, begin, end, others, first, last)


@unlocked_kernel
def weights_of_rank(team, network, first, last, rank, ranks, coefficients):
    """The slices of a rank of the parameters of layers first:last: their gradient and their update."""
    network_at = record_pointer(network)
    is_shared = _is_shared(team, network_at, network.batch[SAMPLES] // ranks)
    _update(team, is_shared, network_at, first, last, rank, ranks, coefficients)


@unlocked_kernel
def results_of_step(network, count):
    """The loss of the batch and its share of hits, where all ranks have those of each sample."""
    return _results(record_pointer(network), network.batch[SAMPLES], count)


@unlocked_kernel
def sum_of_squares(network):
    """The sum of squares of what is penalized, where all ranks have those of each slice."""
    return _sum_of_squares(record_pointer(network))


@kernel
def _batch(values, step, batch_size):
    """What a step has of an array for all samples. Nothing counts references to it, as each call would."""
    begin = min(step * batch_size, len(values))
    return carray(at(values, begin), min(batch_size, len(values) - begin))


@kernel
def _goes_in_stages(network, N, parts):
    """Whether each thread takes a share of the inputs of the first layer, not of the samples: see `gemm.stages`.

    Outputs then go from core to core in place of W. On two threads, in float32, a step of 784-50-10 with batch 100
    takes 0.86 times as long, 784-256-10 0.93, 784-256-128-10 with Adam and batch 200 0.88; 784-1024-10 with batch 1024
    would take 1.03 times as long.
    """
    layer = network.layers[0]
    if layer[FORWARD_IN_STAGES] == 0 or layer[D_IN] < max(WIDE, N) or parts > len(network.counts):
        return False
    return STAGES <= stages(N, layer[M_OUT], REGISTER_BYTES // network.workspace.itemsize) // (parts - 1)


@kernel
def _goes_ahead(network, coefficients):
    """Whether the first layer takes the next sample while it is updated, so that W is read and written once a step.

    In float32 on one thread a step of 784-50-10 takes 0.85 times as long, of 784-256-10 0.72.
    """
    layer = network.layers[0]
    given = coefficients[layer[W_GIVEN_AT] :]
    is_subtracted = network.subtracts == 1 and given[WEIGHT_DECAY] + given[PENALTY] == 0
    lanes = REGISTER_BYTES // network.workspace.itemsize
    return layer[GRADIENT_AND_NEXT] != 0 and is_subtracted and layer[D_IN] > 1 and layer[M_OUT] >= lanes


@kernel
def _update_and_go_ahead(network_at, data_at, chosen, coefficients):
    """The update of the first layer, and what the chosen sample is behind it."""
    network, data = view(network_at), view(data_at)
    layer = network.layers[0]
    gather(data, network.workspace, layer[LAYOUT], layer[D_IN], chosen, 0, 1, layer[H_IN] + layer[D_IN])
    call_at(layer[GRADIENT_AND_NEXT], gradient_and_next, (network_at, np.intp(0), at(coefficients, 0)))


@kernel
def stage_part(part, parts, network_at, data_at, samples):
    """A share of the inputs of the first layer: what they add to its outputs."""
    network, data = view(network_at), view(data_at)
    layer, D, N = network.layers[0], network.layers[0, D_IN], len(samples)
    if not network.batch[CHOSEN]:
        share, width = share_of_rows(at(network.workspace, layer[H_IN]), N, D, part, parts)
        k0 = boundary(D, ROW_GRAIN, part, parts)
        gather_rows(at(data.x, k0), D, at(samples, 0), 0, N, width, data.scale, share)
    call_at(layer[FORWARD_IN_STAGES], stage, (network_at, np.intp(0), part, parts, np.intp(N)))


@kernel
def _begin(network_at, data_at, samples):
    network = view(network_at)
    network.batch[SAMPLES], network.batch[STAGED] = len(samples), 0
    network.batch[SOURCE], network.batch[CHOSEN] = _taken_from_x(network, view(data_at), samples)
    for number in range(len(network.layers)):
        network.counters[number] += 1


@kernel
def _is_shared(team, network_at, N):
    """Whether threads divide the work. They may have been set to more since the scratch for them was made."""
    network = view(network_at)
    return 1 < parts_of(team) <= len(network.scratch) and N * network.work >= WORTH_A_REGION


@kernel
def _do_region(team, is_shared, network_at, data_at, region, samples, shares, begin, end):
    """Rows begin:end of the batch in one region."""
    if view(network_at).regions[region, IS_SLICED]:
        size = group_size(len(samples))
        parts = (end - begin + size - 1) // size
    else:
        parts = parts_of(team) if is_shared else 1
    if is_shared:
        in_parallel(team, parts, samples_part, (network_at, data_at, region, samples, shares, begin, end))
    else:
        for part in range(parts):
            samples_part(part, parts, network_at, data_at, region, samples, shares, begin, end)


@kernel
def _update(team, is_shared, network_at, first, last, rank, ranks, coefficients):
    given = at(coefficients, 0)
    if is_shared:
        in_parallel(team, parts_of(team), weights_part, (network_at, first, last, rank, ranks, given))
    else:
        weights_part(np.intp(0), np.intp(1), network_at, first, last, rank, ranks, given)


@kernel
def _results(network_at, N, count):
    network = view(network_at)
    loss = sum_in_double((at(network.sample_losses, 0),), (), N) / count
    return loss, sum_in_double((at(network.sample_hits, 0),), (), N) / count


@kernel
def _sum_of_squares(network_at):
    squares = view(network_at).squares
    return sum_in_double((at(squares, 0),), (), len(squares))


@kernel
def samples_part(part, parts, network_at, data_at, number, samples, shares, begin, end):
    """A part of rows begin:end of the batch in one region: rows of the table forward, the loss, rows backward."""
    network, data = view(network_at), view(data_at)
    N, layers, region = len(samples), network.layers, network.regions[number]
    if region[IS_SLICED]:
        part += begin // group_size(N)
        i0, i1 = group_of(N, part)
    else:
        i0 = begin + boundary(end - begin, ROW_GRAIN, part, parts)
        i1 = begin + boundary(end - begin, ROW_GRAIN, part + 1, parts)
    if i0 == i1:
        return
    if number == 0:
        chosen = at(samples, 0)
        if not network.batch[CHOSEN] and not network.batch[STAGED]:
            gather(data, network.workspace, layers[0, LAYOUT], layers[0, D_IN], chosen, i0, i1, layers[0, H_IN])
        _gather_targets(network_at, data_at, chosen, i0, i1)
    for row in range(max(region[FORWARD_FROM], network.batch[STAGED]), region[FORWARD_TO]):
        _call(layers[row, FORWARD], network_at, row, part, i0, i1)
    if region[FORWARD_TO] < len(layers):
        if layers[region[FORWARD_TO], STATISTICS]:
            _call(layers[region[FORWARD_TO], STATISTICS], network_at, region[FORWARD_TO], part, i0, i1)
    elif region[FORWARD_FROM] < len(layers):
        _end(network_at, i0, i1, shares, 1 if len(shares) else N)
    for row in range(region[BACKWARD_FROM], region[BACKWARD_TO] - 1, -1):
        if layers[row, SUMS] and row <= region[SUMS_FROM]:
            _call(layers[row, SUMS], network_at, row, part, i0, i1)
            if layers[row, STATISTICS]:
                return
        if layers[row, DELTA_BEFORE] >= 0:
            _call(layers[row, BACKWARD], network_at, row, part, i0, i1)


@kernel
def _inputs_part(part, parts, network_at, data_at, samples, begin, end, others, first, last):
    """A part of what `inputs_of_others` gathers."""
    network, data = view(network_at), view(data_at)
    D, x = network.layers[0, D_IN], at(data.x, 0)
    out = at(network.workspace, network.layers[0, H_IN])
    for number in range(boundary(others, 1, part, parts), boundary(others, 1, part + 1, parts)):
        i = number if number < begin else number + end - begin
        row, out_row = shift(x, load(shift(samples, i)) * D), shift(out, i * D)
        for j in range(first, last):
            store(shift(out_row, j), load(shift(row, j)) * data.scale)


@kernel
def _taken_from_x(network, data, samples):
    """The addresses of x and of the numbers of the samples, where the first row reads x as it is; else 0."""
    is_worth_it = network.gathers and len(samples) >= ROW_GRAIN and network.layers[0, D_IN] >= WIDE
    is_as_it_is = data.x.itemsize == network.workspace.itemsize and data.scale == 1
    if network.takes_indices or (is_worth_it and is_as_it_is):
        return data.x.ctypes.data, samples.ctypes.data
    return 0, 0


@kernel
def _call(address, network_at, row, part, i0, i1):
    call_at(address, samples_kernel, (network_at, np.intp(row), np.intp(part), np.intp(i0), np.intp(i1)))


@kernel
def _end(network_at, i0, i1, shares, count):
    """The losses of samples i0:i1, and the delta of the last row."""
    network, last = view(network_at), len(view(network_at).layers) - 1
    call_at(network.loss, loss, (network_at, np.intp(count), i0, i1))
    if len(shares):
        _weigh(network_at, shares, i0, i1)
    apply_slope(network_at, last, network.layers[last, DELTA], i0, i1)


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
    gather_rows(targets, C, samples, i0, i1, C, load(ones(targets)), at(network.workspace, network.targets_at))


@kernel
def _weigh(network_at, shares, i0, i1):
    """Losses, hits and deltas of rows i0:i1 of the last layer, times the shares of their samples."""
    network = view(network_at)
    layer = network.layers[len(network.layers) - 1]
    M, d = layer[M_OUT], at(network.workspace, layer[DELTA] + i0 * layer[M_OUT])
    row, column = (1, i1 - i0) if network.ends_in_lanes else (M, 1)
    for i in range(i1 - i0):
        share = shares[i0 + i]
        network.sample_losses[i0 + i] *= share
        network.sample_hits[i0 + i] *= share
        for j in range(M):
            place = shift(d, i * row + j * column)
            store(place, load(place) * as_like(load(place), share))


@kernel
def weights_part(part, parts, network_at, first, last, rank, ranks, coefficients):
    """A slice of the parameters of layers first:last: their gradient and their update. A rank has its parts of all."""
    network = view(network_at)
    for number in range(first, last):
        if network.layers[number, GRADIENT]:
            given = np.intp(number), rank * parts + part, ranks * parts, np.intp(network.batch[SAMPLES]), coefficients
            call_at(network.layers[number, GRADIENT], gradient, (network_at, *given))
