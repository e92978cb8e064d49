"""The samples of a batch, brought from the ranks that hold them to those that need them.

The arrays of all ranks, one after the other, are one data set, and samples are numbered in it. A rank gets its rows of
the batch with their targets, and of the other rows what its gradients read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastbp.checks import INTP, Array
from fastbp.engine.moving import collect, spread
from fastbp.engine.steps import Data
from fastbp.ranks.messages import Messages


class Need(NamedTuple):
    """What a rank needs of a batch: rows first:last with their targets, and columns begin:end of x of the others."""

    first: int
    last: int
    begin: int
    end: int


class Shards:
    """Brings batches of up to `batch_size` samples. Rank r holds the samples from edges[r] on, up to edges[r + 1]."""

    def __init__(self, messages: Messages, edges: Array, batch_size: int) -> None:
        self._messages, self._edges, self._batch_size = messages, edges, batch_size
        self._batch: tuple[Array, ...] = ()

    def fetch(self, data: Data, samples: Array, needs: list[Need]) -> Data:
        """Those of these samples that this rank needs, where they are rows 0 to N of new data.

        `data` is what this rank holds; `needs` is by rank.
        """
        rank, held = self._messages.rank, (data.x, data.labels, data.targets)
        if [array.shape[1:] for array in held] != [array.shape[1:] for array in self._batch]:
            self._batch = tuple(np.zeros((self._batch_size, *array.shape[1:]), array.dtype) for array in held)
        batch = tuple(mine if len(array) else array for mine, array in zip(self._batch, held, strict=True))
        owners = np.searchsorted(self._edges, samples, "right") - 1
        rows, places = samples - self._edges[rank], np.arange(len(samples))
        mine = owners == rank
        for array, here in zip(held, batch, strict=True):
            if len(array):
                here[places[mine]] = array[rows[mine]]
        given = [_blocks(held, rows[mine], places[mine], need) for need in needs]
        others = (places[owners == other] for other in range(len(needs)))
        taken = [_blocks(batch, theirs, theirs, needs[rank]) for theirs in others]
        given[rank] = taken[rank] = np.empty((0, 4), INTP)
        to, from_ = (np.array([int((each[:, 1] * each[:, 2]).sum()) for each in blocks]) for blocks in (given, taken))
        out, into = np.empty(to.sum(), np.uint8), np.empty(from_.sum(), np.uint8)
        collect(np.concatenate(given), out)
        self._messages.wait([self._messages.scattering(out, to, into, from_)()])
        spread(np.concatenate(taken), into)
        x, labels, targets = batch
        return data._replace(x=x, labels=labels, targets=targets)


def joined(samples: int, weights: Array | None, gather: Callable[[Any], list[Any]]) -> tuple[Array, Array | None]:
    """Where the samples of each rank begin among those of all, and where they end; and the weights of all."""
    held = gather((samples, weights))
    given = [theirs for _, theirs in held if theirs is not None]
    if len(given) not in (0, len(held)):
        raise ValueError(
            f"sample_weight: expected weights for the samples of every rank, got those of {len(given)} of "
            f"{len(held)} ranks; give all of them, or leave them out"
        )
    return np.cumsum([0, *(theirs for theirs, _ in held)]), np.concatenate(given) if given else None


def _blocks(arrays: tuple[Array, ...], rows: Array, places: Array, need: Need) -> Array:
    """What a rank needs of rows of x, labels and targets, for the places of the batch where they belong."""
    is_own = (need.first <= places) & (places < need.last)
    x, *targets = arrays
    size = x.itemsize
    own = rows[is_own]
    whole = [_rows(array, own, 0, _row_bytes(array)) for array in (x, *targets) if len(array)]
    return np.concatenate([*whole, _rows(x, rows[~is_own], need.begin * size, (need.end - need.begin) * size)])


def _rows(array: Array, rows: Array, begin: int, width: int) -> Array:
    """A block for each row of an array: `width` bytes of it."""
    blocks = np.zeros((len(rows), 4), INTP)
    blocks[:, 0], blocks[:, 1], blocks[:, 2] = array.ctypes.data + rows * _row_bytes(array) + begin, 1, width
    return blocks


def _row_bytes(array: Array) -> int:
    return array.itemsize * math.prod(array.shape[1:])
