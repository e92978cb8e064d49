"""What a file holds of networks and optimizers: their arrays by name, and a description in plain values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Protocol, TypeVar

from fastbp import files
from fastbp.checks import Array, whole_number
from fastbp.files import FilePath
from fastbp.layers import Layer, LossLayer
from fastbp.ops.contract import LAYERS, LayerRecord
from fastbp.optimizers import OPTIMIZERS, Optimizer

# The classes of networks by name. Modules above this one define them, and give each to `registered`.
NETWORKS: dict[str, Any] = {}

NetworkClass = TypeVar("NetworkClass", bound=type)


class Stack(Protocol):
    """What a file holds of a network."""

    layers: OrderedDict[str, Layer]
    last_layer: LossLayer
    weight_decay_lambda: float

    @property
    def params(self) -> MutableMapping[str, Array]:
        """The layers' own arrays by name."""


def registered(network_class: NetworkClass) -> NetworkClass:
    """Let files hold networks of this class, by its name. A decorator."""
    NETWORKS[network_class.__name__] = network_class
    return network_class


def save(network: Stack, path: FilePath, optimizer: Optimizer | None = None) -> None:
    """Save a network: its class, its layers with their names, settings and parameters, and its loss.

    After loading, dropout layers go on with the masks after those that were drawn. What layers keep between forward and
    backward is not saved. `np.load(path)` gives the parameters by the names of `network.params`, W1, b1 and so on.

    Parameters
    ----------
    network : Sequential, or one of fastbp's networks that are derived from it
        Of layers of `fastbp.layers`.
    path : path
        Taken as it is, no suffix is added. The file is replaced at once or stays as it was.
    optimizer : Optimizer, optional
        To be saved with the network: its settings, its state and the number of its updates.

    Raises
    ------
    TypeError
        For a layer, loss, network or optimizer of another class, and for an optimizer whose rate is a function.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> network.save("network.npz")
    >>> fastbp.load("network.npz").params["W1"].shape
    (4, 3)
    """
    arrays, meta = network_contents(network)
    if optimizer is not None:
        more_arrays, more_meta = optimizer_contents(optimizer)
        arrays, meta = arrays | more_arrays, meta | more_meta
    files.write(path, arrays, meta)


def network_contents(network: Stack) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what `write` takes to save a network, so that more can be saved beside it.

    Parameters
    ----------
    network : Sequential, or one of fastbp's networks that are derived from it

    Returns
    -------
    arrays : dict of str to ndarray
        The layers' own arrays, by the names of `network.params`.
    meta : dict
        The description of the network, under the one key "network".

    Raises
    ------
    TypeError
        As `save`.
    """
    if type(network) not in NETWORKS.values():
        raise TypeError(
            f"network: expected one of {', '.join(NETWORKS)}, got {type(network).__name__}; "
            f"save its parameters with np.savez(path, **dict(network.params))"
        )
    # By identity, so that one array in two layers is one array again.
    names = {id(array): name for name, array in network.params.items()}
    arrays: dict[str, Array] = {}
    described = [_described(name, layer, names, arrays) for name, layer in network.layers.items()]
    loss = _described("loss", network.last_layer, names, arrays)
    meta: dict[str, Any] = {"class": type(network).__name__, "layers": described, "loss": loss}
    if network.weight_decay_lambda:
        meta["weight_decay_lambda"] = network.weight_decay_lambda
    return arrays, {"network": meta}


def layer_from(description: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Return the layer of a description, with its own arrays out of `arrays`."""
    layer_class = class_named(description["class"], "layer", LAYERS)
    record, settings = LAYERS[layer_class], description["settings"]
    own = {attribute: arrays[description["arrays"][attribute]] for attribute in record.arrays}
    # A file of an earlier version may lack a setting that has come since.
    layer = layer_class(**own, **{name: settings[name] for name in record.settings if name in settings})
    for attribute in record.counters:
        setattr(layer, attribute, _count(attribute, settings[attribute]))
    return layer


