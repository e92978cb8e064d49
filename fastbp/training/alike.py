"""What ranks that train together must have alike, in words for an error."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from fastbp.engine import plan
from fastbp.ops.contract import state_of
from fastbp.optimizers import Optimizer
from fastbp.training.protocol import Network


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
