"""Correlations of images with filters, by parts that threads claim.

    out[n, m, y, x] = start[m] + sum over (c, u, v) of w[m, c, u, v] · images[n, c, y·step + u·tap + origin, ...]

A convolution forward is one, with step = stride and tap = 1. Its gradient by the input is one for each of
stride × stride phases of the pixels, with step = 1 and tap = -1. An element is one chain of multiply-adds in the order
of (c, u, v), whatever the parts and the registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.jit import kernel
from fastbp.runtime.lanes.panel import Images, Lines, copy_panel, images_of, panel_size
from fastbp.runtime.lanes.tile import SHAPES, copy_run, correlation_tile
from fastbp.runtime.pointers import (
    aligned,
    allocate,
    at,
    itemsize,
    located,
    pointer_to,
    record_pointer,
    release,
    shift,
    store,
    view,
)
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES

# Samples that go through a panel together; of more, slices. It is a multiple of the runs of all tiles.
SLICE = 192

# Bytes of a panel, which is read once for each group of maps: part of a second-level cache.
PANEL_BYTES = 1_000_000

_HEIGHTS, _WIDTHS = (tuple(shape[side] for shape in SHAPES) for side in (0, 1))
_WIDEST = max(_WIDTHS)


class Correlation(NamedTuple):
    """What a correlation computes; strides are in elements."""

    images: Images
    N: Any
    w: Any  # pointer to the filters
    w_m: Any  # strides
    w_c: Any
    w_u: Any
    w_v: Any
    start: Any  # pointer to a number for each map; with the stride 0 one for all
    start_m: Any
    maps: Any
    U: Any  # places of a filter: lines
    V: Any  # and columns
    step: Any
    tap: Any
    origin_y: Any
    origin_x: Any
    y0: Any  # lines y0:y1 and columns x0:x1 of the result are computed
    y1: Any
    x0: Any
    x1: Any
    out: Any  # pointer to sample 0, map 0, line 0, column 0; samples lie side by side
    out_m: Any
    out_y: Any
    out_x: Any


def correlations(words: Any, like: Any) -> None:
    """Compute correlations one after the other, on several threads where that pays.

    Parameters
    ----------
    words : ndarray (count, 31) of int64
        The fields of a `Correlation` each, with addresses for pointers and the fields of its `images` in their place.
    like : ndarray
        Of the dtype of all arrays, float32 or float64.
    """
    if not _correlations(threads.TEAM, words, like):
        threads.start()
        _correlations(threads.TEAM, words, like)


@kernel
def _correlations(team, words, like):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    team_size, is_long, done = parts_of(team), False, True
    for number in range(len(words)):
        is_long = is_long or _multiply_adds(words[number]) >= threads.WORTH_A_REGION
    gil = release_gil(is_long)
    for number in range(len(words)):
        pointer = record_pointer(_correlation(words[number], like))
        shared = is_long and team_size > 1
        blocks = _blocks(view(pointer), team_size if shared else 1)
        parts = blocks * max(1, (view(pointer).N + SLICE - 1) // SLICE)
        if shared:
            done = in_parallel(team, parts, correlate, (pointer, blocks)) and done
        else:
            for part in range(parts):
                correlate(part, parts, pointer, blocks)
    take_gil(gil)
    return done


@kernel
def _correlation(words, like):
    """The correlation that words describe; elements are as in `like`."""
    pointer = at(like, 0)
    return Correlation(
        images_of(words, pointer), words[8], located(pointer, words[9]), words[10], words[11], words[12], words[13],
        located(pointer, words[14]), words[15], words[16], words[17], words[18], words[19], words[20], words[21],
        words[22], words[23], words[24], words[25], words[26], located(pointer, words[27]), words[28], words[29],
        words[30],
    )  # fmt: skip


@kernel
def _multiply_adds(words):
    """Of the correlation of such words: C·U·V·maps for each sample, line and column."""
    return words[5] * words[17] * words[18] * words[16] * words[8] * (words[24] - words[23]) * (words[26] - words[25])


@kernel
def _blocks(c, team_size):
    """Into how many blocks the lines of the result are divided: by the size of a panel, and for threads to share."""
    line = c.images.C * (c.x1 - c.x0) * c.step * min(c.N, SLICE) * itemsize(c.out) * c.step
    lines = max(1, PANEL_BYTES // max(1, line) - c.U // c.step)
    count = c.y1 - c.y0
    return min(count, max((count + lines - 1) // lines, 2 * team_size if team_size > 1 else 1))


@kernel
def correlate(part, parts, correlation_at, blocks):
    """Compute one part: a block of lines for a slice of samples."""
    c = view(correlation_at)
    slices = parts // blocks
    slice_number, block = part // blocks, part % blocks
    n0, n1 = c.N * slice_number // slices, c.N * (slice_number + 1) // slices
    y0 = c.y0 + (c.y1 - c.y0) * block // blocks
    y1 = c.y0 + (c.y1 - c.y0) * (block + 1) // blocks
    S, K = n1 - n0, c.images.C * c.U * c.V
    low_y, low_x = min(0, c.tap * (c.U - 1)), min(0, c.tap * (c.V - 1))
    columns = (c.x1 - c.x0 - 1) * c.step + c.V
    lines = Lines(
        y0 * c.step + c.origin_y + low_y, (y1 - y0 - 1) * c.step + c.U, c.x0 * c.step + c.origin_x + low_x,
        (columns + c.step - 1) // c.step, c.step,
    )  # fmt: skip
    slack = _WIDEST * REGISTER_BYTES // itemsize(c.out)
    memory = allocate(c.out, panel_size(c.images, lines, S) + 2 * slack)
    panel = aligned(memory, REGISTER_BYTES)
    offsets = allocate(pointer_to(np.intp, np.intp(0)), 2 * K)
    _fill_offsets(c, lines, low_y, low_x, S, offsets, shift(offsets, K))
    copy_panel(c.images, lines, n0, n1, panel)
    _correlate_lines(c, lines, n0, S, y0, y1, panel, offsets, shift(offsets, K), K)
    release(offsets)
    release(memory)


@kernel
def _fill_offsets(c, lines, low_y, low_x, S, w_at, x_at):
    """Where each place of the filters lies in w, and in a panel from the place of an output on."""
    k = 0
    for channel in range(c.images.C):
        for u in range(c.U):
            line = channel * lines.lines + u * c.tap - low_y
            for v in range(c.V):
                column = v * c.tap - low_x
                phase, place = column % c.step, column // c.step
                store(shift(w_at, k), channel * c.w_c + u * c.w_u + v * c.w_v)
                store(shift(x_at, k), ((line * c.step + phase) * lines.columns + place) * S)
                k += 1


@kernel
def _correlate_lines(c, lines, n0, S, y0, y1, panel, w_at, x_at, K):
    """The tiles of lines y0:y1: all maps for one run, then the next run."""
    shape = _shape_for(c.maps)
    height, span = _HEIGHTS[shape], _WIDTHS[shape] * (REGISTER_BYTES // itemsize(c.out))
    columns = c.x1 - c.x0
    is_one_run = c.out_x == S
    runs, run = (1, columns * S) if is_one_run else (columns, S)
    size = lines.step * lines.columns * S
    scratch = allocate(c.out, height * span if run < span else 0)
    for y in range(y0, y1):
        for number in range(runs):
            image = shift(panel, (y - y0) * c.step * size + number * S)
            out = shift(c.out, y * c.out_y + (c.x0 + number) * c.out_x + n0)
            begin = 0
            while begin < run:
                place = max(0, min(begin, run - span))  # the last tile overlaps: it computes the same again
                for m in range(0, c.maps, height):
                    used = min(height, c.maps - m)
                    w, start = shift(c.w, m * c.w_m), shift(c.start, m * c.start_m)
                    tile_image, target = shift(image, place), shift(out, m * c.out_m + place)
                    if run >= span:
                        correlation_tile(
                            shape, used, w, c.w_m, w_at, tile_image, x_at, K, start, c.start_m, target, c.out_m
                        )
                        continue
                    correlation_tile(shape, used, w, c.w_m, w_at, tile_image, x_at, K, start, c.start_m, scratch, span)
                    for row in range(used):
                        copy_run(shift(scratch, row * span), shift(target, row * c.out_m), run)
                begin += span
    release(scratch)


@kernel
def _shape_for(maps):
    """The number of the shape with the fewest rows to spare."""
    best, fewest = 0, maps + _HEIGHTS[0]
    for number in range(len(_HEIGHTS)):
        rows = (maps + _HEIGHTS[number] - 1) // _HEIGHTS[number] * _HEIGHTS[number]
        if rows < fewest and (_HEIGHTS[number] > 2 or maps <= 2):
            best, fewest = number, rows
    return best
