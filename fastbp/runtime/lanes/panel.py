"""Lines of images copied to where a correlation reads them: with borders of zeros, and samples side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.elementary import zero
from fastbp.runtime.jit import entry_kernel, kernel, noinline
from fastbp.runtime.lanes.tile import copy_runs
from fastbp.runtime.lanes.windows import Windows, spread_to_largest
from fastbp.runtime.pointers import at, itemsize, load, located, record_pointer, shift, store, view
from fastbp.runtime.sharing import WORTH_SHARING
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil
from fastbp.runtime.vectors import REGISTER_BYTES


class Images(NamedTuple):
    """Images (N, C, H, W) anywhere in memory; strides are in elements.

    Where `pool` is not 0, `at` and the strides are of what pooled images have for each window of pool × pool pixels,
    and `place` says which pixel of the window has it. All other pixels are 0.
    """

    at: Any  # pointer to the first element
    n: Any  # strides
    c: Any
    h: Any
    w: Any
    C: Any
    H: Any
    W: Any
    place: Any  # pointer to numbers of pixels, strides as `at`
    pool: Any


class Columns(NamedTuple):
    """Which columns of a line a panel holds, (step, count, samples): column first + x is at x % step, x // step.

    Columns may lie outside of the image. They hold zeros.
    """

    first: Any
    count: Any  # of each of `step` phases
    step: Any


@kernel
def images_of(words, like):
    """The images that words describe: an address and the further fields; elements are as at `like`."""
    first, none = located(like, words[0]), np.intp(0)
    return Images(first, words[1], words[2], words[3], words[4], words[5], words[6], words[7], first, none)


@kernel
def slice_of(memory, i0, S, C, H, W):
    """Images i0:i0 + S of memory that has the samples of a slice side by side, (C, H, W, S)."""
    first = shift(memory, i0 * C * H * W)
    return Images(first, np.intp(1), H * W * S, W * S, S, C, H, W, first, np.intp(0))


@kernel
def unpooled_slice(memory, places, i0, S, C, H, W, pool):
    """Images (C, H, W, S) with the numbers of a slice at `memory` in the pixels of their windows at `places`."""
    lines, columns = H // pool, W // pool
    first, place = shift(memory, i0 * C * lines * columns), shift(places, i0 * C * lines * columns)
    return Images(first, np.intp(1), lines * columns * S, columns * S, S, C, H, W, place, pool)


@kernel
def line_size(columns, S):
    """Elements of a line for S samples, a multiple of a register's."""
    return columns.step * columns.count * S


@kernel
def slack(pointer):
    """Elements behind a panel that copies may write to and tiles may read."""
    return 16 * (REGISTER_BYTES // itemsize(pointer))


@kernel
def copy_line(images, y, columns, n0, S, target, channel_size):
    """Copy line y of every channel, for samples n0:n0 + S, to lines `channel_size` apart.

    A line outside of the image becomes zeros. Columns outside are zeros before, as `cleared` leaves them.
    """
    noinline()  # correlation and gradient would each compile it
    for c in range(images.C):
        line = shift(target, c * channel_size)
        if y < 0 or y >= images.H:
            cleared(line, line_size(columns, S))
            continue
        if images.pool:
            _spread_line(images, c, y, columns, n0, S, line)
            continue
        source = shift(images.at, n0 * images.n + c * images.c + y * images.h)
        for phase in range(columns.step):
            row = shift(line, phase * columns.count * S)
            _copy_columns(images, source, columns.first + phase, columns, S, row)


@kernel
def _copy_columns(images, source, first, columns, S, target):
    """Copy columns first, first + step, ... of one line."""
    step, count = columns.step, columns.count
    begin = min(count, max(0, (step - 1 - first) // step))
    end = max(begin, min(count, (images.W - first + step - 1) // step))
    if images.n != 1:
        for q in range(begin, end):
            column = shift(source, (first + q * step) * images.w)
            for n in range(S):
                store(shift(target, q * S + n), load(shift(column, n * images.n)))
    elif step == 1 and images.w == S:
        copy_runs(shift(source, (first + begin) * S), 0, shift(target, begin * S), 0, 1, (end - begin) * S)
    else:
        copied = shift(source, (first + begin * step) * images.w)
        copy_runs(copied, step * images.w, shift(target, begin * S), S, end - begin, S)


@kernel
def _spread_line(images, c, y, columns, n0, S, target):
    """Line y of a channel of images that pooled ones give; `columns` have one phase."""
    pool, first, count = images.pool, columns.first, columns.count
    line, i = y // pool, y % pool
    if line >= images.H // pool:
        cleared(target, line_size(columns, S))
        return
    row, windows, q = n0 * images.n + c * images.c + line * images.h, images.W // pool, max(0, first // pool)
    while q < windows and q * pool < first + count:
        column, number = q * pool - first, 1
        j0, j1 = max(0, -column), min(pool, count - column)
        if j0 == 0 and j1 == pool:
            number = min(windows - q, (count - column) // pool)
        at_window, pixels = row + q * images.w, shift(target, column * S)
        spread_to_largest(
            shift(images.at, at_window), shift(images.place, at_window), pixels, False,
            Windows(number, pool, i, i + 1, j0, j1, pool, np.intp(0), S, images.w),
        )  # fmt: skip
        q += number


@kernel
def cleared(memory, count):
    """`memory`, `count` elements of it zeros."""
    for i in range(count):
        store(shift(memory, i), zero(load(memory)))
    return memory


def images_to_lanes(words: tuple[int, ...], out: Any) -> None:
    """Copy images to an array (C, H, W, N), on several threads where that pays.

    Parameters
    ----------
    words : tuple of int
        The fields of `Images`, with an address for the pointer.
    out : ndarray (C, H, W, N)
        C-contiguous, in the dtype of the images.
    """
    if not _images_to_lanes(threads.TEAM, words, out):
        threads.start()
        _images_to_lanes(threads.TEAM, words, out)


@entry_kernel
def _images_to_lanes(team, words, out):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    C, done = len(out), True
    images = record_pointer(images_of(words, at(out, 0)))
    is_long = out.size >= WORTH_SHARING
    gil = release_gil(is_long)
    if is_long and parts_of(team) > 1 and C > 1:
        done = in_parallel(team, C, _channel_to_lanes, (images, out.shape[3], at(out, 0)))
    else:
        for channel in range(C):
            _channel_to_lanes(channel, C, images, out.shape[3], at(out, 0))
    take_gil(gil)
    return done


@kernel
def _channel_to_lanes(channel, channels, images_at, N, out):
    """Copy one channel, some samples at a time, whose lines then stay in the first-level cache."""
    x = view(images_at)
    for y in range(x.H):
        source = shift(x.at, channel * x.c + y * x.h)
        line = shift(out, (channel * x.H + y) * x.W * N)
        for n0 in range(0, N, _SAMPLES):
            for q in range(x.W):
                for n in range(n0, min(n0 + _SAMPLES, N)):
                    store(shift(line, q * N + n), load(shift(source, n * x.n + q * x.w)))


# Samples whose lines are copied together: as many lines of a cache as its first level surely holds.
_SAMPLES = 64
