"""Reshaping of each sample: the same numbers in C order in another shape; the gradient goes back to the old one."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike

from fastbp.checks import Array, as_array, not_run, result_dtype, same_shape, whole_number
from fastbp.ops.contract import HANDS_ON, LayerRecord, Map, Shape, layer

__all__ = ["Flatten", "Reshape"]


class Reshape:
    """Each sample of a batch in another shape: x (N, ...) becomes (N, *shape), in C order.

    Left to NumPy, which moves nothing where the layout allows.

    Parameters
    ----------
    shape : int or tuple of int
        Of one sample. One of them may be -1, which stands for what is left.

    Attributes
    ----------
    shape : tuple of int

    Raises
    ------
    TypeError, ValueError
        If shape is not such integers.

    Examples
    --------
    >>> Reshape((2, 2)).forward([[1, 2, 3, 4]])
    array([[[1, 2],
            [3, 4]]])
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self.shape = _checked(shape)
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def forward(self, x: ArrayLike) -> Array:
        """Return x in the shape (N, *shape).

        Parameters
        ----------
        x : array_like
            A batch (N, ...), or one sample (D,), as `Affine` takes it.

        Returns
        -------
        ndarray
            Of that shape, for one sample `shape`; a view of x where its layout and its bytes allow, else a new array.

        Raises
        ------
        TypeError, ValueError
            If x is not real numbers, or its samples do not have as many numbers as `shape`.
        """
        wanted = _checked(self.shape)
        x = as_array("x", x)
        if x.ndim == 0:
            raise ValueError("x: expected samples (N, ...) or one (D,), got one number; give it as [x]")
        batch, sample = ((), x.shape) if x.ndim == 1 else (x.shape[:1], x.shape[1:])
        size = math.prod(sample)
        filled = _filled(wanted, size)
        if filled is None:
            raise ValueError(
                f"x: expected samples (N, ...) or one (D,) that fill the shape {wanted}, got shape {x.shape}, with "
                f"{size} numbers for each; reshape x, or make the layer for them"
            )
        shape = *batch, *filled
        self._shapes = x.shape, shape
        return _as(x, shape)

    def backward(self, dout: ArrayLike) -> Array:
        """Return dout in the shape of x.

        Parameters
        ----------
        dout : array_like
            In the shape of the output.

        Returns
        -------
        ndarray
            A view of dout where its layout and its bytes allow, else a new array.

        Raises
        ------
        RuntimeError
            Before `forward`.
        TypeError, ValueError
            If dout is not real numbers in the shape of the output.
        """
        if self._shapes is None:
            not_run(self)
        before, after = self._shapes
        dout = as_array("dout", dout)
        same_shape("dout", dout, after, "as the output")
        return _as(dout, before)


class Flatten(Reshape):
    """Each sample of a batch as a row: x (N, ...) becomes (N, D), in C order.

    `Affine` and `MatMul` do so by themselves.

    Attributes
    ----------
    shape : tuple of int
        (-1,), one axis for all numbers of a sample.

    Examples
    --------
    >>> Flatten().forward([[[1, 2], [3, 4]]])
    array([[1, 2, 3, 4]])
    """

    def __init__(self) -> None:
        super().__init__(-1)


def _checked(shape: object) -> tuple[int, ...]:
    remedy = "give the shape of one sample, such as (1, 28, 28), with -1 for what is left"
    given = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    axes = tuple(whole_number("shape", axis, -1, remedy) for axis in given)
    if axes.count(-1) > 1:
        raise ValueError(f"shape: expected -1 at most once, got {axes}; {remedy}")
    return axes


def _filled(wanted: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """`wanted` with a number in the place of -1, for samples of `size` numbers; None where they do not fill it."""
    known = math.prod(axis for axis in wanted if axis != -1)
    if size != known and (-1 not in wanted or known == 0 or size % known):
        return None
    return tuple(size // max(known, 1) if axis == -1 else axis for axis in wanted)


def _as(array: Array, shape: tuple[int, ...]) -> Array:
    return array.astype(result_dtype(array), copy=False).reshape(shape)


def _shape(layer: Any, shape: Shape, whose: str) -> Shape:
    wanted, size = _checked(layer.shape), math.prod(shape)
    after = _filled(wanted, size)
    if not after:
        raise ValueError(
            f"{whose} that fill a shape {wanted} of at least one axis, got {size} numbers for each; "
            "make the layer for them"
        )
    return after


# The words tell that somebody has set another shape.
_MAP = Map(predict=HANDS_ON, shape=_shape, words=lambda layer: _checked(layer.shape))

layer(LayerRecord(Reshape, settings=("shape",), map=_MAP))
layer(LayerRecord(Flatten, map=_MAP))
