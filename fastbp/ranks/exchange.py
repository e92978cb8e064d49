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


def block(array: Array, begin: int, width: int, rows: int = 1, stride: int = 0) -> Block:
    """`rows` rows of `width` elements of a flat array, from `begin` on."""
    size = array.itemsize
    return int(array.ctypes.data + begin * size), int(rows), int(width * size), int(stride * size)


class Shared:
    """Everyone gets all segments. Small ones travel in one message."""

    def __init__(self, messages: Messages, segments: Iterable[Segment]) -> None:
        self._messages = messages
        self._alone: list[tuple[Array, Array]] = []
        blocks: list[list[Block]] = [[] for _ in range(messages.size)]
        for array, edges in segments:
            sizes = np.diff(edges)
            if sizes.max() * array.itemsize >= ALONE:
                self._alone.append((array[edges[0] : edges[-1]].view(np.uint8), sizes * array.itemsize))
                continue
            for owner in np.flatnonzero(sizes):
                blocks[owner].append(block(array, edges[owner], sizes[owner]))
        self._sizes = np.array([_size(given) for given in blocks])
        self._buffer = np.empty(self._sizes.sum(), np.uint8)
        rank = messages.rank
        ends = np.cumsum(self._sizes)
        self._begin, self._end = int(ends[rank] - self._sizes[rank]), int(ends[rank])
        self._own, self._before, self._after = _table([blocks[rank]]), _table(blocks[:rank]), _table(blocks[rank + 1 :])

    def begin(self) -> list[Any]:
        """Send what this rank has; the requests to wait for before `end`."""
        requests = [self._messages.share(*given) for given in self._alone]
        if len(self._buffer):
            collect(self._own, self._buffer[self._begin : self._end])
            requests.append(self._messages.share(self._buffer, self._sizes))
        return requests

    def end(self) -> None:
        """Put what came where it belongs."""
        spread(self._before, self._buffer[: self._begin])
        spread(self._after, self._buffer[self._end :])


class Scattered:
    """Each rank gets blocks of its own from each other one."""

    def __init__(self, messages: Messages, given: Sequence[list[Block]], taken: Sequence[list[Block]]) -> None:
        self._messages = messages
        self._given, self._taken = _table(given), _table(taken)
        self._to, self._from = (np.array([_size(each) for each in blocks]) for blocks in (given, taken))
        self._out, self._in = np.empty(self._to.sum(), np.uint8), np.empty(self._from.sum(), np.uint8)

    def begin(self) -> list[Any]:
        """As that of `Shared`."""
        collect(self._given, self._out)
        return [self._messages.scatter(self._out, self._to, self._in, self._from)]

    def end(self) -> None:
        """As that of `Shared`."""
        spread(self._taken, self._in)


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
