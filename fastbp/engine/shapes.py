"""The shapes of samples that a stack of known layers takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastbp.engine.table import mapped
from fastbp.ops.contract import LAYERS, Shape, batch_of, takes_indices

# The longest sequences, and the most pixels across images, that are tried for an error.
_LONGEST = 300


def output_size(layers: Sequence[Any], shape: Shape) -> int:
    """The number of outputs of known layers for samples of a shape.

    Raises
    ------
    ValueError
        If a layer does not fit what comes to it, or the outputs are no rows, which all losses take.
    """
    out = shape
    try:
        for each in mapped(layers, shape):
            out = each.out
    except ValueError:
        check_sample_shape(layers, shape)
        raise
    if len(out) != 1:
        raise ValueError(
            f"layers: expected outputs (N, C) for the loss, got {batch_of(out)}; let them end with Flatten()"
        )
    return out[0]


def check_sample_shape(layers: Sequence[Any], shape: Shape) -> None:
    """Raise `ValueError` if samples have a size for which known layers after the first are not made.

    Such a layer can only say what comes to it: 400 numbers expected, got 240. What it expects of x is found by trying.
    """
    if not all(type(each) in LAYERS for each in layers) or not _fits(layers[:1], shape) or _fits(layers, shape):
        return
    what, remedy = "images", "resize them"
    if takes_indices(layers):
        what, remedy = "sequences", "cut or pad them"
    expected = next((size for size in _sizes(layers, shape) if _fits(layers, size)), None)
    if expected is not None:
        raise ValueError(
            f"x: expected {what} {batch_of(expected)}, for whose size the layers are made, got {batch_of(shape)}; "
            f"{remedy}, or build the network for theirs"
        ) from None


def _fits(layers: Sequence[Any], shape: Shape) -> bool:
    try:
        return all(True for _ in mapped(layers, shape))
    except (TypeError, ValueError):
        return False


def _sizes(layers: Sequence[Any], shape: Shape) -> Iterator[Shape]:
    """Sequences; images of so many channels, square ones and those with another height or another width."""
    if takes_indices(layers):
        yield from ((length,) for length in range(1, _LONGEST))
    if len(shape) != 3:
        return
    C, H, W = shape
    for pixels in range(1, _LONGEST):
        yield C, pixels, pixels
    for pixels in range(1, _LONGEST):
        yield C, H, pixels
        yield C, pixels, W
