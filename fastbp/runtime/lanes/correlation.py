"""Correlations of images with filters, by parts that threads claim.

    out[n, m, y, x] = start[m] + sum over (u, c, v) of
        w[m, c, u, v] · images[n, c, y·step + u·tap + origin_y, x·step + v·tap + origin_x]

A convolution forward is one, with step = stride and tap = 1. Its gradient by the input is one for each of
stride × stride phases of the pixels, with step = 1 and tap = -1. An element is one chain of multiply-adds in the order
of (u, c, v), whatever the parts and the registers. Lines outside of the image are left out of it; columns outside of
the image are zeros.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.elementary import zero
from fastbp.runtime.gemm.epilogue import NONE, finish
from fastbp.runtime.gemm.tile import zeros
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.lanes.panel import Columns, Images, copy_line, images_of, line_size, slack
from fastbp.runtime.lanes.tile import SHAPES, correlation_tile
from fastbp.runtime.pointers import (
    aligned,
    allocate,
    at,
    itemsize,
    load,
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

# Parts for each thread: a thread that loses its core for a while delays little. Each copies U lines once more.
PARTS_OF_A_THREAD = 2

_HEIGHTS, _WIDTHS = (tuple(shape[side] for shape in SHAPES) for side in (0, 1))


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
    epilogue: Any  # what is done to each line while it is in the first-level cache, see `gemm.epilogue`
    beside: Any  # pointer to what the epilogue reads or writes beside `out`, in the same layout
    settings: Any  # pointer to the epilogue's settings


def correlation(words: Any, like: Any) -> None:
    """Compute a correlation, on several threads where that pays.

    Parameters
    ----------
    words : ndarray (31,) of int64
        The fields of a `Correlation`, with addresses for pointers and the fields of its `images` in their place.
    like : ndarray
        Of the dtype of all arrays, float32 or float64.
    """
    if not _correlation(threads.TEAM, words, like):
        threads.start()
        _correlation(threads.TEAM, words, like)


@kernel
def _correlation(team, words, like):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    is_long, done = _multiply_adds(words) >= threads.WORTH_A_REGION, True
    correlation_at = record_pointer(_described(words, like))
    gil = release_gil(is_long)
    if is_long and parts_of(team) > 1:
        done = _correlate_together(team, correlation_at)
    else:
        correlate_alone(correlation_at)
    take_gil(gil)
    return done


@kernel
def _correlate_together(team, correlation_at):
    """Compute a correlation by parts that threads claim; returns whether there are threads."""
    c = view(correlation_at)
    shape = _shape_for(c.maps)
    filters = allocate(c.out, (c.maps + _HEIGHTS[shape]) * c.images.C * c.U * c.V)
    _order_filters(c, _HEIGHTS[shape], filters)
    slices = max(1, (c.N + SLICE - 1) // SLICE)
    blocks = min(c.y1 - c.y0, (PARTS_OF_A_THREAD * parts_of(team) + slices - 1) // slices)
    done = in_parallel(team, blocks * slices, correlate, (correlation_at, blocks, shape, filters))
    release(filters)
    return done


@kernel
def correlate_alone(correlation_at):
    """Compute a correlation in this thread."""
    noinline()  # convolutions forward and backward would each compile it
    c = view(correlation_at)
    shape = _shape_for(c.maps)
    filters = allocate(c.out, (c.maps + _HEIGHTS[shape]) * c.images.C * c.U * c.V)
    _order_filters(c, _HEIGHTS[shape], filters)
    slices = max(1, (c.N + SLICE - 1) // SLICE)
    for part in range(slices):
        correlate(part, slices, correlation_at, np.intp(1), shape, filters)
    release(filters)


@kernel
def convolution_of(images, N, W, b, F, FH, FW, stride, pad, out, epilogue, beside, settings):
    """The correlation of images with filters W (F, C, FH, FW) that is a convolution forward; `out` are images, too."""
    zero, one = np.intp(0), np.intp(1)
    return Correlation(
        images, N, W, images.C * FH * FW, FH * FW, FW, one, b, one, F, FH, FW, stride, one, -pad, -pad,
        zero, out.H, zero, out.W, out.at, out.c, out.h, out.w, epilogue, beside, settings,
    )  # fmt: skip


@kernel
def phase_of(dout, N, W, FH, FW, stride, pad, nothing, dx, i, j):
    """The correlation that gives the pixels (y, x) of dx with y + pad = i and x + pad = j modulo the stride.

    Only every stride-th place of the filters W meets such pixels. Pixels that none meets are 0. `nothing` points to 0.
    """
    zero, one = np.intp(0), np.intp(1)
    y0, y1 = -((i - pad) // stride), -((i - pad - dx.H) // stride)
    x0, x1 = -((j - pad) // stride), -((j - pad - dx.W) // stride)
    U, V = max(zero, (FH - i + stride - 1) // stride), max(zero, (FW - j + stride - 1) // stride)
    pixels = shift(dx.at, (i - pad) * dx.h + (j - pad) * dx.w)
    return Correlation(
        dout, N, shift(W, i * FW + j), FH * FW, dx.C * FH * FW, stride * FW, stride, nothing, zero, dx.C, U, V,
        one, -one, zero, zero, y0, y1, x0, x1, pixels, dx.c, stride * dx.h, stride * dx.w, np.intp(NONE), pixels,
        pointer_to(np.float64, zero),
    )  # fmt: skip


def phases(words: Any, like: Any) -> None:
    """Compute the gradient of a convolution by its input, on several threads where that pays.

    Parameters
    ----------
    words : ndarray (22,) of int64
        The fields of dout and of dx as `Images`, with addresses for pointers; samples, the address of the filters,
        their height and width, stride and pad.
    like : ndarray
        Of the dtype of all arrays, float32 or float64.
    """
    if not _phases(threads.TEAM, words, like):
        threads.start()
        _phases(threads.TEAM, words, like)


@kernel
def _phases(team, words, like):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    pointer, done, stride = at(like, 0), True, words[20]
    dout, dx = images_of(words, pointer), images_of(words[8:], pointer)
    W, nothing = located(pointer, words[17]), zeros(pointer)
    is_long = words[16] * dout.C * dx.C * words[18] * words[19] * dout.H * dout.W >= threads.WORTH_A_REGION
    gil = release_gil(is_long)
    for i in range(stride):
        for j in range(stride):
            phase = phase_of(dout, words[16], W, words[18], words[19], stride, words[21], nothing, dx, i, j)
            if is_long and parts_of(team) > 1:
                done = _correlate_together(team, record_pointer(phase)) and done
            else:
                correlate_alone(record_pointer(phase))
    take_gil(gil)
    return done


@kernel
def _described(words, like):
    """The correlation that words describe; elements are as in `like`."""
    pointer = at(like, 0)
    return Correlation(
        images_of(words, pointer), words[8], located(pointer, words[9]), words[10], words[11], words[12], words[13],
        located(pointer, words[14]), words[15], words[16], words[17], words[18], words[19], words[20], words[21],
        words[22], words[23], words[24], words[25], words[26], located(pointer, words[27]), words[28], words[29],
        words[30], np.intp(NONE), pointer, pointer_to(np.float64, np.intp(0)),
    )  # fmt: skip


@kernel
def _multiply_adds(words):
    """Of the correlation of such words: C·U·V·maps for each sample, line and column."""
    return words[5] * words[17] * words[18] * words[16] * words[8] * (words[24] - words[23]) * (words[26] - words[25])


@kernel
def _shape_for(maps):
    """The number of the shape with the fewest rows to spare."""
    best, fewest = 0, maps + _HEIGHTS[0]
    for number in range(len(_HEIGHTS)):
        rows = (maps + _HEIGHTS[number] - 1) // _HEIGHTS[number] * _HEIGHTS[number]
        if rows < fewest and (_HEIGHTS[number] > 2 or maps <= 2):
            best, fewest = number, rows
    return best


@kernel
def _order_filters(c, height, filters):
    """Copy w to (groups of `height` maps, U, C, V, height), in the order in which tiles read it."""
    to = filters
    for m0 in range(0, c.maps, height):
        for u in range(c.U):
            for channel in range(c.images.C):
                for v in range(c.V):
                    place = shift(c.w, channel * c.w_c + u * c.w_u + v * c.w_v)
                    for m in range(m0, m0 + height):
                        store(to, load(shift(place, m * c.w_m)) if m < c.maps else zero(load(c.start)))
                        to = shift(to, 1)


@kernel
def correlate(part, parts, correlation_at, blocks, shape, filters):
    """Compute one part: a block of lines for a slice of samples.

    The U lines that one line of the result reads are in a panel, each at its number modulo U.
    """
    noinline()  # for the caller that shares parts among threads and the one that does not
    c = view(correlation_at)
    slices, number, block = parts // blocks, part // blocks, part % blocks
    n0, n1 = c.N * number // slices, c.N * (number + 1) // slices
    y0 = c.y0 + (c.y1 - c.y0) * block // blocks
    y1 = c.y0 + (c.y1 - c.y0) * (block + 1) // blocks
    S, x = n1 - n0, c.images
    first = c.x0 * c.step + c.origin_x + min(0, c.tap * (c.V - 1))
    columns = Columns(first, ((c.x1 - c.x0 - 1) * c.step + c.V + c.step - 1) // c.step, c.step)
    size = x.C * line_size(columns, S) + slack(c.out)
    memory = allocate(c.out, c.U * size + slack(c.out))
    panel = aligned(memory, REGISTER_BYTES)
    x_at = allocate(pointer_to(np.intp, np.intp(0)), c.U * x.C * c.V)
    scratch = allocate(c.out, slack(c.out) * _HEIGHTS[0])
    following = np.intp(0)  # the first line that is not in the panel
    for y in range(y0, y1):
        base = y * c.step + c.origin_y
        u0, u1 = (max(0, -base), min(c.U, x.H - base)) if c.tap > 0 else (max(0, base - x.H + 1), min(c.U, base + 1))
        low, high = (base + u0, base + u1) if c.tap > 0 else (base - u1 + 1, base - u0 + 1)
        for line in range(max(low, following), high):
            copy_line(x, line, columns, n0, S, shift(panel, line % c.U * size), line_size(columns, S))
        following = max(following, high)
        K = max(0, u1 - u0) * x.C * c.V
        _fill_offsets(c, base, u0, u1, size, columns, S, x_at)
        _correlate_line(c, y, n0, S, panel, x_at, shape, filters, u0 * x.C * c.V, K, scratch)
        if c.epilogue != NONE:
            _finish_line(c, y, n0, S)
    release(scratch)
    release(x_at)
    release(memory)


@kernel
def _fill_offsets(c, base, u0, u1, size, columns, S, x_at):
    """Where each place of the filters lies in the panel, from the place of an output on."""
    k, first = 0, min(0, c.tap * (c.V - 1))
    for u in range(u0, u1):
        line = (base + u * c.tap) % c.U * size
        for channel in range(c.images.C):
            for v in range(c.V):
                column = v * c.tap - first
                place = column % c.step * columns.count + column // c.step
                store(shift(x_at, k), line + channel * line_size(columns, S) + place * S)
                k += 1


@kernel
def _correlate_line(c, y, n0, S, panel, x_at, shape, filters, first, K, scratch):
    """The tiles of one line: all maps for one run, then the next run."""
    height, span = _HEIGHTS[shape], _WIDTHS[shape] * (REGISTER_BYTES // itemsize(c.out))
    columns, all_places = c.x1 - c.x0, c.U * c.images.C * c.V
    runs, run = (1, columns * S) if c.out_x == S else (columns, S)
    for number in range(runs):
        out = shift(c.out, y * c.out_y + (c.x0 + number) * c.out_x + n0)
        for begin in range(0, run, span):
            place = max(0, min(begin, run - span))  # the last tile overlaps: it computes the same again
            image = shift(panel, number * S + place)
            for m in range(0, c.maps, height):
                used, start = min(height, c.maps - m), shift(c.start, m * c.start_m)
                w, target = shift(filters, m * all_places + first * height), shift(out, m * c.out_m + place)
                if run >= span:
                    correlation_tile(shape, used, w, image, x_at, K, start, c.start_m, target, c.out_m)
                else:
                    correlation_tile(shape, used, w, image, x_at, K, start, c.start_m, scratch, span)
                    _copy_to_rows(scratch, span, target, c.out_m, used, run)


@kernel
def _finish_line(c, y, n0, S):
    """Apply the epilogue to one line."""
    runs, run = (1, (c.x1 - c.x0) * S) if c.out_x == S else (c.x1 - c.x0, S)
    for number in range(runs):
        place = y * c.out_y + (c.x0 + number) * c.out_x + n0
        out, beside = shift(c.out, place), shift(c.beside, place)
        finish(c.epilogue, out, c.out_m, c.maps, run, beside, c.out_m, c.settings)


@kernel
def _copy_to_rows(scratch, span, target, row, rows, count):
    for i in range(rows):
        for j in range(count):
            store(shift(target, i * row + j), load(shift(scratch, i * span + j)))
