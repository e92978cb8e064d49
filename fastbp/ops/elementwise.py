"""Elementwise functions: from a pair of functions of numbers come kernels for arrays and for blocks of a product."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from fastbp.checks import (
    Array,
    DType,
    as_array,
    float_dtype,
    from_kernel,
    not_run,
    rate,
    result_dtype,
    same_shape,
)
from fastbp.ops.contract import TWINS, Activation, LayerRecord, Twins, layer, registered, settings_of
from fastbp.ops.memory import axes_in_memory, empty_in, flat
from fastbp.runtime.elementary import as_like
from fastbp.runtime.gemm.epilogue import address_of_elementwise
from fastbp.runtime.jit import function_of_a_number, inlined_kernel, kernel, named
from fastbp.runtime.pointers import load, shift, store
from fastbp.runtime.sharing import shared_kernel


def elementwise(
    name: str,
    value: Callable[..., Any],
    slope: Callable[..., Any],
    twin: Callable[..., Any],
    slope_twin: Callable[..., Any],
    *,
    settings: tuple[str, ...] = (),
    reads_input: bool = False,
    estimator: str = "",
    symbol: str = "",
) -> Activation:
    """The record of an activation from what it does to a number.

    Parameters
    ----------
    name : str
        Its twins are `name`_forward and `name`_backward.
    value, slope : function
        value(x, *settings), and slope(dout, kept, *settings), which is dout times the slope; to be compiled. `kept` is
        the output of `value`, or its input where the slope `reads_input`.
    twin, slope_twin : function
        The same for arrays, in NumPy.
    settings : tuple of str
        Attributes of the layer; at most one.
    """
    value, slope = (function_of_a_number(named(function, name)) for function in (value, slope))
    forward, backward, block, beside_block, slope_block = _kernels(name, value, slope, bool(settings))

    twins = Twins(forward, _written(twin, forward)), Twins(backward, _written(slope_twin, backward))
    for pair, way in zip(twins, ("forward", "backward"), strict=True):
        pair.__name__ = f"{name}_{way}"
        registered(TWINS, pair.__name__, pair)
    return Activation(
        name,
        *twins,
        value,
        slope,
        twin,
        slope_twin,
        in_place=_address_of(block),
        epilogue=_address_of(beside_block if reads_input else block),
        slope_epilogue=_address_of(slope_block),
        reads_input=reads_input,
        settings=settings,
        estimator=estimator,
        symbol=symbol,
    )


def _written(twin: Callable[..., Any], kernel: Any) -> Callable[..., None]:
    """A twin that returns its result as one that writes it where the kernel does, with the kernel's arguments."""
    names = list(inspect.signature(kernel).parameters)
    place = next(number for number, name in enumerate(names) if name in ("out", "dx"))

    def write(*arguments: Any) -> None:
        result = arguments[place]
        result[...] = twin(*arguments[:place], *arguments[place + 1 :])

    write.__doc__ = f"{names[place]} = the {'slope' if names[place] == 'dx' else 'value'} of each element."
    write.__signature__ = inspect.signature(kernel)  # type: ignore[attr-defined]
    return write


def _address_of(block: Any) -> Callable[[DType], int]:
    return cache(lambda dtype: address_of_elementwise(block, dtype))


def _kernels(name: str, value: Any, slope: Any, has_setting: bool) -> tuple[Any, ...]:
    """The kernels forward and backward for arrays, and those for blocks: in place, beside, and of the slope."""
    if has_setting:
        passes, of, slope_of = _passes_with_setting(value, slope), value, slope
    else:
        passes = _passes(value, slope)
        of = inlined_kernel(lambda x, _: value(x))
        slope_of = inlined_kernel(lambda dout, kept, _: slope(dout, kept))

    def block(c, c_row, rows, columns, beside, beside_row, settings):
        number = as_like(load(c), load(settings))
        for i in range(rows):
            row = shift(c, i * c_row)
            for j in range(columns):
                store(shift(row, j), of(load(shift(row, j)), number))

    def beside_block(c, c_row, rows, columns, beside, beside_row, settings):
        number = as_like(load(c), load(settings))
        for i in range(rows):
            row, out = shift(c, i * c_row), shift(beside, i * beside_row)
            for j in range(columns):
                store(shift(out, j), of(load(shift(row, j)), number))

    def slope_block(c, c_row, rows, columns, beside, beside_row, settings):
        number = as_like(load(c), load(settings))
        for i in range(rows):
            row, kept = shift(c, i * c_row), shift(beside, i * beside_row)
            for j in range(columns):
                store(shift(row, j), slope_of(load(shift(row, j)), load(shift(kept, j)), number))

    shared = (shared_kernel(named(function, name)) for function in passes)
    return *shared, *(kernel(named(function, name)) for function in (block, beside_block, slope_block))


