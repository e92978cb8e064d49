"""What ranks that train together, or a run and the one that it goes on from, must have alike: in words for an error."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastbp.checks import INTP, Array
from fastbp.engine import plan
from fastbp.ops.contract import state_of
from fastbp.optimizers import Optimizer
from fastbp.training.protocol import Network

Gather = Callable[[Any], list[Any]]

# Samples, and numbers of each, that stand for data in a comparison: it reads some megabytes of a file of any size.
SAMPLES, NUMBERS = 256, 1024


def data_words(arrays: Mapping[str, Array], first: int = 0, gather: Gather = lambda found: [found]) -> dict[str, str]:
    """Data in words, of which a few samples stand for all.

    Where ranks hold parts of it, `first` is where that of this one begins, and `gather` brings what is found together:
    the words are the same for any such division.
    """
    counts = gather(max(map(len, arrays.values())))
    parts = gather({name: _checksums(array, first, sum(counts)) for name, array in arrays.items()})
    return {name: _word(array.dtype, [each for part in parts for each in part[name]]) for name, array in arrays.items()}


def _checksums(array: Array, first: int, samples: int) -> list[int]:
    """The checksums of a few of so many samples: of those that are in `array`, which begins with the `first` one."""
    chosen = _spread(samples, SAMPLES) - first
    rows = array.reshape(len(array), math.prod(array.shape[1:]))
    some = rows[np.ix_(chosen[(chosen >= 0) & (chosen < len(rows))], _spread(rows.shape[1], NUMBERS))]
    return [zlib.crc32(row.tobytes()) for row in some.astype(some.dtype.newbyteorder("<"))]


def _word(dtype: np.dtype[Any], found: list[int]) -> str:
    return f"{dtype.name} with the checksum {zlib.crc32(np.array(found, '<u4').tobytes()):08x}"


def _spread(count: int, most: int) -> Array:
    """At most so many of `count` places, spread over all, with the first and the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(INTP)


def network_words(network: Network, optimizer: Optimizer) -> dict[str, str]:
    """A network and its optimizer."""
    layers, loss = list(network.layers.values()), network.last_layer
    found = {
        "layers": ", ".join(type(layer).__name__ for layer in layers),
        "settings of layers": str(plan.own_words(layers, loss)),
        "loss": type(loss).__name__,
        "optimizer": _words_of_optimizer(optimizer),
        "weight_decay_lambda": str(network.weight_decay_lambda),
    }
    found |= {f"params[{key!r}]": words(value) for key, value in network.params.items()}
    return found | {f"{name} of layer {number + 1}": words(it) for (number, name), it in state_of(layers).items()}


def words(value: object) -> str:
    """A value in words: what is alike has the same."""
    if isinstance(value, np.ndarray):
        numbers = zlib.crc32(value.tobytes())
        return f"{value.dtype} {value.shape} with the checksum {numbers:08x}"
    if isinstance(value, np.random.Generator):
        return f"a generator in the state {value.bit_generator.state}"
    if isinstance(value, Mapping):
        return str({key: words(each) for key, each in value.items()})
    return getattr(value, "__qualname__", None) or repr(value)


def _words_of_optimizer(optimizer: Optimizer) -> str:
    settings = {name: getattr(optimizer, name) for name in (*optimizer.setting_names(), *optimizer.state_names())}
    settings["iter"] = optimizer.iter
    return f"{type(optimizer).__name__} with {words(settings)}"
