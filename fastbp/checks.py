"""Checks at the public boundary, the words of their errors, and the conversion to what a kernel takes.

Every message says which argument, what was expected, what came, and the remedy. Nothing here computes a
result, and no kernel is called on arguments that have not come through here.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from numbers import Real
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp import allocation

Array = NDArray[Any]
DType = np.dtype[Any]

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
INTP = np.dtype(np.intp)


def as_array(name: str, value: object) -> Array:
    """`value` as an array of a dtype that fastbp takes, without a copy where it is one already.

    Raises
    ------
    TypeError
        For masked arrays and for complex, longdouble, object, text and date arrays.
    """
    if type(value) is np.ndarray and (value.dtype is FLOAT64 or value.dtype is FLOAT32):
        return value
    array = value if type(value) is np.ndarray else _converted(name, value)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name}: expected real numbers (float16, float32, float64, integers or booleans), "
            f"got {_described(value, array)}; {_way_to_numbers(name, array)}"
        )
    return array


def _way_to_numbers(name: str, array: Array) -> str:
    if not array.ndim:
        return "pass an array of them"
    if array.ndim == 1 and array.size and isinstance(array[0], str):
        return f"number the classes: classes, {name} = np.unique({name}, return_inverse=True)"
    return f"convert with np.asarray({name}, dtype=np.float64)"


def _converted(name: str, value: object) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a plain array, got a masked array, whose mask would be lost; "
            f"pass {name}.filled(value) or drop the masked entries"
        )
    try:
        return np.asarray(value)
    except ValueError as error:
        raise TypeError(
            f"{name}: expected an array of numbers, got {type(value).__name__} ({error}); pass rows of one length"
        ) from None


def parameter(name: str, value: object, ndim: int | None = None) -> Array:
    """A layer's parameter, which must be an array already: a copy would not be the caller's own."""
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"{name}: expected a NumPy array, got {type(value).__name__}; "
            f"pass np.array({name}), the layer keeps that very array"
        )
    array = as_array(name, value)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(
            f"{name}: expected {ndim} dimension{'s' if ndim > 1 else ''}, got shape {array.shape}; "
            f"W is (D, M) and b is (M,)"
        )
    return array


def result_dtype(*arrays: Array) -> DType:
    """The dtype that NumPy gives for an arithmetic operation on `arrays`, in native byte order."""
    dtype = arrays[0].dtype
    if dtype is FLOAT64 or dtype is FLOAT32:
        for array in arrays:
            if array.dtype is not dtype:
                break
        else:
            return dtype
    return np.dtype(np.result_type(*(array.dtype for array in arrays)).type)


def float_dtype(dtype: DType) -> DType:
    """The dtype that NumPy gives for exp of `dtype`: integers become the smallest float that holds them."""
    return dtype if dtype.kind == "f" else np.result_type(dtype, FLOAT16)


def to_kernel(array: Array, dtype: DType) -> Array:
    """`array` as a kernel takes it for results of `dtype`: C-contiguous, aligned, native; float16 as float32.

    A read-only array comes as a writeable one over the same memory, which a kernel does not write to: compiled
    code is made for writeable arrays, and would be made once more for read-only ones.
    """
    if dtype is FLOAT16:
        dtype = FLOAT32
    if array.dtype is dtype and array.flags.carray:
        return array
    array = np.require(array, dtype, ["C", "A"])
    return array if array.flags.writeable else np.asarray(_Writeable(array))


class _Writeable:
    """Presents a read-only array as a writeable one."""

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


def empty(shape: int | tuple[int, ...], dtype: DType) -> Array:
    """An array for a kernel to write a result of `dtype` to; `from_kernel` makes it the result."""
    return allocation.empty(shape, FLOAT32 if dtype is FLOAT16 else dtype)


def from_kernel(array: Array, dtype: DType) -> Array:
    """`array`, computed by a kernel, in the result's own dtype."""
    return array if array.dtype is dtype else array.astype(dtype)


def quotient_dtype(*arrays: Array) -> DType:
    """The dtype that NumPy gives for an arithmetic operation on `arrays` and a division by a number."""
    dtype = result_dtype(*arrays)
    return dtype if dtype.kind == "f" else FLOAT64


def not_run(layer: object) -> NoReturn:
    """Raise `RuntimeError`: `backward` came before `forward`."""
    name = type(layer).__name__
    raise RuntimeError(f"{name}.backward: expected forward to have run, got no forward yet; call {name}.forward first")


def same_shape(name: str, array: Array, shape: tuple[int, ...], meaning: str) -> None:
    """Raise `ValueError` unless `array` has `shape`."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, {meaning}, got {array.shape}; reshape or slice {name} to it")


def same_state(name: str, param: Array, shape: tuple[int, ...], state: str, optimizer: object) -> None:
    """Raise `ValueError` unless a parameter has the shape of the state that an optimizer has for it."""
    if param.shape != shape:
        raise ValueError(
            f"{name}: expected shape {shape}, as the optimizer's {state}, got {param.shape}; give each network an "
            f"optimizer of its own, a new {type(optimizer).__name__}()"
        )


def given_kind(value: object) -> str:
    """What was given where an object is expected, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def scalar(name: str, value: object) -> float:
    """A number given as a Python or NumPy scalar or an array of one element."""
    if isinstance(value, Real):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(
                f"{name}: expected a number that float64 can hold, got one beyond {sys.float_info.max:.3g}; "
                f"divide the loss and {name} by a number"
            ) from None
    array = as_array(name, value)
    if array.size != 1:
        raise ValueError(f"{name}: expected one number, got shape {array.shape}; a loss is a scalar and so is {name}")
    return float(array.reshape(()))


