"""Pieces of memory, gathered into one buffer and put back: what goes to other processes in one message."""

from __future__ import annotations

import numpy as np

from fastbp.runtime.jit import unlocked_kernel
from fastbp.runtime.pointers import load, pointer_to, shift, store

# A block is an address, how many rows there are, the bytes of a row, and those from one row to the next.


@unlocked_kernel
def collect(blocks, buffer):
    """Copy blocks into a buffer, one after the other."""
    place = 0
    for number in range(len(blocks)):
        address, rows, width, stride = blocks[number]
        for row in range(rows):
            given = pointer_to(np.uint8, address + row * stride)
            for k in range(width):
                buffer[place + k] = load(shift(given, k))
            place += width


@unlocked_kernel
def spread(blocks, buffer):
    """Copy what `collect` put into a buffer to blocks."""
    place = 0
    for number in range(len(blocks)):
        address, rows, width, stride = blocks[number]
        for row in range(rows):
            out = pointer_to(np.uint8, address + row * stride)
            for k in range(width):
                store(shift(out, k), buffer[place + k])
            place += width
