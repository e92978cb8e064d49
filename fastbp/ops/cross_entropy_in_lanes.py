"""Softmax and cross-entropy error in a training step, for outputs whose samples lie in lanes."""

from __future__ import annotations

import numpy as np

from fastbp.ops.softmax import softmax_in_lanes
from fastbp.runtime.elementary import as_like, log, one, zero
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.pointers import at, load, shift, store, view


@kernel
def losses_in_lanes(network_at, count, h, d, i0, n, C, has_labels):
    """Losses and hits of n samples from i0 on, and their deltas d, (C, n), for labels or for distributions."""
    noinline()
    network = view(network_at)
    labels, losses, scratch = at(network.labels, i0), at(network.sample_losses, i0), at(network.loss_scratch[2], i0)
    tops, totals = at(network.loss_scratch[0], i0), at(network.loss_scratch[1], i0)
    softmax_in_lanes(h, d, n, C, tops, totals, scratch)
    for i in range(n):
        store(shift(totals, i), log(load(shift(totals, i))))
    _hits_in_lanes(h, n, C, tops, labels, at(network.sample_hits, i0), scratch)
    if has_labels:
        _of_labels_in_lanes(h, d, n, C, labels, 1.0 / count, losses, tops, totals, scratch)
    else:
        t = at(network.workspace, network.targets_at + i0 * C)
        _of_distributions_in_lanes(h, d, n, C, t, 1.0 / count, losses, tops, totals)


@kernel
def _hits_in_lanes(x, n, C, tops, labels, hits, first):
    """Whether the first of the largest outputs, or the first NaN, is at the label; `first` is memory for its class.

    Each turn stores all elements: with masked stores of some, 2×200 takes 0.42 µs where this takes 0.08.
    """
    none = as_like(load(tops), np.float64(C))
    for i in range(n):
        store(shift(first, i), none)
    for j in range(C):
        row, number = shift(x, j * n), as_like(none, np.float64(j))
        for i in range(n):
            x_i, found = load(shift(row, i)), load(shift(first, i))
            here = number if (x_i == load(shift(tops, i))) | np.isnan(x_i) else none
            store(shift(first, i), here if here < found else found)
    for i in range(n):
        store(shift(hits, i), np.float64(np.intp(load(shift(first, i))) == load(shift(labels, i))))


@kernel
def _of_labels_in_lanes(x, d, n, C, labels, factor, losses, tops, log_totals, chosen):
    """Losses and d = (d - t)·factor; `chosen` is memory for the logits of the labels."""
    scale = as_like(load(d), factor)
    for i in range(n):
        store(shift(chosen, i), zero(scale))
    for j in range(C):
        row, out = shift(x, j * n), shift(d, j * n)
        for i in range(n):
            logit = load(shift(row, i)) - load(shift(tops, i))
            here = logit if load(shift(labels, i)) == j else zero(logit)
            store(shift(chosen, i), load(shift(chosen, i)) + here)
        for i in range(n):
            y = load(shift(out, i))
            below = y - one(y)
            store(shift(out, i), (below if load(shift(labels, i)) == j else y) * scale)
    for i in range(n):
        store(shift(losses, i), np.float64(load(shift(log_totals, i)) - load(shift(chosen, i))))


@kernel
def _of_distributions_in_lanes(x, d, n, C, t, factor, losses, tops, log_totals):
    """The same for targets in rows, (n, C); a class with t = 0 adds nothing."""
    scale = as_like(load(d), factor)
    for i in range(n):
        store(shift(losses, i), 0.0)
    for j in range(C):
        row, out, targets = shift(x, j * n), shift(d, j * n), shift(t, j)
        for i in range(n):
            target = load(shift(targets, i * C))
            surprise = target * (load(shift(log_totals, i)) - (load(shift(row, i)) - load(shift(tops, i))))
            surprise = surprise if target != zero(target) else target
            store(shift(losses, i), load(shift(losses, i)) + surprise)
            store(shift(out, i), (load(shift(out, i)) - target) * scale)