def whole_number(name: str, value: object, least: int, remedy: str, most: float = math.inf) -> int:
    """A size, a count or a seed: an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}; {remedy}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}; {remedy}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}; {remedy}")
    return int(value)


def generator(seed: object) -> np.random.Generator:
    """NumPy's generator of random numbers for an integer seed; or the one that is given, which goes on."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(whole_number("seed", seed, 0, "give a number such as 0"))


def checked_order(name: str, order: object, samples: int) -> Array:
    """The order in which a generator puts `samples` samples: a copy, as a generator of the caller's may say anything.

    Raises
    ------
    ValueError
        If it is not integers (samples,) from 0 to samples - 1.
    """
    places = np.array(order)
    if places.dtype.kind not in "iu" or places.shape != (samples,) or places.min() < 0 or places.max() >= samples:
        raise ValueError(
            f"{name}: expected a generator that puts {samples} samples in the order of integers from 0 to "
            f"{samples - 1}, got {short(places)}; pass one of NumPy's own"
        )
    ordered: Array = places.astype(INTP, copy=False)
    return ordered


def network_dtype(dtype: DTypeLike) -> DType:
    """The dtype of a network or of a data set, float32 or float64."""
    if dtype not in (FLOAT32, FLOAT64):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype}; choose one of these")
    return np.dtype(dtype)


def rate(
    name: str, value: object, below: float = math.inf, meaning: str = "number", *, most: float | None = None
) -> float:
    """A setting: a number that is at least 0 and below a limit, or at most one; `meaning` says what else it may be."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a {meaning}, got {type(value).__name__}; give a float such as 0.01")
    too_large = isinstance(value, int) and value > sys.float_info.max  # a NumPy float would warn in the comparison
    if not 0 <= value < below or too_large or (most is not None and value > most):
        limit = "finite" if below == math.inf else f"less than {below:g}"
        limit = limit if most is None else f"at most {most:g}"
        raise ValueError(
            f"{name}: expected a number that is at least 0 and {limit}, got {value}; give one such as 0.01"
        )
    return float(value)


def schedule(name: str, value: object) -> object:
    """A rate as a float; or a callable of the step, or an array with a rate for each step, as it is."""
    if callable(value):
        return value
    if not isinstance(value, np.ndarray):
        return rate(name, value, meaning="number, a function of the step or a 1-D array")
    rates = as_array(name, value)
    if rates.ndim != 1:
        raise ValueError(f"{name}: expected one rate for each step, (steps,), got shape {rates.shape}; flatten it")
    bad = np.flatnonzero(~((rates >= 0) & (rates < math.inf)))
    if bad.size:
        rate(f"{name}[{bad[0]}]", rates[bad[0]])
    return value


def rows(name: str, array: Array) -> Array:
    """One sample (C,) or a batch (N, C) as rows (N, C), with at least one class."""
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name}: expected one sample (C,) or a batch (N, C), got shape {array.shape}; "
            f"flatten it with {name}.reshape(len({name}), -1)"
        )
    if array.shape[-1] == 0:
        raise ValueError(f"{name}: expected at least one class, got shape {array.shape}; its last axis is the classes")
    return array if array.ndim == 2 else array.reshape(1, -1)


def axis_of(name: str, array: Array, axis: object) -> int:
    """An axis of an array that has at least one, counted from 0."""
    if axis == -1 and array.ndim:
        return array.ndim - 1
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"axis: expected an integer, got {type(axis).__name__}; give one such as -1, the last axis")
    if array.ndim == 0:
        raise ValueError(f"{name}: expected at least one axis, got one number; give it as [{name}]")
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"axis: expected {-array.ndim} to {array.ndim - 1} for {name} of shape {array.shape}, got {axis}; "
            f"give -1 for the last"
        )
    return int(axis) % array.ndim


def sample_weights(value: object, samples: int) -> Array:
    """One weight for each sample, (samples,) of float64.

    Raises
    ------
    TypeError
        If they are not real numbers.
    ValueError
        For another shape, a weight that is negative or not finite, or a sum beyond float64.
    """
    weights = as_array("sample_weight", value).astype(FLOAT64)
    same_shape("sample_weight", weights, (samples,), "one for each sample")
    bad = np.flatnonzero(~((weights >= 0) & (weights < math.inf)))
    if bad.size:
        raise ValueError(
            f"sample_weight: expected finite numbers that are at least 0, got {weights[bad[0]]} at index {bad[0]}; "
            f"give 0 to a sample that is not to count"
        )
    with np.errstate(over="ignore"):
        total = float(np.sum(weights))
    if math.isinf(total):
        raise ValueError("sample_weight: expected a finite sum, got inf; divide the weights by the largest of them")
    return weights


def closest(given: str, names: Iterable[str]) -> str:
    """The way out of an unknown name: the known one that was meant, or any of them."""
    meant = difflib.get_close_matches(given, list(names), 1)
    return f"did you mean {meant[0]}?" if meant else "choose one of these"


def short(row: Array) -> str:
    """A few of the numbers of an array, for a message."""
    return np.array2string(row, threshold=8, edgeitems=3, precision=4)


def _described(value: object, array: Array) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {array.dtype}"
    return f"{type(value).__name__} (an array of {array.dtype})"
