"""Networks and arrays in files that are never half-written, never run code, and are whole or refused.

A file is an uncompressed `.npz`, which `np.load(path, allow_pickle=False)` reads too. Its first member, fastbp.npy,
is JSON text: the format's name, its version, and what is not an array. It ends with the SHA-256 of every byte
before it, so that no damage anywhere goes unseen. The same contents give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from fastbp.layers import (
    AddLayer,
    Affine,
    CrossEntropyError,
    Dropout,
    ExpWithLoss,
    Identity,
    IdentityWithLoss,
    MulLayer,
    ReLU,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
)
from fastbp.network import Sequential, TwoLayerNet
from fastbp.optimizers import OPTIMIZERS, Optimizer
from fastbp.validation import Array, as_array, whole_number

__all__ = [
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

VERSION = 1
"""Of the format; a file of a later one is refused."""

FilePath = str | os.PathLike[str]

_HEADER = "fastbp"
_START = b"PK\x03\x04"
_NAME_AT = 30  # where a ZIP file, so also an .npz, has the name of its first member
_CHECKSUM_NAME = b"sha256:"
_CHECKSUM_LENGTH = len(_CHECKSUM_NAME) + 2 * hashlib.sha256().digest_size
_NUMPY = "numpy dtype"
_UNREADABLE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the archive, NumPy and JSON raise for content that is not theirs."""


@dataclass(frozen=True)
class _Arguments:
    """What a layer class is made of: arguments of its constructor that are attributes of the same name, and counts."""

    arrays: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()


# A new layer class is one entry here.
_LAYERS: dict[type, _Arguments] = {
    AddLayer: _Arguments(),
    Affine: _Arguments(arrays=("W", "b")),
    CrossEntropyError: _Arguments(),
    Dropout: _Arguments(settings=("dropout_ratio", "seed"), counts=("step",)),
    ExpWithLoss: _Arguments(),
    Identity: _Arguments(),
    IdentityWithLoss: _Arguments(),
    MulLayer: _Arguments(),
    ReLU: _Arguments(),
    Sigmoid: _Arguments(),
    SigmoidWithLoss: _Arguments(),
    Softmax: _Arguments(),
    SoftmaxWithLoss: _Arguments(),
    Tanh: _Arguments(),
}
_NETWORKS: tuple[type[Sequential], ...] = (Sequential, TwoLayerNet)


