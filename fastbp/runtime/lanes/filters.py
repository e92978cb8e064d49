"""The gradient of a convolution by its filters: sums over samples and pixels, by fixed groups of samples.

    dW[f, c, i, j] = sum over (n, y, x) of dout[n, f, y, x] · image[n, c, y·stride + i - pad, x·stride + j - pad]

The groups and the order within a group follow from the shapes alone, so neither threads nor registers change a bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.elementary import zero
from fastbp.runtime.groups import group_of, groups_of
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.lanes.panel import Columns, Images, cleared, copy_line, images_of, line_size, slack
from fastbp.runtime.lanes.tile import PLACES, gradient_height, gradient_tile, tile_sums
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
from fastbp.runtime.vectors import VECTOR_BYTES, sum_of

# Samples of a group that go through the panels together; the bytes of both panels, a part of the second-level cache;
# and the bytes of a filter's lines that one tile sums up, so that those of all its places are in the first-level cache.
SLICE, PANEL_BYTES, TILE_BYTES = 96, 500_000, 8_000


class FilterGradient(NamedTuple):
    """What a gradient is formed of."""

    images: Images
    dout: Images
    N: Any
    FH: Any
    FW: Any
    stride: Any
    pad: Any
    height: Any  # filters of a tile
    sums: Any  # pointer to the sums of each group, `size` of them: those of all tiles, then db
    size: Any


def filter_gradient(words: Any, total: Any) -> None:
    """Write dW and, after it, db to `total`, on several threads where that pays.

    Parameters
    ----------
    words : ndarray (21,) of int64
        The fields of a `FilterGradient` up to pad, with addresses for pointers and the fields of both `Images` in
        their places.
    total : ndarray (F·C·FH·FW + F,)
        Of the dtype of all arrays, float32 or float64.
    """
    if not _filter_gradient(threads.TEAM, words, total):
        threads.start()
        _filter_gradient(threads.TEAM, words, total)


@entry_kernel
def _filter_gradient(team, words, total):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    pointer, groups, done = at(total, 0), groups_of(words[16]), True
    F, K = words[13], words[5] * words[17] * words[18]
    height = gradient_height(F)
    tiles = (F + height - 1) // height * ((K + PLACES - 1) // PLACES)
    size = tiles * tile_sums(pointer, height) + F
    sums = allocate(pointer, groups * size)
    gradient = record_pointer(
        FilterGradient(
            images_of(words, pointer), images_of(words[8:], pointer), words[16], words[17], words[18], words[19],
            words[20], height, sums, size,
        )
    )  # fmt: skip
    is_long = F * K * words[16] * words[14] * words[15] >= threads.WORTH_A_REGION
    gil = release_gil(is_long)
    if is_long and parts_of(team) > 1:
        done = in_parallel(team, groups, sum_group, (gradient,))
    else:
        for group in range(groups):
            sum_group(group, groups, gradient)
    for group in range(1, groups):
        for i in range(size):
            store(shift(sums, i), load(shift(sums, i)) + load(shift(sums, group * size + i)))
    _in_order(sums, F, K, height, tile_sums(pointer, height), pointer)
    for f in range(F):
        store(shift(pointer, F * K + f), load(shift(sums, size - F + f)))
    take_gil(gil)
    release(sums)
    return done


@kernel
def filter_sums(images, dout, N, FH, FW, stride, pad, total):
    """dW (F, C, FH, FW) and then db of some samples, formed in this thread."""
    noinline()
    F, K = dout.C, images.C * FH * FW
    height = gradient_height(F)
    tiles = (F + height - 1) // height * ((K + PLACES - 1) // PLACES)
    size = tiles * tile_sums(total, height) + F
    sums = allocate(total, size)
    gradient = record_pointer(FilterGradient(images, dout, N, FH, FW, stride, pad, height, sums, size))
    _sum_samples(gradient, sums, np.intp(0), N)
    _in_order(sums, F, K, height, tile_sums(total, height), total)
    for f in range(F):
        store(shift(total, F * K + f), load(shift(sums, size - F + f)))
    release(sums)


@kernel
def sum_group(group, groups, gradient_at):
    """Form the sums of one group of samples."""
    g = view(gradient_at)
    n0, n1 = group_of(g.N, group)
    _sum_samples(gradient_at, shift(g.sums, group * g.size), n0, n1)


@kernel
def _sum_samples(gradient_at, sums, n0, n1):
    """Form the sums of samples n0:n1."""
    noinline()  # each of its callers would compile it
    g = view(gradient_at)
    for i in range(g.size):
        store(shift(sums, i), zero(load(g.sums)))
    slices = (n1 - n0 + SLICE - 1) // SLICE
    for number in range(slices):
        first, last = n0 + (n1 - n0) * number // slices, n0 + (n1 - n0) * (number + 1) // slices
        _sum_slice(g, first, last - first, sums)


@kernel
def _sum_slice(g, n0, S, sums):
    """Add samples n0:n0 + S, some lines of dout at a time."""
    x, d, stride, item = g.images, g.dout, g.stride, itemsize(sums)
    lanes = VECTOR_BYTES // item
    x_columns = Columns(-g.pad, ((d.W - 1) * stride + g.FW + stride - 1) // stride, stride)
    d_columns = Columns(np.intp(0), d.W, np.intp(1))
    x_line, d_line = line_size(x_columns, S), (d.W * S + lanes - 1) // lanes * lanes
    block = max(1, min(d.H, PANEL_BYTES // item // max(1, stride * x.C * x_line + d.C * d_line)))
    # The lines of a channel lie side by side: a tile reads some of them, which then never share a set of the cache.
    x_channel = ((block - 1) * stride + g.FH) * x_line
    x_size = x.C * x_channel + slack(sums)
    is_in_place = _is_in_place(d, S)
    d_size = 0 if is_in_place else block * d.C * d_line
    memory = allocate(sums, x_size + d_size + 2 * slack(sums))
    d_panel = cleared(aligned(memory, VECTOR_BYTES), d_size)
    x_panel = cleared(shift(d_panel, d_size + slack(sums)), x_size - slack(sums))
    K = x.C * g.FH * g.FW
    x_at = allocate(pointer_to(np.intp, np.intp(0)), K + PLACES)
    _fill_offsets(g, x_line, x_channel, x_columns, S, x_at)
    for y in range(0, d.H, block):
        lines = min(block, d.H - y)
        for line in range((lines - 1) * stride + g.FH):
            target = shift(x_panel, line * x_line)
            copy_line(x, y * stride - g.pad + line, x_columns, n0, S, target, x_channel)
        if is_in_place:
            _add_block(g, x_panel, stride * x_line, x_at, shift(d.at, y * d.h), d.c, d.h, lines, d.W * S, K, sums)
            continue
        for line in range(lines):
            copy_line(d, y + line, d_columns, n0, S, shift(d_panel, line * d.C * d_line), d_line)
        _add_block(g, x_panel, stride * x_line, x_at, d_panel, d_line, d.C * d_line, lines, d.W * S, K, sums)
    release(x_at)
    release(memory)


@kernel
def _is_in_place(d, S):
    """Whether each line of dout is a run of all its samples already."""
    return d.n == 1 and d.w == S and d.pool == 0


@kernel
def _fill_offsets(g, x_line, x_channel, columns, S, x_at):
    """Where each place of the filters lies in a panel; the last is repeated up to a whole tile."""
    k = 0
    for channel in range(g.images.C):
        for u in range(g.FH):
            for v in range(g.FW):
                place = v % g.stride * columns.count + v // g.stride
                store(shift(x_at, k), u * x_line + channel * x_channel + place * S)
                k += 1
    for more in range(PLACES):
        store(shift(x_at, k + more), load(shift(x_at, k - 1)))


@kernel
def _add_block(g, x_panel, x_line, x_at, d, d_row, d_line, lines, run, K, sums):
    """Add lines to the sums of every tile, some lines at a time, and to those of db."""
    F, height = g.dout.C, g.height
    size, count = tile_sums(sums, height), max(1, TILE_BYTES // (run * itemsize(sums)))
    db = shift(sums, g.size - F)
    for y in range(0, lines, count):
        x, block = shift(x_panel, y * x_line), shift(d, y * d_line)
        tile = sums
        for f in range(0, F, height):
            for k in range(0, K, PLACES):
                used = min(height, F - f)
                gradient_tile(
                    height, used, shift(block, f * d_row), d_row, d_line, x, shift(x_at, k), x_line,
                    min(count, lines - y), run, tile,
                )  # fmt: skip
                tile = shift(tile, size)
    for y in range(lines):
        for f in range(F):
            line = shift(d, y * d_line + f * d_row)
            store(shift(db, f), load(shift(db, f)) + sum_of((line,), (), run))


@kernel
def _in_order(sums, F, K, height, size, dW):
    """Copy the sums of tiles to dW (F, K)."""
    tile = sums
    for f in range(0, F, height):
        for k in range(0, K, PLACES):
            for q in range(min(PLACES, K - k)):
                for row in range(min(height, F - f)):
                    store(shift(dW, (f + row) * K + k + q), load(shift(tile, q * height + row)))
            tile = shift(tile, size)
