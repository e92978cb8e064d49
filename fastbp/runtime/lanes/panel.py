"""Lines of images copied to where a correlation reads them: with borders of zeros, and samples side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbp.runtime import threads
from fastbp.runtime.elementary import zero
from fastbp.runtime.jit import kernel, noinline
from fastbp.runtime.lanes.tile import copy_run
from fastbp.runtime.pointers import at, load, located, record_pointer, shift, store, view
from fastbp.runtime.sharing import WORTH_SHARING
from fastbp.runtime.threads import in_parallel, parts_of, release_gil, take_gil


class Images(NamedTuple):
    """Images (N, C, H, W) anywhere in memory; strides are in elements."""

    at: Any  # pointer to the first element
    n: Any  # strides
    c: Any
    h: Any
    w: Any
    C: Any
    H: Any
    W: Any


class Lines(NamedTuple):
    """Which part of images a panel holds, (C, lines, step, columns, S): column x of the part is at x % step, x // step.

    Lines and columns may lie outside of the images. Those hold zeros.
    """

    first_line: Any
    lines: Any
    first_column: Any
    columns: Any  # of each of `step` phases
    step: Any


@kernel
def panel_size(images, lines, S):
    """Elements of a panel for S samples."""
    return images.C * lines.lines * lines.step * lines.columns * S


@kernel
def copy_panel(images, lines, n0, n1, panel):
    """Copy the lines of samples n0:n1 to a panel."""
    noinline()  # correlation and gradient would each compile it
    S, size = n1 - n0, lines.step * lines.columns * (n1 - n0)
    for c in range(images.C):
        for number in range(lines.lines):
            y = lines.first_line + number
            target = shift(panel, (c * lines.lines + number) * size)
            if y < 0 or y >= images.H:
                _clear(target, size)
                continue
            source = shift(images.at, n0 * images.n + c * images.c + y * images.h)
            for phase in range(lines.step):
                row = shift(target, phase * lines.columns * S)
                _copy_line(images, source, lines.first_column + phase, lines.step, lines.columns, S, row)


@kernel
def _copy_line(images, source, first, step, columns, S, target):
    """Copy columns first, first + step, ... of one line."""
    begin = min(columns, max(0, (step - 1 - first) // step))
    end = max(begin, min(columns, (images.W - first + step - 1) // step))
    _clear(target, begin * S)
    _clear(shift(target, end * S), (columns - end) * S)
    if images.n != 1:
        for q in range(begin, end):
            column = shift(source, (first + q * step) * images.w)
            for n in range(S):
                store(shift(target, q * S + n), load(shift(column, n * images.n)))
    elif step == 1 and images.w == S:
        copy_run(shift(source, (first + begin) * S), shift(target, begin * S), (end - begin) * S)
    else:
        for q in range(begin, end):
            copy_run(shift(source, (first + q * step) * images.w), shift(target, q * S), S)


@kernel
def _clear(target, count):
    for i in range(count):
        store(shift(target, i), zero(load(target)))


def images_to_lanes(words: tuple[int, ...], out: Any) -> None:
    """Copy images to an array (C, H, W, N), on several threads where that pays.

    Parameters
    ----------
    words : tuple of int
        The fields of `Images`, with an address for the pointer.
    out : ndarray (C, H, W, N)
        C-contiguous, in the dtype of the images.
    """
    if out.size == 0:
        return
    if not _images_to_lanes(threads.TEAM, words, out):
        threads.start()
        _images_to_lanes(threads.TEAM, words, out)


@kernel
def _images_to_lanes(team, words, out):
    """Returns whether it was done: not where threads that it would be worth are not there yet."""
    C, _, _, N = out.shape
    is_long, done = out.size >= WORTH_SHARING, True
    images = record_pointer(images_of(words, at(out, 0)))
    gil = release_gil(is_long)
    if is_long and parts_of(team) > 1 and C > 1:
        done = in_parallel(team, C, _channel_to_lanes, (images, N, at(out, 0)))
    else:
        for channel in range(C):
            _channel_to_lanes(channel, C, images, N, at(out, 0))
    take_gil(gil)
    return done


@kernel
def _channel_to_lanes(channel, channels, images_at, N, out):
    x = view(images_at)
    one = Images(shift(x.at, channel * x.c), x.n, x.c, x.h, x.w, np.intp(1), x.H, x.W)
    zero = np.intp(0)
    copy_panel(one, Lines(zero, x.H, zero, x.W, np.intp(1)), zero, N, shift(out, channel * x.H * x.W * N))


@kernel
def images_of(words, like):
    """The images that words describe: an address and the further fields; elements are as at `like`."""
    return Images(located(like, words[0]), words[1], words[2], words[3], words[4], words[5], words[6], words[7])
