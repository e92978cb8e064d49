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
from fastbp.runtime.gemm.epilogue import NONE, RECTIFY_SLOPE, finish
from fastbp.runtime.gemm.tile import zeros
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.lanes.panel import Columns, Images, cleared, copy_line, images_of, line_size, slack
from fastbp.runtime.lanes.tile import SHAPES, correlation_tile
from fastbp.runtime.lanes.windows import Windows, largest
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

_HEIGHTS, _WIDTHS = tuple(height for height, _ in SHAPES), tuple(widths for _, widths in SHAPES)


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
    pool: Any  # not 0: only the largest of pool × pool pixels are written, to `out`
    place: Any  # pointer to the numbers of those pixels in their windows


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


@entry_kernel
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
    zero, one, window = np.intp(0), np.intp(1), max(np.intp(1), out.pool)
    return Correlation(
        images, N, W, images.C * FH * FW, FH * FW, FW, one, b, one, F, FH, FW, stride, one, -pad, -pad,
        zero, out.H // window * window, zero, out.W // window * window, out.at, out.c, out.h, out.w,
        epilogue, beside, settings, out.pool, out.place,
    )  # fmt: skip


@kernel
def phase_of(dout, N, W, FH, FW, stride, pad, nothing, dx, i, j, epilogue, beside, settings):
    """The correlation that gives the pixels (y, x) of dx with y + pad = i and x + pad = j modulo the stride.

    Only every stride-th place of the filters W meets such pixels. Pixels that none meets are 0. `nothing` points to 0.
    `beside` lies as dx.
    """
    zero, one = np.intp(0), np.intp(1)
    y0, y1 = -((i - pad) // stride), -((i - pad - dx.H) // stride)
    x0, x1 = -((j - pad) // stride), -((j - pad - dx.W) // stride)
    U, V = max(zero, (FH - i + stride - 1) // stride), max(zero, (FW - j + stride - 1) // stride)
    pixel = (i - pad) * dx.h + (j - pad) * dx.w
    return Correlation(
        dout, N, shift(W, i * FW + j), FH * FW, dx.C * FH * FW, stride * FW, stride, nothing, zero, dx.C, U, V,
        one, -one, zero, zero, y0, y1, x0, x1, shift(dx.at, pixel), dx.c, stride * dx.h, stride * dx.w,
        epilogue, shift(beside, pixel), settings, zero, dx.at,
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


@entry_kernel
def _phases(team, words, like):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    pointer, done, stride = at(like, 0), True, words[20]
    dout, dx = images_of(words, pointer), images_of(words[8:], pointer)
    W, nothing, settings = located(pointer, words[17]), zeros(pointer), pointer_to(np.float64, np.intp(0))
    is_long = words[16] * dout.C * dx.C * words[18] * words[19] * dout.H * dout.W >= threads.WORTH_A_REGION
    gil = release_gil(is_long)
    for i in range(stride):
        for j in range(stride):
            phase = phase_of(
                dout, words[16], W, words[18], words[19], stride, words[21], nothing, dx, i, j, np.intp(NONE), dx.at,
                settings,
            )  # fmt: skip
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
        np.intp(0), pointer,
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
        used = min(height, c.maps - m0)
        for u in range(c.U):
            for channel in range(c.images.C):
                for v in range(c.V):
                    place = shift(c.w, m0 * c.w_m + channel * c.w_c + u * c.w_u + v * c.w_v)
                    for m in range(used):
                        store(shift(to, m), load(shift(place, m * c.w_m)))
                    for m in range(used, height):
                        store(shift(to, m), zero(load(c.start)))
                    to = shift(to, height)


class Part(NamedTuple):
    """What the lines of one part of a correlation have in common."""

    n0: Any  # the first sample
    S: Any  # samples
    columns: Columns  # of the panel
    lines: Any  # of the panel, line l at l modulo `lines`
    size: Any  # elements from one to the next
    panel: Any  # pointers
    x_at: Any
    unpooled: Any  # lines of the maps that are pooled together
    scratch: Any
    shape: Any  # of the tiles
    filters: Any


class Line(NamedTuple):
    """A line of the result; strides are in elements."""

    at: Any
    beside: Any  # what the epilogue reads or writes beside it
    m: Any
    x: Any
    x_at: Any  # pointer to where the places of the filters lie in the panel
    first: Any  # the first place that lies in the image
    K: Any  # and how many do


@kernel
def correlate(part, parts, correlation_at, blocks, shape, filters):
    """Compute one part: a block of lines for a slice of samples.

    The lines of the images that one line of the result reads, or those that are pooled together, are in a panel.
    """
    noinline()  # for the caller that shares parts among threads and the one that does not
    c = view(correlation_at)
    slices, number, block = parts // blocks, part // blocks, part % blocks
    n0, n1 = c.N * number // slices, c.N * (number + 1) // slices
    y0 = c.y0 + (c.y1 - c.y0) * block // blocks
    y1 = c.y0 + (c.y1 - c.y0) * (block + 1) // blocks
    S, together = n1 - n0, max(1, c.pool)
    first = c.x0 * c.step + c.origin_x + min(0, c.tap * (c.V - 1))
    columns = Columns(first, ((c.x1 - c.x0 - 1) * c.step + c.V + c.step - 1) // c.step, c.step)
    lines, size = c.U + (together - 1) * c.step, c.images.C * line_size(columns, S) + slack(c.out)
    places = c.U * c.images.C * c.V
    memory = allocate(c.out, lines * size + slack(c.out))
    panel = cleared(aligned(memory, REGISTER_BYTES), lines * size)
    x_at = allocate(pointer_to(np.intp, np.intp(0)), together * places)
    scratch = allocate(c.out, slack(c.out) * _HEIGHTS[0])
    unpooled = allocate(c.out, c.pool * c.maps * (c.x1 - c.x0) * S)
    part_at = record_pointer(Part(n0, S, columns, lines, size, panel, x_at, unpooled, scratch, shape, filters))
    following = np.intp(0)  # the first line of the images that is not in the panel
    for y in range(y0, y1, together):
        for i in range(together):
            following = _copy_lines(c, part_at, y + i, following)
            _fill_offsets(c, part_at, y + i, shift(x_at, i * places))
        if c.pool:
            _correlate_and_pool(c, part_at, y, places)
        else:
            _correlate_maps(c, part_at, _line_of(c, part_at, y, x_at), np.intp(0), c.maps)
    release(unpooled)
    release(scratch)
    release(x_at)
    release(memory)


@kernel
def _lines_in_image(c, y):
    """Of the lines of the filters those, u0:u1, that lie in the image for line y, and the line of u = 0."""
    base = y * c.step + c.origin_y
    if c.tap > 0:
        return max(0, -base), min(c.U, c.images.H - base), base
    return max(0, base - c.images.H + 1), min(c.U, base + 1), base


@kernel
def _copy_lines(c, part_at, y, following):
    """Copy to the panel what line y reads and what is not there yet. Returns the first line that is not there then."""
    p, (u0, u1, base) = view(part_at), _lines_in_image(c, y)
    low, high = (base + u0, base + u1) if c.tap > 0 else (base - u1 + 1, base - u0 + 1)
    for line in range(max(low, following), high):
        target = shift(p.panel, line % p.lines * p.size)
        copy_line(c.images, line, p.columns, p.n0, p.S, target, line_size(p.columns, p.S))
    return max(following, high)


@kernel
def _fill_offsets(c, part_at, y, x_at):
    """Where each place of the filters lies in the panel, from the place of an output in line y on."""
    p, (u0, u1, base) = view(part_at), _lines_in_image(c, y)
    k, first, channel_size = 0, min(0, c.tap * (c.V - 1)), line_size(p.columns, p.S)
    for u in range(u0, u1):
        line = (base + u * c.tap) % p.lines * p.size
        for v in range(c.V):
            if u == u0:
                column = v * c.tap - first
                place = line + (column % c.step * p.columns.count + column // c.step) * p.S
            else:
                place = load(shift(x_at, v)) - (base + u0 * c.tap) % p.lines * p.size + line
            for channel in range(c.images.C):
                store(shift(x_at, k + channel * c.V + v), place + channel * channel_size)
        k += c.images.C * c.V


@kernel
def _line_of(c, part_at, y, x_at):
    """Line y of the result; where that is pooled, of the lines that are pooled together."""
    p, (u0, u1, _) = view(part_at), _lines_in_image(c, y)
    first, K = u0 * c.images.C * c.V, max(0, u1 - u0) * c.images.C * c.V
    if c.pool:
        run = (c.x1 - c.x0) * p.S
        pixels = shift(p.unpooled, y % c.pool * run)
        return Line(pixels, pixels, c.pool * run, p.S, x_at, first, K)
    place = y * c.out_y + c.x0 * c.out_x + p.n0
    return Line(shift(c.out, place), shift(c.beside, place), c.out_m, c.out_x, x_at, first, K)


@kernel
def _correlate_and_pool(c, part_at, y, places):
    """The lines from y on that are pooled together, some maps at a time, which stay in the first-level cache."""
    p, zero = view(part_at), np.intp(0)
    height, run = _HEIGHTS[p.shape], (c.x1 - c.x0) * p.S
    windows = Windows(
        (c.x1 - c.x0) // c.pool, c.pool, zero, c.pool, zero, c.pool, c.pool, run, p.S, c.out_x
    )  # fmt: skip
    for m0 in range(0, c.maps, height):
        m1 = min(m0 + height, c.maps)
        for i in range(c.pool):
            _correlate_maps(c, part_at, _line_of(c, part_at, y + i, shift(p.x_at, i * places)), m0, m1)
        for m in range(m0, m1):
            pixels, pooled = shift(p.unpooled, m * c.pool * run), m * c.out_m + y // c.pool * c.out_y + p.n0
            largest(pixels, shift(c.out, pooled), shift(c.place, pooled), windows)


@kernel
def _correlate_maps(c, part_at, line, m0, m1):
    """Maps m0:m1 of one line: all of them for one piece of a run, then the next piece."""
    p, in_tile = view(part_at), c.epilogue if c.epilogue <= RECTIFY_SLOPE else NONE
    height, V, places = _HEIGHTS[p.shape], REGISTER_BYTES // itemsize(c.out), c.U * c.images.C * c.V
    runs, run = (1, (c.x1 - c.x0) * p.S) if line.x == p.S else (c.x1 - c.x0, p.S)
    for number in range(runs):
        begin = 0
        while begin < run:
            width = _width_for(p.shape, (run - begin + V - 1) // V)
            span = width * V
            place = max(0, min(begin, run - span))  # the last tile overlaps: it computes the same again
            image, target = shift(p.panel, number * p.S + place), number * line.x + place
            for m in range(m0, m1, height):
                used, start = min(height, m1 - m), shift(c.start, m * c.start_m)
                w, to = shift(p.filters, m * places + line.first * height), target + m * line.m
                out, beside = shift(line.at, to), shift(line.beside, to)
                if run >= span:
                    correlation_tile(
                        p.shape, width, used, w, image, line.x_at, line.K, start, c.start_m, out, line.m, in_tile,
                        beside,
                    )  # fmt: skip
                else:
                    correlation_tile(
                        p.shape, width, used, w, image, line.x_at, line.K, start, c.start_m, p.scratch, span,
                        np.intp(NONE), beside,
                    )  # fmt: skip
                    _copy_to_rows(p.scratch, span, out, line.m, used, run)
                    finish(in_tile, out, line.m, used, run, beside, line.m, c.settings)
            begin += span
        if in_tile != c.epilogue:
            to = number * line.x + m0 * line.m
            out, beside = shift(line.at, to), shift(line.beside, to)
            finish(c.epilogue, out, line.m, m1 - m0, run, beside, line.m, c.settings)


@kernel
def _width_for(shape, registers):
    """The narrowest width that holds so many registers; the widest where none does."""
    widths = _WIDTHS[shape]
    best = widths[0]
    for width in widths:
        if registers <= width < best:
            best = width
    return best


@kernel
def _copy_to_rows(scratch, span, target, row, rows, count):
    for i in range(rows):
        for j in range(count):
            store(shift(target, i * row + j), load(shift(scratch, i * span + j)))