def optimizer_contents(optimizer: Optimizer) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what `fastbp.files.write` takes to save an optimizer.

    Parameters
    ----------
    optimizer : Optimizer
        Of `fastbp.optimizers`.

    Returns
    -------
    arrays : dict of str to ndarray
        As `optimizer_state`.
    meta : dict
        The description of the optimizer, under the one key "optimizer".

    Raises
    ------
    TypeError
        As `save`.
    """
    if type(optimizer) not in OPTIMIZERS:
        raise TypeError(
            f"optimizer: expected one of the classes {', '.join(kind.__name__ for kind in OPTIMIZERS)}, got "
            f"{type(optimizer).__name__}; save the network alone"
        )
    if callable(optimizer.lr):
        raise TypeError(
            f"optimizer.lr: expected a number or an array, got {type(optimizer.lr).__name__}, which no file can hold; "
            f"give an array with one rate for each step, or the number optimizer.current_lr"
        )
    description = {
        "class": type(optimizer).__name__,
        "settings": {name: getattr(optimizer, name) for name in optimizer.setting_names()},
        "iter": optimizer.iter,
    }
    return optimizer_state(optimizer), {"optimizer": description}


def optimizer_from(arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that `optimizer_contents` described.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Kept by the optimizer, not copied; others than its own are left alone.
    meta : mapping

    Raises
    ------
    ValueError
        If they describe no optimizer, or one with a class that is not known here.
    """
    try:
        description = meta["optimizer"]
        optimizer: Optimizer = class_named(description["class"], "optimizer", OPTIMIZERS)(**description["settings"])
        set_optimizer_state(optimizer, arrays, _count("iter", description["iter"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"meta: expected the whole description of an optimizer, got one that does not fit ({error}); save it again"
        ) from None
    return optimizer


def optimizer_state(optimizer: Optimizer) -> dict[str, Array]:
    """Return the optimizer's own arrays, by state and parameter: "v W1"."""
    return {
        f"{name} {key}": value
        for name in optimizer.state_names()
        for key, value in (getattr(optimizer, name) or {}).items()
    }


def set_optimizer_state(optimizer: Optimizer, arrays: Mapping[str, Array], count: int) -> None:
    """Give an optimizer the arrays that `optimizer_state` gave, kept and not copied, after `count` updates."""
    for name in optimizer.state_names():
        own = {key.removeprefix(f"{name} "): value for key, value in arrays.items() if key.startswith(f"{name} ")}
        setattr(optimizer, name, own or None)
    optimizer.iter = count


def class_named(name: str, kind: str, classes: Iterable[type]) -> Any:
    """Return the class of that name.

    Raises
    ------
    ValueError
        If it is none of `classes`; `kind` says what these are.
    """
    known = {known.__name__: known for known in classes}
    if name in known:
        return known[name]
    raise ValueError(
        f"meta: expected the {kind} to be one of the classes {', '.join(known)}, got {name!r}; "
        f"load it with the fastbp that saved it, or a later one"
    )


def _described(name: str, layer: object, names: dict[int, str], arrays: dict[str, Array]) -> dict[str, Any]:
    """Describe a layer, and add its arrays to `arrays` by their `names`."""
    record, members = _record(name, layer), {}
    for attribute in record.arrays:
        array = getattr(layer, attribute)
        members[attribute] = names.setdefault(id(array), f"{name}.{attribute}")
        arrays[members[attribute]] = array
    settings = {attribute: getattr(layer, attribute) for attribute in (*record.settings, *record.counters)}
    return {"name": name, "class": type(layer).__name__, "arrays": members, "settings": settings}


def _record(name: str, layer: object) -> LayerRecord:
    if type(layer) in LAYERS:
        return LAYERS[type(layer)]
    raise TypeError(
        f"{name}: expected a layer of fastbp.layers, got {type(layer).__name__}, whose code no file can hold; "
        f"save its parameters with np.savez(path, **dict(network.params))"
    )


def _count(name: str, value: object) -> int:
    return whole_number(name, value, 0, "save it again")
