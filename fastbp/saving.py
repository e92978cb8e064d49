"""Networks, optimizers, arrays and other values in files that are whole or refused.

`fastbp.files` writes and reads the files, `fastbp.contents` says what is in them; here a file becomes a network again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from fastbp.checks import Array
from fastbp.contents import (
    NETWORKS,
    class_named,
    layer_from,
    network_contents,
    optimizer_contents,
    optimizer_from,
    optimizer_state,
    save,
    set_optimizer_state,
)
from fastbp.files import VERSION, FilePath, read, write
from fastbp.network import Sequential

__all__ = [
    "VERSION",
    "load",
    "network_contents",
    "network_from",
    "optimizer_contents",
    "optimizer_from",
    "optimizer_state",
    "read",
    "save",
    "set_optimizer_state",
    "write",
]


def load(path: FilePath) -> Sequential:
    """Return the network that `save` wrote: equal layers, names, loss and parameters, bitwise.

    Training goes on from there as it would have without the file: with the same arguments, `fit` ends with bitwise the
    same parameters. The optimizer that was saved with the network is its attribute `optimizer`.

    Parameters
    ----------
    path : path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or not a network's.

    Examples
    --------
    >>> fastbp.save(network, "network.npz", fastbp.optimizers.Adam())
    >>> loaded = fastbp.load("network.npz")
    >>> type(loaded).__name__, type(loaded.optimizer).__name__
    ('TwoLayerNet', 'Adam')
    >>> np.array_equal(loaded.params["W1"], network.params["W1"])
    True
    """
    arrays, meta = read(path)
    try:
        network = network_from(arrays, meta)
        if "optimizer" in meta:
            network.optimizer = optimizer_from(arrays, meta)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    return network


def network_from(arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Sequential:
    """Return the network that `network_contents` described.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Kept by the layers, not copied.
    meta : mapping
        Keys other than "network" are left alone.

    Raises
    ------
    ValueError
        If they describe no network, or one with a class that is not known here.
    """
    if "network" not in meta:
        raise ValueError(
            f"meta: expected the description of a network, got only {list(meta)}; use read for other contents"
        )

    try:
        description = meta["network"]
        network_class = class_named(description["class"], "network", NETWORKS.values())
        layers = OrderedDict((layer["name"], layer_from(layer, arrays)) for layer in description["layers"])
        # Not by the class's own constructor: TwoLayerNet's would draw weights.
        network: Sequential = network_class.__new__(network_class)
        Sequential.__init__(network, layers, layer_from(description["loss"], arrays))
        network.weight_decay_lambda = description.get("weight_decay_lambda", 0.0)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"meta: expected the whole description of a network, got one that does not fit ({error}); save it again"
        ) from None
    return network