def _passes(value: Any, slope: Any) -> tuple[Any, Any]:
    def forward(x, out):
        for i in range(x.size):
            out[i] = value(x[i])

    def backward(dout, kept, dx):
        for i in range(dout.size):
            dx[i] = slope(dout[i], kept[i])

    return forward, backward


def _passes_with_setting(value: Any, slope: Any) -> tuple[Any, Any]:
    def forward(x, out, setting):
        number = x.dtype.type(setting)
        for i in range(x.size):
            out[i] = value(x[i], number)

    def backward(dout, kept, dx, setting):
        number = dout.dtype.type(setting)
        for i in range(dout.size):
            dx[i] = slope(dout[i], kept[i], number)

    return forward, backward


class SameShapeLayer:
    """A layer whose output has the shape of its input: what such layers share."""

    def forward(self, x: ArrayLike) -> Array:
        """Return the y that the class describes.

        Parameters
        ----------
        x : array_like
            Any shape; for a softmax one sample (C,) or a batch (N, C).

        Returns
        -------
        ndarray
            A new array in the shape of x, in the dtype that NumPy gives for the function.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers in such a shape.
        """
        raise NotImplementedError

    def backward(self, dout: ArrayLike) -> Array:
        """Return dx, the product of dout with the derivative of the last `forward`.

        Parameters
        ----------
        dout : array_like
            In the shape of x.

        Returns
        -------
        ndarray
            A new array in the shape of x, in the dtype that NumPy gives for the product.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of x.
        """
        raise NotImplementedError

    def checked(self, dout: ArrayLike, name: str) -> tuple[Array, Array]:
        """dout, and the attribute `name` that forward has set, as arrays of one shape."""
        kept = getattr(self, name)
        if kept is None:
            not_run(self)
        dout, kept = as_array("dout", dout), as_array(name, kept)
        same_shape("dout", dout, kept.shape, "as the input")
        return dout, kept


class ElementwiseLayer(SameShapeLayer):
    """A layer of an elementwise function: `forward` returns y, `backward` dout times the slope."""

    record: ClassVar[LayerRecord]
    function: ClassVar[Activation]
    kept: ClassVar[str]  # the attribute that the slope reads

    def __init__(self) -> None:
        setattr(self, self.kept, None)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a setting is checked whenever it is set."""
        super().__setattr__(name, rate(name, value) if name in self.function.settings else value)

    def forward(self, x: ArrayLike) -> Array:
        settings = settings_of(self.record, self)
        x = as_array("x", x)
        dtype = float_dtype(result_dtype(x))
        axes = None if x.flags.c_contiguous else axes_in_memory(x)
        out, elements = empty_in(axes, x.shape, dtype)
        self.function.forward.of(dtype)(flat(x, dtype, axes), elements, *settings)
        out = from_kernel(out, dtype)
        vars(self)[self.kept] = x if self.function.reads_input else out
        return out

    def backward(self, dout: ArrayLike) -> Array:
        dout, kept = self.checked(dout, self.kept)
        settings = settings_of(self.record, self)
        dtype = float_dtype(result_dtype(dout, kept))
        axes = None if kept.flags.c_contiguous else axes_in_memory(kept)
        dx, elements = empty_in(axes, dout.shape, dtype)
        self.function.backward.of(dtype)(flat(dout, dtype, axes), flat(kept, dtype, axes), elements, *settings)
        return from_kernel(dx, dtype)


def activation(kind: type[ElementwiseLayer], function: Activation) -> None:
    """Register the layer class of an elementwise function."""
    kind.function, kind.kept = function, "x" if function.reads_input else "out"
    kind.record = layer(LayerRecord(kind, settings=function.settings, activation=function))