def save(network: Sequential, path: FilePath, optimizer: Optimizer | None = None) -> None:
    """Save a network: its class, its layers with their names, settings and parameters, and its loss.

    Dropout layers go on with the masks after those that were drawn. What layers keep between forward and backward is
    not saved. `np.load(path)` gives the parameters by the names of `network.params`, W1, b1 and so on.

    Parameters
    ----------
    network : Sequential or TwoLayerNet
        Of layers of `fastbp.layers`.
    path : path
        Written as it is, no suffix is added. As `write`: the file is replaced at once or stays as it was.
    optimizer : Optimizer, optional
        To be saved with the network: its settings, its state and how many updates there have been.

    Raises
    ------
    TypeError
        For a layer, loss, network or optimizer of another class, and for an optimizer whose rate is a function.
    OSError
        If the file cannot be written.
    """
    arrays, meta = network_contents(network)
    if optimizer is not None:
        more_arrays, more_meta = optimizer_contents(optimizer)
        arrays, meta = arrays | more_arrays, meta | more_meta
    write(path, arrays, meta)


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
    """
    arrays, meta = read(path)
    try:
        network = network_from(arrays, meta)
        if "optimizer" in meta:
            network.optimizer = optimizer_from(arrays, meta)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    return network


def network_contents(network: Sequential) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what `write` takes to save a network, so that more can be saved beside it.

    Parameters
    ----------
    network : Sequential or TwoLayerNet

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
    if type(network) not in _NETWORKS:
        raise TypeError(
            f"network: expected a Sequential or TwoLayerNet, got {type(network).__name__}; "
            f"save its parameters with np.savez(path, **dict(network.params))"
        )
    # By identity, so that one array in two layers is one array again.
    names = {id(array): name for name, array in network.params.items()}
    arrays: dict[str, Array] = {}

    def described(name: str, layer: object) -> dict[str, Any]:
        arguments = _arguments(name, layer)
        members = {}
        for attribute in arguments.arrays:
            array = getattr(layer, attribute)
            members[attribute] = names.setdefault(id(array), f"{name}.{attribute}")
            arrays[members[attribute]] = array
        settings = {attribute: getattr(layer, attribute) for attribute in (*arguments.settings, *arguments.counts)}
        return {"name": name, "class": type(layer).__name__, "arrays": members, "settings": settings}

    layers = [described(name, layer) for name, layer in network.layers.items()]
    loss = described("loss", network.last_layer)
    return arrays, {"network": {"class": type(network).__name__, "layers": layers, "loss": loss}}


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

    def built(description: Mapping[str, Any]) -> Any:
        layer_class = _class("layer", description["class"], tuple(_LAYERS))
        arguments = _LAYERS[layer_class]
        own = {attribute: arrays[description["arrays"][attribute]] for attribute in arguments.arrays}
        settings = {attribute: description["settings"][attribute] for attribute in arguments.settings}
        layer = layer_class(**own, **settings)
        for attribute in arguments.counts:
            setattr(layer, attribute, _count(attribute, description["settings"][attribute]))
        return layer

    try:
        description = meta["network"]
        network_class = _class("network", description["class"], _NETWORKS)
        layers = OrderedDict((layer["name"], built(layer)) for layer in description["layers"])
        # Not by the class's own constructor: TwoLayerNet's would draw weights.
        network: Sequential = network_class.__new__(network_class)
        Sequential.__init__(network, layers, built(description["loss"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"meta: expected the whole description of a network, got one that does not fit ({error}); save it again"
        ) from None
    return network


def optimizer_contents(optimizer: Optimizer) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return what `write` takes to save an optimizer.

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
        optimizer: Optimizer = _class("optimizer", description["class"], OPTIMIZERS)(**description["settings"])
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


def write(path: FilePath, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write arrays and other values to one file, all of it or nothing.

    The bytes go to a temporary file in the same folder, to the disk, and then take the name of `path` in one step: an
    existing file stays whole whatever fails. Only a process that is killed outright can leave its temporary
    file, `.fastbp-*.tmp`, behind; the next write to the same path removes it. The whole content is in memory once more
    while it is written.

    Parameters
    ----------
    path : path
        Written as it is, no suffix is added.
    arrays : mapping of str to ndarray
        Of real numbers, any shape and layout.
    meta : mapping of str to values
        None, booleans, strings, numbers, NumPy's numbers and arrays, and lists and dicts of these. Integers may be
        of any size. Tuples come back as lists.

    Raises
    ------
    TypeError
        For arrays or values of other types.
    ValueError
        For names that no member can have, and if `path` is a folder or a device.
    OSError
        If the file cannot be written; the old one is as it was.
    """
    path = _file_path(path)
    for name, given in (("arrays", arrays), ("meta", meta)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: expected a dict by name, got {type(given).__name__}; pass one")
    content = _encoded(arrays, meta)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: expected a file or a new name, got a folder or a device; choose another path")
        _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: expected to write {len(content):,} bytes, got {error.strerror or error}; "
            f"nothing was changed, make sure that its folder exists, can be written to and has room",
        ) from error


