"""The gradient of a convolution by its filters: sums over samples and pixels, by fixed groups of samples.

    dW[f, c, i, j] = sum over (n, y, x) of dout[n, f, y, x] · image[n, c, y·stride + i - pad, x·stride + j - pad]

The groups and the order within a group follow from the shapes alone, so neither threads nor registers change a bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.elementary import zero
from fastbp.runtime.jit import kernel
from fastbp.runtime.lanes.panel import Images, Lines, copy_panel, images_of, panel_size
from fastbp.runtime.lanes.tile import GRADIENT_HEIGHTS, PLACES, gradient_tile
from fastbp.runtime.pointers import (
    aligned,
    allocate,
    at,
    itemsize,
    load,
    pointer_to,
    record_pointer,
    release,
    shift,
    store,
    view,
)
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES, sum_of

# Groups of samples at most, and samples of a group at least.
GROUPS, GROUP = 16, 12

# Samples of a group that go through the panels together, and the bytes of both panels.
SLICE, PANEL_BYTES = 96, 500_000


class FilterGradient(NamedTuple):
    """What a gradient is formed of."""

    images: Images
    dout: Images
    N: Any
    FH: Any
    FW: Any
    stride: Any
    pad: Any
    sums: Any  # pointer to (groups, F·C·FH·FW + F)


def groups_of(samples: int) -> int:
    """Into how many groups samples are divided: 1, 2, 4, 8 or 16."""
    groups = 1
    while 2 * groups <= min(GROUPS, samples // GROUP):
        groups *= 2
    return groups


def filter_gradient(words: Any, total: Any) -> None:
    """Write dW and, after it, db to `total`, on several threads where that pays.

    Parameters
    ----------
    words : ndarray (21,) of int64
        The fields of a `FilterGradient` but the last, with addresses for pointers and the fields of both `Images` in
        their places.
    total : ndarray (F·C·FH·FW + F,)
        Of the dtype of all arrays, float32 or float64.
    """
    groups = groups_of(int(words[16]))
    if not _filter_gradient(threads.TEAM, words, groups, total):
        threads.start()
        _filter_gradient(threads.TEAM, words, groups, total)


@kernel
def _filter_gradient(team, words, groups, total):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    pointer, done = at(total, 0), True
    sums = allocate(pointer, groups * total.size)
    gradient = record_pointer(
        FilterGradient(
            images_of(words, pointer), images_of(words[8:], pointer), words[16], words[17], words[18], words[19],
            words[20], sums,
        )
    )  # fmt: skip
    is_long = total.size * words[16] * words[14] * words[15] >= threads.WORTH_A_REGION
    gil = release_gil(is_long)
    if is_long and parts_of(team) > 1:
        done = in_parallel(team, groups, sum_group, (gradient,))
    else:
        for group in range(groups):
            sum_group(group, groups, gradient)
    add_groups(sums, groups, total.size, pointer)
    take_gil(gil)
    release(sums)
    return done


@kernel
def sum_group(part, parts, gradient_at):
    """Form dW and db of one of `parts` groups of samples."""
    g = view(gradient_at)
    F, K = g.dout.C, g.images.C * g.FH * g.FW
    dW = shift(g.sums, part * F * (K + 1))
    db = shift(dW, F * K)
    for i in range(F * (K + 1)):
        store(shift(dW, i), zero(load(g.sums)))
    n0, n1 = g.N * part // parts, g.N * (part + 1) // parts
    slices = (n1 - n0 + SLICE - 1) // SLICE
    for number in range(slices):
        first, last = n0 + (n1 - n0) * number // slices, n0 + (n1 - n0) * (number + 1) // slices
        _sum_slice(g, first, last, K, dW, db)


@kernel
def _sum_slice(g, n0, n1, K, dW, db):
    """Add samples n0:n1, some lines of dout at a time."""
    S, stride, OH, OW = n1 - n0, g.stride, g.dout.H, g.dout.W
    columns = ((OW - 1) * stride + g.FW + stride - 1) // stride
    line = (g.images.C * stride * stride * columns + g.dout.C * OW) * S * itemsize(dW)
    block = max(1, min(OH, PANEL_BYTES // max(1, line)))
    most = (block - 1) * stride + g.FH
    x_lines = Lines(np.intp(0), most, -g.pad, columns, stride)
    d_lines = Lines(np.intp(0), block, np.intp(0), OW, np.intp(1))
    x_size, d_size = panel_size(g.images, x_lines, S), panel_size(g.dout, d_lines, S)
    memory = allocate(dW, x_size + d_size + 2 * REGISTER_BYTES // itemsize(dW))
    x_panel = aligned(memory, REGISTER_BYTES)
    d_panel = shift(x_panel, x_size)
    x_at = allocate(pointer_to(np.intp, np.intp(0)), max(K, PLACES))
    for y in range(0, OH, block):
        count = min(block, OH - y)
        lines = (count - 1) * stride + g.FH
        x_lines = Lines(y * stride - g.pad, lines, -g.pad, columns, stride)
        d_lines = Lines(y, count, np.intp(0), OW, np.intp(1))
        copy_panel(g.images, x_lines, n0, n1, x_panel)
        copy_panel(g.dout, d_lines, n0, n1, d_panel)
        _fill_offsets(g, lines, columns, S, x_at, K)
        _add_block(g, x_panel, x_at, stride * stride * columns * S, d_panel, count, OW * S, K, dW, db)
    release(x_at)
    release(memory)


@kernel
def _fill_offsets(g, lines, columns, S, x_at, K):
    """Where each place of the filters lies in a panel; the last is repeated up to a whole tile."""
    k, stride = 0, g.stride
    for channel in range(g.images.C):
        for u in range(g.FH):
            for v in range(g.FW):
                line = (channel * lines + u) * stride + v % stride
                store(shift(x_at, k), (line * columns + v // stride) * S)
                k += 1
    while k < PLACES:
        store(shift(x_at, k), load(shift(x_at, K - 1)))
        k += 1


@kernel
def _add_block(g, x_panel, x_at, x_line, d_panel, lines, run, K, dW, db):
    F, height = g.dout.C, _height_for(g.dout.C)
    d_row = lines * run
    for f in range(F):
        row = shift(d_panel, f * d_row)
        store(shift(db, f), load(shift(db, f)) + sum_of((row,), (), d_row))
    k = 0
    while k < K:
        begin = max(0, min(k, K - PLACES))  # the last tile overlaps the one before, whose places are not added again
        for f in range(0, F, height):
            gradient_tile(
                height, min(height, F - f), shift(d_panel, f * d_row), d_row, run, x_panel, shift(x_at, begin), x_line,
                lines, run, k - begin, K - begin, shift(dW, f * K + begin), K,
            )  # fmt: skip
        k += PLACES


@kernel
def _height_for(F):
    """The height with the fewest rows to spare."""
    best, fewest = GRADIENT_HEIGHTS[0], F + GRADIENT_HEIGHTS[0]
    for height in GRADIENT_HEIGHTS:
        rows = (F + height - 1) // height * height
        if rows < fewest:
            best, fewest = height, rows
    return best


@kernel
def add_groups(sums, groups, size, total):
    """total = the sums of all groups, one after the other."""
    for i in range(size):
        store(shift(total, i), load(shift(sums, i)))
    for group in range(1, groups):
        for i in range(size):
            store(shift(total, i), load(shift(total, i)) + load(shift(sums, group * size + i)))
