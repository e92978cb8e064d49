"""The files in which the book keeps parameters: a pickled dict of arrays, read without running what is in it.

A pickle names functions to call. Those that make an array are answered here by classes of this module, whatever module
of NumPy has them in the version that wrote the file; every other name is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastbp.checks import Array, DType
from fastbp.files import FilePath

__all__ = ["load", "save"]


def save(path: FilePath, params: Mapping[str, Array]) -> None:
    """Save a dict of arrays as the book's code does, by `pickle`."""
    with open(path, "wb") as file:
        pickle.dump(dict(params), file)


def load(path: FilePath) -> dict[str, Array]:
    """Return the arrays by name that a file of the book holds, also one that was written by Python 2.

    Raises
    ------
    ValueError
        If the file is damaged, or holds anything but a dict of arrays of real numbers by name.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            found = _Unpickler(file, encoding="latin1").load()
            items = dict(found).items()
            arrays = {key: value.array for key, value in items if isinstance(key, str)}
        except _RefusedError as refused:
            raise ValueError(f"{Path(path)}: {refused}") from None
        except Exception as error:  # a damaged pickle may raise anything
            raise ValueError(
                f"{Path(path)}: expected a pickled dict of arrays by name, got another or a damaged file ({error!r}); "
                f"give one that save_params wrote"
            ) from None
    if len(arrays) < len(items):
        raise ValueError(f"{Path(path)}: expected a name for each array, got other keys; save a dict of arrays by name")
    return arrays


class _RefusedError(Exception):
    """The file names what is no part of an array."""


class _DType:
    """Stands for a dtype: `dtype(name, align, copy)`, then its state, of which the byte order counts."""

    def __init__(self, name: str, *_: object) -> None:
        dtype = np.dtype(name if isinstance(name, str) else "V")
        if dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise _RefusedError(f"expected arrays of real numbers, got dtype {name!r}; save numbers alone")
        self.dtype: DType = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array: made empty, then given its state, (version, shape, dtype, is Fortran, bytes)."""

    def __init__(self, *_: object) -> None:
        self.array: Array = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *_, shape, kind, is_fortran, content = state
        self._read(content, kind, shape, "F" if is_fortran else "C")

    def _read(self, content: Any, kind: _DType, shape: tuple[int, ...], order: Any) -> None:
        content = content.encode("latin1") if isinstance(content, str) else content  # a text in Python 2
        flat = np.frombuffer(content, kind.dtype)
        self.array = flat.reshape(shape, order=order).astype(kind.dtype.newbyteorder("="), order="K")


class _Buffer(_Array):
    """The same in one call, as protocol 5 has it: (bytes, dtype, shape, order)."""

    def __init__(self, content: Any, kind: _DType, shape: tuple[int, ...], order: str) -> None:
        super().__init__()
        self._read(content, kind, shape, order)


def _text_as_bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes: a text to be encoded."""
    if encoding != "latin1":
        raise _RefusedError(f"expected bytes as a text in latin1, got {encoding!r}; save the file again")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
}
for _package in ("numpy.core", "numpy._core"):
    _NAMES[f"{_package}.multiarray", "_reconstruct"] = _Array
    _NAMES[f"{_package}.numeric", "_frombuffer"] = _Buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            # A new function each time, as a pickle may set attributes of what it is given.
            return lambda text, encoding: _text_as_bytes(text, encoding)  # noqa: PLW0108
        try:
            return _NAMES[module, name]
        except KeyError:
            raise _RefusedError(
                f"expected a pickled dict of arrays, got one that asks for {module}.{name}, which is not run; "
                f"give one that save_params wrote"
            ) from None
