"""Pieces of memory, gathered into one buffer and put back: what goes to other processes in one message."""

from __future__ import annotations

import numpy as np

from fastbp.runtime.jit import kernel, unlocked_kernel
from fastbp.runtime.pointers import at, load, pointer_to, shift, store

# A block is an address, how many rows there are, the bytes of a row, and those from one row to the next.


@unlocked_kernel
def collect(blocks, buffer):
    """Copy blocks into a buffer, one after the other."""
    out = at(buffer, 0)
    for number in range(len(blocks)):
        address, rows, width, stride = blocks[number]
        for row in range(rows):
            _copy(pointer_to(np.uint8, address + row * stride), out, width)
            out = shift(out, width)


@unlocked_kernel
def spread(blocks, buffer):
    """Copy what `collect` put into a buffer to blocks."""
    given = at(buffer, 0)
    for number in range(len(blocks)):
        address, rows, width, stride = blocks[number]
        for row in range(rows):
            _copy(given, pointer_to(np.uint8, address + row * stride), width)
            given = shift(given, width)


@kernel
def _copy(given, out, count):
    for k in range(count):
        store(shift(out, k), load(shift(given, k)))
