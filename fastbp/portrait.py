"""A network as a drawing: its layers in boxes from left to right, the shapes of a sample on the arrows."""

from __future__ import annotations

from typing import Any

from fastbp.contents import Stack
from fastbp.ops.contract import by
from fastbp.pictures import FONT_SIZE, Arrow, Box, Picture, Shape, Text, text_width
from fastbp.summary import sample_shape_of, shapes

__all__ = ["svg"]

_MARGIN, _HEIGHT, _GAP, _LINE = 14.0, 44.0, 14.0, 20.0
_SMALL = 12.0
# Boxes go on in the next line from here on.
_WIDEST = 760.0


def svg(self: Stack) -> str:
    """The drawing as SVG, for a notebook."""
    layers = list(self.layers.values())
    sample = sample_shape_of(layers)
    inputs = ["" if shape is None else by(shape) for shape in (sample, *shapes(layers, sample))]
    boxes = [(name, _shape_of_weights(layer)) for name, layer in self.layers.items()]
    boxes.append((type(self.last_layer).__name__, ""))
    return _picture(boxes, inputs).svg()


def _picture(boxes: list[tuple[str, str]], inputs: list[str]) -> Picture:
    """Boxes with a name and a second line, and what goes into each on the arrow before it."""
    shapes: list[Shape] = []
    x, y, right = _MARGIN, _MARGIN + _HEIGHT / 2, 0.0
    for (name, below), given in zip(boxes, inputs, strict=True):
        width = max(text_width(name), text_width(below, _SMALL)) + 16
        arrow = max(text_width(given, _SMALL), 2 * _GAP) + _GAP
        if x + arrow + width > _WIDEST and x > _MARGIN:
            x, y = _MARGIN, y + _HEIGHT + _LINE
        shapes.append(Arrow(((x, y), (x + arrow, y))))
        shapes.append(Text((x + arrow / 2 - 3, y - 0.65 * FONT_SIZE), given, size=_SMALL))
        x += arrow + width
        center = x - width / 2
        shapes.append(Box((center, y), width, _HEIGHT))
        shapes.append(Text((center, y - (8 if below else 0)), name))
        if below:
            shapes.append(Text((center, y + 10), below, size=_SMALL))
        right = max(right, x)
    return Picture(right + _MARGIN, y + _HEIGHT / 2 + _MARGIN, shapes)


def _shape_of_weights(layer: Any) -> str:
    names = getattr(layer, "parameter_names", ())
    return by(getattr(layer, names[0]).shape) if names else ""