def read(path: FilePath) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and the other values of a file that `write` made.

    Parameters
    ----------
    path : path

    Returns
    -------
    arrays : dict of str to ndarray
        New arrays, bitwise as they were; non-contiguous ones are C-contiguous.
    meta : dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, truncated, of a later version, or something else. Nothing in a file is ever run.
    """
    path = _file_path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder; name the file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"{path}: expected a file that fastbp saved, got none there; check the path"
        ) from None
    _check_whole(path, content)
    try:
        return _decoded(path, content)
    except _VersionError:
        raise
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: expected the members of a file that fastbp saved, got others ({error}); save it again"
        ) from None


def _file_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a str or Path, got {type(path).__name__}; name a file")
    return Path(path)


def _arguments(name: str, layer: object) -> _Arguments:
    if type(layer) in _LAYERS:
        return _LAYERS[type(layer)]
    raise TypeError(
        f"{name}: expected a layer of fastbp.layers, got {type(layer).__name__}, whose code no file can hold; "
        f"save its parameters with np.savez(path, **dict(network.params))"
    )


def _count(name: str, value: object) -> int:
    return whole_number(name, value, 0, "save it again")


def _class(kind: str, name: str, classes: tuple[type, ...]) -> Any:
    known = {known.__name__: known for known in classes}
    if name in known:
        return known[name]
    raise ValueError(
        f"meta: expected the {kind} to be one of the classes {', '.join(known)}, got {name!r}; "
        f"load it with the fastbp that saved it, or a later one"
    )


def _encoded(arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> memoryview:
    """The bytes of the file."""
    header = {"format": _HEADER, "version": VERSION, "meta": _plain("meta", meta)}
    members = {_HEADER: np.array(json.dumps(header).encode("ascii"))}
    for name, array in arrays.items():
        _check_member(name, array)
        members[name] = array
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in members.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        archive.comment = bytes(_CHECKSUM_LENGTH)  # the last bytes of the file, whose value is only known now
    content = buffer.getbuffer()
    content[-_CHECKSUM_LENGTH:] = _checksum(content)
    return content


class _VersionError(ValueError):
    """A whole file, in a format that is not known yet."""


def _decoded(path: Path, content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(_member(archive, f"{_HEADER}.npy").item())
        if header["version"] > VERSION:
            raise _VersionError(
                f"{path}: expected a file of format version {VERSION} at most, got version {header['version']}; "
                f"read it with a later fastbp"
            )
        names = [name for name in archive.namelist() if name != f"{_HEADER}.npy"]
        arrays = {name.removesuffix(".npy"): _member(archive, name) for name in names}
    return arrays, _restored(header["meta"])


def _check_member(name: object, array: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"arrays: expected names as keys, got {name!r}; use str(key)")
    if not name.isprintable() or name in ("", _HEADER):
        raise ValueError(f"arrays: expected a printable name other than {_HEADER!r}, got {name!r}; rename the array")
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"arrays[{name!r}]: expected a NumPy array, got {type(array).__name__}; pass np.array(value), or use meta"
        )
    as_array(f"arrays[{name!r}]", array)


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _checksum(content: bytes | memoryview) -> bytes:
    """What the file ends with, by the bytes before it."""
    digest = hashlib.sha256(memoryview(content)[:-_CHECKSUM_LENGTH]).hexdigest()
    return _CHECKSUM_NAME + digest.encode("ascii")


def _check_whole(path: Path, content: bytes) -> None:
    name = f"{_HEADER}.npy".encode("ascii")
    if not content.startswith(_START) or content[_NAME_AT : _NAME_AT + len(name)] != name:
        raise ValueError(f"{path}: expected a file that fastbp saved, got {_foreign(content)}; give another path")
    if content[-_CHECKSUM_LENGTH:] != _checksum(content):
        raise ValueError(
            f"{path}: expected a whole file with its checksum at the end, got {len(content):,} bytes that differ from "
            f"their checksum; the file is truncated or damaged, take a copy of it or save again"
        )


def _foreign(content: bytes) -> str:
    if not content:
        return "an empty one"
    if content.startswith(_START):
        return "another .npz or ZIP file (np.load reads an .npz)"
    return f"one that starts {content[:8]!r}"


def _replace(path: Path, content: memoryview) -> None:
    """Give `path` the new content in one step."""
    prefix = f".fastbp-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}-"
    _remove_leftovers(path.parent, prefix)
    temporary = path.with_name(f"{prefix}{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if fcntl is not None:
                with suppress(OSError):  # not every file system can
                    fcntl.flock(file, fcntl.LOCK_EX)
            if not temporary.exists():  # another writer took it for a leftover before it was locked
                _replace(path, content)
                return
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                shutil.copymode(path, temporary)
            if fcntl is None:
                file.close()  # Windows renames no open file
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every system can
        _sync_folder(path.parent)


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove temporary files that nobody holds a lock on: a lock ends with the process of its writer."""
    if fcntl is None:
        return
    for leftover in folder.glob(f"{prefix}*.tmp"):
        with suppress(OSError), open(leftover, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(place: str, value: object) -> Any:
    """`value` in what JSON has; NumPy's numbers and arrays as their dtype, shape and bytes."""
    if isinstance(value, np.generic | np.ndarray):
        array = as_array(place, value)
        shape = list(array.shape) if isinstance(value, np.ndarray) else None
        return {_NUMPY: array.dtype.str, "shape": shape, "hex": array.tobytes().hex()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(f"{place}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            _check_key(place, key)
        return {key: _plain(f"{place}[{key!r}]", item) for key, item in value.items()}
    raise TypeError(
        f"{place}: expected None, a boolean, string, number, array, list or dict, got {type(value).__name__}; "
        f"save what it is made of"
    )


def _check_key(place: str, key: object) -> None:
    if not isinstance(key, str):
        _no_key(TypeError, place, key)
    if key == _NUMPY:
        _no_key(ValueError, place, key)


def _no_key(kind: type[Exception], place: str, key: object) -> NoReturn:
    raise kind(f"{place}: expected strings as keys, {_NUMPY!r} not among them, got {key!r}; use another key")


def _restored(value: Any) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _NUMPY not in value:
        return {key: _restored(item) for key, item in value.items()}
    array = np.frombuffer(bytes.fromhex(value["hex"]), np.dtype(value[_NUMPY])).copy()
    return array[0] if value["shape"] is None else array.reshape(value["shape"])
