"""Arrays and plain values in files that are never half-written, never run code, and are read whole or refused.

A file is an uncompressed `.npz`, which `np.load(path, allow_pickle=False)` reads too. Its first member, fastbp.npy,
is JSON text: the format's name, its version, and what is not an array. The file ends with the SHA-256 of every byte
before it, which shows damage anywhere. The same contents give the same bytes.
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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from fastbp.checks import Array, as_array

__all__ = ["VERSION", "FilePath", "check_folder", "check_place", "file_path", "read", "replace", "write"]

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


def write(path: FilePath, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write arrays and other values to one file, all of it or nothing.

    The bytes go to a temporary file in the same folder, then to the disk, and then take the name of `path` in one step.
    An existing file stays whole whatever fails. Only a process that is killed outright can leave its temporary
    file, `.fastbp-*.tmp`, behind; the next write to the same path removes it. Writing keeps
    the whole content in memory once more.

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
    path = file_path("path", path)
    for name, given in (("arrays", arrays), ("meta", meta)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}: expected a dict by name, got {type(given).__name__}; pass one")
    replace(path, _encoded(arrays, meta))


def replace(path: FilePath, content: bytes | memoryview) -> None:
    """Write bytes to a file as `write` does, all of them or nothing.

    Raises
    ------
    ValueError
        If `path` is a folder or a device.
    OSError
        If the file cannot be written; the old one is as it was.
    """
    path = file_path("path", path)
    check_folder("path", path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: expected a file or a new name, got a folder or a device; choose another path")
        _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: expected to write {len(content):,} bytes, got {error.strerror or error}; "
            f"nothing was changed, make sure that its folder can be written to and has room",
        ) from error


def check_folder(argument: str, path: Path) -> None:
    """Raise `FileNotFoundError` unless there is a folder for a file."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{argument}: expected a folder {folder}, got none there; make it first")


def check_place(argument: str, path: Path) -> None:
    """Raise `OSError` unless a file can be written there, so before the work that it is for."""
    path = file_path(argument, path)
    check_folder(argument, path)
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise PermissionError(
            f"{argument}: expected a file that can be written, got {path}, which cannot; choose another"
        )


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
    path = file_path("path", path)
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


def file_path(argument: str, path: object) -> Path:
    """A path as it is given, of a file that may be there or not.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is empty, or has a null character, which no file has in its name.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{argument}: expected a str or Path, got {type(path).__name__}; name a file")
    name = os.fspath(path)
    if not name or "\0" in name:
        raise ValueError(f"{argument}: expected the name of a file, got {name!r}; name one such as 'network.npz'")
    return Path(path)


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
    """The end of the file, computed from the bytes before it."""
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


def _replace(path: Path, content: bytes | memoryview) -> None:
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
    if isinstance(key, str) and key != _NUMPY:
        return
    kind = ValueError if isinstance(key, str) else TypeError
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
