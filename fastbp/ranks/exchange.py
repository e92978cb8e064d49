"""Pieces of arrays on their way between ranks. All ranks know all pieces, so no sizes travel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastbp.checks import Array
from fastbp.engine.moving import collect, spread
from fastbp.ranks.messages import Messages

# Bytes of one piece of a rank from which on it travels alone, without a copy.
ALONE = 65_536

Block = tuple[int, int, int, int]
"""As `fastbp.engine.moving` has it."""


class Segment(NamedTuple):
    """Elements of a flat array that lie rank by rank: those of rank r are edges[r]:edges[r + 1]."""

    array: Array
    edges: Array

    @property
    def is_large(self) -> bool:
        """Whether it travels alone."""
        return bool(np.diff(self.edges).max() * self.array.itemsize >= ALONE)


def block(array: Array, begin: int, width: int, rows: int = 1, stride: int = 0) -> Block:
    """`rows` rows of `width` elements of a flat array, from `begin` on."""
    size = array.itemsize
    return int(array.ctypes.data + begin * size), int(rows), int(width * size), int(stride * size)


class Shared:
    """Everyone gets all segments. Small ones travel in one message.

    Attributes
    ----------
    messages : int
        How many collective operations there are.
    received : int
        Bytes that this rank gets.
    """

    def __init__(self, messages: Messages, segments: Iterable[Segment]) -> None:
        blocks: list[list[Block]] = [[] for _ in range(messages.size)]
        travelling: list[tuple[Array, Array]] = []
        for segment in segments:
            array, edges = segment
            sizes = np.diff(edges)
            if segment.is_large:
                travelling.append((array[edges[0] : edges[-1]].view(np.uint8), sizes * array.itemsize))
                continue
            for owner in np.flatnonzero(sizes):
                blocks[owner].append(block(array, edges[owner], sizes[owner]))
        rank, sizes = messages.rank, np.array([_size(given) for given in blocks])
        ends, buffer = np.cumsum(sizes), np.empty(sizes.sum(), np.uint8)
        first, last = int(ends[rank] - sizes[rank]), int(ends[rank])
        self._given = _table([blocks[rank]]), buffer[first:last]
        before, after = _table(blocks[:rank]), _table(blocks[rank + 1 :])
        self._taken = [(before, buffer[:first]), (after, buffer[last:])]
        if len(buffer):
            travelling.append((buffer, sizes))
        self._shares = [messages.sharing(*each) for each in travelling]
        self.messages = len(travelling)
        self.received = sum(int(sizes.sum() - sizes[rank]) for _, sizes in travelling)

    def begin(self) -> list[Any]:
        """Send what this rank has; the requests to wait for before `end`."""
        collect(*self._given)
        return [share() for share in self._shares]

    def end(self) -> None:
        """Put what came where it belongs."""
        for blocks, buffer in self._taken:
            if len(blocks):
                spread(blocks, buffer)


class Scattered:
    """Each rank gets blocks of its own from each other one; attributes as those of `Shared`."""

    def __init__(self, messages: Messages, given: Sequence[list[Block]], taken: Sequence[list[Block]]) -> None:
        to, from_ = (np.array([_size(each) for each in blocks]) for blocks in (given, taken))
        out, into = np.empty(to.sum(), np.uint8), np.empty(from_.sum(), np.uint8)
        self._given, self._taken = (_table(given), out), (_table(taken), into)
        self._scatter = messages.scattering(out, to, into, from_)
        self.messages, self.received = 1, int(from_.sum())

    def begin(self) -> list[Any]:
        """As that of `Shared`."""
        collect(*self._given)
        return [self._scatter()]

    def end(self) -> None:
        """As that of `Shared`."""
        spread(*self._taken)


Exchange = Shared | Scattered


def begin(exchanges: Iterable[Exchange]) -> list[Any]:
    """Begin exchanges; the requests to wait for."""
    return [request for each in exchanges for request in each.begin()]


def end(messages: Messages, exchanges: Iterable[Exchange], requests: Sequence[Any]) -> None:
    """Wait for exchanges, and put what came where it belongs."""
    messages.wait(requests)
    for each in exchanges:
        each.end()


def _size(blocks: Iterable[Block]) -> int:
    return sum(rows * width for _, rows, width, _ in blocks)


def _table(blocks: Sequence[list[Block]]) -> Array:
    return np.array([each for given in blocks for each in given], np.intp).reshape(-1, 4)
